// What page tests share: axe, and screenshots in light, dark and on a phone.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = process.env.SHARDLIGHT_ARTIFACTS ?? join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "web-screenshots");
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Every rule that axe has, best practices included. */
export async function accessible(page, what) {
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const { violations } = await window.axe.run(document, { resultTypes: ["violations"] });
    return violations.map(({ id, help, nodes }) => `${id}: ${help}\n${nodes.map(({ html, failureSummary }) => `  ${html.slice(0, 160)}\n    ${failureSummary.split("\n").at(-1).trim()}`).join("\n")}`);
  });
  assert.deepEqual(found, [], `axe in ${what}:\n${found.join("\n")}`);
}

export const LOOKS = [
  { look: "light", colorScheme: "light", width: 1280, height: 800 },
  { look: "dark", colorScheme: "dark", width: 1280, height: 800 },
  { look: "phone", colorScheme: "light", width: 390, height: 844 },
  { look: "phone-dark", colorScheme: "dark", width: 390, height: 844 },
];

/** In every look: nothing for axe to find, no sideways scrolling, and a screenshot. `arrange` is run before each. */
export async function looksWell(page, name, arrange = async () => {}) {
  mkdirSync(folder, { recursive: true });
  for (const { look, colorScheme, width, height } of LOOKS) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.setViewportSize({ width, height });
    await arrange(look);
    // Plots take their new size after the layout.
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    await page.screenshot({ path: join(folder, `${name}-${look}.png`) });
    const wide = await page.evaluate(() =>
      [...document.querySelectorAll("html, main, .middle, .thread, .side, .panel, .performance, dialog[open]")]
        .filter((box) => box.clientWidth > 0 && box.scrollWidth > box.clientWidth)
        .map((box) => `${box.localName}.${box.className}: ${box.scrollWidth} in ${box.clientWidth}`));
    assert.deepEqual(wide, [], `${name}, ${look}: wider than there is room`);
    await accessible(page, `${name}, ${look}`);
  }
  await page.emulateMedia({ colorScheme: "light", reducedMotion: null });
  await page.setViewportSize({ width: 1280, height: 800 });
}
