// Devices in Chromium: an answer goes on when one is lost, and all memory is given back.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { launch, serve } from "./harness.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const PROMPT = "Once upon a time";

/** Runs `body(wasm, memory, live)` in a Worker that has the wasm module alone; `live` counts buffers and devices. */
async function inWorker(body, argument) {
  const pkg = join(root, "www/pkg");
  assert.ok(existsSync(join(pkg, "shardlight.js")), "www/pkg is not built: run `npm run build` in www");
  const server = await serve(pkg);
  const { page, errors, close } = await launch();
  try {
    page.setDefaultTimeout(300_000);
    // A page of that origin; what it shows does not matter.
    await page.goto(`${server.url}/shardlight.js`);
    const result = await page.evaluate(
      ([body, argument]) => {
        const text = `
          const live = { buffers: 0, devices: 0 };
          const count = (prototype, make, kind) => {
            const made = prototype[make];
            prototype[make] = function (...args) {
              live[kind]++;
              return made.apply(this, args);
            };
          };
          const uncount = (prototype, kind) => {
            const [destroy, gone] = [prototype.destroy, new WeakSet()];
            prototype.destroy = function () {
              if (!gone.has(this)) live[kind]--;
              gone.add(this);
              return destroy.call(this);
            };
          };
          count(GPUDevice.prototype, "createBuffer", "buffers");
          count(GPUAdapter.prototype, "requestDevice", "devices");
          uncount(GPUBuffer.prototype, "buffers");
          uncount(GPUDevice.prototype, "devices");
          const wasm = await import(${JSON.stringify(`${location.origin}/shardlight.js`)});
          const { memory } = await wasm.default();
          const body = ${body};
          try {
            postMessage({ result: await body({ wasm, memory, live }, ${JSON.stringify(argument)}) });
          } catch (error) {
            postMessage({ error: error?.stack ?? String(error) });
          }`;
        const worker = new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })), { type: "module" });
        return new Promise((resolve, reject) => {
          worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data.result));
          worker.onerror = ({ message }) => reject(new Error(message));
        });
      },
      [String(body), argument],
    );
    assert.deepEqual(errors, []);
    return result;
  } finally {
    await close();
    await server.close();
  }
}

test("an answer goes on when the device is lost in its middle", async () => {
  const { whole, runs, events, memory, logits } = await inWorker(async ({ wasm }, prompt) => {
    const session = await wasm.load("builtin:tiny", { device: "gpu", contextLength: 128 });
    const events = [];
    session.onDevice((what, value) => events.push([what, value]));
    const answer = async (options, faults) => {
      session.reset();
      let [count, streamed] = [0, ""];
      const generated = session.generate(prompt, { raw: true, maxTokens: 16, ...options }, (text) => {
        streamed += text;
        if (faults.includes(++count)) session.destroyDevice();
      });
      if (faults.includes(0)) session.destroyDevice();
      const { text, tokens } = await generated;
      return { text, tokens, streamed };
    };
    const drawn = { temperature: 1, seed: 7, repeatPenalty: 1.3 };
    const whole = [await answer({}, []), await answer(drawn, [])];
    const before = session.memory();
    const runs = [];
    for (const faults of [[0], [7], [1, 12]]) runs.push([await answer({}, faults), await answer(drawn, faults)]);
    session.destroyDevice();
    const idle = [await answer({}, []), await answer(drawn, [])];
    const ids = session.tokenize(prompt);
    const first = await session.logits(ids);
    session.destroyDevice();
    const logits = [first, await session.logits(ids)].map((values) => [...values.slice(0, 100)]);
    const memory = [before, session.memory()];
    session.dispose();
    return { whole, runs: [...runs, idle], events, memory, logits };
  }, PROMPT);
  for (const [greedy, drawn] of runs) {
    assert.deepEqual(greedy, whole[0]);
    assert.deepEqual(drawn, whole[1]);
  }
  assert.equal(whole[0].tokens.length, 16);
  assert.notEqual(whole[0].text, whole[1].text);
  // Two answers for each of: at the beginning, in the middle, twice. Then one that found it lost.
  const lost = events.filter(([what]) => what === "lost");
  const recovered = events.filter(([what]) => what === "recovered");
  assert.equal(lost.length, 2 + 2 + 4 + 1);
  assert.equal(recovered.length, lost.length);
  assert.ok(lost.every(([, reason]) => reason.includes("was lost")), JSON.stringify(lost));
  assert.ok(recovered.every(([, ms]) => ms > 0));
  assert.deepEqual(logits[1], logits[0]);
  const [before, after] = memory;
  assert.equal(after[0].weights, before[0].weights);
  assert.equal(after[0].kv, before[0].kv);
  console.log(`recovery: ${recovered.length} losses, ${Math.round(Math.max(...recovered.map(([, ms]) => ms)))} ms at most`);
});

