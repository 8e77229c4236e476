// A model shared among ranks, and the Shards page, in Chromium: the text is the unsharded one.

import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { open } from "./harness.mjs";

const dist = join(fileURLToPath(new URL("../..", import.meta.url)), "www/dist");
const PROMPT = "One sunny day, a girl went to the";
const LAYOUTS = {
  cpu: [{ tp: 2 }, { tp: 3, sequenceParallel: true }, { tp: 2, pp: 2 }],
  gpu: [{ tp: 2 }, { pp: 2 }, { tp: 2, devices: ["gpu", "cpu"], split: [0.7, 0.3] }],
};

async function withPage(body) {
  assert.ok(existsSync(join(dist, "shards.html")), "www/dist is not built: run `npm run build` in www");
  const opened = await open(dist, { path: "/shards.html" });
  try {
    opened.page.setDefaultTimeout(300_000);
    await body(opened.page);
    assert.deepEqual(opened.errors, []);
  } finally {
    await opened.close();
  }
}

/** What a model of these options answers, holds and sends. */
const answered = (page, options, maxTokens, name = "builtin:tiny") =>
  page.evaluate(
    async ([prompt, options, maxTokens, name]) => {
      const model = await window.shardlight.Shardlight.load(name, options);
      const { text, tokens } = await model.generate(prompt, { raw: true, maxTokens });
      const traffic = await model.traffic();
      const logits = await model.logits([...(await model.tokenize(prompt)), ...tokens]);
      const shards = await model.shards();
      model.close();
      return { text, tokens, traffic, shards, logits: [...logits] };
    },
    [PROMPT, options, maxTokens, name],
  );

const nmse = (got, want) => {
  const error = want.reduce((sum, w, i) => sum + (w - got[i]) ** 2, 0);
  return error / want.reduce((sum, w) => sum + w * w, 0);
};

/** Do ranges in this order cover the whole from 0 to `end`, each element once, or with `repeats` at least once? */
function covers(ranges, end, what, repeats = false) {
  let at = 0;
  for (const [first, last] of ranges) {
    assert.ok((repeats ? first <= at : first === at) && last >= at && last > first, `${what}: ${JSON.stringify(ranges)}`);
    at = last;
  }
  assert.equal(at, end, `${what}: ${JSON.stringify(ranges)}`);
}

for (const [device, layouts] of Object.entries(LAYOUTS)) {
  test(`shards say what the whole model says on ${device}`, () =>
    withPage(async (page) => {
      const maxTokens = device === "cpu" ? 24 : 12;
      const whole = await answered(page, { device }, maxTokens);
      assert.equal(whole.tokens.length, maxTokens);
      assert.deepEqual([whole.traffic, whole.shards.length], [{}, 1]);
      const all = whole.shards[0];
      for (const layout of layouts) {
        const name = JSON.stringify(layout);
        const { tp = 1, pp = 1 } = layout;
        const told = await answered(page, { device, ...layout }, maxTokens);
        assert.deepEqual(told.tokens, whole.tokens, name);
        assert.equal(told.text, whole.text, name);
        const error = nmse(told.logits, whole.logits);
        assert.ok(error <= 1e-6, `${name}: NMSE ${error}`);
        assert.deepEqual(told.shards.map(({ rank }) => rank), [...Array(tp * pp).keys()], name);
        for (let stage = 0; stage < pp; stage++) {
          const ranks = told.shards.filter((shard) => shard.pp === stage);
          assert.deepEqual(ranks.map((shard) => shard.tp), [...Array(tp).keys()], name);
          for (const part of ["heads", "hidden", "vocab"]) {
            covers(ranks.map((shard) => shard[part]), all[part][1], `${name}: ${part}`);
          }
          covers(ranks.map((shard) => shard.kvHeads), all.kvHeads[1], `${name}: kvHeads`, true);
        }
        covers(told.shards.filter((shard) => shard.tp === 0).map((shard) => shard.layers), all.layers[1], `${name}: layers`);
        // Ranks do not each hold everything, and what they hold more than once they say.
        const sum = (key) => told.shards.reduce((total, shard) => total + shard[key], 0);
        assert.ok(told.shards.every((shard) => shard.bytes < 0.9 * all.bytes), name);
        if (pp === 1) assert.ok(sum("bytes") - sum("replicated") <= 1.05 * all.bytes, name);
        const bytes = (kind) => told.traffic[kind]?.bytes ?? 0;
        if (layout.sequenceParallel) assert.ok(bytes("reduce_scatter") > 0, name);
        if (tp > 1) assert.ok(bytes("all_reduce") > 0, name);
        if (pp > 1) assert.ok(bytes("send") > 0, name);
        const kinds = layout.devices ? 2 : 1;
        assert.equal(new Set(told.shards.map((shard) => shard.device.kind)).size, kinds, name);
      }
    }));
}

