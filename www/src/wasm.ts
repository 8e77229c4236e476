// Getting shardlight.wasm, and compiling it once for all models of a page.

import { ShardlightError } from "./errors.ts";
import { wasmPlace } from "./places.ts";

type Bytes = Response | ArrayBuffer | ArrayBufferView<ArrayBuffer>;

/** An address, what `fetch` gave, bytes, or what is compiled already. */
export type WasmSource = string | URL | Bytes | WebAssembly.Module;

const WAY_OUT = "put shardlight.wasm there, or give its address as `wasm`";

/** By address. */
const modules = new Map<string, Promise<WebAssembly.Module>>();

/** The module in `source`, or in the file beside the code. */
export async function compiled(source?: WasmSource | Promise<WasmSource>): Promise<WebAssembly.Module> {
  const found = (await source) ?? wasmPlace();
  if (found instanceof WebAssembly.Module) return found;
  // TypeScript's Module has no members of its own, so that it does not tell it from others.
  if (typeof found !== "string" && !(found instanceof URL)) return compile(found as Bytes, "wasm");
  const { href } = new URL(found, globalThis.location?.href);
  const module = modules.get(href) ?? read(href).then((bytes) => compile(bytes, href));
  modules.set(href, module);
  // The next model may have more luck.
  module.catch(() => modules.delete(href));
  return module;
}

async function read(address: string): Promise<Response | Uint8Array<ArrayBuffer>> {
  try {
    return await readAddress(address);
  } catch (error) {
    throw new ShardlightError("io", `${address}: ${text(error)}; ${WAY_OUT}`);
  }
}

/** A file of the package. */
export async function readAddress(address: string, signal: AbortSignal | null = null): Promise<Response | Uint8Array<ArrayBuffer>> {
  // Node does not fetch files.
  const fs = address.startsWith("file:") ? node?.getBuiltinModule?.("node:fs/promises") : undefined;
  return fs ? await fs.readFile(new URL(address)) : await fetch(address, { signal });
}

async function compile(source: Bytes, name: string): Promise<WebAssembly.Module> {
  if (!(source instanceof Response)) return compileBytes(source, name);
  const address = source.url || name;
  if (!source.ok) throw new ShardlightError("io", `${address}: status ${source.status} ${source.statusText}`.trim() + `; ${WAY_OUT}`);
  // While it arrives; servers that name no type, or a wrong one, are borne with.
  if (/^application\/wasm\s*(;|$)/i.test(source.headers.get("Content-Type") ?? "")) {
    return WebAssembly.compileStreaming(source).catch((error) => refuse(address, error));
  }
  return compileBytes(await source.arrayBuffer().catch((error) => refuse(address, error)), address);
}

async function compileBytes(bytes: ArrayBuffer | ArrayBufferView<ArrayBuffer>, name: string): Promise<WebAssembly.Module> {
  const start = "buffer" in bytes ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength) : new Uint8Array(bytes);
  if (String.fromCharCode(...start.subarray(0, 4)) !== "\0asm") {
    throw new ShardlightError("io", `${name}: ${start.length} bytes that are not WebAssembly; ${WAY_OUT}`);
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
