// What the package's files weigh, as servers send them, against what they may.

import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";

/** Bytes of index.js after gzip. */
export const JS_LIMIT = 40_000;
/** Bytes after brotli. */
export const WASM_LIMITS = { "shardlight.wasm": 1_600_000, "grammar.wasm": 400_000 };

/** Prints them; throws if one is too large. */
export function check(lib) {
  for (const file of readdirSync(lib).sort()) {
    const path = join(lib, file);
    if (statSync(path).isFile()) console.log(`${file}: ${statSync(path).size} bytes`);
  }
  const js = gzipSync(readFileSync(join(lib, "index.js")), { level: 9 }).length;
  console.log(`index.js: ${js} bytes after gzip, of ${JS_LIMIT}`);
  if (js > JS_LIMIT) throw new Error(`index.js has ${js} bytes after gzip, more than ${JS_LIMIT}`);
  for (const [file, limit] of Object.entries(WASM_LIMITS)) {
    const bytes = brotliCompressSync(readFileSync(join(lib, file))).length;
    console.log(`${file}: ${bytes} bytes after brotli, of ${limit}`);
    if (bytes > limit) throw new Error(`${file} has ${bytes} bytes after brotli, more than ${limit}`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) check(join(dirname(dirname(fileURLToPath(import.meta.url))), "lib"));
