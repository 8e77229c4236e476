// The package as npm has it, in lib/: index.js with the Worker's text in it, worker.js, engine.js for `inline`, types, and the files beside them.

import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";
import { check } from "./sizes.mjs";

const www = dirname(dirname(fileURLToPath(import.meta.url)));
const lib = join(www, "lib");
const types = join(lib, "types");

/** A file's name in the package. */
const RENAMED = { "shardlight_bg.wasm": "shardlight.wasm", "grammar_bg.wasm": "grammar.wasm", "thread.ts": "worker.js" };

/** Puts files that the code names beside it. wasm-bindgen's own guess at where its file is goes: it is always told. */
function beside() {
  const guess = /new URL\('\w+_bg\.wasm', import\.meta\.url\)/;
  return {
    name: "beside",
    transform(code, id) {
      if (dirname(id) === join(www, "pkg")) {
        if (!guess.test(code)) throw new Error(`${id}: wasm-bindgen's glue looks different; see scripts/package.mjs`);
        return { code: code.replace(guess, "undefined"), map: null };
      }
      // Lines stay where they are, so that maps stay right.
      const moved = code.replace(/new URL\("([^"]+)", import\.meta\.url\)/g, (_, path) => {
        const name = RENAMED[basename(path)] ?? basename(path);
        if (!path.endsWith(".ts")) copyFileSync(resolve(dirname(id), path), join(lib, name));
        return `new URL("./${name}", import.meta.url)`;
      });
      return { code: moved, map: null };
    },
  };
}

/** Gives start.ts the Worker's text. */
function withWorker(text) {
  const place = "declare const WORKER_TEXT: string;";
  return {
    name: "with-worker",
    resolveId: (id) => (id === "worker-text" ? id : null),
    load: (id) => (id === "worker-text" ? `export default ${JSON.stringify(text)};` : null),
    transform(code, id) {
      if (!id.endsWith("start.ts")) return null;
      if (!code.includes(place)) throw new Error(`${id}: no "${place}"`);
      return { code: code.replace(place, 'import WORKER_TEXT from "worker-text";'), map: null };
    },
  };
}

/** Leaves the engine of `inline` a file of its own. */
const apart = {
  name: "apart",
  resolveId: (id) => (id === "./engine.ts" ? { id: "./engine.js", external: true } : null),
};

/** Bundles `entry` to lib/`name`, and gives its text. */
async function bundle(entry, name, format, plugins) {
  const build = await rolldown({
    input: join(www, "src", entry),
    platform: "browser",
    plugins: [beside(), ...plugins],
    onLog: (level, log) => {
      if (level !== "info" && level !== "debug") throw new Error(`${entry}: ${log.message}`);
    },
  });
  const { output } = await build.write({
    file: join(lib, name),
    format,
    minify: true,
    sourcemap: true,
    // Paths of this folder, not of this machine.
    sourcemapPathTransform: (path) => path.replace(/^(\.\.\/)+/, ""),
  });
  await build.close();
  // Some bundlers know these in plain quotes only.
  const { code } = output.find(({ fileName }) => fileName === name);
  const quoted = code.replace(/new URL\(`([^`]+)`,import\.meta\.url\)/g, 'new URL("$1",import.meta.url)').replaceAll("type:`module`", 'type:"module"');
  writeFileSync(join(lib, name), quoted);
  return quoted;
}

/** Types of all that index.ts shows. */
function declare() {
  const tsc = join(www, "node_modules", "typescript", "bin", "tsc");
  const options = ["--noEmit", "false", "--declaration", "--emitDeclarationOnly", "--outDir", types, "--rootDir", join(www, "src")];
  const { status } = spawnSync(process.execPath, [tsc, "-p", join(www, "tsconfig.lib.json"), ...options], { stdio: "inherit" });
  if (status !== 0) process.exit(1);
  // Those it needs, named as they will be found.
  const needed = ["index"];
  for (const name of needed) {
    const text = readFileSync(join(types, `${name}.d.ts`), "utf8").replace(/(["'])\.\/(\w+)\.ts\1/g, (_, quote, other) => {
      if (!needed.includes(other)) needed.push(other);
      return `${quote}./${other}.js${quote}`;
    });
    writeFileSync(join(types, `${name}.d.ts`), text);
  }
  for (const file of readdirSync(types)) if (!needed.includes(file.replace(".d.ts", ""))) rmSync(join(types, file));
  writeFileSync(join(types, "worker.d.ts"), "// A Worker's file: nothing is exported.\nexport {};\n");
  writeFileSync(join(types, "wasm.file.d.ts"), "// What bundlers make of it.\ndeclare const address: string;\nexport default address;\n");
}

rmSync(lib, { recursive: true, force: true });
mkdirSync(lib);
const text = await bundle("thread.ts", "worker.js", "iife", []);
await bundle("engine.ts", "engine.js", "esm", []);
await bundle("index.ts", "index.js", "esm", [apart, withWorker(text.replace(/\n?\/\/# sourceMappingURL=.*\n?$/, ""))]);
declare();
for (const name of ["LICENSE-MIT", "LICENSE-APACHE"]) copyFileSync(join(www, "..", name), join(www, name));
check(lib);
