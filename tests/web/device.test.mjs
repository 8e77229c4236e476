// Devices in Chromium: an answer goes on when one is lost, and all memory is given back.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { launch, open, serve } from "./harness.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const PROMPT = "Once upon a time";

/** Runs `body({ wasm, memory, live, tiny })` in a Worker that has the wasm module alone; `live` counts buffers and devices. */
async function inWorker(body, argument) {
  const pkg = join(root, "www/pkg");
  assert.ok(existsSync(join(pkg, "shardlight.js")), "www/pkg is not built: run `npm run build` in www");
  // A browser that shows a script asks for an icon.
  const server = await serve(pkg, { "/favicon.ico": join(pkg, "shardlight.js"), "/tiny.gguf": join(root, "core/data/tiny.gguf") });
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
          const tiny = new File([await (await fetch(${JSON.stringify(`${location.origin}/tiny.gguf`)})).blob()], "tiny.gguf");
          const body = ${body};
          try {
            postMessage({ result: await body({ wasm, memory, live, tiny }, ${JSON.stringify(argument)}) });
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
  const { whole, runs, events, memory, logits } = await inWorker(async ({ wasm, tiny }, prompt) => {
    const session = await wasm.load(tiny, { device: "gpu", contextLength: 128 });
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
    for (const [greedy, other] of [[[7], [3, 12]], [[0], []]]) runs.push([await answer({}, greedy), await answer(drawn, other)]);
    const ids = session.tokenize(prompt);
    const first = await session.logits(ids);
    session.destroyDevice();
    const logits = [first, await session.logits(ids)].map((values) => [...values.slice(0, 100)]);
    const memory = [before, session.memory()];
    session.dispose();
    return { whole, runs, events, memory, logits };
  }, PROMPT);
  for (const [greedy, drawn] of runs) {
    assert.deepEqual(greedy, whole[0]);
    assert.deepEqual(drawn, whole[1]);
  }
  assert.equal(whole[0].tokens.length, 16);
  assert.notEqual(whole[0].text, whole[1].text);
  const lost = events.filter(([what]) => what === "lost");
  const recovered = events.filter(([what]) => what === "recovered");
  assert.equal(lost.length, 1 + 2 + 1);
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
  const cycles = await inWorker(async ({ wasm, memory, live, tiny }, prompt) => {
    const cycles = [];
    for (let i = 0; i < 20; i++) {
      const session = await wasm.load(tiny, { device: "gpu", contextLength: 128 });
      // Software takes its time with the first run of each kernel.
      if (i === 0 || i === 19) await session.generate(prompt, { raw: true, maxTokens: 4 });
      const [used] = session.memory();
      const buffers = live.buffers;
      session.dispose();
      const [left] = session.memory();
      session.free();
      cycles.push({ used: used.total, left, buffers, live: { ...live }, wasm: memory.buffer.byteLength });
    }
    return cycles;
  }, PROMPT);
  for (const { used, left, buffers, live } of cycles) {
    const { device, peak, ...rest } = left;
    assert.ok(used > 1e6 && buffers > 10 && peak >= used && device.backend === "webgpu");
    assert.deepEqual(Object.values(rest).filter((n) => n !== 0), [], JSON.stringify(left));
    assert.deepEqual(live, { buffers: 0, devices: 0 });
  }
  const lengths = cycles.map(({ wasm }) => wasm);
  assert.deepEqual(new Set(lengths.slice(2)), new Set([lengths[2]]), `wasm memory grew: ${lengths}`);
  console.log(`dispose: 20 cycles of ${cycles[0].used} bytes, 0 left, wasm memory ${lengths[0]} then ${lengths[19]} bytes`);
});

