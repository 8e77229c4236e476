// What the package's files weigh, as servers send them, against what they may.

import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";

/** Bytes of index.js after gzip. */
export const JS_LIMIT = 40_000;
/** Bytes of shardlight.wasm after brotli. */
export const WASM_LIMIT = 1_600_000;

/** Prints them; throws if one is too large. */
export function check(lib) {
  for (const file of readdirSync(lib).sort()) {
    const path = join(lib, file);
    if (statSync(path).isFile()) console.log(`${file}: ${statSync(path).size} bytes`);
  }
  const js = gzipSync(readFileSync(join(lib, "index.js")), { level: 9 }).length;
  const wasm = brotliCompressSync(readFileSync(join(lib, "shardlight.wasm"))).length;
  console.log(`index.js: ${js} bytes after gzip, of ${JS_LIMIT}`);
  console.log(`shardlight.wasm: ${wasm} bytes after brotli, of ${WASM_LIMIT}`);
  if (js > JS_LIMIT) throw new Error(`index.js has ${js} bytes after gzip, more than ${JS_LIMIT}`);
  if (wasm > WASM_LIMIT) throw new Error(`shardlight.wasm has ${wasm} bytes after brotli, more than ${WASM_LIMIT}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) check(join(dirname(dirname(fileURLToPath(import.meta.url))), "lib"));
