// Files on servers: what one is, and a part of it.

import { ShardlightError } from "./errors.ts";
import { named, reason } from "./store.ts";

/** What a server says of a file. */
export interface Remote {
  bytes: number | null;
  /** Does it give parts? */
  ranges: boolean;
  etag: string | null;
  modified: string | null;
  sha256: string | null;
}

/** First and end, the end not included. */
export type Range = readonly [first: number, end: number];

/** What another attempt may bring. */
export class Lost extends Error {}

/** The server has another file now. */
export class Changed extends Error {}

/** Most bytes that are taken from a stream at once. */
const CHUNK = 512 << 10;
/** A connection without a byte for so many milliseconds is given up. */
const STALLED = 30_000;
/** Milliseconds before each new attempt; what comes in between begins the list anew. */
const RETRIES = [250, 500, 1000, 2000, 4000];
/** At first contact, where it is mostly the address that is wrong. */
const FIRST_RETRIES = RETRIES.slice(0, 2);

/** Hands each chunk of an answer over as it comes, only until `take` returns; `check` sees its headers first. */
export async function receive(
  url: string,
  range: Range | null,
  signal: AbortSignal,
  check: (response: Response) => void,
  take: (chunk: Uint8Array<ArrayBuffer>) => void,
): Promise<void> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stop.abort(new Lost(`nothing came for ${STALLED / 1000} seconds`)), STALLED);
  };
  try {
    wait();
    const response = await ask(url, "GET", range, either);
    check(response);
    if (!response.body) return;
    const broken = (error: unknown) => {
      either.throwIfAborted();
      throw new Lost(`the connection broke off: ${reason(error)}`);
    };
    await eachChunk(response.body, broken, (chunk) => {
      wait();
      take(chunk);
    });
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
}

/**
 * Hands over the chunks of a stream, each until `take` returns: one buffer serves them all where the browser can do so, since its
 * collector comes late for many. `broken` is told why there is no next one.
 */
export async function eachChunk(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  broken: (error: unknown) => never,
  take: (chunk: Uint8Array<ArrayBuffer>) => void,
): Promise<void> {
  let next: () => Promise<ReadableStreamReadResult<Uint8Array<ArrayBuffer>>>;
  try {
    const reader = stream.getReader({ mode: "byob" });
    let buffer = new ArrayBuffer(CHUNK);
    next = async () => {
      const result = await reader.read(new Uint8Array(buffer));
      if (result.value) buffer = result.value.buffer;
      return result as ReadableStreamReadResult<Uint8Array<ArrayBuffer>>;
    };
  } catch {
    const reader = stream.getReader();
    next = () => reader.read();
  }
  for (;;) {
    const { done, value } = await next().catch(broken);
    if (done) return;
    take(value);
  }
}

async function ask(url: string, method: "GET" | "HEAD", range: Range | null, signal: AbortSignal): Promise<Response> {
  const headers: HeadersInit = range ? { Range: `bytes=${range[0]}-${range[1] - 1}` } : {};
  let response;
  try {
    // The store is the cache.
    response = await fetch(url, { method, headers, signal, cache: "no-store" });
  } catch (error) {
    signal.throwIfAborted();
    throw new Lost(`no answer: ${reason(error)}`);
  }
  if (response.ok) return response;
  const { status, statusText } = response;
  const what = `status ${status} ${statusText}`.trim();
  if (status >= 500 || [408, 425, 429].includes(status)) throw new Lost(what);
  throw new ShardlightError("io", `${url}: ${what}`);
}

/** Repeats what is `Lost`, as long as there is progress or patience. */
export async function patiently<T>(signal: AbortSignal, attempt: () => Promise<T>, progress = () => 0, retries = RETRIES): Promise<T> {
  let [failures, last] = [0, progress()];
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
      const now = progress();
      if (now !== last) [failures, last] = [0, now];
      const pause = retries[failures++];
      if (pause === undefined) throw error;
      await sleep(pause * (0.75 + Math.random() / 2), signal);
    }
  }
}

export function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(done, milliseconds);
    function done() {
      signal?.removeEventListener("abort", aborted);
      resolve();
    }
    function aborted() {
      clearTimeout(timer);
      reject(signal?.reason);
    }
    signal?.addEventListener("abort", aborted, { once: true });
  });
}

