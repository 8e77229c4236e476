// The page without a network, and how awake it stays during a long answer.

import assert from "node:assert/strict";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { launch, serve } from "./harness.mjs";
import { looksWell } from "./shots.mjs";
import { smollm2 } from "./smollm2.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const dist = join(root, "www/dist");
/** Seconds of the long answer; issue 7 asks for 60. */
const SECONDS = Number(process.env.SHARDLIGHT_LONG_ANSWER ?? 15);
/** Milliseconds of a task of the main thread, from where on a page feels slow. */
const LONG = 50;

/** The same server, seen through one that leaves out the headers which isolate a page. */
async function withoutHeaders(server) {
  const front = createServer(async (request, response) => {
    const answer = await fetch(server.url + request.url, { headers: request.headers.range ? { range: request.headers.range } : {} });
    const headers = [...answer.headers].filter(([name]) => !/^(cross-origin|connection|keep-alive|transfer)/.test(name));
    response.writeHead(answer.status, Object.fromEntries(headers)).end(Buffer.from(await answer.arrayBuffer()));
  });
  await new Promise((resolve) => front.listen(0, "127.0.0.1", resolve));
  const close = async () => {
    front.closeAllConnections();
    await new Promise((resolve) => front.close(resolve));
    await server.close();
  };
  return { ...server, url: `http://127.0.0.1:${front.address().port}`, close };
}

async function withServer(body, { isolated = true, folder = dist, extra, profile = false } = {}) {
  assert.ok(existsSync(join(dist, "sw.js")), "www/dist is not built: run `npm run build` in www");
  const whole = await serve(folder, extra);
  const server = isolated ? whole : await withoutHeaders(whole);
  const { page, browser, errors, close } = await launch({ profile });
  try {
    page.setDefaultTimeout(120_000);
    await page.goto(server.url);
    await body(page, server, browser);
    assert.deepEqual(errors, []);
  } finally {
    await close();
    await server.close();
  }
}

async function settled(page, state) {
  await page.locator("#status[data-state=ready], #status[data-state=error]").waitFor();
  assert.equal(await page.getAttribute("#status", "data-state"), state, await page.textContent("#status"));
}

/** Until the service worker has stored everything and serves this page. */
const served = (page) => page.evaluate(() => navigator.serviceWorker.ready.then(() => navigator.serviceWorker.controller || new Promise((done) => navigator.serviceWorker.addEventListener("controllerchange", done, { once: true }))).then(() => true));

async function chat(page, model) {
  await page.selectOption("#model", model);
  await page.selectOption("#device", "cpu");
  await page.click("#load");
  await settled(page, "ready");
  await page.click("#reset");
  await page.fill("#prompt", "Tell me a story about a little dog.");
  await page.keyboard.press("Enter");
  await settled(page, "ready");
  return page.textContent("#answer");
}

test("once it is loaded the page asks for nothing, and works when the server is gone", () =>
  withServer(async (page, server) => {
    const online = await chat(page, "builtin:tiny");
    await served(page);
    const before = server.requests.length;
    assert.equal(await chat(page, "builtin:tiny"), online);
    await page.click(".shell a:text-is('Performance')");
    await page.locator(".plot canvas").first().waitFor();
    await page.click(".shell a:text-is('Chat')");
    // A browser looks by itself whether there is another service worker.
    assert.deepEqual(server.requests.slice(before).filter(({ path }) => path !== "/sw.js"), []);

    await server.close();
    await page.reload();
    assert.equal(await chat(page, "builtin:tiny"), online);
    // A file beside the wasm, read by byte ranges.
    assert.ok((await chat(page, "builtin:tiny-moe")).length > 0);
    for (const name of ["explore", "shards", "experts"]) {
      await page.goto(`${server.url}/${name}.html`);
      await page.locator("h1").waitFor();
    }
    await page.locator("#router-status[data-state=ready]").waitFor();
    await page.goto(`${server.url}/index.html?from=somewhere#performance`);
    await page.locator("#performance").waitFor();
    assert.equal(await page.evaluate(() => crossOriginIsolated), true);
  }));

test("a model from an address is stored, works without its server, and can be deleted", () =>
  withServer(
    async (page, server) => {
      await page.selectOption("#device", "cpu");
      await page.selectOption("#model", "url");
      await page.fill("#url", "/tiny.gguf");
      await page.click("#load");
      await settled(page, "ready");
      await served(page);
      await page.click("#stored");
      await page.locator("#stored-dialog li", { hasText: "tiny.gguf" }).waitFor();
      assert.match(await page.textContent("#stored-dialog"), /[\d.]+ [kMG]B of the [\d.,]+ [kMG]B/);
      await looksWell(page, "chat-stored");
      await page.keyboard.press("Escape");
      await server.close();
      await page.reload();
      const value = await page.locator("#model option", { hasText: "tiny.gguf" }).getAttribute("value");
      assert.ok((await chat(page, value)).length > 0);
      await page.click("#stored");
      await page.click("[aria-label='Delete tiny.gguf']");
      await page.locator("#stored-dialog", { hasText: /in use|Nothing is stored/ }).waitFor();
      await page.reload();
      await page.click("#stored");
      if (await page.locator("[aria-label='Delete tiny.gguf']").count()) await page.click("[aria-label='Delete tiny.gguf']");
      await page.locator("#stored-dialog", { hasText: "Nothing is stored" }).waitFor();
    },
    { extra: { "/tiny.gguf": join(root, "core/data/tiny.gguf") }, profile: true },
  ));

