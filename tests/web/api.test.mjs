// The package as programs use it, in Chromium: answers by await and by pieces, OpenAI's chat completions, errors by code.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { open } from "./harness.mjs";

const dist = join(fileURLToPath(new URL("../..", import.meta.url)), "www/dist");
const PROMPT = "Once upon a time";

/** Runs `body` in a page that has the package, with a model on the CPU device, and gives what it gives. */
async function withModel(body, argument) {
  assert.ok(existsSync(join(dist, "index.html")), "www/dist is not built: run `npm run build` in www");
  const opened = await open(dist);
  try {
    opened.page.setDefaultTimeout(300_000);
    const result = await opened.page.evaluate(
      async ([body, argument]) => {
        const model = await window.shardlight.Shardlight.load("builtin:tiny", { device: "cpu" });
        /** Name, code and message of what a promise is rejected with. */
        const failing = (promise) => promise.then(() => null, ({ name, code, message }) => ({ name, code, message }));
        try {
          return await new Function("model", "failing", "argument", `return (${body})(model, failing, argument)`)(model, failing, argument);
        } finally {
          model.close();
        }
      },
      [String(body), argument],
    );
    assert.deepEqual(opened.errors, []);
    return result;
  } finally {
    await opened.close();
  }
}

test("an answer is awaited or taken in pieces", async () => {
  const { whole, pieces, again, cut, after } = await withModel(async (model, failing, prompt) => {
    const options = { raw: true, maxTokens: 24 };
    const whole = await model.generate(prompt, options);
    const generation = model.generate(prompt, options);
    const [pieces, again] = [[], []];
    await Promise.all([
      (async () => { for await (const piece of generation) pieces.push(piece); })(),
      (async () => { for await (const piece of generation) again.push(piece); })(),
    ]);
    // Leaving the loop ends the answer, and the model can go on.
    const long = model.generate(prompt, { raw: true, maxTokens: 400 });
    for await (const { id } of long) if (id !== undefined) break;
    const cut = await long;
    const after = await model.generate(prompt, options);
    return { whole, pieces, again, cut, after };
  }, PROMPT);
  assert.equal(whole.tokens.length, 24);
  assert.ok(whole.promptTokens > 0);
  assert.deepEqual(pieces.map((piece) => piece.id), whole.tokens);
  assert.equal(pieces.map((piece) => piece.text).join(""), whole.text);
  assert.deepEqual(again, pieces);
  assert.equal(cut.stop, "cancelled");
  assert.ok(cut.tokens.length < 400);
  assert.equal(after.text, whole.text);
});

test("a text becomes a vector, near those of its like", async () => {
  const { vectors, mean, last, error } = await withModel(async (model, failing) => {
    const texts = ["The dog ran in the park.", "The dog ran to the park.", "One two three four five."];
    const vectors = [];
    for (const text of texts) vectors.push([...(await model.embed(text))]);
    const ids = await model.tokenize(texts[0]);
    const options = { normalize: false };
    const mean = [...(await model.embed(ids, options))];
    const last = [...(await model.embed(ids, { ...options, pooling: "last" }))];
    return { vectors, mean, last, error: await failing(model.embed("x", { pooling: "sum" })) };
  });
  const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  for (const vector of vectors) assert.ok(Math.abs(dot(vector, vector) - 1) < 1e-5);
  assert.ok(dot(vectors[0], vectors[1]) > dot(vectors[0], vectors[2]));
  const length = Math.sqrt(dot(mean, mean));
  assert.ok(Math.abs(dot(mean, vectors[0]) / length - 1) < 1e-5);
  assert.notDeepEqual(mean, last);
  assert.equal(error.code, "unsupported");
  assert.match(error.message, /mean, cls, last/);
});

