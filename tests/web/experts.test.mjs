// The Experts page in Chromium: what a mixture counts while it writes, and routers on recorded inputs.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { open } from "./harness.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const dist = join(root, "www/dist");
/** Of `builtin:tiny-moe`. */
const [EXPERTS, CHOSEN] = [8, 2];

async function withPage(body) {
  assert.ok(existsSync(join(dist, "experts.html")), "www/dist is not built: run `npm run build` in www");
  const opened = await open(dist, { path: "/experts.html" });
  try {
    opened.page.setDefaultTimeout(300_000);
    await body(opened.page);
    assert.deepEqual(opened.errors, []);
  } finally {
    await opened.close();
  }
}

async function settled(page, id = "status") {
  const status = page.locator(`#${id}[data-state=ready], #${id}[data-state=error]`);
  await status.waitFor();
  return { state: await status.getAttribute("data-state"), text: await status.textContent() };
}

const whole = (text) => Number(text.replaceAll(",", ""));

/** The numbers of the table of layers and experts, and its last row's. */
const heat = async (page, part) => {
  await page.selectOption("#part", part);
  const rows = await page.locator("#heat :is(tbody, tfoot) tr").evaluateAll((all) => all.map((row) => [...row.cells].map((cell) => cell.textContent)));
  const numbers = rows.map((row) => row.slice(1, 1 + EXPERTS).map(whole));
  return { layers: numbers.slice(0, -1), all: numbers.at(-1), last: rows.at(-1) };
};

const sum = (list) => list.reduce((all, value) => all + value, 0);

for (const device of ["cpu", "gpu"]) {
  test(`a mixture's tokens are counted while it writes on ${device}`, () =>
    withPage(async (page) => {
      const maxTokens = device === "cpu" ? 40 : 12;
      await page.selectOption("#device", device);
      await page.click("#load");
      await page.locator("#status:not([data-state=idle])").waitFor();
      const loaded = await settled(page);
      assert.equal(loaded.state, "ready", loaded.text);
      await page.fill("#max-tokens", String(maxTokens));
      await page.click("#generate");
      await page.locator("#status[data-state=ready]", { hasText: "tokens/s" }).waitFor();
      const both = await heat(page, "both");
      const [prompt, answer] = [await heat(page, "prompt"), await heat(page, "answer")];
      // The last token is not computed.
      assert.deepEqual(answer.layers.map(sum), answer.layers.map(() => (maxTokens - 1) * CHOSEN));
      const { tokens, pairs } = await page.locator("#live").evaluate((live) => ({ ...live.dataset }));
      assert.ok(Number(tokens) > maxTokens, tokens);
      assert.deepEqual(both.layers.map(sum), both.layers.map(() => tokens * CHOSEN));
      assert.equal(Number(pairs), tokens * CHOSEN * both.layers.length);
      assert.deepEqual(both.layers, prompt.layers.map((row, i) => row.map((value, e) => value + answer.layers[i][e])));
      assert.deepEqual(both.all, both.all.map((_, e) => sum(both.layers.map((row) => row[e]))));
      // Its entropy and the largest over the mean.
      const [entropy, mostToMean] = both.last.slice(1 + EXPERTS).map(Number);
      assert.ok(entropy > 0 && entropy <= Math.log2(EXPERTS), `${entropy}`);
      assert.equal(mostToMean, Number(((Math.max(...both.all) * EXPERTS) / sum(both.all)).toFixed(2)));
      assert.equal(await page.locator("#histogram rect").count(), 2 * EXPERTS);
      assert.ok(await page.locator("#cache").isHidden());
      // The same prompt again gives the same numbers: only what is new counts.
      await page.locator("#live").evaluate((live) => delete live.dataset.pairs);
      await page.click("#generate");
      await page.locator("#live[data-pairs]").waitFor();
      await settled(page);
      assert.deepEqual(await heat(page, "both"), both);
    }));
}

test("a dense model is told to have no experts, and a cache of them to be one", () =>
  withPage(async (page) => {
    await page.selectOption("#device", "cpu");
    await page.selectOption("#model", "file");
    await page.setInputFiles("#file", join(root, "core/data/tiny.gguf"));
    await page.click("#load");
    await page.locator("#status:not([data-state=idle])").waitFor();
    assert.deepEqual(await settled(page), { state: "error", text: "tiny.gguf is not a mixture of experts; choose one that is" });
    assert.ok(await page.isDisabled("#generate"));

    await page.selectOption("#model", "builtin:tiny-moe");
    await page.fill("#expert-cache", "0.5");
    await page.click("#load");
    await page.locator("#status:not([data-state=error])").waitFor();
    assert.equal((await settled(page)).state, "ready");
    await page.fill("#max-tokens", "8");
    await page.click("#generate");
    await page.locator("#status[data-state=ready]", { hasText: "tokens/s" }).waitFor();
    assert.match(await page.textContent("#cache"), /^Cache: \d+ of \d+ experts in \d+ KiB, found [\d.]+ % of the time, [\d.]+ [KM]iB read, \d+ read ahead$/);
  }));

/** Metadata and tensors of a safetensors file as numbers. */
function safetensors(path) {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const { __metadata__: metadata, ...header } = JSON.parse(file.subarray(8, 8 + length));
  const read = { F32: [4, "readFloatLE"], I64: [8, "readBigInt64LE"], U8: [1, "readUInt8"] };
  const tensors = Object.entries(header).map(([name, { dtype, data_offsets: [first, end] }]) => {
    const [size, method] = read[dtype];
    return [name, Array.from({ length: (end - first) / size }, (_, i) => Number(file[method](8 + length + first + i * size)))];
  });
  return { metadata, tensors: Object.fromEntries(tensors) };
}

