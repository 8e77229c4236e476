// Getting shardlight.wasm, and compiling it once for all models of a page.

import { ShardlightError } from "./errors.ts";
import { grammarPlace, wasmPlace } from "./places.ts";

type Bytes = Response | ArrayBuffer | ArrayBufferView<ArrayBuffer>;

/** An address, what `fetch` gave, bytes, or what is compiled already. */
export type WasmSource = string | URL | Bytes | WebAssembly.Module;

/** What each file is, where it is, and what helps when it is not. */
const FILES = {
  wasm: { place: wasmPlace, wayOut: "put shardlight.wasm there, or give its address as `wasm`" },
  grammarWasm: { place: grammarPlace, wayOut: "put grammar.wasm there, or give its address as `grammarWasm`" },
};
type File = keyof typeof FILES;

/** By address. */
const modules = new Map<string, Promise<WebAssembly.Module>>();

/** The module in `source`, or in the file beside the code. */
export async function compiled(source?: WasmSource | Promise<WasmSource>, file: File = "wasm"): Promise<WebAssembly.Module> {
  const { place, wayOut } = FILES[file];
  const found = (await source) ?? place();
  if (found instanceof WebAssembly.Module) return found;
  // TypeScript's Module has no members of its own, so that it does not tell it from others.
  if (typeof found !== "string" && !(found instanceof URL)) return compile(found as Bytes, file, wayOut);
  const { href } = new URL(found, globalThis.location?.href);
  const module = modules.get(href) ?? read(href, wayOut).then((bytes) => compile(bytes, href, wayOut));
  modules.set(href, module);
  // The next model may have more luck.
  module.catch(() => modules.delete(href));
  return module;
}

async function read(address: string, wayOut: string): Promise<Response | Uint8Array<ArrayBuffer>> {
  try {
    return await readAddress(address);
  } catch (error) {
    throw new ShardlightError("io", `${address}: ${text(error)}; ${wayOut}`);
  }
}

/** A file of the package. */
export async function readAddress(address: string, signal: AbortSignal | null = null): Promise<Response | Uint8Array<ArrayBuffer>> {
  // Node does not fetch files.
  const fs = address.startsWith("file:") ? node?.getBuiltinModule?.("node:fs/promises") : undefined;
  return fs ? await fs.readFile(new URL(address)) : await fetch(address, { signal });
}

async function compile(source: Bytes, name: string, wayOut: string): Promise<WebAssembly.Module> {
  if (!(source instanceof Response)) return compileBytes(source, name, wayOut);
  const address = source.url || name;
  if (!source.ok) throw new ShardlightError("io", `${address}: status ${source.status} ${source.statusText}`.trim() + `; ${wayOut}`);
  // While it arrives; servers that name no type, or a wrong one, are borne with.
  if (/^application\/wasm\s*(;|$)/i.test(source.headers.get("Content-Type") ?? "")) {
    return WebAssembly.compileStreaming(source).catch((error) => refuse(address, error));
  }
  return compileBytes(await source.arrayBuffer().catch((error) => refuse(address, error)), address, wayOut);
}

async function compileBytes(bytes: ArrayBuffer | ArrayBufferView<ArrayBuffer>, name: string, wayOut: string): Promise<WebAssembly.Module> {
  const start = "buffer" in bytes ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength) : new Uint8Array(bytes);
  if (String.fromCharCode(...start.subarray(0, 4)) !== "\0asm") {
    throw new ShardlightError("io", `${name}: ${start.length} bytes that are not WebAssembly; ${wayOut}`);
  }
  return WebAssembly.compile(bytes).catch((error) => refuse(name, error));
}

/** Of another version, cut off, or a Content-Security-Policy without 'wasm-unsafe-eval'. */
function refuse(name: string, error: unknown): never {
  throw new ShardlightError("io", `${name}: ${text(error)}`);
}

function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Node, if it is one. */
const node = (globalThis as { process?: { getBuiltinModule?: (name: string) => { readFile(url: URL): Promise<Uint8Array<ArrayBuffer>> } } }).process;
