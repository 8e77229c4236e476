// Answers of a given form, and how likely their tokens were, in Chromium.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { open } from "./harness.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const dist = join(root, "www/dist");
const program = process.env.SHARDLIGHT_BIN ?? join(root, "target/debug/shardlight");
const PROMPT = "Once upon a time";
const SCHEMA = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 10 },
    kind: { enum: ["girl", "boy"] },
    friends: { type: "array", items: { type: "integer", minimum: 0, maximum: 9 }, minItems: 1, maxItems: 3 },
  },
  required: ["name", "kind", "friends"],
  additionalProperties: false,
};

/** Runs `body({ Shardlight, failing }, argument)` in a page; gives what it gives and the addresses that were asked; `expected` errors are not reported. */
async function inPage(body, argument, expected = /^$/) {
  assert.ok(existsSync(join(dist, "index.html")), "www/dist is not built: run `npm run build` in www");
  const opened = await open(dist);
  try {
    opened.page.setDefaultTimeout(300_000);
    const asked = [];
    opened.page.on("request", (request) => asked.push(new URL(request.url()).pathname));
    const result = await opened.page.evaluate(
      ([body, argument]) => {
        const failing = (promise) => promise.then(() => null, ({ name, code, message }) => ({ name, code, message }));
        const { Shardlight } = window.shardlight;
        return new Function("tools", "argument", `return (${body})(tools, argument)`)({ Shardlight, failing }, argument);
      },
      [String(body), argument],
    );
    assert.deepEqual(opened.errors.filter((error) => !expected.test(error)), []);
    return { ...result, asked };
  } finally {
    await opened.close();
  }
}

const check = (text) => {
  const value = JSON.parse(text);
  assert.deepEqual(Object.keys(value).sort(), ["friends", "kind", "name"]);
  assert.ok(typeof value.name === "string" && [...value.name].length <= 10, text);
  assert.ok(["girl", "boy"].includes(value.kind), text);
  assert.ok(value.friends.length >= 1 && value.friends.length <= 3 && value.friends.every((n) => Number.isInteger(n) && n >= 0 && n <= 9), text);
};

for (const device of ["cpu", "gpu"]) {
  test(`answers have the form that was asked for, on ${device}`, async () => {
    const { texts, free, regex, lark, any, asked } = await inPage(async ({ Shardlight }, { device, schema, prompt }) => {
      const model = await Shardlight.load("builtin:tiny", { device, contextLength: 256 });
      const raw = { raw: true, maxTokens: 160 };
      const before = (await model.generate(prompt, { raw: true, maxTokens: 8 })).text;
      const texts = [];
      for (const seed of [0, 1, 2]) {
        const drawn = seed && { temperature: 1.2, seed };
        let text = "";
        const generation = model.generate(prompt, { ...raw, ...drawn, schema });
        for await (const piece of generation) text += piece.text;
        const answer = await generation;
        texts.push({ text, whole: answer.text, stop: answer.stop });
      }
      const regex = await model.generate(prompt, { ...raw, regex: "(red|green) [0-9]{2}" });
      const lark = await model.generate(prompt, { ...raw, grammar: 'start: ("la" " "?)+ "end"', temperature: 2, seed: 3, maxTokens: 60 });
      const any = await model.generate(prompt, { ...raw, schema: true, maxTokens: 2 });
      const after = (await model.generate(prompt, { raw: true, maxTokens: 8 })).text;
      await model.dispose();
      return { texts, free: [before, after], regex, lark, any };
    }, { device, schema: SCHEMA, prompt: PROMPT });
    for (const { text, whole, stop } of texts) {
      check(whole);
      assert.deepEqual([text, stop], [whole, "eos"]);
    }
    assert.match(regex.text, /^(red|green) [0-9]{2}$/);
    if (lark.stop === "eos") assert.match(lark.text, /^(la ?)+end$/);
    assert.match(lark.text, /^(la ?)+/);
    assert.ok(any.tokens.length > 0);
    assert.equal(free[0], free[1], "a form is forgotten with its answer");
    // Only when it is needed, and once.
    assert.equal(asked.filter((path) => /grammar.*\.wasm$/.test(path)).length, 1, asked.join("\n"));
    if (device === "cpu") {
      const args = ["run", "-m", "builtin:tiny", "--device", "cpu", "--raw", "-n", "160", "-j", JSON.stringify(SCHEMA), PROMPT];
      const native = execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
      assert.equal(texts[0].whole, native.replace(/\n$/, ""), "the command line's text");
    }
  });
}