test("a server that cannot send headers gets an isolated page from the second visit on", () =>
  withServer(
    async (page) => {
      assert.equal(await page.evaluate(() => crossOriginIsolated), false);
      await served(page);
      await page.reload();
      assert.equal(await page.evaluate(() => crossOriginIsolated), true);
      assert.ok((await chat(page, "builtin:tiny")).length > 0);
    },
    { isolated: false },
  ));

test("a new build waits until the visitor asks for it", async () => {
  const folder = mkdtempSync(join(tmpdir(), "shardlight-build-"));
  cpSync(dist, folder, { recursive: true });
  try {
    await withServer(async (page) => {
      await served(page);
      const [worker, html] = ["sw.js", "index.html"].map((name) => join(folder, name));
      // Another version, as a build with another page has.
      writeFileSync(worker, readFileSync(worker, "utf8").replace(/[0-9a-f]{16}/, "0123456789abcdef"));
      writeFileSync(html, readFileSync(html, "utf8").replace("<title>", "<title>New "));
      await page.reload();
      await page.locator("#update").waitFor();
      assert.equal(await page.title(), "Shardlight");
      await page.click("#update");
      await page.waitForFunction(() => document.title === "New Shardlight");
      assert.equal(await page.locator("#update").count(), 0);
      assert.equal(await page.evaluate(async () => (await caches.keys()).join()), "shardlight-page-0123456789abcdef");
    }, { folder });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

/** Tasks of the page's main thread: processor time and time on the clock, in milliseconds. */
function tasksOf(trace) {
  const { traceEvents } = JSON.parse(trace);
  const mains = new Set(traceEvents.filter(({ name, args }) => name === "thread_name" && args.name === "CrRendererMain").map(({ pid, tid }) => `${pid} ${tid}`));
  return traceEvents
    .filter(({ name, ph, pid, tid, dur }) => name === "RunTask" && ph === "X" && dur !== undefined && mains.has(`${pid} ${tid}`))
    .map(({ dur, tdur }) => ({ wall: dur / 1000, cpu: (tdur ?? dur) / 1000 }));
}

const most = (values) => values.reduce((a, b) => Math.max(a, b), 0);

// On two cores, one of which the model has, other processes stretch a task's time on the clock: what it takes of the processor is ours.
test(`no task of the main thread takes ${LONG} ms during ${SECONDS} s of an answer`, () =>
  withServer(async (page, _, browser) => {
    await page.selectOption("#model", "file");
    await page.setInputFiles("#file", smollm2());
    await page.selectOption("#device", "cpu");
    await page.click("#load");
    await settled(page, "ready");
    await served(page);
    await page.locator("details").evaluate((details) => (details.open = true));
    await page.fill("#max-tokens", "8000");
    await page.fill("#temperature", "0.8");
    await page.fill("#repeat-penalty", "1.1");
    await page.fill("#seed", "1");
    await page.evaluate(() => {
      window.long = [];
      new PerformanceObserver((list) => window.long.push(...list.getEntries().map(({ duration }) => duration))).observe({ type: "longtask", buffered: false });
    });
    await browser.startTracing(page, { categories: ["disabled-by-default-devtools.timeline"] });
    const end = Date.now() + SECONDS * 1000;
    let tokens = 0;
    while (Date.now() < end) {
      await page.fill("#prompt", "Write a very long Markdown document about the planets with headings, lists, a table for each planet and Python code.");
      await page.keyboard.press("Enter");
      // The key does nothing after an answer that has just ended, where the button would be waited for.
      await page.locator("#status[data-state=ready], #status[data-state=error]").waitFor({ timeout: Math.max(end - Date.now(), 1) }).catch(() => page.keyboard.press("Escape"));
      await settled(page, "ready");
      tokens += (await page.getAttribute("#answer", "data-tokens")).split(",").length;
    }
    const tasks = tasksOf((await browser.stopTracing()).toString());
    const seen = await page.evaluate(() => window.long);
    assert.ok(tasks.length > 100, `${tasks.length} tasks in the trace`);
    const cpu = most(tasks.map((task) => task.cpu));
    const busy = tasks.reduce((sum, task) => sum + task.cpu, 0);
    console.log(`${SECONDS} s, ${tokens} tokens, ${tasks.length} tasks of ${(busy / 1000).toFixed(2)} s: the longest took ${cpu.toFixed(1)} ms of the processor, ${most(tasks.map((task) => task.wall)).toFixed(1)} ms on the clock; long tasks seen by the page: ${seen.length}${seen.length ? `, up to ${most(seen)} ms` : ""}`);
    assert.ok(cpu < LONG, `a task took ${cpu} ms`);
  }));