test("what is called after a disposal is told so, and what is running ends", async () => {
  const { stop, left, ...codes } = await inWorker(async ({ wasm, tiny }, prompt) => {
    const session = await wasm.load(tiny, { device: "cpu" });
    const { stop } = await session.generate(prompt, { raw: true, maxTokens: 400 }, () => session.dispose());
    const [left] = session.memory();
    const calls = {
      generate: () => session.generate(prompt, {}),
      tokenize: () => session.tokenize("x"),
      info: () => session.info(),
      shards: () => session.shards(),
      reset: () => session.reset(),
      logits: () => session.logits([1]),
    };
    const codes = {};
    for (const [name, call] of Object.entries(calls)) {
      codes[name] = await (async () => call())().then(() => "nothing", ({ code }) => code);
    }
    return { stop, left, ...codes };
  }, PROMPT);
  assert.equal(stop, "cancelled");
  assert.equal(left.total + left.mapped, 0, JSON.stringify(left));
  assert.deepEqual(new Set(Object.values(codes)), new Set(["closed"]), JSON.stringify(codes));
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

const dist = join(root, "www/dist");

/** Runs `body(shardlight, argument)` in a page that has the package. */
async function inPage(body, { argument, url, expected, ...options } = {}) {
  assert.ok(existsSync(join(dist, "index.html")), "www/dist is not built: run `npm run build` in www");
  const { page, errors, close, url: address } = await open(dist, options);
  try {
    page.setDefaultTimeout(300_000);
    if (url) await page.goto(url(address));
    const text = `(${body})(window.shardlight, ${JSON.stringify(argument)})`;
    const result = await page.evaluate((text) => (0, eval)(text), text);
    assert.deepEqual(errors.filter((error) => !expected?.test(error)), []);
    return result;
  } finally {
    await close();
  }
}

test("the package tells of losses, counts memory, and ends its Worker", async () => {
  const told = await inPage(async ({ Shardlight, Runtime }, prompt) => {
    const failing = (promise) => promise.then(() => null, ({ name, code }) => ({ name, code }));
    const model = await Shardlight.load("builtin:tiny", { device: "gpu", contextLength: 128 });
    const events = [];
    model.addEventListener("devicelost", ({ detail }) => events.push(["devicelost", typeof detail.reason]));
    model.addEventListener("recovered", ({ detail }) => events.push(["recovered", typeof detail.ms]));
    const options = { raw: true, maxTokens: 12 };
    const whole = await model.generate(prompt, options);
    model.reset();
    let [count, streamed] = [0, ""];
    const generation = model.generate(prompt, options);
    for await (const { text } of generation) {
      streamed += text;
      if (++count === 3) await model.testing.destroyDevice();
    }
    const cut = await generation;
    const [memory] = await model.memory();
    const running = failing(model.generate(prompt, options).answer);
    const left = await model.dispose();
    const after = await Promise.all([model.generate(prompt).answer, model.memory(), model.tokenize("x"), model.stats()].map(failing));
    const again = await model.dispose();
    const runtime = await Runtime.open({ device: "cpu" });
    const used = await runtime.memory();
    const rest = await runtime.dispose();
    const op = await failing(runtime.op("softmax", { x: [1, 2] }));
    return { whole: whole.text, cut: cut.text, streamed, events, memory, running: await running, left, after, again, used, rest, op };
  }, { argument: PROMPT });
  assert.equal(told.cut, told.whole);
  assert.equal(told.streamed, told.whole);
  assert.deepEqual(told.events, [["devicelost", "string"], ["recovered", "number"]]);
  const { weights, kv, total, peak, pipelines } = told.memory;
  assert.ok(weights > 1e6 && kv > 0 && total >= weights + kv && peak >= total && pipelines > 0, JSON.stringify(told.memory));
  const closed = { name: "ShardlightError", code: "closed" };
  for (const error of [told.running, ...told.after, told.op]) assert.deepEqual(error, closed);
  assert.deepEqual([told.left[0].total, told.left[0].pipelines], [0, 0]);
  assert.deepEqual(told.again, []);
  assert.equal(told.used.length, 1);
  assert.equal(told.rest[0].total, 0);
});

/** Loads on a GPU that is not there, and on whatever there is. */
async function withoutGpu({ Shardlight }, prompt) {
  const refused = await Shardlight.load("builtin:tiny", { device: "gpu" }).catch(({ name, code, message }) => ({ name, code, message }));
  const model = await Shardlight.load("builtin:tiny");
  const { text } = await model.generate(prompt, { raw: true, maxTokens: 3 });
  await model.dispose();
  const { info, adapter } = model.loaded;
  return { refused, text, kind: info.device.kind, noGpu: info.noGpu, adapter, gpu: "gpu" in navigator };
}

const WITHOUT = {
  "no WebGPU in an insecure page": {
    gpu: false,
    flags: ["--host-resolver-rules=MAP insecure.test 127.0.0.1"],
    url: (address) => address.replace("127.0.0.1", "insecure.test"),
    expected: /^The Cross-Origin-Opener-Policy header has been ignored/,
  },
  "a browser that offers no adapter": { gpu: true, webgpu: false },
};
for (const [name, { gpu, ...options }] of Object.entries(WITHOUT)) {
  test(`${name} is told, and the CPU does it`, async () => {
    const told = await inPage(withoutGpu, { argument: PROMPT, ...options });
    assert.equal(told.gpu, gpu);
    assert.equal(told.refused.name, "ShardlightError");
    assert.equal(told.refused.code, "device");
    assert.match(told.refused.message, /^device gpu: this browser offers no WebGPU adapter; there is CPU/);
    assert.equal(told.kind, "CPU");
    assert.equal(told.adapter, null);
    assert.ok(told.text.length > 0 && told.noGpu.includes("no WebGPU adapter"), JSON.stringify(told));
  });
}