test("errors say what kind they are", async () => {
  const told = await withModel(async (model, failing, prompt) => {
    const { Shardlight, ShardlightError } = window.shardlight;
    const told = {};
    const first = model.generate(prompt, { raw: true, maxTokens: 400 });
    told.busy = await failing(model.generate(prompt).answer);
    first.cancel();
    await first;
    const controller = new AbortController();
    const aborted = failing(model.generate(prompt, { raw: true, maxTokens: 400, signal: controller.signal }).answer);
    controller.abort();
    told.aborted = await aborted;
    told.before = await failing(model.generate(prompt, { signal: AbortSignal.abort() }).answer);
    told.option = await failing(model.generate(prompt, { maxToken: 3 }).answer);
    told.long = await failing(model.generate(prompt.repeat(2000), { raw: true }).answer);
    told.messages = await failing(model.generate([{ content: 3 }]).answer);
    told.empty = await failing(model.generate([]).answer);
    told.format = await failing(Shardlight.load(new Uint8Array([71, 71, 85, 70, 9])));
    told.missing = await failing(Shardlight.load(new URL("nowhere.gguf", location.href).href));
    told.layout = await failing(Shardlight.load("builtin:tiny", { device: "cpu", tp: 4000 }));
    told.device = await failing(Shardlight.load("builtin:tiny", { device: "abacus" }));
    told.loop = await failing((async () => { for await (const piece of model.generate(prompt, { maxToken: 3 })) void piece; })());
    const open = await Shardlight.load("builtin:tiny", { device: "cpu" });
    const running = failing(open.generate(prompt, { maxTokens: 400 }).answer);
    open.close();
    told.closed = await running;
    told.token = await failing(model.detokenize([1, 1e9]));
    told.round = await model.detokenize(await model.tokenize(prompt));
    told.isError = new ShardlightError("io", "x") instanceof Error;
    // None of that has broken the model.
    told.text = (await model.generate(prompt, { raw: true, maxTokens: 4 })).text;
    return told;
  }, PROMPT);
  const codes = {
    busy: "busy", option: "invalid", long: "context_exceeded", messages: "invalid", empty: "invalid", format: "format", missing: "io",
    layout: "invalid", device: "unsupported", closed: "closed", loop: "invalid",
    token: "invalid",
  };
  assert.ok(told.round.endsWith(PROMPT), told.round);
  for (const [name, code] of Object.entries(codes)) {
    assert.equal(told[name]?.name, "ShardlightError", `${name}: ${JSON.stringify(told[name])}`);
    assert.equal(told[name].code, code, `${name}: ${told[name].message}`);
    assert.ok(!told[name].message.includes("\n"), told[name].message);
  }
  assert.equal(told.aborted.name, "AbortError");
  assert.equal(told.before.name, "AbortError");
  assert.ok(told.isError && told.text.length > 0);
});

test("chat completions answer in JSON, and tell how likely tokens were", async () => {
  const { whole, streamed, object, wrong } = await withModel(async (model, failing) => {
    const messages = [{ role: "user", content: "Tell me about an animal." }];
    const schema = {
      type: "object", required: ["animal", "legs"], additionalProperties: false,
      properties: { animal: { enum: ["cat", "dog"] }, legs: { type: "integer", minimum: 0, maximum: 4 } },
    };
    const response_format = { type: "json_schema", json_schema: { name: "animal", strict: true, schema } };
    const params = { messages, temperature: 0, response_format, logprobs: true, top_logprobs: 2 };
    const { completions } = model.chat;
    const whole = await completions.create(params);
    const streamed = [];
    for await (const { choices } of await completions.create({ ...params, stream: true })) streamed.push(choices[0]);
    const object = await completions.create({ messages, seed: 3, max_tokens: 3, response_format: { type: "json_object" } });
    const wrong = {};
    for (const [name, bad] of Object.entries({
      schema: { response_format: { type: "json_schema" } }, type: { response_format: { type: "json_schema", json_schema: { schema: { type: "objekt" } } } },
      top: { logprobs: true, top_logprobs: 21 }, alone: { top_logprobs: 2 },
    })) wrong[name] = await failing(completions.create({ messages, ...bad }));
    return { whole, streamed, object, wrong };
  });
  const [choice] = whole.choices;
  const { animal, legs } = JSON.parse(choice.message.content);
  assert.ok(["cat", "dog"].includes(animal) && legs >= 0 && legs <= 4);
  assert.equal(choice.finish_reason, "stop");
  const { content, refusal } = choice.logprobs;
  assert.equal(refusal, null);
  assert.equal(content.map(({ token }) => token).join(""), choice.message.content);
  for (const { logprob, bytes, top_logprobs } of content) assert.ok(logprob <= 0 && bytes.length > 0 && top_logprobs.length === 2);
  assert.equal(streamed.map(({ delta }) => delta.content ?? "").join(""), choice.message.content);
  // The second answer takes the prompt from the cache: its last bits may differ.
  const told = streamed.flatMap(({ logprobs }) => logprobs?.content ?? []);
  assert.deepEqual(told.map(({ token }) => token), content.map(({ token }) => token));
  told.forEach(({ logprob }, i) => assert.ok(Math.abs(logprob - content[i].logprob) < 1e-3));
  assert.equal(object.choices[0].message.content[0], "{");
  assert.equal(object.choices[0].logprobs, null);
  for (const [name, error] of Object.entries(wrong)) assert.equal(error?.code, "invalid", `${name}: ${JSON.stringify(error)}`);
});

