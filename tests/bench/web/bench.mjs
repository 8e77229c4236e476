#!/usr/bin/env node
// Our package beside wllama and onnxruntime-web, in the same Chromium on the same machine: `node bench.mjs --help`.

import { existsSync, readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = fileURLToPath(new URL(".", import.meta.url));
const root = fileURLToPath(new URL("../../..", import.meta.url));

const HELP = `node bench.mjs [options]

  --model FILE    a GGUF; without it the one that \`shardlight pull smollm2:135m\` fetches
  --prompt N      tokens of the prompt (128)
  --gen N         tokens that are written (32)
  --threads LIST  numbers of threads (1,2)
  --runs N        runs of each, in turn; medians count (5)
  --only NAME     only what has NAME in its name: "wllama", "2 threads", "matmul"; \`--only list\` lists them
  --size SIZE     operators: full or small (full)
  --json          the result as JSON on standard output
  --write         the table into README.md

Needs \`npm ci\` in tests/web and tests/bench/web, and \`npm run build\` in www; \`cargo xtest tools\` does the first two.`;

class Usage extends Error {}

function options() {
  const text = { type: "string" };
  const flag = { type: "boolean", default: false };
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        model: text, prompt: { ...text, default: "128" }, gen: { ...text, default: "32" }, threads: { ...text, default: "1,2" },
        runs: { ...text, default: "5" }, only: text, size: { ...text, default: "full" }, json: flag, write: flag, help: flag,
      },
    }));
  } catch (error) {
    throw new Usage(`${error.message}; --help lists what there is`);
  }
  const number = (name, value, least) => {
    if (!/^\d{1,4}$/.test(value) || Number(value) < least) throw new Usage(`--${name} ${value}: give a number from ${least} to 9999`);
    return Number(value);
  };
  if (!["full", "small"].includes(values.size)) throw new Usage(`--size ${values.size}: full or small`);
  if (values.write && (values.only !== undefined || values.size !== "full")) {
    throw new Usage("--write replaces the whole table: leave out --only and --size");
  }
  return {
    ...values,
    prompt: number("prompt", values.prompt, 1), gen: number("gen", values.gen, 2), runs: number("runs", values.runs, 1),
    threads: values.threads.split(",").map((value) => number("threads", value, 1)),
  };
}

/** The file of the model; an error says what to do where there is none. */
function modelFile(given) {
  // Where native/src/models/cache.rs keeps it; elsewhere than on Linux without SHARDLIGHT_CACHE, --model says where.
  const cache = process.env.SHARDLIGHT_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "shardlight");
  const path = given ?? join(cache, "models/SmolLM2-135M-Instruct.Q4_1.gguf");
  const found = statSync(path, { throwIfNoEntry: false });
  if (!found?.isFile()) {
    throw new Usage(`${path}: ${found ? "no file" : "missing"}; ${given ? "give a GGUF" : "run `shardlight pull smollm2:135m`, or give --model FILE"}`);
  }
  return path;
}

function needed(path, command) {
  if (!existsSync(join(root, path))) throw new Usage(`${path}: missing; run ${command}`);
}

const version = (path) => JSON.parse(readFileSync(join(root, path, "package.json"), "utf8")).version;
const plural = (threads) => (threads === 1 ? "1 thread" : `${threads} threads`);

/** Runs ours and wllama in turn; gives lines of the report. */
async function language({ run }, file, prompt, threads, { runs, prompt: promptTokens, gen }, told) {
  const got = { shardlight: [], wllama: [] };
  for (let i = 0; i < runs; i++) {
    for (const driver of ["shardlight", "wllama"]) {
      const one = await run(driver, file, { threads, prompt, promptTokens, gen });
      got[driver].push(one);
      const rates = `prefill ${one.prefill.toFixed(1)}, decode ${one.decode.toFixed(1)} tokens/s, first token after ${one.load.toFixed(2)} s`;
      console.error(`${plural(threads)}, run ${i + 1}/${runs}, ${driver}: ${rates}`);
      if (one.version) told.versions["llama.cpp of wllama"] = one.version;
    }
  }
  const [ours, peer] = [got.shardlight, got.wllama];
  if (ours[0].text !== peer[0].text) console.error(`${plural(threads)}: the texts differ: ${JSON.stringify([ours[0].text, peer[0].text])}`);
  const row = (what, unit, key, rule, scale = 1) => {
    const samples = (all) => all.map((one) => (one[key] === null ? null : one[key] / scale));
    return line(`wllama, ${plural(threads)}: ${what}`, unit, samples(ours), samples(peer), rule);
  };
  const less = { less: true };
  const MIB = 2 ** 20;
  return [
    row("decode", "tokens/s", "decode", { goal: 1 }),
    row("prefill", "tokens/s", "prefill", { goal: 0.8 }),
    row("first token, nothing stored", "s", "load", less),
    row("first token, model stored", "s", "stored", less),
    row("peak memory of the renderer", "MiB", "peak", less, MIB),
    row("code over the wire", "MiB", "code", less, MIB),
    row("model over the wire", "MiB", "model", less, MIB),
  ];
}

