// One operator by our Runtime and by onnxruntime-web, in turn, both on WebGPU.

import * as ort from "../node_modules/onnxruntime-web/dist/ort.webgpu.min.mjs";
import { Runtime } from "/www/lib/index.js";
import { CASES } from "./cases.mjs";
import { model } from "./onnx.mjs";

ort.env.wasm.wasmPaths = new URL("../node_modules/onnxruntime-web/dist/", import.meta.url).href;
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";

let runtime;

/** Opens our device; what it is. */
export async function open() {
  runtime = await Runtime.open({ device: "gpu" });
  return { device: runtime.device, version: ort.env.versions.web };
}

/** What onnxruntime-web does with a case: its input on the GPU and its output left there, or read with `read`. */
async function peer({ feeds, output, graph }, read) {
  const inputs = Object.fromEntries(Object.entries(feeds).map(([name, { shape }]) => [name, shape]));
  const bytes = model({ ...graph, inputs, outputs: { y: output } });
  const session = await ort.InferenceSession.create(bytes, {
    executionProviders: ["webgpu"],
    preferredOutputLocation: read ? "cpu" : "gpu-buffer",
    // Nothing shall go to the CPU unseen.
    extra: { session: { disable_cpu_ep_fallback: "1" } },
  });
  const device = await ort.env.webgpu.device;
  const given = {};
  const buffers = [];
  for (const [name, { shape, data }] of Object.entries(feeds)) {
    const { STORAGE, COPY_DST, COPY_SRC } = GPUBufferUsage;
    const size = Math.ceil(data.byteLength / 16) * 16;
    const buffer = device.createBuffer({ size, usage: STORAGE | COPY_DST | COPY_SRC });
    device.queue.writeBuffer(buffer, 0, data);
    buffers.push(buffer);
    given[name] = ort.Tensor.fromGpuBuffer(buffer, { dataType: "float32", dims: shape });
  }
  return {
    async values() {
      const { y } = await session.run(given);
      return y.data;
    },
    /** Milliseconds of a run, to its end on the device, as `Runtime.time` counts. */
    async time() {
      await device.queue.onSubmittedWorkDone();
      const begin = performance.now();
      const { y } = await session.run(given);
      await device.queue.onSubmittedWorkDone();
      const ms = performance.now() - begin;
      y.dispose();
      return ms;
    },
    async close() {
      await session.release();
      for (const buffer of buffers) buffer.destroy();
    },
  };
}

/** Sum of squared differences over the sum of squares. */
function nmse(got, want) {
  if (got.length !== want.length) throw new Error(`${got.length} values, not ${want.length}`);
  let [error, power] = [0, 0];
  for (let i = 0; i < want.length; i++) {
    error += (got[i] - want[i]) ** 2;
    power += want[i] ** 2;
  }
  return error / power;
}

/** How far the two are apart. */
export async function difference(size, index) {
  const one = CASES[size][index].make();
  const theirs = await peer(one, true);
  try {
    const ours = await runtime.op(...one.ours);
    return nmse(ours.y.data, await theirs.values());
  } finally {
    await theirs.close();
  }
}

/** Milliseconds of `runs` runs of each, in turn, after one that does not count. */
export async function times(size, index, runs) {
  const one = CASES[size][index].make();
  const theirs = await peer(one, false);
  const told = { flops: one.flops ?? null, ours: [], peer: [] };
  try {
    await theirs.time();
    // Two at a time, since each call of ours begins with a run that does not count.
    while (told.ours.length < runs) {
      told.ours.push(...(await runtime.time(...one.ours, Math.min(2, runs - told.ours.length))));
      while (told.peer.length < told.ours.length) told.peer.push(await theirs.time());
    }
  } finally {
    await theirs.close();
  }
  return told;
}
