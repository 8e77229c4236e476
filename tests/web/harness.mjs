// What every browser test needs: a folder served on a loopback port, and a headless Chromium with WebGPU on it.

import assert from "node:assert/strict";
import { createReadStream } from "node:fs";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";

const TYPES = {
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".json": "application/json",
  ".mjs": "text/javascript",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

const FLAGS = [
  "--headless=new",
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

// WebGPU on a machine without a GPU: SwiftShader, which Chromium offers only when asked for "unsafe" WebGPU.
const WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

/** The first and last byte a `Range` header asks for; null when it asks for nothing that is there. */
function byteRange(header, size) {
  const [, first, last] = /^bytes=(\d*)-(\d*)$/.exec(header) ?? [];
  if (first === undefined || (first === "" && last === "")) return null;
  const start = first === "" ? Math.max(size - Number(last), 0) : Number(first);
  const end = first === "" || last === "" ? size - 1 : Math.min(Number(last), size - 1);
  return start <= end ? [start, end] : null;
}

/** Lets through `rate` bytes a second, and counts them in `asked.bytes`. */
function throttled(rate, asked) {
  return async function* (chunks) {
    for await (const chunk of chunks) {
      if (rate !== Infinity) await sleep((chunk.length / rate) * 1000);
      asked.bytes += chunk.length;
      yield chunk;
    }
  };
}

/**
 * Serves files over HTTP on a free loopback port, with byte ranges and the headers that make a page
 * cross-origin isolated.
 *
 * `extra` maps more URL paths ("/model.gguf") to files outside the folder; `headers` takes the place of those that isolate.
 * `faults({ path, range, method })` may say how an answer shall differ: `wait` (a promise before it), `status`, `headers`
 * (`null` takes one away), `ranges: false`, `rate` (bytes a second), `cut` (bytes, after which the connection ends).
 * Returns `{ url, requests, close }`; `url` ends without a slash, `requests` lists `{ path, range, bytes }`, the
 * last of them what was sent of the file so far.
 */
export async function serve(folder, extra = {}, { headers = ISOLATED, faults = () => ({}) } = {}) {
  const requests = [];
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const asked = { path, range: request.headers.range, bytes: 0 };
    requests.push(asked);
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    response.setHeader("Cache-Control", "no-store");
    try {
      const fault = faults({ ...asked, method: request.method }) ?? {};
      await fault.wait;
      const head = (status) => {
        for (const [name, value] of Object.entries(fault.headers ?? {})) {
          if (value === null) response.removeHeader(name);
          else response.setHeader(name, value);
        }
        response.writeHead(status);
      };
      if (fault.status) {
        head(fault.status);
        response.end();
        return;
      }
      // normalize() of an absolute path leaves no ".." in it.
      const file = extra[path] ?? join(folder, normalize(path.endsWith("/") ? `${path}index.html` : path));
      const { size } = await stat(file);
      response.setHeader("Content-Type", TYPES[extname(file)] ?? "application/octet-stream");
      let [status, start, end] = [200, 0, size - 1];
      if (fault.ranges !== false) response.setHeader("Accept-Ranges", "bytes");
      if (asked.range !== undefined && fault.ranges !== false) {
        const range = byteRange(asked.range, size);
        if (range === null) {
          response.setHeader("Content-Range", `bytes */${size}`);
          head(416);
          response.end();
          return;
        }
        [start, end] = range;
        status = 206;
        response.setHeader("Content-Range", `bytes ${start}-${end}/${size}`);
      }
      response.setHeader("Content-Length", end - start + 1);
      head(status);
      if (request.method === "HEAD" || size === 0) {
        response.end();
        return;
      }
      const cut = fault.cut !== undefined && fault.cut < end - start + 1;
      if (cut) end = start + fault.cut - 1;
      const steps = [throttled(fault.rate ?? Infinity, asked), response];
      if (end >= start) await pipeline(createReadStream(file, { start, end }), ...steps, { end: !cut });
      // What was written shall arrive before the end.
      if (cut) setTimeout(() => response.destroy(), 50);
    } catch (error) {
      if (response.headersSent) {
        response.destroy();
      } else {
        const missing = ["ENOENT", "ENOTDIR", "EISDIR"].includes(error.code);
        response.writeHead(missing ? 404 : 500, { "Content-Type": "text/plain" }).end(error.message);
      }
    }
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    requests,
    close: () =>
      new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      }),
  };
}

/**
 * Starts a headless Chromium with WebGPU and an empty page.
 *
 * What the page or its workers report as an error is printed and kept in `errors`; a test that expects
 * none ends with `assert.deepEqual(errors, [])`. `flags` are appended to Chromium's command line. With `profile` storage is on
 * disk, as a user has it, not in memory as in a private window; a new one each time. Without `webgpu` there is no adapter
 * where there is no GPU.
 * Returns `{ browser, context, page, errors, close }`; more pages are `context.newPage()`.
 */
export async function launch({ flags = [], profile = false, webgpu = true } = {}) {
  const options = {
    executablePath: process.env.SHARDLIGHT_CHROMIUM ?? "/usr/bin/chromium",
    // Playwright's own headless mode is the old one, which has no WebGPU.
    headless: false,
    args: [...FLAGS, ...(webgpu ? WEBGPU : []), ...flags],
  };
  const folder = profile ? await mkdtemp(join(tmpdir(), "shardlight-profile-")) : null;
  const browser = profile ? null : await chromium.launch(options);
  const context = await (profile ? chromium.launchPersistentContext(folder, options) : browser.newContext());
  const errors = [];
  const report = (text) => {
    errors.push(text);
    console.error(`[page] ${text}`);
  };
  const watch = (page) => {
    page.on("console", (message) => {
      if (message.type() === "error") report(message.text());
    });
    page.on("pageerror", (error) => report(error.stack ?? String(error)));
    page.on("crash", () => report("the page crashed"));
  };
  context.on("page", watch);
  const page = await context.newPage();
  const close = async () => {
    await (browser ?? context).close();
    if (folder) await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  };
  return { browser, context, page, errors, close };
}

/** Serves a folder and opens it: `serve` and `launch` in one, closed by one `close`. */
export async function open(folder, { path = "/", extra, faults, flags, profile, webgpu } = {}) {
  const server = await serve(folder, extra, { faults });
  try {
    const { browser, context, page, errors, close } = await launch({ flags, profile, webgpu });
    const closeBoth = async () => {
      await close();
      await server.close();
    };
    try {
      await page.goto(server.url + path);
    } catch (error) {
      await closeBoth();
      throw error;
    }
    return { browser, context, page, errors, url: server.url, requests: server.requests, close: closeBoth };
  } catch (error) {
    await server.close();
    throw error;
  }
}

/** Runs `body(argument)` in a page that has the package as `window.shardlight`, which must say no errors. */
export async function inPage(dist, body, argument) {
  const opened = await open(dist);
  try {
    opened.page.setDefaultTimeout(300_000);
    const result = await opened.page.evaluate(body, argument);
    assert.deepEqual(opened.errors, []);
    return result;
  } finally {
    await opened.close();
  }
}
