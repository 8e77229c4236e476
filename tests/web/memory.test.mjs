// A model larger than what a tab may take is loaded piece by piece: neither download nor upload ever has it whole.
//
// SHARDLIGHT_LARGE=1 takes one of 4 GB, which needs that much memory, and twice that much disk beyond what Chromium leaves free.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { open } from "./harness.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const dist = join(root, "www/dist");
const large = process.env.SHARDLIGHT_LARGE === "1";
/** A shape of `shardlight synth`, the least bytes that makes, and how many all heaps may take. */
const { shape, type, least, most } = large
  ? { shape: "mistral-7b", type: "q4_0", least: 4e9, most: 300e6 }
  : { shape: "llama3.2-1b", type: "q4_0", least: 600e6, most: 150e6 };

/** Asks the page's Workers for their heaps all the time; `most` is the largest sum that was seen: JavaScript, the browser's objects, ArrayBuffers. */
async function heaps(page) {
  const session = await page.context().newCDPSession(page);
  const seen = { most: 0, samples: 0, fields: {} };
  let running = true;
  let [last, waiting] = [0, new Map()];
  session.on("Target.receivedMessageFromTarget", ({ message }) => {
    const { id, result } = JSON.parse(message);
    waiting.get(id)?.(result);
  });
  const usage = (sessionId) => new Promise((resolve) => {
    const id = ++last;
    waiting.set(id, resolve);
    const message = JSON.stringify({ id, method: "Runtime.getHeapUsage" });
    session.send("Target.sendMessageToTarget", { sessionId, message }).catch(() => resolve());
  });
  session.on("Target.attachedToTarget", async ({ sessionId }) => {
    while (running) {
      const found = await usage(sessionId);
      if (!found) return;
      const { usedSize, embedderHeapUsedSize, backingStorageSize } = found;
      const sum = usedSize + embedderHeapUsedSize + backingStorageSize;
      seen.samples += 1;
      if (sum > seen.most) { [seen.most, seen.fields] = [sum, found]; }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  });
  await session.send("Target.setAutoAttach", { autoAttach: true, waitForDebuggerOnStart: false, flatten: false });
  // That it sees what there is:
  const hoard = async () => {
    const source = "const hoard = new Uint8Array(64 << 20).fill(1); postMessage(0); onmessage = () => hoard[0];";
    window.hoard = new Worker(URL.createObjectURL(new Blob([source])));
    await new Promise((resolve) => { window.hoard.onmessage = resolve; });
    await new Promise((resolve) => setTimeout(resolve, 500));
    window.hoard.terminate();
  };
  await page.evaluate(hoard);
  assert.ok(seen.most >= 64 << 20, `${seen.most} bytes of a Worker that has ${64 << 20}`);
  return { seen, stop: () => { running = false; } };
}

/** The most memory that a process of the browser with this word in its command line has had, shared memory included. */
function peaks(word) {
  const all = execFileSync("ps", ["-eo", "pid,args"], { encoding: "utf8" }).split("\n");
  return all.filter((line) => line.includes("shardlight-profile-") && line.includes(word)).map((line) => {
    const status = readFileSync(`/proc/${Number.parseInt(line)}/status`, "utf8");
    return Number(/VmHWM:\s+(\d+)/.exec(status)[1]) * 1024;
  });
}

test(`a model of ${least / 1e9} GB is loaded with less than ${most / 1e6} MB of heaps`, async (t) => {
  assert.ok(existsSync(join(dist, "index.html")), "www/dist is not built: run `npm run build` in www");
  const program = process.env.SHARDLIGHT_BIN;
  assert.ok(program, "SHARDLIGHT_BIN names no program; `cargo xtest browser` sets it");
  const folder = await mkdtemp(join(tmpdir(), "shardlight-memory-"));
  let opened;
  try {
    const file = join(folder, "model.gguf");
    execFileSync(program, ["synth", "--quiet", "--shape", shape, "--type", type, file]);
    const { size } = statSync(file);
    assert.ok(size >= least, `${size} bytes`);
    opened = await open(dist, { extra: { "/model.gguf": file }, profile: true });
    const { page } = opened;
    page.setDefaultTimeout(1_200_000);
    const { seen, stop } = await heaps(page);
    const measure = async (name) => {
      Object.assign(seen, { most: 0, samples: 0 });
      const begin = Date.now();
      const { wasmBytes, phases, notStored } = await page.evaluate(async () => {
        const phases = new Set();
        const onProgress = ({ phase }) => phases.add(phase);
        const url = new URL("model.gguf", location.href).href;
        const model = await window.shardlight.Shardlight.load(url, { device: "gpu", contextLength: 64, onProgress });
        model.close();
        return { ...model.loaded, phases: [...phases] };
      });
      const seconds = ((Date.now() - begin) / 1000).toFixed(1);
      const sum = seen.most + wasmBytes;
      const mb = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
      t.diagnostic(`${name}: ${mb(size)} in ${seconds} s; at most ${mb(seen.most)} of JavaScript in ${seen.samples} samples and ${mb(wasmBytes)} of wasm; ` +
        `processes: page ${mb(Math.max(...peaks("--type=renderer")))}, GPU ${mb(Math.max(...peaks("--type=gpu-process")))}`);
      assert.equal(notStored, null);
      assert.equal(phases.includes("download"), name === "download");
      assert.ok(seen.samples > 20, `${seen.samples} samples`);
      assert.ok(sum < most, `${name}: ${sum} bytes of heaps, at most ${most}`);
    };
    await measure("download");
    await measure("from the store");
    stop();
  } finally {
    await opened?.close();
    await rm(folder, { recursive: true });
  }
});
