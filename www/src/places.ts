// Files that lie beside the code. Bundlers look for just this form, a text and `import.meta.url`, and take the file
// along. Addresses are made on the page's side: a Worker made of a text has none of its own.

import type { Source } from "./protocol.ts";

/** Where shardlight.wasm is. */
export function wasmPlace(): URL {
  return new URL("../pkg/shardlight_bg.wasm", import.meta.url);
}

/** A built-in mixture of experts is a file, fetched when it is asked for. */
export function place(source: Source): Source {
  return source === "builtin:tiny-moe" ? new URL("../../core/data/tiny-moe.gguf", import.meta.url).href : source;
}
