// The benchmarks of tests/bench/web: that both sides run, and compute the same.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { withOperators } from "../bench/web/operators.mjs";
import { CASES } from "../bench/web/page/cases.mjs";
import { line, markdown, table, write } from "../bench/web/report.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const tiny = join(root, "core/data/tiny.gguf");

function bench(...args) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, "tests/bench/web/bench.mjs"), ...args], { encoding: "utf8" });
  return { status, stdout, stderr };
}

test("a run tells every figure of both sides, as JSON", () => {
  const args = ["--model", tiny, "--prompt", "32", "--gen", "16", "--runs", "1", "--only", "wllama", "--json"];
  const { status, stdout, stderr } = bench(...args);
  assert.equal(status, 0, stderr);
  // Both are greedy and read the same weights.
  assert.ok(!stderr.includes("the texts differ"), stderr);
  const { hardware, versions, ratios } = JSON.parse(stdout);
  assert.ok(hardware.cpu && hardware.threads > 0);
  assert.match(versions["@wllama/wllama"], /^\d+\.\d+\.\d+$/);
  assert.match(versions.Chromium, /^\d+\./);
  assert.equal(ratios.length, 14);
  for (const { name, ours, peer, ratio } of ratios) {
    const measured = process.platform === "linux" || !name.includes("memory");
    for (const value of [ours, peer, ratio]) assert.ok(measured ? value > 0 : value === null, `${name}: ${value}`);
  }
  const bytes = readFileSync(tiny).length / 2 ** 20;
  for (const { name, ours, peer } of ratios.filter(({ name }) => name.includes("model over"))) {
    for (const sent of [ours, peer]) assert.ok(sent >= bytes && sent < 1.5 * bytes, `${name}: ${sent} MiB of ${bytes}`);
  }
  console.log(stderr.trim().split("\n").at(-1));
});

test("onnxruntime-web computes what we compute, and both are timed", async () => {
  await withOperators(async ({ opened, ask }) => {
    assert.notEqual(opened.device.kind, "CPU");
    for (const [index, { title }] of CASES.small.entries()) {
      const error = await ask("difference", "small", index);
      assert.ok(error < 1e-10, `${title}: NMSE ${error}`);
      const { ours, peer } = await ask("times", "small", index, 1);
      assert.ok(ours[0] > 0 && peer[0] > 0, title);
      console.log(`${title}: NMSE ${error.toExponential(1)}`);
    }
  });
});

test("a report has medians, and ratios above 1 where we are ahead", () => {
  const fast = line("decode", "tokens/s", [30, 10, 20], [5, 5, 11], { goal: 4 });
  assert.deepEqual([fast.ours, fast.peer, fast.ratio], [20, 5, 4]);
  const slow = line("load", "s", [3, 1], [1, 1], { less: true, goal: 1 });
  assert.deepEqual([slow.ours, slow.ratio], [2, 0.5]);
  const unknown = line("memory", "MiB", [null], [null], { less: true });
  assert.equal(unknown.ratio, null);
  const lines = table([fast, slow, unknown]).split("\n");
  assert.match(lines[1], /4\.00 +≥ 4: met$/);
  assert.match(lines[2], /0\.500 +≥ 1: missed$/);
  assert.match(lines[3], /not measured/);
  const folder = mkdtempSync(join(tmpdir(), "shardlight-bench-"));
  try {
    const path = join(folder, "README.md");
    const hardware = { cpu: "a CPU", threads: 2, memoryGiB: 4, system: "linux x64" };
    const text = markdown({ hardware, versions: { node: "20" }, settings: "1 run", ratios: [fast] }, "node bench.mjs");
    writeFileSync(path, "before\n<!-- tests/bench/web: begin -->\nold\n<!-- tests/bench/web: end -->\nafter\n");
    for (let i = 0; i < 2; i++) {
      write(path, text);
      assert.equal(readFileSync(path, "utf8"), `before\n<!-- tests/bench/web: begin -->\n${text}\n<!-- tests/bench/web: end -->\nafter\n`);
    }
    writeFileSync(path, "nothing");
    assert.throws(() => write(path, text), /no "<!-- tests\/bench\/web: begin -->"/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("bad options and missing files are one line", () => {
  for (const [args, told] of [
    [["--runs", "0"], "--runs 0: give a number from 1 to 9999"],
    [["--threads", "1,x"], "--threads x: give a number from 1 to 9999"],
    [["--size", "huge"], "--size huge: full or small"],
    [["--only", "nothing"], "--only nothing: nothing has that in its name; --only list lists them"],
    [["--write", "--only", "matmul"], "--write replaces the whole table: leave out --only and --size"],
    [["--model", "missing.gguf", "--only", "wllama"], "missing.gguf: missing; give a GGUF"],
  ]) {
    const { status, stdout, stderr } = bench(...args);
    assert.deepEqual([status, stdout, stderr.trim()], [1, "", told], args.join(" "));
  }
});
