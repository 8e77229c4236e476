// Calls of functions: a program written for the official `openai` client, run with that client and with the model itself. In Node,
// on the CPU device; the model calls a function when it is offered one, see tests/tools/scripted_model.py.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { openAsBlob } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import { ChatCompletionStream } from "openai/lib/ChatCompletionStream";
import { install, project, www } from "./consumer.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const scripted = join(here, "../data/tools/scripted.gguf");
const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "Weather of a city",
      parameters: { type: "object", properties: { city: { type: "string" }, days: { type: "integer" } }, required: ["city"] },
    },
  },
];
const asked = [{ role: "user", content: "What is the weather in Pará?" }];
const CALL = { name: "get_weather", arguments: '{"city":"Pará 🦙","days":3}' };
let model;

before(async () => {
  const { Shardlight } = await import(join(www, "lib/index.js"));
  model = await Shardlight.load(await openAsBlob(scripted), { device: "cpu" });
});
after(() => model?.close());

/** OpenAI's client, whose server is the model. */
function client() {
  const answer = async (address, { body, signal }) => {
    assert.match(String(address), /\/chat\/completions$/);
    const params = JSON.parse(body);
    let answer;
    try {
      answer = await model.chat.completions.create(params, { signal });
    } catch ({ code, message }) {
      return Response.json({ error: { code, message, type: "invalid_request_error" } }, { status: 400 });
    }
    if (!params.stream) return Response.json(answer);
    const encoder = new TextEncoder();
    const events = new ReadableStream({
      async start(controller) {
        for await (const chunk of answer) controller.enqueue(encoder.encode(`data: ${JSON.stringify(chunk)}\n\n`));
        controller.enqueue(encoder.encode("data: [DONE]\n\n"));
        controller.close();
      },
    });
    return new Response(events, { headers: { "Content-Type": "text/event-stream" } });
  };
  return new OpenAI({ apiKey: "none", baseURL: "http://localhost/v1", fetch: answer, maxRetries: 0 });
}

/** Asks, calls what the model calls, and tells it the result: what programs do, whole and streamed. */
async function program({ chat }) {
  const messages = [...asked];
  const seen = [];
  for (const stream of [false, true]) {
    for (let turn = 0; turn < 2; turn++) {
      const params = { model: "scripted", messages, tools, temperature: 0 };
      let message, finish;
      if (stream) {
        // As OpenAI's guide to function calling gathers deltas.
        message = { role: "assistant", content: "", tool_calls: [] };
        for await (const { choices } of await chat.completions.create({ ...params, stream: true })) {
          const { delta, finish_reason } = choices[0];
          finish = finish_reason ?? finish;
          message.content += delta.content ?? "";
          for (const call of delta.tool_calls ?? []) {
            const known = message.tool_calls[call.index];
            if (known) known.function.arguments += call.function.arguments;
            else message.tool_calls[call.index] = { id: call.id, type: call.type, function: { ...call.function } };
          }
        }
        if (message.tool_calls.length === 0) delete message.tool_calls;
      } else {
        ({ message, finish_reason: finish } = (await chat.completions.create(params)).choices[0]);
      }
      messages.push(message);
      for (const call of message.tool_calls ?? []) {
        const { city } = JSON.parse(call.function.arguments);
        messages.push({ role: "tool", tool_call_id: call.id, content: `rain in ${city}` });
      }
      seen.push([finish, message.content, message.tool_calls?.map(({ function: { name, arguments: text } }) => ({ name, arguments: text }))]);
    }
    messages.push(...asked);
  }
  const ids = messages.flatMap(({ tool_calls }) => tool_calls ?? []).map(({ id }) => id);
  return { seen, ids };
}

test("one program does the same with OpenAI's client and with the model", async () => {
  const own = await program(model);
  assert.deepEqual(own.seen, [
    ["tool_calls", "Let me look.", [CALL]],
    ["stop", "It rains in Pará!", undefined],
    ["tool_calls", "Let me look.", [CALL]],
    ["stop", "It rains in Pará!", undefined],
  ]);
  // Two calls of a conversation never have the same id; a greedy answer to the same prompt always has.
  assert.equal(new Set(own.ids).size, 2);
  for (const id of own.ids) assert.match(id, /^call_[0-9a-f]{24}$/);
  assert.deepEqual(await program(client()), own);
});

