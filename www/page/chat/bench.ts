// How fast the model is here: a prompt is read (pp) and tokens are written (tg), as llama-bench counts them.

import type { Model } from "../../src/index.ts";
import pkg from "../../package.json";

/** Runs whose median counts, after one that does not. */
const RUNS = 5;
const PROMPT = 128;
const WRITTEN = 64;
const WORDS = "Once upon a time there was a little dog who liked to walk in the park and look at the big red ball. ";

export interface Series {
  test: string;
  tokens: number;
  /** Tokens per second, each run's and their median. */
  runs: number[];
  median: number;
}

export interface Report {
  program: string;
  at: string;
  model: { name: string; architecture: string; layers: number; hiddenSize: number; contextLength: number };
  device: Model["loaded"]["info"]["device"];
  adapter: Model["loaded"]["adapter"];
  browser: string;
  hardware: { threads: number; memoryGiB: number | null; crossOriginIsolated: boolean };
  loadMs: number;
  firstTokenMs: number;
  results: Series[];
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** A text of at least `count` tokens, and no more than the context has room for. */
export async function promptOf(model: Model, count: number): Promise<string> {
  const { length } = await model.tokenize(WORDS);
  return WORDS.repeat(Math.max(1, Math.ceil(count / Math.max(length, 1))));
}

/** Runs it; `told` hears how far it is. The conversation's cache is lost, the conversation is not. */
export async function bench(model: Model, name: string, told: (part: number) => void): Promise<Report> {
  const { info, adapter } = model.loaded;
  const room = info.contextLength;
  const prompt = await promptOf(model, Math.min(PROMPT, Math.floor(room / 2)));
  const [read, written, first]: [number[], number[], number[]] = [[], [], []];
  let [promptTokens, writtenTokens, loadMs] = [0, 0, 0];
  const all = 2 * (RUNS + 1);
  for (let run = 0; run <= RUNS; run++) {
    model.reset();
    const { timings } = await model.generate(prompt, { raw: true, maxTokens: 1 });
    told((2 * run + 1) / all);
    // What ends an answer early differs between models; what was written counts.
    model.reset();
    const { timings: long } = await model.generate(WORDS, { raw: true, maxTokens: Math.min(WRITTEN + 1, Math.floor(room / 2)) });
    told((2 * run + 2) / all);
    loadMs = timings.loadMs;
    if (run === 0) continue;
    promptTokens = timings.prefillTokens;
    writtenTokens = Math.max(writtenTokens, long.decodeTokens);
    read.push((timings.prefillTokens / timings.prefillMs) * 1000);
    written.push((long.decodeTokens / long.decodeMs) * 1000);
    first.push(timings.firstTokenMs);
  }
  model.reset();
  const memory = (navigator as { deviceMemory?: number }).deviceMemory;
  return {
    program: `shardlight ${pkg.version}`,
    at: new Date().toISOString(),
    model: { name, architecture: info.architecture, layers: info.layers, hiddenSize: info.hiddenSize, contextLength: info.contextLength },
    device: info.device,
    adapter,
    browser: navigator.userAgent,
    hardware: { threads: navigator.hardwareConcurrency, memoryGiB: memory ?? null, crossOriginIsolated },
    loadMs,
    firstTokenMs: median(first),
    results: [
      { test: `pp${promptTokens}`, tokens: promptTokens, runs: read, median: median(read) },
      { test: `tg${writtenTokens}`, tokens: writtenTokens, runs: written, median: median(written) },
    ],
  };
}
