// The Shards page. Tests use the ids of shards.html, `data-state` of #status, `data-equal` and `data-nmse` of #verdict.

import { Shardlight, type Model, type Answer, type LoadOptions, type Range, type Shard, type Source, type Traffic } from "../src/index.ts";
import { colour, element, exact, memory, message, short, showProgress, sourceField, tableRow } from "./page.ts";
import "./console.ts";

type State = "idle" | "loading" | "ready" | "comparing" | "error";

/** What a measured prompt made the ranks send. */
interface Sent {
  prompt: Traffic;
  /** Of one decode step; `undefined` where the answer ended before. */
  token: Traffic | undefined;
  /** Tokens of the prompt. */
  tokens: number;
}

const setup = element<HTMLFormElement>("setup");
const source = sourceField();
const devices = element<HTMLSelectElement>("devices");
const tp = element<HTMLInputElement>("tp");
const pp = element<HTMLInputElement>("pp");
const split = element<HTMLSelectElement>("split");
const sequenceParallel = element<HTMLInputElement>("sequence-parallel");
const loadButton = element<HTMLButtonElement>("load");
const progress = element<HTMLProgressElement>("progress");
const status = element("status");
const holdings = element("holdings");
const parts = element("parts");
const ranks = element<HTMLTableElement>("ranks");
const ask = element<HTMLFormElement>("ask");
const prompt = element<HTMLTextAreaElement>("prompt");
const maxTokens = element<HTMLInputElement>("max-tokens");
const compareButton = element<HTMLButtonElement>("compare");
const sent = element("sent");
const sentWhat = element("sent-what");
const traffic = element<HTMLTableElement>("traffic");
const outcome = element("outcome");
const verdict = element("verdict");

let model: Model | undefined;
/** What the model was loaded from, and on which device one rank would be. */
let whole: { from: Source; device: LoadOptions["device"] } | undefined;
let loading: AbortController | undefined;

function show(state: State, text: string): void {
  status.dataset.state = state;
  status.textContent = text;
  loadButton.textContent = state === "loading" ? "Cancel" : "Load";
  loadButton.disabled = state === "comparing";
  progress.hidden = state !== "loading";
  compareButton.disabled = model === undefined || state === "loading" || state === "comparing";
}

function fail(error: unknown): void {
  show("error", message(error));
  status.scrollIntoView({ block: "nearest" });
}

/** The part from `first` to `end` of a whole, with the rank before it and `text` behind. */
function bar({ rank, tp }: Shard, [first, end]: Range, total: number, text: string, lighter = 0): HTMLElement {
  const line = document.createElement("div");
  line.className = "bar";
  const label = document.createElement("span");
  label.textContent = `rank ${rank}`;
  const track = document.createElement("div");
  const percent = (part: number) => `${(100 * part) / Math.max(total, 1)}%`;
  const fill = (from: number, to: number, opacity: string) => {
    const piece = document.createElement("i");
    Object.assign(piece.style, { left: percent(from), width: percent(to - from), background: colour(tp), opacity });
    track.append(piece);
  };
  fill(first, end - lighter, "1");
  fill(end - lighter, end, "0.45");
  const value = document.createElement("span");
  value.textContent = text;
  line.append(label, track, value);
  return line;
}

function figure(caption: string, bars: HTMLElement[]): HTMLElement {
  const made = document.createElement("figure");
  const head = document.createElement("figcaption");
  head.textContent = caption;
  made.append(head, ...bars);
  return made;
}

function showShards(shards: Shard[]): void {
  const held = (caption: string, range: (shard: Shard) => Range) => {
    const total = Math.max(...shards.map((shard) => range(shard)[1]));
    const text = ([first, end]: Range) => (end - first === 1 ? exact(first) : `${exact(first)}–${exact(end - 1)}`);
    const line = (shard: Shard) => bar(shard, range(shard), total, text(range(shard)));
    return figure(`${caption}: ${exact(total)}`, shards.map(line));
  };
  const most = Math.max(...shards.map(({ bytes }) => bytes));
  const weights = (shard: Shard) => bar(shard, [0, shard.bytes], most, memory(shard.bytes), shard.replicated);
  parts.replaceChildren(
    held("Layers", ({ layers }) => layers),
    held("Query heads", ({ heads }) => heads),
    held("Key/value heads", ({ kvHeads }) => kvHeads),
    held("Feed-forward channels", ({ hidden }) => hidden),
    held("Rows of the vocabulary", ({ vocab }) => vocab),
    figure("Weights; the lighter part is replicated", shards.map(weights)),
  );
  const sizes = ({ bytes, replicated, read, cacheBytes }: Shard) => [bytes, replicated, read, cacheBytes];
  const sum = (column: number) => shards.reduce((all, shard) => all + sizes(shard)[column]!, 0);
  const line = (shard: Shard) =>
    tableRow(`${shard.rank}`, [`${shard.device.name} (${shard.device.backend})`, ...sizes(shard).map(memory)]);
  ranks.tBodies[0]!.replaceChildren(...shards.map(line));
  ranks.tFoot!.replaceChildren(tableRow("All", ["", ...[0, 1, 2, 3].map((column) => memory(sum(column)))]));
  holdings.hidden = false;
}

/** What `after` counts and `before` does not. */
function since(after: Traffic, before: Traffic): Traffic {
  const more = Object.entries(after).map(([name, { calls, bytes }]) => {
    const old = before[name] ?? { calls: 0, bytes: 0 };
    return [name, { calls: calls - old.calls, bytes: bytes - old.bytes }] as const;
  });
  return Object.fromEntries(more.filter(([, { calls }]) => calls > 0));
}

