// Where the real model's file is.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";

/** `SHARDLIGHT_SMOLLM2`, or where `shardlight list` says it is. */
export function smollm2() {
  let path = process.env.SHARDLIGHT_SMOLLM2;
  if (!path && process.env.SHARDLIGHT_BIN) {
    const list = execFileSync(process.env.SHARDLIGHT_BIN, ["list", "--json"], { encoding: "utf8" });
    const find = (value) => (Array.isArray(value) ? value : (value.models ?? []));
    path = find(JSON.parse(list)).find((model) => model.name === "smollm2:135m")?.path;
  }
  assert.ok(path && existsSync(path), "SmolLM2 is not here: run `shardlight pull smollm2:135m`, or set SHARDLIGHT_SMOLLM2 to the file");
  return path;
}
