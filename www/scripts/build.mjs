// Rust to wasm, its JavaScript glue, wasm-opt, the package, and the page by Vite: all that `npm run build` does.

import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, renameSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync } from "node:zlib";

const www = dirname(dirname(fileURLToPath(import.meta.url)));
const root = dirname(www);

function run(program, args, folder = root) {
  const { status, error } = spawnSync(program, args, { cwd: folder, stdio: "inherit" });
  if (error || status !== 0) {
    console.error(`${program} ${args.join(" ")}: ${error ? error.message : `ended with ${status}`}`);
    process.exit(1);
  }
}

function targetFolder() {
  const args = ["metadata", "--format-version=1", "--no-deps"];
  const { stdout, error } = spawnSync("cargo", args, { cwd: root, maxBuffer: 1 << 26, stdio: ["ignore", "pipe", "inherit"] });
  if (error || !stdout.length) {
    console.error("cargo metadata: no answer; install Rust from rustup.rs");
    process.exit(1);
  }
  return JSON.parse(stdout).target_directory;
}

const triple = "wasm32-unknown-unknown";
// Panics name places in crates; where they lie on this machine is nobody's business.
const crates = join(process.env.CARGO_HOME ?? join(homedir(), ".cargo"), "registry", "src");
const flags = `target.${triple}.rustflags = [${JSON.stringify(`--remap-path-prefix=${crates}=crates`)}]`;
// What .cargo/config.toml lets rustc use, and what wasm-bindgen adds.
const features = [
  "simd", "bulk-memory", "nontrapping-float-to-int", "sign-ext", "mutable-globals", "reference-types", "multivalue",
];
const pkg = join(www, "pkg");
mkdirSync(pkg, { recursive: true });

/** A crate as pkg/`name`.js and pkg/`name`_bg.wasm. */
function wasmOf(crate, name) {
  // One at a time: together they would share the features of their dependencies.
  run("cargo", ["build", "--config", flags, "--profile", "wasm", "--package", crate, "--target", triple]);
  const built = join(targetFolder(), triple, "wasm", `${crate.replaceAll("-", "_")}.wasm`);
  const bindgen = process.env.SHARDLIGHT_BINDGEN;
  if (bindgen) run(resolve(bindgen), [built, pkg, name]);
  else run("cargo", ["run", "--quiet", "--package", "shardlight-bindgen", "--", built, pkg, name]);
  const wasm = join(pkg, `${name}_bg.wasm`);
  const small = join(pkg, `${name}_opt.wasm`);
  // binaryen's program is itself wasm, run by node. Only names go: -O2 takes minutes for 4 % fewer bytes, which are
  // 1 % more after brotli, and no faster within the noise.
  const opt = join(www, "node_modules", "binaryen", "bin", "wasm-opt");
  run(process.execPath, [opt, wasm, "-o", small, "--strip-debug", "--strip-producers", ...features.map((f) => `--enable-${f}`)]);
  renameSync(small, wasm);
  return () => {
    const brotli = brotliCompressSync(readFileSync(wasm)).length;
    console.log(`${name}.wasm: ${statSync(built).size} bytes raw, ${statSync(wasm).size} after wasm-opt, ${brotli} brotli`);
  };
}

const tell = [wasmOf("shardlight-web", "shardlight"), wasmOf("shardlight-web-grammar", "grammar")];
run(process.execPath, [join(www, "scripts", "package.mjs")], www);
run(process.execPath, [join(www, "node_modules", "vite", "bin", "vite.js"), "build"], www);
for (const one of tell) one();
