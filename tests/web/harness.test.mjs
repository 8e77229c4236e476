// The harness itself: without these, a browser that has lost WebGPU would let other tests fall back to wasm.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, open, serve } from "./harness.mjs";

let folder;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "shardlight-harness-"));
  await writeFile(join(folder, "index.html"), "<!doctype html><link rel=icon href=data:,><title>harness</title>");
  await writeFile(join(folder, "bytes.bin"), Uint8Array.from({ length: 100 }, (_, i) => i));
});
after(() => rm(folder, { recursive: true }));

test("the page is cross-origin isolated and its WebGPU device computes", async () => {
  const { page, errors, close } = await open(folder);
  try {
    assert.equal(await page.evaluate(() => crossOriginIsolated), true);
    const doubled = await page.evaluate(async () => {
      const adapter = await navigator.gpu.requestAdapter();
      const device = await adapter.requestDevice();
      const code = "@group(0) @binding(0) var<storage, read_write> x: array<u32>;\
        @compute @workgroup_size(4) fn main(@builtin(local_invocation_index) i: u32) { x[i] = x[i] * 2u; }";
      const module = device.createShaderModule({ code });
      const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module } });
      const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
      const buffer = device.createBuffer({ size: 16, usage: STORAGE | COPY_SRC | COPY_DST });
      const back = device.createBuffer({ size: 16, usage: MAP_READ | COPY_DST });
      device.queue.writeBuffer(buffer, 0, Uint32Array.of(1, 2, 3, 4));
      const entries = [{ binding: 0, resource: { buffer } }];
      const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(1);
      pass.end();
      encoder.copyBufferToBuffer(buffer, 0, back, 0, 16);
      device.queue.submit([encoder.finish()]);
      await back.mapAsync(GPUMapMode.READ);
      return [...new Uint32Array(back.getMappedRange())];
    });
    assert.deepEqual(doubled, [2, 4, 6, 8]);
    assert.deepEqual(errors, []);
  } finally {
    await close();
  }
});

test("errors of a page and of its worker are kept", async () => {
  const { page, errors, close } = await launch();
  try {
    await page.evaluate(async () => {
      console.error("from the page");
      const source = "console.error('from the worker'); postMessage(0)";
      const worker = new Worker(URL.createObjectURL(new Blob([source])));
      await new Promise((resolve) => (worker.onmessage = resolve));
    });
    await page.waitForTimeout(200);
    assert.deepEqual(errors, ["from the page", "from the worker"]);
  } finally {
    await close();
  }
});

test("byte ranges are served as asked, and refused past the end", async () => {
  const server = await serve(folder, { "/model.gguf": join(folder, "bytes.bin") });
  try {
    const get = async (path, range) => {
      const response = await fetch(server.url + path, { headers: range ? { Range: range } : {} });
      return [response.status, response.status < 300 ? [...new Uint8Array(await response.arrayBuffer())] : null];
    };
    assert.deepEqual(await get("/bytes.bin", "bytes=3-5"), [206, [3, 4, 5]]);
    assert.deepEqual(await get("/model.gguf", "bytes=98-"), [206, [98, 99]]);
    assert.deepEqual(await get("/bytes.bin", "bytes=-2"), [206, [98, 99]]);
    assert.deepEqual(await get("/bytes.bin", "bytes=100-200"), [416, null]);
    assert.equal((await get("/bytes.bin"))[1].length, 100);
    assert.deepEqual(await get("/missing"), [404, null]);
    assert.deepEqual(server.requests[0], { path: "/bytes.bin", range: "bytes=3-5", bytes: 3 });
  } finally {
    await server.close();
  }
});
