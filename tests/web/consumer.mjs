// A program of somebody who has installed the package: a folder outside of the repository, with the package as npm packs it.

import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
export const www = join(here, "../../www");

/** What the tests have beside the package: the bundlers, React and types, of the versions in package-lock.json. */
const OTHERS = ["react", "react-dom", "@types", "@vitejs", "vite", "typescript"];

/**
 * Packs and installs the package; nothing is fetched. Gives `{ folder, files, remove }`, `files` as npm lists them:
 * `{ path, size }`.
 */
export function install() {
  if (!existsSync(join(www, "lib/index.js"))) throw new Error("www/lib is not built: run `npm run build` in www");
  const folder = mkdtempSync(join(tmpdir(), "shardlight-consumer-"));
  const npm = (args, cwd) => execFileSync("npm", args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  const [{ filename, files }] = JSON.parse(npm(["pack", "--json", "--ignore-scripts", "--pack-destination", folder], www));
  writeFileSync(join(folder, "package.json"), '{ "name": "consumer", "private": true, "type": "module" }\n');
  npm(["install", "--offline", "--no-audit", "--no-fund", join(folder, filename)], folder);
  rmSync(join(folder, filename));
  for (const name of OTHERS) symlinkSync(join(here, "node_modules", name), join(folder, "node_modules", name));
  return { folder, files, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

/** A folder in the consumer's with these files, or with a copy of an example. */
export function project(consumer, name, files = {}) {
  const folder = join(consumer.folder, name);
  mkdirSync(folder, { recursive: true });
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  return folder;
}

/** Copies an example of www/examples. */
export function example(consumer, name) {
  const folder = join(consumer.folder, `example-${name}`);
  cpSync(join(www, "examples", name), folder, { recursive: true });
  return folder;
}

/** What bundlers that take no files along are given by hand: the package's files that are no code. */
export function copyFiles(consumer, to) {
  const lib = join(consumer.folder, "node_modules/shardlight/lib");
  for (const name of readdirSync(lib)) if (/\.(wasm|gguf)$/.test(name)) cpSync(join(lib, name), join(to, name));
}