test("OpenAI's own helpers take our stream, and run the functions", async () => {
  const { chat } = client();
  const heard = [];
  const stream = chat.completions.stream({ model: "scripted", messages: asked, tools, temperature: 0 });
  stream.on("tool_calls.function.arguments.done", ({ name, arguments: text }) => heard.push({ name, arguments: text }));
  const { choices } = await stream.finalChatCompletion();
  assert.deepEqual(heard, [CALL]);
  assert.equal(choices[0].finish_reason, "tool_calls");
  assert.equal(choices[0].message.content, "Let me look.");
  // The chunks that we give are what its reader wants.
  const lines = new ReadableStream({
    async start(controller) {
      const chunks = await model.chat.completions.create({ messages: asked, tools, temperature: 0, stream: true });
      for await (const chunk of chunks) controller.enqueue(new TextEncoder().encode(`${JSON.stringify(chunk)}\n`));
      controller.close();
    },
  });
  const read = await ChatCompletionStream.fromReadableStream(lines).finalMessage();
  assert.deepEqual(read.tool_calls.map(({ function: { name, arguments: text } }) => ({ name, arguments: text })), [CALL]);

  const given = [];
  const runnable = { type: "function", function: { ...tools[0].function, parse: JSON.parse, function: (parameters) => (given.push(parameters), "rain") } };
  const runner = chat.completions.runTools({ model: "scripted", messages: asked, tools: [runnable], temperature: 0 });
  assert.equal(await runner.finalContent(), "It rains in Pará!");
  assert.deepEqual(given, [{ city: "Pará 🦙", days: 3 }]);
});

test("functions can be left out, asked for one at a time, and used without OpenAI's shape", async () => {
  const { completions } = model.chat;
  const params = { messages: asked, temperature: 0 };
  const plain = { ...(await completions.create(params)).choices[0] };
  assert.equal(plain.message.content, "I do not know that");
  assert.ok(!("tool_calls" in plain.message));
  assert.deepEqual((await completions.create({ ...params, tools, tool_choice: "none" })).choices[0], plain);
  const single = (await completions.create({ ...params, tools, tool_choice: "auto", parallel_tool_calls: false })).choices[0];
  assert.equal(single.finish_reason, "tool_calls");
  assert.equal(single.message.tool_calls.length, 1);
  // Cut in the middle, it is no call.
  const cut = (await completions.create({ ...params, tools, max_tokens: 8 })).choices[0];
  assert.equal(cut.finish_reason, "length");
  assert.equal(cut.message.content, 'Let me look.\n\n<tool_call>\n{"name": "get_weather"');
  assert.ok(!("tool_calls" in cut.message));

  const generation = model.generate("Weather?", { tools });
  const pieces = [];
  for await (const piece of generation) pieces.push(piece);
  const answer = await generation;
  assert.equal(answer.text, "Let me look.");
  assert.equal(pieces.map(({ text }) => text).join(""), answer.text);
  assert.deepEqual(answer.toolCalls.map((call) => call.function), [CALL]);
  assert.deepEqual(pieces.flatMap(({ toolCalls }) => toolCalls ?? []), answer.toolCalls);
  assert.ok(!("toolCalls" in (await model.generate("Weather?"))));
});

test("a call that is demanded comes, and nothing else", async () => {
  const params = { messages: [{ role: "user", content: "Hello" }], temperature: 0, max_tokens: 200, tools };
  for (const tool_choice of ["required", { type: "function", function: { name: "get_weather" } }]) {
    const [choice] = (await model.chat.completions.create({ ...params, tool_choice })).choices;
    assert.equal(choice.finish_reason, "tool_calls");
    assert.equal(choice.message.content, null);
    assert.equal(choice.message.tool_calls.length, 1);
    const { name, arguments: text } = choice.message.tool_calls[0].function;
    assert.equal(name, "get_weather");
    assert.equal(typeof JSON.parse(text).city, "string");
    const deltas = [];
    for await (const { choices } of await model.chat.completions.create({ ...params, tool_choice, stream: true })) deltas.push(choices[0].delta);
    assert.equal(deltas.map(({ content }) => content ?? "").join(""), "");
    assert.deepEqual(deltas.flatMap(({ tool_calls }) => tool_calls ?? []).map((call) => call.function.name), ["get_weather"]);
  }
  await assert.rejects(model.generate("Hello", { tools, toolChoice: "required", regex: "a" }).answer, /^ShardlightError: regex, toolChoice: an answer has one form/);
});