/** Asks for the first byte: the answer tells whether the server knows ranges, the length, and which version it has. */
export async function probe(url: string, signal: AbortSignal): Promise<Remote> {
  try {
    return await patiently(signal, () => probeOnce(url, signal), undefined, FIRST_RETRIES);
  } catch (error) {
    if (!(error instanceof Lost)) throw error;
    throw new ShardlightError("network", `${url}: ${error.message}${await why(url)}`);
  }
}

async function probeOnce(url: string, signal: AbortSignal): Promise<Remote> {
  let remote: Remote | undefined;
  let [bytes, whole] = [0, false];
  const full = new Error("enough");
  const check = (response: Response) => {
    const { headers, status } = response;
    if (headers.get("Content-Type")?.startsWith("text/html")) {
      throw new ShardlightError("format", `${url}: the server sent a web page, not a model; is it the address of the file itself?`);
    }
    const sha256 = headers.get("X-Linked-ETag")?.match(/^(?:W\/)?"?([0-9a-f]{64})"?$/i)?.[1]?.toLowerCase() ?? null;
    remote = { bytes: null, ranges: status === 206, etag: headers.get("ETag"), modified: headers.get("Last-Modified"), sha256 };
    whole = !remote.ranges;
    if (whole) {
      remote.bytes = lengthOf(response);
      throw full;
    }
    // Other origins' servers do not always let it be seen.
    const told = headers.get("Content-Range");
    if (told === null) return;
    const [, first, last, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(told.trim()) ?? [];
    if (first !== "0" || last !== "0") throw lie(url, [0, 1], `Content-Range: ${told}`);
    if (total !== "*") remote.bytes = Number(total);
  };
  try {
    await receive(url, [0, 1], signal, check, (chunk) => {
      bytes += chunk.length;
      if (bytes > 1) throw lie(url, [0, 1], "more bytes than asked for");
    });
  } catch (error) {
    if (error !== full) throw error;
  }
  const found = remote as Remote;
  if (!whole && bytes !== 1) throw lie(url, [0, 1], "nothing");
  if (found.ranges && found.bytes === null) {
    // HEAD's Content-Length can always be seen. Pieces need a length.
    found.bytes = lengthOf(await ask(url, "HEAD", null, signal));
    found.ranges = found.bytes !== null;
  }
  if (found.bytes !== null && !Number.isSafeInteger(found.bytes)) {
    throw new ShardlightError("io", `${url}: the server says that it has ${found.bytes} bytes`);
  }
  return found;
}

/** Length of the whole file, if that is what will come. */
function lengthOf({ headers }: Response): number | null {
  const length = headers.get("Content-Length");
  return length === null || headers.get("Content-Encoding") ? null : Number(length);
}

/** Is this the part that was asked for, of the file that was probed? */
export function checkPart(url: string, range: Range, bytes: number, etag: string | null): (response: Response) => void {
  return ({ status, headers }) => {
    if (status !== 206) throw lie(url, range, `status ${status}`);
    const told = headers.get("Content-Range");
    const now = headers.get("ETag");
    if (etag !== null && now !== null && now !== etag) throw new Changed(`${url}: its ETag was ${etag} and is ${now} now`);
    if (told === null) return;
    const [, first, last, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(told.trim()) ?? [];
    if (Number(first) !== range[0] || Number(last) !== range[1] - 1) throw lie(url, range, `Content-Range: ${told}`);
    if (total !== "*" && Number(total) !== bytes) throw new Changed(`${url}: it had ${bytes} bytes and has ${total} now`);
  };
}

export function lie(url: string, [first, end]: Range, came: string): ShardlightError {
  return new ShardlightError("io", `${url}: asked for bytes ${first}-${end - 1}, the server answered with ${came}; it does not do byte ranges right`);
}

/** A page is not told why an address gives no answer; one more request can tell. */
async function why(url: string): Promise<string> {
  if (new URL(url).origin === location.origin) return "; check the connection";
  const allow = "allow other sites to read it (CORS: Access-Control-Allow-Origin)";
  try {
    await fetch(url, { mode: "no-cors", method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(5000) });
    return `; the server is there, but does not ${allow}`;
  } catch (error) {
    if (named(error, "TimeoutError")) return "; the server does not answer";
    return `; the server cannot be reached, or does not ${allow}`;
  }
}