test("several threads keep to one form", async () => {
  const { one, two, isolation } = await inPage(async ({ Shardlight }, { schema, prompt }) => {
    const texts = [];
    for (const threads of [1, 2]) {
      const model = await Shardlight.load("builtin:tiny", { device: "cpu", threads });
      texts.push((await model.generate(prompt, { raw: true, maxTokens: 160, schema })).text);
      model.close();
    }
    return { one: texts[0], two: texts[1], isolation: crossOriginIsolated };
  }, { schema: SCHEMA, prompt: PROMPT });
  assert.ok(isolation);
  check(one);
  assert.equal(two, one);
});

test("logprobs are told with each token, and of the whole answer", async () => {
  const { pieces, answer, logits } = await inPage(async ({ Shardlight }, prompt) => {
    const model = await Shardlight.load("builtin:tiny", { device: "cpu" });
    const generation = model.generate(prompt, { raw: true, maxTokens: 6, logprobs: 3 });
    const pieces = [];
    for await (const { id, logprobs } of generation) pieces.push({ id, logprobs });
    const answer = await generation;
    const logits = [...(await model.logits(await model.tokenize(prompt)))];
    model.close();
    return { pieces, answer, logits };
  }, PROMPT);
  assert.equal(answer.logprobs.length, 6);
  assert.deepEqual(pieces.map(({ logprobs }) => logprobs), answer.logprobs);
  const log = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
  const [first] = answer.logprobs;
  assert.equal(first.id, answer.tokens[0]);
  assert.ok(Math.abs(first.logprob - (logits[first.id] - log)) < 1e-3);
  assert.equal(first.top.length, 3);
  assert.deepEqual([first.top[0].id, first.top[0].logprob], [first.id, first.logprob], "greedy");
  for (const { text, bytes } of [first, ...first.top]) assert.equal(new TextDecoder().decode(Uint8Array.from(bytes)), text);
});

test("a form that is none is refused in one line, and the model goes on", async () => {
  const { told, text } = await inPage(async ({ Shardlight, failing }, prompt) => {
    const model = await Shardlight.load("builtin:tiny", { device: "cpu" });
    const cyclic = {};
    cyclic.self = cyclic;
    const told = [];
    for (const form of [
      { schema: { type: "objekt" } }, { schema: "object" }, { schema: [1] }, { schema: cyclic }, { schema: { $ref: "#/nowhere" } },
      { regex: "a(" }, { regex: 7 }, { grammar: "start: nothing" }, { schema: {}, regex: "a" },
    ]) told.push(await failing(model.generate(prompt, { raw: true, maxTokens: 4, ...form }).answer));
    const missing = await Shardlight.load("builtin:tiny", { device: "cpu", grammarWasm: "/no/such.wasm" });
    told.push(await failing(missing.generate(prompt, { schema: true }).answer));
    missing.close();
    const { text } = await model.generate(prompt, { raw: true, maxTokens: 4 });
    model.close();
    return { told, text };
  }, PROMPT, /status of 404/);
  const expected = [
    ["invalid", /^schema: Invalid type: objekt/], ["invalid", /^schema: a JSON schema is an object/], ["invalid", /^schema: a JSON schema/],
    ["invalid", /^schema: .*circular/i], ["invalid", /^schema: .*nowhere/], ["invalid", /^regex: .*unclosed/], ["invalid", /^regex: expected text, found number/],
    ["invalid", /^grammar: .*nothing/], ["invalid", /^schema, regex: an answer has one form/], ["io", /such\.wasm: status 404.*grammar\.wasm/],
  ];
  assert.equal(told.length, expected.length);
  told.forEach((error, i) => {
    const [code, message] = expected[i];
    assert.equal(error?.name, "ShardlightError", JSON.stringify(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
  });
  assert.ok(text.length > 0);
});
