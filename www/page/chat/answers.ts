// Writing an answer: what comes from the model goes to the screen once a frame at most.

import { batch, signal } from "@preact/signals";
import type { Answer, Generation } from "../../src/index.ts";
import { announce } from "./announce.ts";
import { ask, conversation, messages, path, settle, type Turn } from "./conversations.ts";
import { answered, beat, latency, startLatencies } from "./metrics.ts";
import { options, raw } from "./settings.ts";
import { asked, fail, model, ready, show } from "./state.ts";

/** The turn that is being answered, and as much of it as is shown. */
export const live = signal<{ turn: string; text: string; speed: string } | undefined>(undefined);

/** Milliseconds from one drawing to the next, at least. */
const EVERY = 40;
/** What drawing may take of the time. */
const SHARE = 0.2;

let generation: Generation | undefined;
let drawing = 0;

/** Told how long drawing took, so that long answers are drawn less often instead of holding up the page. */
export function drew(milliseconds: number): void {
  drawing = milliseconds;
}

function speedOf({ timings, tokens, stop, expertCache }: Answer): string {
  const rate = timings.decodeMs > 0 ? (timings.decodeTokens / timings.decodeMs) * 1000 : 0;
  const first = (timings.firstTokenMs / 1000).toFixed(2);
  const why = stop === "cancelled" ? ", stopped" : stop === "length" || stop === "context" ? `, cut at its ${stop}` : "";
  const said = `${rate.toFixed(1)} tokens/s, first after ${first} s, ${tokens.length} tokens${why}`;
  if (!expertCache) return said;
  const { slots, experts, hitRate, bytesRead } = expertCache;
  const found = `found ${(100 * hitRate).toFixed(0)} % of the time`;
  return `${said}; experts: ${slots} of ${experts} in memory, ${found}, ${(bytesRead / 2 ** 20).toFixed(1)} MiB read`;
}

/** Answers `question` after the turns `before`, or continues it as a text. */
async function answer(question: string, before: Turn[], continued: boolean): Promise<boolean> {
  const running = model.value;
  if (!running || !ready.value || question.trim() === "") return false;
  let turn: Turn | undefined;
  const owner = conversation.value.id;
  let [text, speed, count, began, last, timer] = ["", "", 0, 0, 0, 0];
  let drawn = -Infinity;
  const flush = () => {
    timer = 0;
    drawn = performance.now();
    batch(() => {
      live.value = { turn: turn!.id, text, speed };
      beat.value++;
    });
  };
  try {
    const given = { ...options(), raw: continued };
    const conversationSoFar = messages(before, question);
    batch(() => {
      turn = ask(question, before.at(-1)?.id ?? null, { raw: continued, ...(given.schema !== undefined && { json: true }) }, asked.value.name || running.loaded.info.model);
      live.value = { turn: turn.id, text: "", speed: "" };
      show("answering", "Answering");
    });
    startLatencies();
    announce("Answering");
    generation = running.generate(continued ? question : conversationSoFar, given);
    for await (const piece of generation) {
      text += piece.text;
      const now = performance.now();
      if (count++ === 0) began = now;
      else {
        speed = `${(((count - 1) / (now - began)) * 1000).toFixed(1)} tokens/s`;
        latency(now - last);
      }
      last = now;
      timer ||= window.setTimeout(flush, Math.max(drawn + Math.max(EVERY, drawing / SHARE) - now, 0));
    }
    const result = await generation;
    batch(() => {
      settle(owner, turn!.id, { answer: result.text, tokens: result.tokens, speed: speedOf(result), stop: result.stop });
      answered(result);
      show("ready", "Ready.");
    });
    announce(result.text);
    return true;
  } catch (error) {
    // What there is of the answer stays.
    if (turn) settle(owner, turn.id, { answer: text, speed: "not finished" });
    fail(error);
    return false;
  } finally {
    clearTimeout(timer);
    generation = undefined;
    live.value = undefined;
  }
}

export function send(question: string): Promise<boolean> {
  return answer(question, path.value, raw.value);
}

/** Answers the turn's question again, or another one in its place, in a branch of its own. */
export function again(turn: Turn, question = turn.question): Promise<boolean> {
  const at = path.value.findIndex(({ id }) => id === turn.id);
  return answer(question, path.value.slice(0, Math.max(at, 0)), turn.raw);
}

export function stop(): void {
  generation?.cancel();
}
