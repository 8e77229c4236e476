// The model that is loaded, and what the page is doing.

import { batch, computed, signal } from "@preact/signals";
import { Shardlight, type LoadOptions, type Model, type Progress, type Source } from "../../src/index.ts";
import { failureOf, type Failure } from "../words.ts";
import { announce } from "./announce.ts";
import { BUILT_IN, entryOf, size } from "./catalogue.ts";

export type State = "idle" | "loading" | "ready" | "answering" | "error";

export const state = signal<State>("idle");
/** One line about it. */
export const status = signal("No model is loaded.");
export const failure = signal<Failure | undefined>(undefined);
export const model = signal<Model | undefined>(undefined);

const CHOICE = "shardlight-model";

/** What was chosen last time, if it can be chosen again. */
function lastChoice(): string {
  try {
    const last = localStorage.getItem(CHOICE) ?? "";
    if (entryOf(last) || BUILT_IN.some(({ value }) => value === last)) return last;
  } catch {
    // Without storage every visit is the first.
  }
  return "builtin:tiny";
}

/** What the form says. */
export const choice = signal(lastChoice());
export const address = signal("");
export const files = signal<File[]>([]);
export const device = signal<NonNullable<LoadOptions["device"]>>("auto");
/** MiB; empty is all. */
export const expertCache = signal("");

/** How the model was asked for: the device that was wanted, and a name for people. */
export const asked = signal<{ device: LoadOptions["device"]; name: string }>({ device: "auto", name: "" });

export interface LoadProgress {
  phase: Progress["phase"] | "read";
  /** 0 to 1, of all phases. */
  part: number;
  done: number;
  total: number;
  /** Bytes per second, once it is known. */
  rate: number | undefined;
}

export const progress = signal<LoadProgress | undefined>(undefined);

export const ready = computed(() => model.value !== undefined && (state.value === "ready" || state.value === "error"));

export function show(now: State, text: string): void {
  batch(() => {
    state.value = now;
    status.value = text;
    if (now !== "error") failure.value = undefined;
  });
}

export function fail(error: unknown): void {
  const told = failureOf(error);
  batch(() => {
    show("error", told.line);
    failure.value = told;
  });
}

/** Says something about the model that is loaded, whatever it is doing. */
function say(of: Model, text: string): void {
  if (model.value !== of) return;
  status.value = text;
  announce(text);
}

/** What the form chooses, or an error that says what is missing. */
export function source(): Source {
  switch (choice.value) {
    case "file":
      if (files.value.length === 0) throw new Error("choose a file first");
      return files.value;
    case "url": {
      const written = address.value.trim();
      if (written === "") throw new Error("write the address of a GGUF file first");
      if (!URL.canParse(written, location.href)) throw new Error(`${written}: is no address`);
      return new URL(written, location.href).href;
    }
    default:
      return choice.value;
  }
}

/** A name of what the form chooses, for people. */
export function chosenName(): string {
  switch (choice.value) {
    case "file":
      return files.value[0]?.name ?? "";
    case "url":
      return address.value.split(/[?#]/)[0]!.split("/").at(-1) ?? "";
    default: {
      const builtIn = BUILT_IN.find(({ value }) => value === choice.value);
      return builtIn?.short ?? entryOf(choice.value)?.name ?? choice.value.split("/").at(-1)!;
    }
  }
}

/** Where each phase begins and ends in the bar; a phase that does not come is jumped over. */
const PARTS: Record<string, [number, number]> = { download: [0, 0.6], upload: [0, 0.9], compile: [0.9, 1] };
/** Milliseconds over which speed is measured. */
const WINDOW = 3000;

/** Told each progress, and shows it with its speed. */
function follow(): (told: Progress) => void {
  let phase = "";
  let downloaded = false;
  let seen: { at: number; done: number }[] = [];
  return (told) => {
    const now = performance.now();
    // What comes with the model says more.
    if (told.phase === "ready") return;
    if (told.phase !== phase) {
      phase = told.phase;
      seen = [];
      announce(phaseName(told.phase));
    }
    downloaded ||= phase === "download";
    seen.push({ at: now, done: told.done });
    while (seen.length > 2 && now - seen[1]!.at > WINDOW) seen.shift();
    const { at, done } = seen[0]!;
    const rate = told.bytesPerSecond ?? (phase !== "compile" && now - at > 300 ? ((told.done - done) / (now - at)) * 1000 : undefined);
    const [begin, end] = phase === "upload" && downloaded ? [0.6, 0.9] : PARTS[phase] ?? [0, 1];
    const part = begin + (end - begin) * (told.total > 0 ? told.done / told.total : 0);
    progress.value = { ...told, part, rate };
    status.value = line(progress.value);
  };
}

export function phaseName(phase: string): string {
  switch (phase) {
    case "read": return "Reading the model";
    case "download": return "Downloading";
    case "upload": return "Putting the weights onto the device";
    default: return "Preparing kernels";
  }
}

/** `0:42`, or hours, of seconds. */
function clock(seconds: number): string {
  const [m, s] = [Math.floor(seconds / 60), Math.floor(seconds % 60)];
  return m >= 60 ? `${Math.floor(m / 60)} h ${m % 60} min` : m > 0 ? `${m} min ${s} s` : `${s} s`;
}

function line({ phase, done, total, rate }: LoadProgress): string {
  if (phase === "read") return "Reading the model";
  if (phase === "compile") return `Preparing kernels, ${done} of ${total}`;
  if (total === 0) return `${phaseName(phase)}: ${size(done)}`;
  const speed = rate ? `, ${size(rate)}/s, ${clock((total - done) / rate)} left` : "";
  return `${phaseName(phase)}: ${size(done)} of ${size(total)}${speed}`;
}

let loading: AbortController | undefined;

export function cancelLoading(): void {
  loading?.abort(new Error("loading was cancelled"));
}

/** Loads what the form chooses, or ends loading that is under way. Gives whether a model is there. */
export async function load(): Promise<boolean> {
  if (loading) {
    cancelLoading();
    return false;
  }
  const own = (loading = new AbortController());
  try {
    const from = source();
    const options: LoadOptions = {
      device: device.value,
      // Small chunks where one takes long, so that Stop is heard soon.
      prefillChunk: 64,
    };
    if (Number(expertCache.value) > 0) options.expertCache = Math.round(Number(expertCache.value) * 2 ** 20);
    model.value?.close();
    batch(() => {
      model.value = undefined;
      asked.value = { device: device.value, name: chosenName() };
      progress.value = { phase: "read", part: 0, done: 0, total: 0, rate: undefined };
      show("loading", "Reading the model");
    });
    announce(`Loading ${asked.value.name}`);
    const loaded = await Shardlight.load(from, { ...options, onProgress: follow(), signal: own.signal });
    batch(() => {
      model.value = loaded;
      show("ready", "Ready.");
    });
    try {
      localStorage.setItem(CHOICE, choice.value);
    } catch {
      // As above.
    }
    announce(`${asked.value.name} is ready. You can write now.`);
    loaded.addEventListener("devicelost", () => say(loaded, "The graphics processor was taken away; it is opened again."));
    loaded.addEventListener("recovered", ({ detail }) => say(loaded, `The graphics processor is back after ${(detail.ms / 1000).toFixed(1)} s.`));
    return true;
  } catch (error) {
    if (own.signal.aborted) show("error", "loading was cancelled");
    else fail(error);
    return false;
  } finally {
    loading = undefined;
    progress.value = undefined;
  }
}

/** Loads files that were dropped or chosen. */
export function take(list: File[]): void {
  batch(() => {
    choice.value = "file";
    files.value = list;
  });
}