let line;

async function main() {
  const chosen = options();
  if (chosen.help) {
    console.log(HELP);
    return;
  }
  needed("tests/web/node_modules/playwright-core", "`npm ci` in tests/web");
  needed("tests/bench/web/node_modules/@wllama/wllama", "`npm ci` in tests/bench/web");
  needed("tests/bench/web/node_modules/onnxruntime-web", "`npm ci` in tests/bench/web");
  needed("www/lib/index.js", "`npm run build` in www");
  // Only now: these import what may have been missing.
  const report = await import("./report.mjs");
  line = report.line;
  const { CASES } = await import("./page/cases.mjs");
  const { launch } = await import("../../web/harness.mjs");

  const operators = CASES[chosen.size].map((one, index) => ({ name: `onnxruntime-web: ${one.title}`, index, goal: one.goal }));
  const models = chosen.threads.map((threads) => ({ name: `wllama, ${plural(threads)}`, threads }));
  const wanted = ({ name }) => chosen.only === undefined || name.includes(chosen.only);
  const [someModels, someOperators] = [models.filter(wanted), operators.filter(wanted)];
  if (chosen.only === "list") {
    for (const { name } of [...models, ...operators]) console.log(name);
    return;
  }
  if (someModels.length + someOperators.length === 0) throw new Usage(`--only ${chosen.only}: nothing has that in its name; --only list lists them`);

  const browser = await launch({ webgpu: false });
  const chromium = browser.browser.version();
  await browser.close();
  const told = {
    hardware: report.hardware(),
    versions: {
      shardlight: `${version("www")} (${report.commit(root)})`, "@wllama/wllama": version("tests/bench/web/node_modules/@wllama/wllama"),
      "onnxruntime-web": version("tests/bench/web/node_modules/onnxruntime-web"), Chromium: chromium, node: process.versions.node,
    },
    settings: `${chosen.prompt} tokens of prompt and ${chosen.gen} written, greedy, medians of ${chosen.runs} runs in turn`,
    ratios: [],
  };
  if (someModels.length > 0) {
    const file = modelFile(chosen.model);
    const parts = await import("./language.mjs");
    const prompt = await parts.cutPrompt(file, chosen.prompt);
    told.settings = `${relative(join(file, ".."), file)}, ${told.settings}`;
    for (const { threads } of someModels) told.ratios.push(...(await language(parts, file, prompt, threads, chosen, told)));
  }
  if (someOperators.length > 0) {
    const { withOperators } = await import("./operators.mjs");
    await withOperators(async ({ opened, ask }) => {
      told.hardware.webgpu = `${opened.device.name}, ${opened.device.kind}`;
      for (const { name, index, goal } of someOperators) {
        const { ours, peer, flops } = await ask("times", chosen.size, index, chosen.runs);
        told.ratios.push(line(name, "ms", ours, peer, { less: true, goal }));
        const rate = (times) => (flops ? ` (${(flops / report.median(times) / 1e6).toFixed(2)} GFLOP/s)` : "");
        console.error(`${name}: ours ${report.median(ours).toFixed(1)} ms${rate(ours)}, peer ${report.median(peer).toFixed(1)} ms${rate(peer)}`);
      }
    });
  }
  if (chosen.json) console.log(JSON.stringify(told, null, 2));
  else console.log(report.table(told.ratios));
  const open = told.ratios.filter(({ ratio, goal }) => goal !== null && !(ratio >= goal));
  console.error(`${told.ratios.length} ratios, ${open.length} below their goal`);
  if (chosen.write) {
    const path = join(root, "README.md");
    report.write(path, report.markdown(told, `node ${relative(root, here)}/bench.mjs --write`));
    console.error(`${relative(root, path)}: written`);
  }
}

try {
  await main();
} catch (error) {
  console.error(error instanceof Usage ? error.message : error);
  process.exitCode = 1;
}
