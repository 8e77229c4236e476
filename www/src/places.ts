// Files that lie beside the code. Bundlers look for just this form, a text and `import.meta.url`, and take the file
// along. Addresses are made on the page's side: a Worker made of a text has none of its own.

import { ShardlightError } from "./errors.ts";
import type { Builtin, Placed, Source, SourceFile } from "./protocol.ts";

/** Where shardlight.wasm is. */
export function wasmPlace(): URL {
  return new URL("../pkg/shardlight_bg.wasm", import.meta.url);
}

/** Where grammar.wasm is. */
export function grammarPlace(): URL {
  return new URL("../pkg/grammar_bg.wasm", import.meta.url);
}

/** The built-in models are files, fetched when they are asked for. */
const BUILTIN: Record<string, URL> = {
  "builtin:tiny": new URL("../../core/data/tiny.gguf", import.meta.url),
  "builtin:tiny-moe": new URL("../../core/data/tiny-moe.gguf", import.meta.url),
};

function builtin(name: string): Builtin {
  const place = BUILTIN[name];
  if (!place) throw new ShardlightError("invalid", `${name}: no such model is built in; there are ${Object.keys(BUILTIN).join(", ")}`);
  return { builtin: name, address: place.href };
}

/** A source as the thread takes it, and what of it is transferred; aborting `signal` cancels its streams. */
export function place(source: Source, signal: AbortSignal): { source: Placed | Placed[]; transfer: Transferable[] } {
  const transfer: Transferable[] = [];
  const one = (file: SourceFile): Placed => {
    if (file instanceof ReadableStream) {
      // Once it is sent, nobody here could cancel it.
      const sent = file.pipeThrough(new TransformStream(), { signal });
      transfer.push(sent);
      return sent;
    }
    if (typeof file === "string" && file.startsWith("builtin:")) return builtin(file);
    if (!(file instanceof URL) && (typeof file !== "string" || file.startsWith("opfs:"))) return file;
    try {
      // Relative to the page, not to the Worker.
      return new URL(file, globalThis.document?.baseURI ?? globalThis.location?.href).href;
    } catch {
      throw new ShardlightError("invalid", `${file}: neither an address nor builtin:tiny nor opfs:NAME`);
    }
  };
  return { source: Array.isArray(source) ? source.map(one) : one(source), transfer };
}
