// Figures of the answers since the page was opened, for the plots.

import { signal } from "@preact/signals";
import type { Answer } from "../../src/index.ts";

export interface Figures {
  /** Tokens per second; undefined where there is nothing to divide. */
  prefill: number | undefined;
  decode: number | undefined;
  /** Milliseconds. */
  first: number;
}

export const figures = signal<readonly Figures[]>([]);
/** Counts changes of `latencies`, which grows in place. */
export const beat = signal(0);
/** Milliseconds from token to token of the last answer. */
export let latencies: number[] = [];
/** So many are kept. */
const MOST = 20_000;

export function startLatencies(): void {
  latencies = [];
  beat.value++;
}

export function latency(milliseconds: number): void {
  if (latencies.length < MOST) latencies.push(milliseconds);
}

const rate = (tokens: number, ms: number) => (tokens > 0 && ms > 0 ? (tokens / ms) * 1000 : undefined);

export function answered({ timings }: Answer): void {
  const { prefillTokens, prefillMs, decodeTokens, decodeMs, firstTokenMs } = timings;
  figures.value = [...figures.value, { prefill: rate(prefillTokens, prefillMs), decode: rate(decodeTokens, decodeMs), first: firstTokenMs }];
}
