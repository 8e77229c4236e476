// The demo page. Tests use the ids of index.html, `data-state` of #status and `data-tokens` of #answer,
// `data-wasm-bytes` of #adapter.

import { Shardlight, type Answer, type Loaded, type LoadOptions, type Message, type Model } from "../src/index.ts";
import { element, message, showProgress, sourceField } from "./page.ts";
import "./console.ts";

type State = "idle" | "loading" | "ready" | "answering" | "error";

const setup = element<HTMLFormElement>("setup");
const source = sourceField();
const device = element<HTMLSelectElement>("device");
const loadButton = element<HTMLButtonElement>("load");
const progress = element<HTMLProgressElement>("progress");
const status = element("status");
const notice = element("notice");
const adapter = element("adapter");
const conversation = element("conversation");
const past = element("history");
const question = element("question");
const answer = element("answer");
const speed = element("speed");
const ask = element<HTMLFormElement>("ask");
const prompt = element<HTMLTextAreaElement>("prompt");
const sendButton = element<HTMLButtonElement>("send");
const stopButton = element<HTMLButtonElement>("stop");
const resetButton = element<HTMLButtonElement>("reset");
const maxTokens = element<HTMLInputElement>("max-tokens");
const temperature = element<HTMLInputElement>("temperature");
const raw = element<HTMLInputElement>("raw");
const expertCache = element<HTMLInputElement>("expert-cache");

let model: Model | undefined;
let loading: AbortController | undefined;
let messages: Message[] = [];

function show(state: State, text: string): void {
  status.dataset.state = state;
  status.textContent = text;
  loadButton.textContent = state === "loading" ? "Cancel" : "Load";
  loadButton.disabled = state === "answering";
  progress.hidden = state !== "loading";
  const ready = model !== undefined && (state === "ready" || state === "error");
  sendButton.disabled = !ready;
  resetButton.disabled = !ready;
  prompt.disabled = model === undefined;
  prompt.placeholder = model ? "Write something" : "Load a model first";
  stopButton.disabled = state !== "answering";
}

function fail(error: unknown): void {
  show("error", message(error));
}

function showDevice({ info, devices, adapter: found, wasmBytes }: Loaded, asked: LoadOptions["device"]): void {
  const { name, backend, kind } = info.device;
  const details = found && backend === "webgpu"
    ? [found.vendor, found.architecture].filter((text) => text !== "").join(" ")
    : "";
  const runs = `Runs on ${name} (${[...new Set([backend, kind])].join(", ")}${details ? `: ${details}` : ""}).`;
  adapter.textContent = `${runs} ${info.architecture}, ${info.layers} layers, context of ${info.contextLength} tokens.`;
  adapter.dataset.wasmBytes = String(wasmBytes);
  adapter.hidden = false;
  const software = devices.some((device) => device.kind === "software GPU");
  if (kind === "software GPU") {
    notice.textContent = "This WebGPU adapter is software: the CPU device is faster.";
  } else if (kind === "CPU" && asked === "auto") {
    notice.textContent = software
      ? "This browser's only WebGPU adapter is software, so the model runs on the CPU, which is faster."
      : `No WebGPU: ${info.noGpu}. The model runs on the CPU, and it will be slow.`;
  } else {
    notice.textContent = "";
  }
  notice.hidden = notice.textContent === "";
}

async function load(): Promise<void> {
  if (loading) {
    loading.abort(new Error("loading was cancelled"));
    return;
  }
  loading = new AbortController();
  try {
    const from = source();
    const asked = device.value as LoadOptions["device"];
    model?.close();
    model = undefined;
    notice.hidden = adapter.hidden = true;
    forget();
    progress.value = 0;
    show("loading", "Reading the model");
    // Small chunks where one takes long, so that Stop is heard soon.
    const options: LoadOptions = { device: asked, prefillChunk: 64 };
    if (expertCache.valueAsNumber > 0) options.expertCache = Math.round(expertCache.valueAsNumber * 2 ** 20);
    model = await Shardlight.load(from, {
      ...options,
      onProgress: (told) => showProgress(progress, status, told),
      signal: loading.signal,
    });
    showDevice(model.loaded, asked);
    show("ready", "Ready.");
    prompt.focus();
  } catch (error) {
    fail(error);
  } finally {
    loading = undefined;
  }
}

function paragraph(role: "question" | "answer", text: string): HTMLElement {
  const made = document.createElement("p");
  made.className = role;
  made.textContent = text;
  return made;
}

function forget(): void {
  messages = [];
  past.replaceChildren();
  question.textContent = answer.textContent = speed.textContent = "";
  conversation.hidden = true;
}

/** Moves what was said last up, and makes room for the next answer. */
function begin(text: string): void {
  if (answer.textContent !== "") {
    past.append(paragraph("question", question.textContent ?? ""), paragraph("answer", answer.textContent ?? ""));
  }
  question.textContent = text;
  question.hidden = conversation.hidden = false;
  answer.textContent = speed.textContent = "";
  delete answer.dataset.tokens;
}

function showSpeed({ timings, tokens, stop, expertCache }: Answer): void {
  const rate = timings.decodeMs > 0 ? (timings.decodeTokens / timings.decodeMs) * 1000 : 0;
  const first = (timings.firstTokenMs / 1000).toFixed(2);
  const why = stop === "cancelled" ? ", stopped" : stop === "length" || stop === "context" ? `, cut at its ${stop}` : "";
  speed.textContent = `${rate.toFixed(1)} tokens/s, first after ${first} s, ${tokens.length} tokens${why}`;
  if (expertCache) {
    const { slots, experts, hitRate, bytesRead } = expertCache;
    const found = `found ${(100 * hitRate).toFixed(0)} % of the time`;
    speed.textContent += `; experts: ${slots} of ${experts} in memory, ${found}, ${(bytesRead / 2 ** 20).toFixed(1)} MiB read`;
  }
}

async function send(): Promise<void> {
  const text = prompt.value;
  if (!model || sendButton.disabled || text.trim() === "") return;
  begin(text);
  show("answering", "Answering");
  const options = { maxTokens: maxTokens.valueAsNumber || 256, temperature: temperature.valueAsNumber || 0, raw: raw.checked };
  const turn: Message[] = [...messages, { role: "user", content: text }];
  try {
    let [count, began] = [0, 0];
    const generation = model.generate(raw.checked ? text : turn, options);
    for await (const piece of generation) {
      answer.append(piece.text);
      const now = performance.now();
      if (count++ === 0) began = now;
      else speed.textContent = `${(((count - 1) / (now - began)) * 1000).toFixed(1)} tokens/s`;
      answer.scrollIntoView({ block: "nearest" });
    }
    const result = await generation;
    answer.textContent = result.text;
    answer.dataset.tokens = result.tokens.join(",");
    showSpeed(result);
    if (!raw.checked) messages = [...turn, { role: "assistant", content: result.text }];
    prompt.value = "";
    show("ready", "Ready.");
  } catch (error) {
    fail(error);
  }
  prompt.focus();
}

setup.addEventListener("submit", (event) => {
  event.preventDefault();
  void load();
});
ask.addEventListener("submit", (event) => {
  event.preventDefault();
  void send();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    void send();
  }
});
stopButton.addEventListener("click", () => model?.cancel());
resetButton.addEventListener("click", () => {
  model?.reset();
  forget();
  show("ready", "Ready.");
});
