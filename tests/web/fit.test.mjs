// `Shardlight.check`: what a model needs and how fast it would be, told before its data is fetched.

import assert from "node:assert/strict";
import { mkdtemp, open as openFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { open } from "./harness.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** A GGUF of llama's kind with F16 weights that takes no room on disk: behind its header there is a hole. */
async function writeHollow(path, { layers, channels, hidden, heads, kvHeads, vocab, context }) {
  const parts = [];
  const u32 = (n) => parts.push(Buffer.from(Uint32Array.of(n).buffer));
  const u64 = (n) => parts.push(Buffer.from(BigUint64Array.of(BigInt(n)).buffer));
  const text = (s) => { u64(Buffer.byteLength(s)); parts.push(Buffer.from(s)); };
  const keys = {
    block_count: layers, embedding_length: channels, feed_forward_length: hidden, context_length: context,
    "attention.head_count": heads, "attention.head_count_kv": kvHeads, "rope.dimension_count": channels / heads,
    vocab_size: vocab,
  };
  const kv = (channels / heads) * kvHeads;
  const tensors = [["token_embd.weight", channels, vocab], ["output_norm.weight", channels]];
  for (let i = 0; i < layers; i++) {
    const named = (name, ...shape) => tensors.push([`blk.${i}.${name}.weight`, ...shape]);
    for (const norm of ["attn_norm", "ffn_norm"]) named(norm, channels);
    named("attn_q", channels, channels);
    named("attn_k", channels, kv);
    named("attn_v", channels, kv);
    named("attn_output", channels, channels);
    named("ffn_gate", channels, hidden);
    named("ffn_up", channels, hidden);
    named("ffn_down", hidden, channels);
  }
  parts.push(Buffer.from("GGUF"));
  u32(3);
  u64(tensors.length);
  u64(Object.keys(keys).length + 2);
  text("general.architecture");
  u32(8);
  text("llama");
  for (const [key, value] of Object.entries(keys)) {
    text(`llama.${key}`);
    u32(4);
    u32(value);
  }
  text("llama.attention.layer_norm_rms_epsilon");
  u32(6);
  parts.push(Buffer.from(Float32Array.of(1e-5).buffer));
  let offset = 0;
  for (const [name, ...shape] of tensors) {
    text(name);
    u32(shape.length);
    shape.forEach(u64);
    // Norms are F32, ggml's type 0; matrices F16, type 1.
    u32(shape.length === 1 ? 0 : 1);
    u64(offset);
    const bytes = shape.reduce((a, b) => a * b, 1) * (shape.length === 1 ? 4 : 2);
    offset += Math.ceil(bytes / 32) * 32;
  }
  const head = Buffer.concat(parts);
  const file = await openFile(path, "w");
  await file.write(head);
  await file.truncate(Math.ceil(head.length / 32) * 32 + offset);
  await file.close();
  return offset;
}

async function withPage(extra, body) {
  const opened = await open(join(root, "www/dist"), { extra });
  try {
    opened.page.setDefaultTimeout(300_000);
    return await body(opened);
  } finally {
    await opened.close();
  }
}

test("a model that fits is told so, with what it needs on each device", async () => {
  await withPage({}, async ({ page, errors }) => {
    for (const device of ["cpu", "gpu"]) {
      const { fit, shards } = await page.evaluate(async (device) => {
        const { Shardlight } = window.shardlight;
        const fit = await Shardlight.check("builtin:tiny", { device, contextLength: 256 });
        const model = await Shardlight.load("builtin:tiny", { device, contextLength: 256 });
        const shards = await model.shards();
        model.close();
        return { fit, shards };
      }, device);
      assert.equal(fit.fits, true, JSON.stringify(fit));
      assert.deepEqual([fit.problems, fit.advice], [[], []]);
      assert.equal(fit.architecture, "llama");
      assert.equal(fit.contextLength, 256);
      assert.equal(fit.memory.kv, shards[0].cacheBytes);
      assert.ok(fit.memory.weights >= shards[0].bytes, `${fit.memory.weights} for ${shards[0].bytes}`);
      assert.equal(fit.memory.total, fit.memory.weights + fit.memory.kv + fit.memory.activations);
      assert.ok(fit.variants.length > 5);
      assert.ok(fit.limits.maxBindingBytes >= 128 << 20);
      const { decode, prefill } = fit.speed ?? {};
      console.log(`${device}: ${fit.memory.total} bytes, decode ${decode} tokens/s, prefill ${prefill}, ${fit.variants.length} variants`);
    }
    assert.deepEqual(errors, []);
  });
});

test("a model that is too large is told by its header alone, with a way out", async () => {
  const folder = await mkdtemp(join(tmpdir(), "shardlight-"));
  try {
    const path = join(folder, "large.gguf");
    const [channels, vocab] = [2560, 262144];
    const embedding = 2 * channels * vocab;
    const bytes = await writeHollow(path, { layers: 32, channels, hidden: 6912, heads: 20, kvHeads: 4, vocab, context: 8192 });
    assert.ok(bytes > 4 * 2 ** 30);
    await withPage({ "/large.gguf": path }, async ({ page, requests, url }) => {
      const { fit, milliseconds } = await page.evaluate(async (url) => {
        const start = performance.now();
        const fit = await window.shardlight.Shardlight.check(`${url}/large.gguf`, { device: "cpu" });
        return { fit, milliseconds: performance.now() - start };
      }, url);
      assert.equal(fit.fits, false);
      assert.ok(fit.parameters > 2e9);
      assert.match(fit.problems.join(), /^needs \d+ MiB of device memory \(weights \d+, keys and values \d+\), there are \d+$/);
      assert.match(fit.advice.join(), /4-bit weights \(Q4_0, about \d+ MiB\)/);
      assert.ok(fit.speed.decode > 0);
      const fetched = requests.filter(({ path }) => path === "/large.gguf").map(({ range }) => /(\d+)-(\d+)/.exec(range));
      const total = fetched.reduce((sum, [, first, last]) => sum + Number(last) - Number(first) + 1, 0);
      console.log(`checked in ${milliseconds.toFixed(0)} ms with ${fetched.length} ranges of ${total} bytes, ${fit.speed.decode.toFixed(2)} tokens/s`);
      assert.ok(total < 4 << 20, `${total} bytes were fetched`);
      const gpu = await page.evaluate((url) => window.shardlight.Shardlight.check(`${url}/large.gguf`, { device: "gpu" }), url);
      console.log(`bindings of ${gpu.limits.maxBindingBytes} bytes`);
      assert.equal(gpu.sliced, embedding > gpu.limits.maxBindingBytes ? 1 : 0);
    });
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("what is no model is told as load tells it", async () => {
  await withPage({}, async ({ page, errors }) => {
    const told = await page.evaluate(async () => {
      const { Shardlight } = window.shardlight;
      const failing = (promise) => promise.then(() => null, ({ name, code, message }) => ({ name, code, message }));
      const aborted = new AbortController();
      const pending = failing(Shardlight.check("builtin:tiny", { device: "cpu", signal: aborted.signal }));
      aborted.abort(new Error("enough"));
      return {
        format: await failing(Shardlight.check(new Uint8Array([71, 71, 85, 70, 9]))),
        context: await failing(Shardlight.check("builtin:tiny", { device: "cpu", contextLength: 1e6 })),
        aborted: await pending,
      };
    });
    assert.equal(told.format.code, "format");
    assert.equal(told.context.code, "invalid");
    assert.match(told.context.message, /context of 1000000 tokens, this model allows 1 to/);
    assert.equal(told.aborted.message, "enough");
    assert.deepEqual(errors, []);
  });
});
