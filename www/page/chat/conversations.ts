// Conversations, kept in this browser's IndexedDB. A conversation is a tree of turns: asking again or otherwise makes a
// branch, and what is shown is the path from the root to `leaf`.

import { computed, effect, signal } from "@preact/signals";
import { clear, createStore, del, entries, set } from "idb-keyval";
import type { Answer, Message } from "../../src/index.ts";

export interface Turn {
  id: string;
  /** The turn before it. */
  parent: string | null;
  question: string;
  /** The question was continued, not answered. */
  raw: boolean;
  /** The answer is JSON. */
  json?: boolean;
  answer: string;
  /** Token ids of a whole answer. */
  tokens?: number[];
  /** One line about it. */
  speed: string;
  model: string;
  stop?: Answer["stop"];
  /** Milliseconds since 1970. */
  at: number;
}

export interface Conversation {
  id: string;
  title: string;
  system: string;
  created: number;
  updated: number;
  turns: Turn[];
  leaf: string | null;
}

const store = () => createStore("shardlight-chats", "conversations");
const TITLE = 48;
const LAST = "shardlight-conversation";

/** Of 128 random bits. `crypto.randomUUID` is for secure pages only. */
const identifier = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

function fresh(system = ""): Conversation {
  const now = Date.now();
  return { id: identifier(), title: "New conversation", system, created: now, updated: now, turns: [], leaf: null };
}

/** The one that is shown. */
export const conversation = signal<Conversation>(fresh());
/** All that have turns, the newest first. */
export const kept = signal<Conversation[]>([]);
/** Why nothing is kept, where the browser refuses. */
export const unkept = signal("");

/** From the first turn to the one shown last. */
export const path = computed(() => {
  const { turns, leaf } = conversation.value;
  const byId = new Map(turns.map((turn) => [turn.id, turn]));
  const found: Turn[] = [];
  for (let turn = leaf ? byId.get(leaf) : undefined; turn; turn = turn.parent ? byId.get(turn.parent) : undefined) found.unshift(turn);
  return found;
});

/** Turns that ask in the place of this one, itself included, in the order in which they were made. */
export function siblings(turn: Turn): Turn[] {
  return conversation.value.turns.filter(({ parent }) => parent === turn.parent);
}

function remember(changed: Conversation): void {
  kept.value = [changed, ...kept.value.filter(({ id }) => id !== changed.id)];
  set(changed.id, changed, store()).catch(refused);
}

function refused(error: unknown): void {
  unkept.value = `Conversations are not kept: ${error instanceof Error ? error.message : String(error)}`;
}

function change(to: Partial<Conversation>, keep = true): void {
  conversation.value = { ...conversation.value, ...to, updated: Date.now() };
  if (keep && conversation.value.turns.length > 0) remember(conversation.value);
}

/** Reads what is kept, and shows again what this tab showed before a reload. */
export async function restore(): Promise<void> {
  try {
    const all = (await entries<string, Conversation>(store())).map(([, value]) => value);
    const known = new Set(kept.value.map(({ id }) => id));
    kept.value = [...kept.value, ...all.filter(({ id }) => !known.has(id))].sort((a, b) => b.updated - a.updated);
    const last = sessionStorage.getItem(LAST);
    if (last && conversation.value.turns.length === 0) show(last);
    effect(() => sessionStorage.setItem(LAST, conversation.value.id));
  } catch (error) {
    refused(error);
  }
}

export function begin(): void {
  conversation.value = fresh(conversation.value.system);
}

export function show(id: string): void {
  const found = kept.value.find((one) => one.id === id);
  if (found) conversation.value = found;
}

// Gone is shown when it is gone.
export async function forget(id: string): Promise<void> {
  await del(id, store()).catch(refused);
  kept.value = kept.value.filter((one) => one.id !== id);
  if (conversation.value.id === id) begin();
}

export async function forgetAll(): Promise<void> {
  await clear(store()).catch(refused);
  kept.value = [];
  begin();
}

export function setSystem(system: string): void {
  change({ system });
}

export function rename(title: string): void {
  change({ title: title.trim() || "Untitled" });
}

/** A turn without an answer yet, below `parent`. */
export function ask(question: string, parent: string | null, form: Pick<Turn, "raw" | "json">, model: string): Turn {
  const turn: Turn = { id: identifier(), parent, question, ...form, answer: "", speed: "", model, at: Date.now() };
  const { turns, title } = conversation.value;
  const line = question.trim().replace(/\s+/g, " ");
  const short = line.length > TITLE ? `${line.slice(0, TITLE - 1)}…` : line;
  change({ turns: [...turns, turn], leaf: turn.id, title: turns.length === 0 ? short : title }, false);
  return turn;
}

/** Puts what came of a turn into the conversation it belongs to, whichever is shown. */
export function settle(owner: string, id: string, to: Partial<Turn>): void {
  const now = conversation.value;
  const of = now.id === owner ? now : kept.value.find((one) => one.id === owner);
  if (!of) return;
  const turns = of.turns.map((turn) => (turn.id === id ? { ...turn, ...to } : turn));
  const changed = { ...of, turns, updated: Date.now() };
  if (now.id === owner) conversation.value = changed;
  remember(changed);
}

/** Shows another branch, to its newest end. */
export function choose(turn: Turn): void {
  const { turns } = conversation.value;
  let leaf = turn.id;
  for (;;) {
    const next = turns.filter(({ parent }) => parent === leaf).at(-1);
    if (!next) break;
    leaf = next.id;
  }
  change({ leaf });
}

/** What the model is told before `question`: the path, without texts that were only continued. */
export function messages(before: Turn[], question: string): Message[] {
  const { system } = conversation.value;
  const said = before.filter(({ raw, answer }) => !raw && answer !== "");
  return [
    ...(system.trim() === "" ? [] : [{ role: "system", content: system } as const]),
    ...said.flatMap((turn) => [
      { role: "user", content: turn.question } as const,
      { role: "assistant", content: turn.answer } as const,
    ]),
    { role: "user", content: question },
  ];
}
