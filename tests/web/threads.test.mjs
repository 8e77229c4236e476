// Ranks in Workers that share memory: the text of one, and what is refused.

import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import * as harness from "./harness.mjs";

const dist = join(fileURLToPath(new URL("../..", import.meta.url)), "www/dist");

const inPage = (body, argument) => harness.inPage(dist, body, argument);

test("threads write the text of one, and each holds a part", async () => {
  const told = await inPage(async () => {
    const { Shardlight } = window.shardlight;
    const told = {};
    for (const threads of [1, 2, 3]) {
      const model = await Shardlight.load("builtin:tiny", { device: "cpu", threads });
      const greedy = await model.generate("Once upon a time", { raw: true, maxTokens: 64 });
      const drawn = { raw: true, maxTokens: 48, temperature: 1, topK: 40, topP: 0.9, repeatPenalty: 1.1, seed: 7 };
      const random = await model.generate("Once upon a time", drawn);
      const unseeded = await model.generate("Once upon a time", { ...drawn, seed: undefined });
      // Longer than a chunk, and than what ranks can give at once.
      const long = await model.generate("the little fox ".repeat(40), { raw: true, maxTokens: 8 });
      const ids = await model.tokenize("Once upon a time");
      const logits = [...(await model.logits(ids))];
      const { timings } = greedy;
      told[threads] = {
        texts: [greedy.text, random.text, long.text], unseeded: unseeded.tokens.length, logits,
        bytes: (await model.shards()).map((shard) => shard.bytes), traffic: await model.traffic(),
        rate: (timings.decodeTokens / timings.decodeMs) * 1000,
      };
      model.close();
    }
    return told;
  });
  for (const [threads, { texts, unseeded, bytes, traffic, logits, rate }] of Object.entries(told)) {
    const sent = Object.values(traffic).reduce((sum, { bytes }) => sum + bytes, 0);
    console.log(`${threads} threads: ${rate.toFixed(0)} tokens/s, ${bytes.join(" + ")} bytes, ${sent} bytes sent by the first`);
    assert.deepEqual(texts, told[1].texts);
    assert.ok(unseeded > 0);
    assert.equal(bytes.length, Number(threads));
    assert.equal(sent > 0, threads !== "1");
    const power = told[1].logits.reduce((sum, x) => sum + x * x, 0);
    const error = told[1].logits.reduce((sum, x, i) => sum + (x - logits[i]) ** 2, 0) / power;
    assert.ok(error < 1e-10, `NMSE of ${threads} threads: ${error}`);
  }
  assert.ok(Math.max(...told[2].bytes) < told[1].bytes[0]);
});

test("threads are stopped together, and go on", async () => {
  const { cut, after, whole } = await inPage(async () => {
    const model = await window.shardlight.Shardlight.load("builtin:tiny", { device: "cpu", threads: 2 });
    const options = { raw: true, maxTokens: 400 };
    const generation = model.generate("Once upon a time", options);
    let count = 0;
    for await (const piece of generation) if (piece && ++count === 20) break;
    const cut = await generation;
    const after = await model.generate("Once upon a time", { ...options, maxTokens: 24 });
    model.reset();
    const whole = await model.generate("Once upon a time", { ...options, maxTokens: 24 });
    model.close();
    return { cut, after, whole };
  });
  assert.equal(cut.stop, "cancelled");
  assert.ok(cut.tokens.length >= 19 && cut.tokens.length < 400, `${cut.tokens.length} tokens`);
  assert.equal(after.text, whole.text);
});

test("what threads cannot do is refused, and too many heads are not asked for unasked", async () => {
  const told = await inPage(async () => {
    const { Shardlight } = window.shardlight;
    const failing = (promise) => promise.then((model) => (model.close?.(), null), ({ code, message }) => ({ code, message }));
    const load = (options) => failing(Shardlight.load("builtin:tiny", { device: "cpu", ...options }));
    const model = await Shardlight.load("builtin:tiny", { device: "cpu", threads: 2 });
    const long = await failing(model.generate("word ".repeat(5000), { raw: true }).answer);
    const text = (await model.generate("Once", { raw: true, maxTokens: 4 })).text;
    model.close();
    return {
      none: await load({ threads: 0 }),
      gpu: await load({ threads: 2, device: "gpu" }),
      shards: await load({ threads: 2, tp: 2 }),
      inline: await load({ threads: 2, inline: true }),
      heads: await load({ threads: 64 }),
      long,
      text,
    };
  });
  for (const name of ["none", "gpu", "shards", "inline", "heads"]) {
    assert.equal(told[name]?.code, "invalid", `${name}: ${JSON.stringify(told[name])}`);
    assert.ok(!told[name].message.includes("\n"));
  }
  assert.equal(told.long.code, "context_exceeded");
  assert.ok(told.text.length > 0);
});
