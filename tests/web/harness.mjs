// What every browser test needs: a folder served on a loopback port, and a headless Chromium with WebGPU on it.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { pipeline } from "node:stream/promises";
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

/**
 * Serves files over HTTP on a free loopback port, with byte ranges and the headers that make a page
 * cross-origin isolated.
 *
 * `extra` maps more URL paths ("/model.gguf") to files outside the folder; `headers` takes the place of those that isolate.
 * Returns `{ url, requests, close }`; `url` ends without a slash, `requests` lists `{ path, range }`.
 */
export async function serve(folder, extra = {}, headers = ISOLATED) {
  const requests = [];
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    requests.push({ path, range: request.headers.range });
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    response.setHeader("Cache-Control", "no-store");
    try {
      // normalize() of an absolute path leaves no ".." in it.
      const file = extra[path] ?? join(folder, normalize(path.endsWith("/") ? `${path}index.html` : path));
      const { size } = await stat(file);
      response.setHeader("Content-Type", TYPES[extname(file)] ?? "application/octet-stream");
      response.setHeader("Accept-Ranges", "bytes");
      let [start, end] = [0, size - 1];
      if (request.headers.range !== undefined) {
        const range = byteRange(request.headers.range, size);
        if (range === null) {
          response.writeHead(416, { "Content-Range": `bytes */${size}` }).end();
          return;
        }
        [start, end] = range;
        response.statusCode = 206;
        response.setHeader("Content-Range", `bytes ${start}-${end}/${size}`);
      }
      response.setHeader("Content-Length", end - start + 1);
      if (request.method === "HEAD" || size === 0) {
        response.end();
        return;
      }
      await pipeline(createReadStream(file, { start, end }), response);
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
 * none ends with `assert.deepEqual(errors, [])`. `flags` are appended to Chromium's command line. Without `webgpu` there is
 * no adapter where there is no GPU.
 * Returns `{ browser, page, errors, close }`.
 */
export async function launch({ flags = [], webgpu = true } = {}) {
  const browser = await chromium.launch({
    executablePath: process.env.SHARDLIGHT_CHROMIUM ?? "/usr/bin/chromium",
    // Playwright's own headless mode is the old one, which has no WebGPU.
    headless: false,
    args: [...FLAGS, ...(webgpu ? WEBGPU : []), ...flags],
  });
  const page = await browser.newPage();
  const errors = [];
  const report = (text) => {
    errors.push(text);
    console.error(`[page] ${text}`);
  };
  page.on("console", (message) => {
    if (message.type() === "error") report(message.text());
  });
  page.on("pageerror", (error) => report(error.stack ?? String(error)));
  page.on("crash", () => report("the page crashed"));
  return { browser, page, errors, close: () => browser.close() };
}

/** Serves a folder and opens it: `serve` and `launch` in one, closed by one `close`. */
export async function open(folder, { path = "/", extra, flags, webgpu } = {}) {
  const server = await serve(folder, extra);
  try {
    const { browser, page, errors, close } = await launch({ flags, webgpu });
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
    return { browser, page, errors, url: server.url, requests: server.requests, close: closeBoth };
  } catch (error) {
    await server.close();
    throw error;
  }
}