const RECORDED = [
  { file: "mixtral", router: "Mixtral", losses: ["aux"] },
  { file: "megatron_post_softmax", router: "Megatron-LM, softmax after the choice", losses: ["aux", "z"] },
  { file: "switch_cf1.25", router: "Switch top-1", losses: ["aux"] },
  { file: "noisy_top_k", router: "Noisy top-k", losses: ["loss"] },
];

/** How often each expert occurs. */
const counts = (experts) => Array.from({ length: EXPERTS }, (_, e) => experts.filter((expert) => expert === e).length);

test("routers give the recorded loads and losses", () =>
  withPage(async (page) => {
    await page.selectOption("#router-device", "cpu");
    await settled(page, "router-status");
    const column = (name) => page.locator(`#outputs td[data-name="${name}"]`).evaluateAll((all) => all.map((cell) => Number(cell.dataset.value)));
    const loss = async (name) => Number(await page.locator(`#losses dd[data-name="${name}"]`).getAttribute("data-value"));
    for (const { file, router, losses } of RECORDED) {
      const path = join(root, "tests/data/routers", `${file}.safetensors`);
      const { tensors } = safetensors(path);
      await page.selectOption("#router", { label: router });
      await page.setInputFiles("#recorded", path);
      await page.click("#route");
      await page.locator("#router-status:not([data-state=routing])").waitFor();
      const told = await settled(page, "router-status");
      assert.equal(told.state, "ready", `${router}: ${told.text}`);
      assert.match(told.text, /^23 tokens, 8 experts on /);
      assert.deepEqual(await column("assigned"), counts(tensors.experts), router);
      if (tensors.kept) {
        const lost = tensors.experts.filter((_, t) => tensors.kept[t] === 0);
        assert.deepEqual(await column("dropped"), counts(lost), router);
        assert.equal(await loss("capacity"), 3, router);
        assert.match(await page.textContent("#room"), new RegExp(`^: ${lost.length} of 23; the line is the capacity, 3$`));
        assert.equal(await page.locator("#loads .limit").count(), 1, router);
      }
      for (const name of losses) {
        // Mixtral's file has the paper's coefficient of one.
        const [got, want] = [await loss(name), tensors[name][0]];
        assert.ok(Math.abs(got - want) <= 1e-4 * Math.abs(want), `${router}: ${name} ${got}, recorded ${want}`);
      }
      if (tensors.importance) {
        const [importance, load] = [await column("importance"), await column("load")];
        for (const [got, want] of [[importance, tensors.importance], [load, tensors.load]]) {
          assert.ok(got.every((value, e) => Math.abs(value - want[e]) <= 1e-3), `${router}: ${got}, recorded ${want}`);
        }
        const cv2 = (values) => {
          const mean = sum(values) / EXPERTS;
          return sum(values.map((value) => (value - mean) ** 2)) / (EXPERTS - 1) / mean ** 2;
        };
        assert.ok(Math.abs((await loss("importance_cv2")) - cv2(tensors.importance)) <= 1e-4, router);
        assert.ok(Math.abs((await loss("load_cv2")) - cv2(tensors.load)) <= 1e-4, router);
      }
    }
  }));

test("every router routes an input that is drawn, and says what it cannot do", () =>
  withPage(async (page) => {
    await page.selectOption("#router-device", "cpu");
    await settled(page, "router-status");
    const routers = await page.locator("#router option").allTextContents();
    assert.ok(routers.length >= 10, routers.join());
    const route = async () => {
      await page.click("#route");
      await page.locator("#router-status:not([data-state=routing])").waitFor();
      return settled(page, "router-status");
    };
    const spread = async () => {
      const assigned = await page.locator(`#outputs td[data-name="assigned"]`).evaluateAll((all) => all.map((cell) => Number(cell.dataset.value)));
      return Math.max(...assigned) / (sum(assigned) / assigned.length);
    };
    for (const router of routers) {
      await page.selectOption("#router", { label: router });
      const told = await route();
      assert.match(told.text, /^256 tokens, 8 experts on /, router);
      assert.equal(await page.locator("#outputs tbody tr").count(), 8, router);
      assert.equal(await page.locator("#loads rect").count(), 16, router);
      assert.notEqual(await page.textContent("#formula"), "", router);
    }
    await page.selectOption("#router", { label: "Mixtral" });
    await page.fill("#skew", "0");
    await route();
    const even = await spread();
    await page.fill("#skew", "3");
    await route();
    assert.ok((await spread()) > even, "tokens that are alike go to the same experts");
    await page.fill("#settings [name=k]", "9");
    const refused = await route();
    assert.equal(refused.state, "error");
    assert.match(refused.text, /^mixtral_router: [^\n]*k 9 of 8 experts[^\n]*$/);

    await page.fill("#settings [name=k]", "2");
    await page.selectOption("#router", { label: "GShard top-2" });
    await page.fill("#skew", "0.5");
    await route();
    const shots = process.env.SHARDLIGHT_SHOTS;
    await page.selectOption("#device", "cpu");
    await page.click("#load");
    await page.locator("#status:not([data-state=idle])").waitFor();
    await settled(page);
    await page.click("#generate");
    await page.locator("#status[data-state=ready]", { hasText: "tokens/s" }).waitFor();
    for (const [colorScheme, size, width] of [["light", "", 1100], ["dark", "", 1100], ["light", "-phone", 390], ["dark", "-phone", 390]]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      const [scroll, inner] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(scroll <= inner, `the page is ${scroll} wide in a window of ${inner}`);
      if (!shots) continue;
      mkdirSync(shots, { recursive: true });
      await page.screenshot({ path: join(shots, `experts-${colorScheme}${size}.png`), fullPage: true });
    }
  }));
