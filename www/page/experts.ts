// The Experts page: a mixture at work. Tests use the ids of experts.html, `data-state` of #status and #live's data.

import { Shardlight, type Model, type Experts, type LoadOptions } from "../src/index.ts";
import { drawColumns } from "./columns.ts";
import { element, exact, headRow, memory, message, short, showProgress, sourceField, tableRow } from "./page.ts";
import "./console.ts";

type State = "idle" | "loading" | "ready" | "answering" | "error";

/** Tokens of each expert, layer by layer. */
type Chosen = readonly (readonly number[])[];

const setup = element<HTMLFormElement>("setup");
const source = sourceField();
const device = element<HTMLSelectElement>("device");
const expertCache = element<HTMLInputElement>("expert-cache");
const loadButton = element<HTMLButtonElement>("load");
const progress = element<HTMLProgressElement>("progress");
const status = element("status");
const ask = element<HTMLFormElement>("ask");
const prompt = element<HTMLTextAreaElement>("prompt");
const maxTokens = element<HTMLInputElement>("max-tokens");
const generateButton = element<HTMLButtonElement>("generate");
const answer = element("answer");
const live = element("live");
const balance = element("balance");
const cache = element("cache");
const part = element<HTMLSelectElement>("part");
const heat = element<HTMLTableElement>("heat");

let model: Model | undefined;
let loading: AbortController | undefined;
let answering = false;
/** Before the answer, after its prompt, and now. */
interface Counted {
  before: Experts;
  prompt: Experts;
  now: Experts;
}

let counted: Counted | undefined;

function show(state: State, text: string): void {
  status.dataset.state = state;
  status.textContent = text;
  loadButton.textContent = state === "loading" ? "Cancel" : "Load";
  loadButton.disabled = state === "answering";
  progress.hidden = state !== "loading";
  generateButton.textContent = state === "answering" ? "Stop" : "Generate";
  generateButton.disabled = model === undefined || state === "loading";
}

function fail(error: unknown): void {
  show("error", message(error));
  status.scrollIntoView({ block: "nearest" });
}

const sum = (values: readonly number[]) => values.reduce((all, value) => all + value, 0);

const since = (after: Experts, before: Experts): Chosen =>
  after.chosen.map((row, i) => row.map((value, e) => value - before.chosen[i]![e]!));

const together = (chosen: Chosen, count: number) =>
  Array.from({ length: count }, (_, e) => sum(chosen.map((row) => row[e]!)));

/** Of how the tokens are spread over experts, in bits: log2(E) when all have as many. */
function entropy(values: readonly number[]): number {
  const all = sum(values);
  return -sum(values.filter((value) => value > 0).map((value) => (value / all) * Math.log2(value / all)));
}

const mostToMean = (values: readonly number[]) => (Math.max(...values) * values.length) / Math.max(sum(values), 1);

function heatRow(head: string, values: readonly number[], most: number): HTMLTableRowElement {
  const line = tableRow(head, [...values.map(exact), entropy(values).toFixed(2), mostToMean(values).toFixed(2)]);
  for (const [e, value] of values.entries()) {
    line.cells[e + 1]!.style.setProperty("--heat", `${(60 * value) / Math.max(most, 1)}%`);
  }
  return line;
}

