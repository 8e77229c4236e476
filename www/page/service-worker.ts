// Keeps the page, the Worker, the wasm and the built-in models, so that all of it works without a network.
//
// Files come from the cache of the build that this worker belongs to. A new build's worker waits until no page of the
// old one is open, so that a page never gets files of two builds; or until a visitor asks for it.

declare const __FILES__: string[];
declare const __VERSION__: string;

// What TypeScript's library for pages does not have.
interface Waiting extends Event {
  waitUntil(work: Promise<unknown>): void;
}
interface Fetching extends Waiting {
  request: Request;
  respondWith(response: Promise<Response>): void;
}
const worker = self as unknown as {
  registration: { scope: string };
  clients: { claim(): Promise<void> };
  addEventListener(type: "install" | "activate", heard: (event: Waiting) => void): void;
  addEventListener(type: "message", heard: (event: MessageEvent) => void): void;
  skipWaiting(): Promise<void>;
  addEventListener(type: "fetch", heard: (event: Fetching) => void): void;
};

const PREFIX = "shardlight-page-";
const CACHE = PREFIX + __VERSION__;
const scope = worker.registration.scope;
const files = new Set(__FILES__.map((name) => new URL(name, scope).href));

/** The file that an address names, if it is one of ours. */
function fileOf(address: string): string | undefined {
  const url = new URL(address);
  url.hash = url.search = "";
  const href = url.href === scope ? new URL("index.html", scope).href : url.href;
  return files.has(href) ? href : undefined;
}

/** With the headers that isolate a page, for servers that cannot send them. */
function isolated(response: Response, init: ResponseInit, body: BodyInit | null): Response {
  const headers = new Headers(init.headers ?? response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(body, { status: init.status ?? response.status, headers });
}

/** The bytes that a `Range` header asks for: models are read so. */
async function part(whole: Response, range: string): Promise<Response> {
  const blob = await whole.blob();
  const [, first = "", last = ""] = /^bytes=(\d*)-(\d*)$/.exec(range) ?? [];
  const begin = first === "" ? Math.max(blob.size - Number(last), 0) : Number(first);
  const end = first === "" || last === "" ? blob.size : Math.min(Number(last) + 1, blob.size);
  if ((first === "" && last === "") || begin >= end) {
    return new Response(null, { status: 416, headers: { "Content-Range": `bytes */${blob.size}` } });
  }
  const headers = new Headers(whole.headers);
  headers.set("Content-Range", `bytes ${begin}-${end - 1}/${blob.size}`);
  headers.set("Content-Length", String(end - begin));
  return isolated(whole, { status: 206, headers }, blob.slice(begin, end));
}

async function answer(request: Request, file: string): Promise<Response> {
  const found = await (await caches.open(CACHE)).match(file);
  // A browser may throw a cache away.
  if (!found) return fetch(request);
  const range = request.headers.get("Range");
  if (range) return part(found, range);
  return isolated(found, {}, request.method === "HEAD" ? null : found.body);
}

worker.addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll([...files])));
});

worker.addEventListener("activate", (event) => {
  const clean = async () => {
    for (const name of await caches.keys()) if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
    await worker.clients.claim();
  };
  event.waitUntil(clean());
});

worker.addEventListener("message", ({ data }) => {
  if (data === "take over") void worker.skipWaiting();
});

worker.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" && request.method !== "HEAD") return;
  const file = fileOf(request.url);
  if (file) event.respondWith(answer(request, file));
});