/** Computes the prompt, then one token after it and two: what the second one adds is a decode step. */
async function measure(model: Model, text: string): Promise<Sent> {
  model.reset();
  const counted = [await model.traffic()];
  const answers: Answer[] = [];
  for (const maxTokens of [0, 1, 2]) {
    answers.push(await model.generate(text, { raw: true, maxTokens }));
    counted.push(await model.traffic());
  }
  const [none, prompt, one, two] = counted as [Traffic, Traffic, Traffic, Traffic];
  const ended = answers[1]!.stop === "eos" || answers[2]!.stop === "context";
  return {
    prompt: since(prompt, none),
    token: ended ? undefined : since(since(two, one), since(one, prompt)),
    tokens: answers[0]!.timings.prefillTokens,
  };
}

function showTraffic({ prompt, token, tokens }: Sent): void {
  const cells = (of: Traffic | undefined, name: string) => {
    const { calls, bytes } = of?.[name] ?? { calls: 0, bytes: 0 };
    return of ? [exact(calls), exact(bytes)] : ["–", "–"];
  };
  const names = [...new Set([...Object.keys(prompt), ...Object.keys(token ?? {})])].sort();
  traffic.tBodies[0]!.replaceChildren(
    ...names.map((name) => tableRow(name, [...cells(prompt, name), ...cells(token, name)])),
  );
  traffic.hidden = names.length === 0;
  sentWhat.textContent = names.length === 0
    ? "One rank has nobody to tell anything: no collectives."
    : `What all ranks together send for the ${exact(tokens)} tokens of the prompt, and for each token after it.`;
  sent.hidden = false;
}

async function load(): Promise<void> {
  if (loading) {
    loading.abort(new Error("loading was cancelled"));
    return;
  }
  loading = new AbortController();
  try {
    const from = source();
    const names = devices.value.split(",");
    const options: LoadOptions = {
      tp: tp.valueAsNumber,
      pp: pp.valueAsNumber,
      sequenceParallel: sequenceParallel.checked,
      devices: names,
      split: split.value as "even" | "auto",
      prefillChunk: 64,
    };
    model?.close();
    model = undefined;
    holdings.hidden = sent.hidden = outcome.hidden = true;
    progress.value = 0;
    show("loading", "Reading the model");
    const loaded = await Shardlight.load(from, {
      ...options,
      onProgress: (told) => showProgress(progress, status, told),
      signal: loading.signal,
    });
    model = loaded;
    whole = { from, device: names[0] as LoadOptions["device"] };
    const shards = await loaded.shards();
    showShards(shards);
    show("comparing", "Counting what the ranks send");
    showTraffic(await measure(loaded, prompt.value));
    show("ready", `${exact(shards.length)} ${shards.length === 1 ? "rank" : "ranks"} loaded.`);
  } catch (error) {
    fail(error);
  } finally {
    loading = undefined;
  }
}

function speed({ timings, tokens }: Answer): string {
  const rate = timings.decodeMs > 0 ? (timings.decodeTokens / timings.decodeMs) * 1000 : 0;
  return `${short(rate)} tokens/s, first after ${(timings.firstTokenMs / 1000).toFixed(2)} s, ${exact(tokens.length)} tokens`;
}

/** Normalised mean squared error. */
function nmse(got: Float32Array, want: Float32Array): number {
  const error = want.reduce((sum, w, i) => sum + (w - got[i]!) ** 2, 0);
  return error / (want.reduce((sum, w) => sum + w ** 2, 0) || 1);
}

function showOutcome(sharded: Answer, one: Answer, error: number): void {
  const [a, b] = [sharded.tokens, one.tokens];
  const length = Math.max(a.length, b.length);
  const first = Array.from({ length }, (_, i) => i).find((i) => a[i] !== b[i]);
  const same = first === undefined
    ? `All ${exact(length)} tokens are equal`
    : `The tokens differ from number ${exact(first + 1)} of ${exact(length)} on`;
  const written = error === 0 ? "0" : error.toExponential(1);
  verdict.textContent = `${same}; normalised mean squared error of the logits after them: ${written}.`;
  verdict.dataset.equal = String(first === undefined);
  verdict.dataset.nmse = String(error);
  for (const [id, answer] of [["sharded", sharded], ["whole", one]] as const) {
    element(id).textContent = answer.text;
    element(`${id}-speed`).textContent = speed(answer);
  }
  outcome.hidden = false;
}

async function compare(): Promise<void> {
  if (!model || !whole || compareButton.disabled) return;
  let one: Model | undefined;
  try {
    const [text, options] = [prompt.value, { raw: true, maxTokens: maxTokens.valueAsNumber }];
    outcome.hidden = true;
    show("comparing", "Answering with all ranks");
    showTraffic(await measure(model, text));
    model.reset();
    const sharded = await model.generate(text, options);
    show("comparing", "Loading the model once more, on one rank");
    one = await Shardlight.load(whole.from, { device: whole.device, prefillChunk: 64 });
    show("comparing", "Answering with one rank");
    const alone = await one.generate(text, options);
    // Of the same text for both, even where their answers differ.
    const context = one.loaded.info.contextLength;
    const tokens = [...(await one.tokenize(text)), ...alone.tokens].slice(0, context);
    showOutcome(sharded, alone, nmse(await model.logits(tokens), await one.logits(tokens)));
    show("ready", "Compared.");
  } catch (error) {
    fail(error);
  } finally {
    one?.close();
  }
}

setup.addEventListener("submit", (event) => {
  event.preventDefault();
  void load();
});
ask.addEventListener("submit", (event) => {
  event.preventDefault();
  void compare();
});
