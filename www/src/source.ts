// What a caller names, as what the wasm reads: files, blobs and bytes as they are, addresses by way of the store.

import { keep, spool, type Kept, type Tell } from "./download.ts";
import { ShardlightError } from "./errors.ts";
import { checksum, noWriting, type OpenFile } from "./files.ts";
import { modelName, noStore, reason, withoutFragment } from "./store.ts";
import type { Builtin, LoadOptions, Placed } from "./protocol.ts";
import { readAddress } from "./wasm.ts";

/** What the wasm takes. */
type Readable = string | Blob | OpenFile | ArrayBuffer | ArrayBufferView<ArrayBuffer>;

export interface Ready {
  source: Readable | Readable[];
  /** Why it is not in the store, where it was to be. */
  notStored: string | null;
  release(): void;
  /** Takes what is no model out of the store. */
  discard(): Promise<void>;
}

const SPLIT = /-(\d{5})-of-(\d{5})\.gguf$/;
/** No model has so many; an address may. */
const PARTS = 1000;

type Address = string & { readonly address: unique symbol };
const http = (source: unknown): source is Address => typeof source === "string" && /^https?:/i.test(source);

const isBuiltin = (source: Placed): source is Builtin => typeof source === "object" && "builtin" in source;

/** All parts of a split GGUF, from the address of one. */
export function parts(address: string): string[] {
  const url = new URL(withoutFragment(new URL(address)));
  const [, number, count] = SPLIT.exec(url.pathname) ?? [];
  const all = Number(count);
  if (!(Number(number) >= 1 && Number(number) <= all)) return [url.href];
  if (all > PARTS) throw new ShardlightError("invalid", `${url.href}: a model in ${all} parts; at most ${PARTS} are read`);
  return Array.from({ length: all }, (_, i) => {
    const part = new URL(url);
    part.pathname = url.pathname.replace(SPLIT, `-${String(i + 1).padStart(5, "0")}-of-${count}.gguf`);
    return part.href;
  });
}

/** Makes a source ready to be read. */
export async function ready(
  source: Placed | Placed[],
  { cache, sha256 }: Pick<LoadOptions, "cache" | "sha256">,
  tell: Tell,
  signal: AbortSignal,
): Promise<Ready> {
  const several = Array.isArray(source);
  // Only a single address stands for its other parts: who lists them has listed all.
  const list = several ? source : http(source) ? parts(source) : [source];
  const sums = checksums(sha256, list.length);
  const kept: Kept[] = [];
  const release = () => kept.forEach((one) => one.release());
  const discard = async () => { for (const one of kept) await one.discard(); };
  let notStored: string | null = null;
  try {
    const urls = list.filter(http).map((url) => withoutFragment(new URL(url)));
    let files: Kept["files"] | null = null;
    if (urls.length > 0) {
      const missing = cache === false ? "cache is false" : ((await noStore()) ?? noWriting());
      if (!missing) {
        const wish = { urls, sha256: sums.filter((_, i) => http(list[i])), tell, signal };
        const model = await keep(wish);
        kept.push(model);
        files = [...model.files];
      } else if (cache) {
        throw new ShardlightError("unsupported", `${modelName(urls)} cannot be kept here: ${missing}; load it with cache: false`);
      } else if (cache === undefined) {
        notStored = missing;
      }
    }
    const readables: Readable[] = [];
    for (const [i, one] of list.entries()) {
      if (http(one)) readables.push(files?.shift() ?? one);
      else if (one instanceof ReadableStream) readables.push(await spooled(one, sums[i] ?? null, tell, signal, kept));
      else if (isBuiltin(one)) readables.push(await builtin(one, signal));
      else readables.push(one);
      const readable = readables[i] as Readable;
      const checked = kept.some(({ files }) => (files as Readable[]).includes(readable));
      if (sums[i] && !checked) await check(readable, sums[i], signal);
    }
    return { source: readables.length === 1 && !several ? (readables[0] as Readable) : readables, notStored, release, discard };
  } catch (error) {
    release();
    throw error;
  }
}

async function spooled(stream: ReadableStream<unknown>, sha256: string | null, tell: Tell, signal: AbortSignal, kept: Kept[]): Promise<Readable> {
  const missing = (await noStore()) ?? noWriting();
  if (missing) throw new ShardlightError("unsupported", `a stream must be stored to be read: ${missing}; give a File or bytes`);
  const model = await spool(stream, { sha256, tell, signal });
  kept.push(model);
  return model.files[0] as Readable;
}

async function builtin({ builtin: name, address }: Builtin, signal: AbortSignal): Promise<File> {
  let answer;
  try {
    answer = await readAddress(address, signal);
  } catch (error) {
    signal.throwIfAborted();
    throw new ShardlightError("network", `${name}: ${address}: ${reason(error)}`);
  }
  if (!(answer instanceof Response)) return new File([answer], name);
  if (!answer.ok) throw new ShardlightError("io", `${name}: ${address}: status ${answer.status}; is the package's folder served whole?`);
  return new File([await answer.blob()], name);
}

/** One for each file, in lower case. */
function checksums(given: LoadOptions["sha256"], files: number): (string | null)[] {
  const list = given === undefined ? Array.from({ length: files }, () => null) : [given].flat();
  if (list.length !== files) throw new ShardlightError("invalid", `sha256: ${list.length} checksums for ${files} files`);
  return list.map((sum) => {
    if (sum === null) return null;
    if (typeof sum === "string" && /^[0-9a-f]{64}$/i.test(sum)) return sum.toLowerCase();
    throw new ShardlightError("invalid", `sha256: expected 64 hexadecimal digits, found ${JSON.stringify(sum)?.slice(0, 80)}`);
  });
}

async function check(readable: Readable, wanted: string, signal: AbortSignal): Promise<void> {
  if (typeof readable === "string" || "handle" in readable) {
    throw new ShardlightError("unsupported", `${String(readable)}: sha256 needs all of a file, of which without the store only parts are read`);
  }
  const blob = readable instanceof Blob ? readable : new Blob([readable]);
  const found = await checksum(blob, signal);
  const name = blob instanceof File ? blob.name : "bytes";
  if (found !== wanted) throw new ShardlightError("checksum", `${name}: its SHA-256 is ${found}, expected ${wanted}`);
}