test("chat completions have OpenAI's shape, whole and in chunks", async () => {
  const { whole, chunks, plain, own, greedy, cut, refused } = await withModel(async (model, failing) => {
    const messages = [
      { role: "developer", content: "You tell stories." },
      { role: "user", content: [{ type: "text", text: "Tell me " }, { type: "text", text: "a story." }] },
    ];
    const { completions } = model.chat;
    const whole = await completions.create({ model: "any", messages, temperature: 0, max_completion_tokens: 12 });
    const collect = async (params) => {
      const chunks = [];
      for await (const chunk of await completions.create({ messages, temperature: 0, stream: true, ...params })) chunks.push(chunk);
      return chunks;
    };
    const chunks = await collect({ max_tokens: 12, stream_options: { include_usage: true } });
    const plain = await collect({ max_tokens: 2 });
    // What they stand for.
    const own = await model.generate(
      [{ role: "system", content: "You tell stories." }, { role: "user", content: "Tell me a story." }],
      { maxTokens: 12 },
    );
    const draw = (params) => completions.create({ messages, max_tokens: 24, ...params }).then((c) => c.choices[0].message.content);
    const greedy = await Promise.resolve().then(async () => [await draw({ seed: 7 }), await draw({ seed: 7 }), await draw({ temperature: 0 })]);
    const stream = await completions.create({ messages, stream: true, max_tokens: 400 });
    const cut = await failing((async () => { for await (const chunk of stream) if (chunk.choices[0].delta.content) stream.controller.abort(); })());
    const refused = {};
    for (const [name, params] of Object.entries({
      tools: { tools: [{ type: "function" }] },
      several: { n: 2 },
      format: { response_format: { type: "grammar" } },
      both: { response_format: { type: "json_object" }, tools: [{ type: "function", function: { name: "f" } }] },
      image: { messages: [{ role: "user", content: [{ type: "image_url" }] }] },
      tool: { messages: [{ role: "tool", content: "x" }] },
      none: { messages: [] },
    })) refused[name] = await failing(completions.create({ messages, ...params }));
    return { whole, chunks, plain, own, greedy, cut, refused };
  });
  assert.match(whole.id, /^chatcmpl-[0-9a-f]{24}$/);
  assert.equal(whole.object, "chat.completion");
  assert.ok(Math.abs(whole.created - Date.now() / 1000) < 3600);
  const [choice] = whole.choices;
  assert.equal(choice.message.role, "assistant");
  assert.equal(choice.message.content, own.text);
  assert.equal(choice.finish_reason, own.stop === "length" ? "length" : "stop");
  const { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details } = whole.usage;
  assert.equal(prompt_tokens, own.promptTokens);
  assert.equal(completion_tokens, own.tokens.length);
  assert.equal(total_tokens, prompt_tokens + completion_tokens);
  assert.equal(prompt_tokens_details.cached_tokens, 0);

  assert.deepEqual(chunks[0].choices[0].delta, { role: "assistant", content: "" });
  const said = chunks.flatMap((chunk) => chunk.choices).map(({ delta }) => delta.content ?? "");
  assert.equal(said.join(""), own.text);
  assert.equal(new Set(chunks.map(({ id, object }) => id + object)).size, 1);
  assert.equal(chunks.at(-2).choices[0].finish_reason, choice.finish_reason);
  assert.ok(chunks.slice(0, -1).every(({ usage }) => usage === null));
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.equal(chunks.at(-1).usage.total_tokens, total_tokens);
  // The prompt was there already, but for the token that is always computed.
  assert.ok(chunks.at(-1).usage.prompt_tokens_details.cached_tokens > 0);
  assert.ok(plain.every((chunk) => !("usage" in chunk)) && plain.at(-1).choices[0].finish_reason === "length");

  assert.equal(greedy[0], greedy[1]);
  assert.notEqual(greedy[0], greedy[2], "temperature is 1 when it is left out");
  assert.equal(cut.name, "AbortError");
  for (const [name, error] of Object.entries(refused)) {
    assert.equal(error?.code, ["none", "tools", "tool"].includes(name) ? "invalid" : "unsupported", `${name}: ${JSON.stringify(error)}`);
  }
  assert.match(refused.tools.message, /tools/);
  assert.match(refused.image.message, /messages\[0\]: content of type image_url/);
});