test("twenty loads and disposals leave nothing behind", async () => {
  const { cycles, closed } = await inWorker(async ({ wasm, memory, live }, prompt) => {
    const cycles = [];
    for (let i = 0; i < 20; i++) {
      const session = await wasm.load("builtin:tiny", { device: "gpu", contextLength: 128 });
      await session.generate(prompt, { raw: true, maxTokens: 4 });
      const [used] = session.memory();
      const buffers = live.buffers;
      session.dispose();
      const [left] = session.memory();
      session.free();
      cycles.push({ used: used.total, left, buffers, live: { ...live }, wasm: memory.buffer.byteLength });
    }
    // What is called afterwards says so, and what is running ends.
    const session = await wasm.load("builtin:tiny", { device: "cpu" });
    const running = session.generate(prompt, { raw: true, maxTokens: 400 });
    session.dispose();
    const { stop } = await running;
    const closed = { stop, left: session.memory()[0] };
    const calls = { generate: () => session.generate(prompt, {}), tokenize: () => session.tokenize("x"), info: () => session.info(), shards: () => session.shards(), reset: () => session.reset(), logits: () => session.logits([1]) };
    for (const [name, call] of Object.entries(calls)) {
      closed[name] = await (async () => call())().then(() => "nothing", ({ code }) => code);
    }
    return { cycles, closed };
  }, PROMPT);
  for (const { used, left, buffers, live } of cycles) {
    const { device, peak, ...rest } = left;
    assert.ok(used > 1e6 && buffers > 10 && peak >= used && device.backend === "webgpu");
    assert.deepEqual(Object.values(rest).filter((n) => n !== 0), [], JSON.stringify(left));
    assert.deepEqual(live, { buffers: 0, devices: 0 });
  }
  const lengths = cycles.map(({ wasm }) => wasm);
  assert.deepEqual(new Set(lengths.slice(2)), new Set([lengths[2]]), `wasm memory grew: ${lengths}`);
  const { stop, left, ...codes } = closed;
  assert.equal(stop, "cancelled");
  assert.equal(left.total + left.mapped, 0, JSON.stringify(left));
  assert.deepEqual(new Set(Object.values(codes)), new Set(["closed"]), JSON.stringify(codes));
  console.log(`dispose: 20 cycles of ${cycles[0].used} bytes, 0 left, wasm memory ${lengths[0]} then ${lengths[19]} bytes`);
});

test("operators run on a device opened anew, and give all back", async () => {
  const told = await inWorker(async ({ wasm, live }) => {
    const runtime = await wasm.open({ device: "gpu" });
    const x = { data: Float32Array.from({ length: 64 }, (_, i) => i - 30), shape: [4, 16] };
    const run = async () => [...(await runtime.op("softmax", { x }, {}))[Object.keys(await runtime.op("softmax", { x }, {}))[0]].data];
    const before = await run();
    runtime.destroyDevice();
    const after = await run();
    const running = runtime.op("softmax", { x }, {});
    runtime.destroyDevice();
    const during = Object.values(await running)[0].data;
    const { total } = runtime.memory()[0];
    runtime.dispose();
    const code = await runtime.op("softmax", { x }, {}).catch(({ code }) => code);
    return { before, after, during: [...during], total, code, left: runtime.memory()[0], live };
  });
  assert.deepEqual(told.after, told.before);
  assert.deepEqual(told.during, told.before);
  assert.equal(told.code, "closed");
  assert.equal(told.total, 0, "inputs and outputs are given back after each call");
  assert.equal(told.left.pipelines, 0);
  assert.deepEqual(told.live, { buffers: 0, devices: 0 });
});
