// Several conversations with one model, and what its kernels take: in Chromium, on every device.

import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import * as harness from "./harness.mjs";

const dist = join(fileURLToPath(new URL("../..", import.meta.url)), "www/dist");
const inPage = (body, argument) => harness.inPage(dist, body, argument);

/** Where a model is, and whether a lost device can be opened anew there. */
const PLACES = [
  [{ device: "cpu", threads: 1 }, false],
  [{ device: "cpu", threads: 2 }, false],
  [{ device: "gpu" }, true],
  [{ device: "gpu", tp: 2 }, true],
];

test("forks go their own ways, share weights, and end by themselves", async () => {
  for (const [place, recovers] of PLACES) {
    const told = await inPage(async ([place, recovers]) => {
      const { Shardlight } = window.shardlight;
      const failing = (promise) => promise.then(() => null, ({ code }) => code);
      const options = { raw: true, maxTokens: 8 };
      const [begin, cat, dog] = ["Once upon a time there was a girl who", "Once upon a time there was a girl who had a cat.", "Once upon a time there was a girl who had a dog."];
      const alone = await Shardlight.load("builtin:tiny", { ...place, contextLength: 128 });
      const want = {};
      for (const prompt of [begin, cat, dog]) {
        want[prompt] = (await alone.generate(prompt, options)).text;
        alone.reset();
      }
      await alone.dispose();

      const model = await Shardlight.load("builtin:tiny", { ...place, contextLength: 128 });
      const sum = (all, key) => all.reduce((sum, of) => sum + of[key], 0);
      const used = async () => {
        const all = await model.memory();
        return { weights: sum(all, "weights"), kv: sum(all, "kv") };
      };
      const heard = [];
      const right = [(await model.generate(begin, options)).text === want[begin]];
      const before = await used();
      const fork = await model.fork();
      for (const [name, of] of [["model", model], ["fork", fork]]) of.addEventListener("devicelost", () => heard.push(name));
      const forked = await used();
      const [one, other] = [await fork.generate(dog, options), await model.generate(cat, options)];
      right.push(one.text === want[dog], other.text === want[cat]);
      const common = (await model.tokenize(begin)).length;
      const computed = [one.timings.prefillTokens, (await fork.tokenize(dog)).length - common];
      // One answer at a time, whoever asks; only its own conversation cancels it.
      const long = model.generate(begin, { ...options, maxTokens: 60 });
      const busy = await failing(fork.generate(dog, options).answer);
      fork.cancel();
      const whole = (await long).tokens.length;
      model.reset();
      right.push((await fork.generate(dog, options)).text === want[dog], (await model.generate(cat, options)).text === want[cat]);
      if (recovers) {
        await model.testing.destroyDevice();
        right.push((await model.generate(cat, options)).text === want[cat], (await fork.generate(dog, options)).text === want[dog]);
      }
      const third = await fork.fork();
      const left = await fork.dispose();
      const ended = { weights: sum(left, "weights"), kv: sum(left, "kv") };
      right.push((await third.generate(dog, options)).text === want[dog], (await model.generate(cat, options)).text === want[cat]);
      const closed = await Promise.all([fork.generate(dog).answer, fork.fork()].map(failing));
      const again = await fork.dispose();
      // The first one ends all.
      const running = failing(third.generate(dog, { ...options, maxTokens: 100 }).answer);
      const rest = sum(await model.dispose(), "total");
      closed.push(await running, await failing(third.generate(dog).answer), await failing(third.fork()));
      return { right, before, forked, ended, computed, busy, whole, heard, closed, again, rest };
    }, [place, recovers]);
    const at = `${JSON.stringify(place)}: ${JSON.stringify(told)}`;
    assert.ok(told.right.every((right) => right), at);
    assert.deepEqual(told.forked, { weights: told.before.weights, kv: 2 * told.before.kv }, at);
    assert.deepEqual(told.ended, told.forked, at);
    assert.equal(told.computed[0], told.computed[1], at);
    assert.equal(told.busy, "busy", at);
    assert.ok(told.whole > 30, at);
    assert.deepEqual(told.heard, recovers ? ["model", "fork"] : [], at);
    assert.deepEqual(told.closed, Array(5).fill("closed"), at);
    assert.deepEqual([told.again, told.rest], [[], 0], at);
  }
});

test("kernels are measured, and the text stays", async () => {
  for (const [place] of PLACES) {
    const { plain, measured, refused, y, unknown } = await inPage(async (place) => {
      const { Shardlight } = window.shardlight;
      const model = await Shardlight.load("builtin:tiny", place);
      const options = { raw: true, maxTokens: 12 };
      const plain = await model.generate("Once upon a time", options);
      model.reset();
      const measured = await model.generate("Once upon a time", { ...options, profile: true });
      const { y } = await model.op("softmax", { x: [[0, 0], [0, Math.log(3)]] });
      const unknown = await model.op("no_such_operator", {}).then(() => null, ({ code }) => code);
      const refused = await model.generate("x", { profile: "yes" }).then(() => null, ({ code }) => code);
      await model.dispose();
      return { plain, measured, refused, y: [...y.data], unknown };
    }, place);
    const at = JSON.stringify(place);
    assert.equal(plain.profile, undefined);
    assert.equal(measured.text, plain.text, at);
    const { stages, kernels } = measured.profile;
    assert.deepEqual(stages.map(({ stage, tokens }) => [stage, tokens]), [["prefill", measured.timings.prefillTokens], ["decode", 11]], at);
    const ranks = place.tp ?? 1;
    const attention = kernels.find(({ stage, kernel }) => stage === "decode" && kernel === "attention");
    assert.equal(attention.calls, 11 * 5 * ranks, at);
    for (const stage of stages) {
      const taken = kernels.filter((of) => of.stage === stage.stage).reduce((sum, { ms }) => sum + ms, 0);
      console.log(`${at} ${stage.stage}: kernels ${taken.toFixed(1)} ms of ${stage.ms.toFixed(1)} ms`);
      // What a browser has rounded may be a little more than what it took.
      assert.ok(taken > 0 && taken <= 1.1 * stage.ms + 2, at);
    }
    assert.ok(kernels.every(({ calls, ms, bytes }) => calls > 0 && ms >= 0 && bytes > 0), JSON.stringify(kernels));
    assert.equal(kernels.some(({ kernel }) => kernel === "communication"), place.threads === 2, at);
    assert.equal(refused, "invalid");
    assert.deepEqual(y.map((p) => p.toFixed(4)), ["0.5000", "0.5000", "0.2500", "0.7500"], at);
    assert.equal(unknown, "unsupported");
  }
});
