// Every variant of every kernel compiles in Chromium, whose checks are stricter than naga's.
//
// Those checks are made on modules. A pipeline adds only limits, which tests/tests/shaders.rs checks too, and on
// SwiftShader half a second of code generation: so one is made for the first text of each variant.

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { open } from "./harness.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
const folder = process.env.SHARDLIGHT_WGSL_DIR ?? join(target, "wgsl");

/** The texts that `tests/tests/shaders.rs` writes as browsers get them. */
function texts() {
  let names = [];
  try {
    names = readdirSync(folder).filter((name) => name.endsWith(".wgsl"));
  } catch {
    // Said below.
  }
  assert.ok(names.length > 0, `${folder}: no *.wgsl; run \`cargo test -p shardlight-tests --test shaders\` first`);
  return names.map((name) => ({ name, code: readFileSync(join(folder, name), "utf8") }));
}

test("every kernel variant compiles in Chromium", async (t) => {
  const all = texts();
  const empty = mkdtempSync(join(tmpdir(), "shardlight-shaders-"));
  writeFileSync(join(empty, "index.html"), "<!doctype html><link rel=icon href=data:,><title>shaders</title>");
  const { page, errors, close } = await open(empty);
  try {
    const features = await page.evaluate(async () => {
      const adapter = await navigator.gpu.requestAdapter();
      const { maxStorageBuffersPerShaderStage } = adapter.limits;
      window.device = await adapter.requestDevice({
        requiredFeatures: ["shader-f16", "subgroups"].filter((name) => adapter.features.has(name)),
        requiredLimits: { maxStorageBuffersPerShaderStage },
      });
      return [...window.device.features];
    });
    const can = ({ code }) =>
      (features.includes("shader-f16") || !/^enable f16;/m.test(code)) &&
      (features.includes("subgroups") || !/^enable subgroups;/m.test(code));
    const seen = new Set();
    const some = all.filter(can).map((text) => {
      const variant = text.name.replace(/_\d+\.wgsl$/, "");
      const pipeline = !seen.has(variant);
      seen.add(variant);
      return { ...text, pipeline };
    });
    const failed = [];
    for (let at = 0; at < some.length; at += 16) {
      const found = await page.evaluate(
        (batch) =>
          Promise.all(
            batch.map(async ({ name, code, pipeline }) => {
              window.device.pushErrorScope("validation");
              const module = window.device.createShaderModule({ code });
              const scope = window.device.popErrorScope();
              const { messages } = await module.getCompilationInfo();
              await scope;
              const wrong = messages.filter(({ type }) => type === "error");
              if (wrong.length > 0) return wrong.map((m) => `${name}:${m.lineNum}:${m.linePos} ${m.message}`).join("\n");
              if (!pipeline) return null;
              try {
                await window.device.createComputePipelineAsync({ layout: "auto", compute: { module } });
                return null;
              } catch (error) {
                return `${name}: ${error.message}`;
              }
            }),
          ),
        some.slice(at, at + 16),
      );
      failed.push(...found.filter((text) => text !== null));
    }
    t.diagnostic(`${some.length} of ${all.length} texts compiled, ${seen.size} variants made pipelines; the adapter has ${features.join(", ")}`);
    assert.equal(failed.length, 0, `${failed.length} of ${some.length} texts:\n${failed.join("\n")}`);
    // Without subgroups on the adapter half of the variants would go unchecked.
    assert.ok(features.includes("subgroups"), "the adapter has no subgroups");
    assert.deepEqual(errors, []);
  } finally {
    await close();
    rmSync(empty, { recursive: true });
  }
});