test("the built-in mixture of experts comes from beside the wasm and says the same with its experts apart", () =>
  withPage(async (page) => {
    const of = (options) => answered(page, { device: "cpu", ...options }, 24, "builtin:tiny-moe");
    const whole = await of({});
    assert.equal(whole.tokens.length, 24);
    const { bytes } = whole.shards[0];
    assert.ok(bytes > 1.9e6, String(bytes));
    for (const ranks of [2, 4]) {
      const apart = await of({ tp: ranks, ep: ranks });
      assert.deepEqual(apart.tokens, whole.tokens);
      const most = Math.max(...apart.shards.map((shard) => shard.bytes));
      assert.ok(apart.shards.length === ranks && most < (1.2 * bytes) / ranks, `ep ${ranks}: ${most} of ${bytes}`);
    }
  }));

const settled = async (page) => {
  const status = page.locator("#status[data-state=ready], #status[data-state=error]");
  await status.waitFor();
  return { state: await status.getAttribute("data-state"), text: await status.textContent() };
};

test("the panel shows who holds what, what is sent, and that nothing changes", () =>
  withPage(async (page) => {
    await page.selectOption("#devices", "cpu");
    await page.fill("#tp", "64");
    await page.click("#load");
    const refused = await settled(page);
    assert.equal(refused.state, "error");
    assert.match(refused.text, /^[^\n]*cannot split \d+ elements into 64 shards[^\n]*$/);
    assert.ok(await page.isDisabled("#compare"));

    await page.fill("#tp", "2");
    await page.fill("#pp", "2");
    await page.click("#load");
    await page.locator("#status:not([data-state=error])").waitFor();
    assert.deepEqual(await settled(page), { state: "ready", text: "4 ranks loaded." });
    assert.equal(await page.locator("#ranks tbody tr").count(), 4);
    assert.deepEqual(await page.locator("#parts figure").evaluateAll((all) => all.map((one) => one.querySelectorAll(".bar").length)), Array(6).fill(4));
    const rows = await page.locator("#traffic tbody tr").allInnerTexts();
    const sent = Object.fromEntries(rows.map((row) => row.split("\t")).map(([name, ...cells]) => [name, cells.map((text) => Number(text.replaceAll(",", "")))]));
    assert.ok(sent.all_reduce.every((count) => count > 0), JSON.stringify(sent));
    assert.ok(sent.send.every((count) => count > 0), JSON.stringify(sent));

    await page.fill("#prompt", PROMPT);
    await page.fill("#max-tokens", "16");
    await page.click("#compare");
    await page.locator("#outcome:not([hidden])").waitFor();
    const compared = await settled(page);
    assert.deepEqual(compared, { state: "ready", text: "Compared." });
    const { equal, nmse } = await page.locator("#verdict").evaluate((verdict) => ({ ...verdict.dataset }));
    assert.equal(equal, "true");
    assert.ok(Number(nmse) <= 1e-6, nmse);
    assert.notEqual(await page.textContent("#sharded"), "");
    assert.equal(await page.textContent("#sharded"), await page.textContent("#whole"));
    for (const id of ["sharded", "whole"]) {
      assert.match(await page.textContent(`#${id}-speed`), /^[\d.,]+ tokens\/s, first after \d+\.\d\d s, 16 tokens$/);
    }

    const shots = process.env.SHARDLIGHT_SHOTS;
    for (const [colorScheme, size, width] of [["light", "", 1100], ["dark", "", 1100], ["light", "-phone", 390], ["dark", "-phone", 390]]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      const [scroll, inner] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(scroll <= inner, `the page is ${scroll} wide in a window of ${inner}`);
      if (!shots) continue;
      mkdirSync(shots, { recursive: true });
      await page.screenshot({ path: join(shots, `shards-${colorScheme}${size}.png`), fullPage: true });
    }
  }));
