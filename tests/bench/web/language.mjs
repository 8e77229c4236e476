// Language models: our package and wllama, both on the CPU in wasm, each run in a Chromium of its own with an empty profile.

import { readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { launch, serve } from "../../web/harness.mjs";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const CONTEXT = 512;
const MODEL = "/model.gguf";
/** A run must end some day, and say where it hung. */
const PATIENCE = 180_000;

const TEXT = `Once upon a time there was a small town between the mountains and the sea. The people of the town built boats, and
every spring they sailed along the coast to sell wool, cheese and salt. One year the winter did not end, and the harbour stayed
frozen until the first days of June. The oldest of the sailors, a woman with grey hair and a loud voice, called everyone to the
market square and told them about an island in the north where the ice came from. Nobody had ever seen it, but she had a map,
and on the map there was a drawing of a lighthouse with three windows.`.replaceAll("\n", " ");

/** The most memory that a renderer of ours has had, in bytes; null where the system does not tell. */
function rendererPeak() {
  if (process.platform !== "linux") return null;
  const parents = new Map();
  const renderers = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      parents.set(pid, /^PPid:\t(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]);
      if (readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("--type=renderer")) renderers.push(pid);
    } catch {
      // It ended meanwhile.
    }
  }
  const ours = (pid) => pid !== undefined && (pid === String(process.pid) || ours(parents.get(pid)));
  const peaks = renderers.filter(ours).flatMap((pid) => {
    const [, kib] = /^VmHWM:\s*(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
    return kib ? [Number(kib) * 1024] : [];
  });
  if (peaks.length === 0) throw new Error("/proc: no renderer among the processes of this one");
  return Math.max(...peaks);
}

/** One visit: what it took to the first token, and with `prompt` or `measure` also a warm generation. */
async function visit(page, url, driver, { threads, prompt, gen }) {
  await page.goto("about:blank");
  const begin = performance.now();
  await page.goto(`${url}/tests/bench/web/page/index.html`);
  await page.evaluate(
    async ([driver, model, options]) => {
      if (!crossOriginIsolated) throw new Error("the page is not cross-origin isolated");
      const { load, version } = await import(driver);
      window.driven = await load(model, options);
      window.version = version;
      await window.driven.generate("Hello", 1);
    },
    [`/tests/bench/web/page/${driver}.mjs`, url + MODEL, { threads, context: CONTEXT }],
  );
  const load = (performance.now() - begin) / 1000;
  if (!prompt) return { load };
  // The first one is for the JIT and for pages not touched yet.
  const run = ([prompt, gen]) => window.driven.generate(prompt, gen);
  await page.evaluate(run, [prompt, gen]);
  return { load, ...(await page.evaluate(run, [prompt, gen])) };
}

/** Text that is `count` tokens to the model. */
export async function cutPrompt(model, count) {
  const server = await serve(root, { [MODEL]: model });
  const { page, close } = await launch({ webgpu: false });
  try {
    await page.goto(`${server.url}/tests/bench/web/page/index.html`);
    return await page.evaluate(
      async ([url, text, count, context]) => {
        const { load } = await import("/tests/bench/web/page/shardlight.mjs");
        return (await load(url, { threads: 1, context })).cut(text, count);
      },
      [server.url + MODEL, TEXT, count, CONTEXT],
    );
  } finally {
    await close();
    await server.close();
  }
}

/** One run of `driver` ("shardlight" or "wllama"). */
export async function run(driver, model, { threads, prompt, promptTokens, gen }) {
  const server = await serve(root, { [MODEL]: model });
  const { page, context, errors, close } = await launch({ profile: true, webgpu: false });
  try {
    context.setDefaultTimeout(PATIENCE);
    const hung = new Promise((_, reject) => {
      setTimeout(reject, PATIENCE, new Error(`${driver}, ${threads} threads: no end after ${PATIENCE / 1000} s`)).unref();
    });
    const told = await Promise.race([hung, visit(page, server.url, driver, { threads, prompt, gen })]);
    const peak = rendererPeak();
    const version = await page.evaluate(() => window.version);
    const sent = [...server.requests];
    const again = await Promise.race([hung, visit(page, server.url, driver, { threads })]);
    if (errors.length > 0) throw new Error(`${driver}: the page told of errors: ${errors[0]}`);
    if (told.promptTokens !== promptTokens || told.tokens !== gen) {
      throw new Error(`${driver}: ${told.promptTokens} tokens read and ${told.tokens} written, not ${promptTokens} and ${gen}`);
    }
    const bytes = (wanted) => sent.filter(wanted).reduce((sum, { bytes }) => sum + bytes, 0);
    return {
      prefill: promptTokens / (told.first / 1000),
      decode: (gen - 1) / ((told.last - told.first) / 1000),
      load: told.load,
      stored: again.load,
      peak,
      code: bytes(({ path }) => path !== MODEL),
      model: bytes(({ path }) => path === MODEL),
      own: { prefill: promptTokens / (told.own.prefillMs / 1000), decode: (gen - 1) / (told.own.decodeMs / 1000) },
      text: told.text,
      version,
    };
  } finally {
    await close();
    await server.close();
  }
}
