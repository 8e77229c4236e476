// How answers are drawn; kept in this browser.

import { computed, effect, signal } from "@preact/signals";
import type { GenerateOptions } from "../../src/index.ts";

/** As the fields have it: an empty text is the model's or the package's own way. */
export interface Settings {
  maxTokens: string;
  temperature: string;
  topK: string;
  topP: string;
  minP: string;
  repeatPenalty: string;
  seed: string;
  /** One text a line. */
  stop: string;
  schema: string;
}

export const DEFAULTS: Settings = {
  maxTokens: "256", temperature: "0", topK: "", topP: "", minP: "", repeatPenalty: "", seed: "", stop: "", schema: "",
};

const KEY = "shardlight-settings";

function stored(): Settings {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    const known = Object.entries(found as object).filter(([name, value]) => name in DEFAULTS && typeof value === "string");
    return { ...DEFAULTS, ...Object.fromEntries(known) };
  } catch {
    return DEFAULTS;
  }
}

export const settings = signal<Settings>(stored());
/** The text is continued instead of answered. Not kept: who comes back wants answers. */
export const raw = signal(false);

export const changed = computed(() => Object.entries(DEFAULTS).filter(([name, value]) => settings.value[name as keyof Settings] !== value).length);

effect(() => {
  const text = JSON.stringify(settings.value);
  try {
    localStorage.setItem(KEY, text);
  } catch {
    // Without storage they last as long as the page.
  }
});

const NUMBERS = ["temperature", "topK", "topP", "minP", "repeatPenalty", "seed"] as const;

/** What `generate` is to be given. */
export function options(): GenerateOptions {
  const now = settings.value;
  const given: GenerateOptions = { maxTokens: Number(now.maxTokens) || 256, raw: raw.value };
  for (const name of NUMBERS) {
    const text = now[name].trim();
    if (text === "") continue;
    const value = Number(text);
    if (!Number.isFinite(value)) throw new Error(`${name}: ${JSON.stringify(text)} is no number`);
    given[name] = value;
  }
  given.temperature ??= 0;
  const stop = now.stop.split("\n").filter((line) => line !== "");
  if (stop.length > 0) given.stop = stop;
  if (now.schema.trim() !== "") {
    try {
      given.schema = JSON.parse(now.schema);
    } catch (error) {
      throw new Error(`the JSON schema is no JSON: ${(error as Error).message}`);
    }
  }
  return given;
}
