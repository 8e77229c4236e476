// The Explore page and `Runtime` as a user has them, in Chromium: operators give the recorded results.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { open } from "./harness.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const dist = join(root, "www/dist");
const layers = join(root, "tests/data/layers");

async function withPage(body) {
  assert.ok(existsSync(join(dist, "explore.html")), "www/dist is not built: run `npm run build` in www");
  const opened = await open(dist, { path: "/explore.html" });
  try {
    opened.page.setDefaultTimeout(300_000);
    await body(opened.page);
    assert.deepEqual(opened.errors, []);
  } finally {
    await opened.close();
  }
}

const ready = (page) => page.locator("#status[data-state=ready], #status[data-state=error]").waitFor();

/** Metadata and tensors of a safetensors file; integers become numbers too. */
function safetensors(path) {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const { __metadata__: metadata, ...header } = JSON.parse(file.subarray(8, 8 + length));
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    const bytes = file.subarray(8 + length + data_offsets[0], 8 + length + data_offsets[1]);
    const data = dtype === "F32"
      ? Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i))
      : Array.from({ length: bytes.length / 8 }, (_, i) => Number(bytes.readBigInt64LE(8 * i)));
    tensors[name] = { whole: dtype !== "F32", data, shape };
  }
  return { metadata, tensors };
}

const nmse = (got, want) => {
  const error = want.reduce((sum, w, i) => sum + (w - got[i]) ** 2, 0);
  return error / (want.reduce((sum, w) => sum + w * w, 0) || 1);
};

for (const device of ["cpu", "gpu"]) {
  test(`operators give PyTorch's recorded results on ${device}`, () =>
    withPage(async (page) => {
      await page.evaluate(async (device) => {
        window.runtime = await window.shardlight.Runtime.open({ device });
      }, device);
      const ops = await page.evaluate(() => window.runtime.ops);
      let compared = 0;
      for (const name of readdirSync(layers).filter((name) => name.endsWith(".safetensors"))) {
        const { metadata, tensors } = safetensors(join(layers, name));
        const { kind, ...settings } = metadata;
        const forward = ops.find((op) => op.name === kind) ?? ops.find((op) => op.also.includes(kind));
        assert.ok(forward, `no operator for ${kind}`);
        const backward = ops.find((op) => op.name === `${forward.name}_backward`);
        for (const op of [forward, backward]) {
          if (!op?.outputs.some((output) => output.name in tensors)) continue;
          const inputs = op.inputs.map((input) => input.name).filter((input) => input in tensors);
          const outputs = await page.evaluate(
            async ([name, given, settings]) => {
              const typed = ([input, { whole, data, shape }]) => [input, { data: whole ? new Int32Array(data) : new Float32Array(data), shape }];
              const outputs = await window.runtime.op(name, Object.fromEntries(given.map(typed)), settings);
              return Object.fromEntries(Object.entries(outputs).map(([output, { data, shape }]) => [output, { data: [...data], shape }]));
            },
            [op.name, inputs.map((input) => [input, tensors[input]]), settings],
          );
          for (const [output, { data }] of Object.entries(outputs)) {
            if (!(output in tensors)) continue;
            const error = nmse(data, tensors[output].data);
            assert.ok(data.length === tensors[output].data.length && error <= op.bound, `${name}: ${op.name} ${output}: NMSE ${error}`);
            compared += 1;
          }
        }
      }
      console.log(`${compared} tensors of tests/data/layers compared on ${device}`);
      assert.ok(compared > 80);
    }));
}

test("a wrong call is one line, and nested arrays are taken", () =>
  withPage(async (page) => {
    const said = await page.evaluate(async () => {
      const runtime = await window.shardlight.Runtime.open({ device: "cpu" });
      const refused = [];
      const calls = [
        ["linear", { x: [[1, 2]], weight: [[1]] }],
        ["rms_norm", { x: [[1, 2], [3]] }],
        ["rms_norm", { x: "no" }],
        ["rms_norm", { x: [1] }, { epsilon: 1 }],
        ["nonsense", {}],
      ];
      for (const [name, inputs, settings] of calls) {
        await runtime.op(name, inputs, settings).then(() => refused.push("taken"), (error) => refused.push(error.message));
      }
      const { y } = await runtime.op("rms_norm", { x: [[3, 4]] }, { eps: 0 });
      return { refused, y: [...y.data], shape: y.shape };
    });
    assert.equal(said.refused[0], "linear: weight has shape (1 1), expected (N K) = (N 2)");
    assert.match(said.refused[1], /^rms_norm: x: a nested array has 1 elements, the first one 2$/);
    assert.match(said.refused[2], /^rms_norm: x: expected \{data: a typed array/);
    assert.match(said.refused[3], /^rms_norm: unknown setting "epsilon"/);
    assert.match(said.refused[4], /^no operator is called "nonsense"; supported: /);
    assert.deepEqual(said.shape, [1, 2]);
    assert.ok(Math.abs(said.y[0] - 3 / Math.sqrt(12.5)) < 1e-6);
  }));

test("Explore draws ReLU beside SiLU, and measures the four feed-forward blocks", () =>
  withPage(async (page) => {
    await ready(page);
    assert.equal(await page.getAttribute("#choices", "data-drawn"), "relu silu");
    assert.equal(await page.locator(".chart canvas").count(), 2);
    await page.check("#choices input[value=gelu]");
    await page.waitForFunction(() => document.getElementById("choices").dataset.drawn === "relu silu gelu");
    await page.fill("#channels", "64");
    await page.fill("#tokens", "4");
    await page.click("#start");
    await page.locator("#status[data-state=measuring]").waitFor();
    await ready(page);
    const rows = await page.locator("#blocks tbody tr").allInnerTexts();
    assert.deepEqual(rows.map((row) => row.split("\t")[0]), ["mlp", "gated_mlp", "transformer_ffn", "llama3_feed_forward"]);
    for (const row of rows) assert.match(row, /\t\d[\d.,]* ms\t/);
    const shots = process.env.SHARDLIGHT_SHOTS;
    if (!shots) return;
    mkdirSync(shots, { recursive: true });
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width: 1100, height: 900 });
      await page.waitForTimeout(500);
      await page.screenshot({ path: join(shots, `explore-${colorScheme}.png`), fullPage: true });
      await page.setViewportSize({ width: 390, height: 800 });
      await page.waitForTimeout(500);
      await page.screenshot({ path: join(shots, `explore-${colorScheme}-phone.png`), fullPage: true });
    }
  }));