test("wrong functions, choices and messages are refused in one line", async () => {
  const call = { id: "a", type: "function", function: { name: "f", arguments: "{}" } };
  for (const [params, code, message] of [
    [{ tools: [{ type: "function" }] }, "invalid", /^tools\[0\]\.function: expected an object, found nothing$/],
    [{ tools: [] }, "invalid", /^tools: is empty; leave it out to offer no function$/],
    [{ tools: [{ type: "custom", custom: {} }] }, "unsupported", /^tools\[0\]\.type: "custom"; supported: function$/],
    [{ tools, tool_choice: "some" }, "unsupported", /^tool_choice: "some"; supported: none, auto/],
    [{ tools, tool_choice: { type: "function", function: { name: "g" } } }, "invalid", /"g" is not among the tools: get_weather$/],
    [{ tools: [{ type: "function", function: { name: "f", parameters: { type: "object", properties: { a: { type: "objekt" } } } } }], tool_choice: "required" }, "invalid", /^schema: .*objekt/],
    [{ tool_choice: "auto" }, "invalid", /^tool_choice: there are no tools to choose from$/],
    [{ messages: [...asked, { role: "tool", content: "x", tool_call_id: "a" }] }, "invalid", /^messages\[1\]: tool_call_id "a" is of no call before it$/],
    [{ messages: [...asked, { role: "assistant", tool_calls: [{ ...call, id: 3 }] }] }, "invalid", /^messages\[1\]\.tool_calls\[0\]\.id: expected text, found a number$/],
    [{ messages: [{ role: "function", name: "f", content: "x" }] }, "unsupported", /role function; supported: system, developer, user, assistant, tool$/],
  ]) {
    const error = await model.chat.completions.create({ messages: asked, ...params }).then(() => assert.fail(JSON.stringify(params)), (error) => error);
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    const status = await client().chat.completions.create({ model: "x", messages: asked, ...params }).then(() => 200, ({ status }) => status);
    assert.equal(status, 400);
  }
  // The model is as it was.
  assert.equal((await model.generate("Hi")).text, "I do not know that");
});

test("OpenAI's types take our answers, and ours their parameters", () => {
  const consumer = install();
  try {
    const program = `
      import type { Model } from "shardlight";
      import type OpenAI from "openai";
      type Chat = typeof OpenAI.Chat;
      type Whole = import("openai/resources/chat/completions").ChatCompletion;
      type Chunk = import("openai/resources/chat/completions").ChatCompletionChunk;
      type Message = import("openai/resources/chat/completions").ChatCompletionMessageParam;
      type Tool = import("openai/resources/chat/completions").ChatCompletionFunctionTool;
      export async function ask(model: Model, messages: Message[], tools: Tool[]): Promise<Whole> {
        const stream = await model.chat.completions.create({ model: "x", messages, tools, tool_choice: "auto", stream: true });
        for await (const chunk of stream) {
          const same: Chunk = chunk;
          for (const call of same.choices[0]?.delta.tool_calls ?? []) console.log(call.function?.arguments);
        }
        const whole: Whole = await model.chat.completions.create({ model: "x", messages, tools, parallel_tool_calls: false });
        messages.push(whole.choices[0]!.message);
        for (const call of whole.choices[0]!.message.tool_calls ?? []) messages.push({ role: "tool", tool_call_id: call.id, content: "rain" });
        return whole;
      }
      export type { Chat };
    `;
    const root = project(consumer, "types", { "main.ts": program, "package.json": '{ "type": "module" }' });
    const tsc = join(here, "node_modules/typescript/bin/tsc");
    const paths = JSON.stringify({ openai: [join(here, "node_modules/openai/index.d.ts")], "openai/*": [join(here, "node_modules/openai/*.d.ts")] });
    const options = { noEmit: true, strict: true, target: "es2022", module: "esnext", moduleResolution: "bundler", lib: ["es2022", "dom", "dom.iterable"], types: [], skipLibCheck: true, paths: JSON.parse(paths) };
    project(consumer, "types", { "tsconfig.json": JSON.stringify({ compilerOptions: options, files: ["main.ts"] }) });
    execFileSync(process.execPath, [tsc, "-p", root], { encoding: "utf8" });
  } catch (error) {
    assert.fail(error.stdout ?? String(error));
  } finally {
    consumer.remove();
  }
});