function draw(): void {
  if (!counted) return;
  const { before, prompt, now } = counted;
  const count = now.count;
  const [asked, made, both] = [since(prompt, before), since(now, prompt), since(now, before)];
  const shown = part.value === "prompt" ? asked : part.value === "answer" ? made : both;
  const all = together(shown, count);
  drawColumns(element("histogram"), [
    { class: "kept", values: together(asked, count) },
    { class: "made", values: together(made, count) },
  ]);
  const most = Math.max(...shown.flat());
  const rows = shown.map((row, i) => heatRow(`Layer ${now.layers[i]}`, row, most));
  heat.tBodies[0]!.replaceChildren(...rows);
  heat.tFoot!.replaceChildren(heatRow("All", all, Math.max(...all)));
  const tokens = now.tokens - before.tokens;
  const bits = `entropy ${entropy(all).toFixed(3)} of ${Math.log2(count).toFixed(3)} bits`;
  balance.textContent = `${exact(tokens)} tokens through ${exact(now.layers.length)} layers of ${exact(count)} experts: ${bits}, most loaded expert ${mostToMean(all).toFixed(2)} × the mean`;
  Object.assign(live.dataset, { tokens: String(tokens), pairs: String(sum(together(both, count))) });
  cache.hidden = now.cache === undefined;
  if (now.cache) {
    const { slots, experts, bytes, hitRate, bytesRead, prefetched } = now.cache;
    cache.textContent = `Cache: ${exact(slots)} of ${exact(experts)} experts in ${memory(bytes)}, found ${(100 * hitRate).toFixed(1)} % of the time, ${memory(bytesRead)} read, ${exact(prefetched)} read ahead`;
  }
  live.hidden = false;
}

async function load(): Promise<void> {
  if (loading) {
    loading.abort(new Error("loading was cancelled"));
    return;
  }
  loading = new AbortController();
  try {
    const from = source();
    const options: LoadOptions = {
      device: device.value as LoadOptions["device"],
      prefillChunk: 64,
      expertStatistics: true,
    };
    if (expertCache.valueAsNumber > 0) options.expertCache = Math.round(expertCache.valueAsNumber * 2 ** 20);
    model?.close();
    model = undefined;
    live.hidden = answer.hidden = true;
    progress.value = 0;
    show("loading", "Reading the model");
    const loaded = await Shardlight.load(from, {
      ...options,
      onProgress: (told) => showProgress(progress, status, told),
      signal: loading.signal,
    });
    const { experts } = await loaded.stats();
    if (!experts) {
      loaded.close();
      throw new Error(`${loaded.loaded.info.model} is not a mixture of experts; choose one that is`);
    }
    model = loaded;
    const columns = [...Array(experts.count).keys(), "Entropy", "Most / mean"];
    heat.tHead!.replaceChildren(headRow(["Expert", ...columns.map(String)]));
    const { name, backend } = loaded.loaded.info.device;
    show("ready", `${exact(experts.layers.length)} layers of ${exact(experts.count)} experts on ${name} (${backend}).`);
  } catch (error) {
    fail(error);
  } finally {
    loading = undefined;
  }
}

async function generate(): Promise<void> {
  if (!model) return;
  if (answering) {
    model.cancel();
    return;
  }
  answering = true;
  try {
    model.reset();
    const before = (await model.stats()).experts!;
    let asked: Experts | undefined;
    answer.textContent = "";
    answer.hidden = false;
    show("answering", "Answering");
    const options = { raw: true, maxTokens: maxTokens.valueAsNumber };
    const generation = model.generate(prompt.value, options);
    for await (const { text, stats } of generation) {
      answer.textContent += text;
      if (!stats?.experts) continue;
      // The first comes after the prompt and before any other token is computed.
      asked ??= stats.experts;
      counted = { before, prompt: asked, now: stats.experts };
      draw();
    }
    const said = await generation;
    const now = (await model.stats()).experts!;
    counted = { before, prompt: asked ?? now, now };
    draw();
    const { decodeMs, decodeTokens } = said.timings;
    const rate = decodeMs > 0 ? (decodeTokens / decodeMs) * 1000 : 0;
    show("ready", `${exact(said.tokens.length)} tokens, ${short(rate)} tokens/s`);
  } catch (error) {
    fail(error);
  } finally {
    answering = false;
  }
}

part.addEventListener("change", draw);
setup.addEventListener("submit", (event) => {
  event.preventDefault();
  void load();
});
ask.addEventListener("submit", (event) => {
  event.preventDefault();
  void generate();
});
