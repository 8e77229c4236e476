// Downloads into the store: in pieces, several at a time, so that what was lost goes on where it was.
//
// Of all tabs one downloads a model, holding a Web Lock; the others wait for that lock, hear of the progress, and go on
// when that tab is closed.

import { ShardlightError } from "./errors.ts";
import { Checksum, checksum, deleteEntry, Full, type OpenFile, openFile, openToRead, resize, type SyncHandle, write, writeAbout } from "./files.ts";
import { Changed, checkPart, lie, Lost, patiently, probe, type Range, receive, type Remote } from "./http.ts";
import {
  ABOUT, type About, bytesMarked, fileIn, fileName, folderOf, keyOf, list, modelName, pieceCount, pieceEnd, readAbout, readMarks, SPOOL,
  type StoredFile, using, writing,
} from "./store.ts";

/** Bytes that are here, of all (0: not known), and those that come in a second. */
export type Tell = (done: number, total: number, bytesPerSecond: number) => void;

/** What shall be kept. */
export interface Wish {
  urls: string[];
  /** For each of them the SHA-256 in hex, where it is known. */
  sha256: (string | null)[];
  tell: Tell;
  signal: AbortSignal;
}

/** Files that stay as they are until `release`. */
export interface Kept {
  files: (OpenFile | File)[];
  release(): void;
  /** Releases them and takes them out of the store. */
  discard(): Promise<void>;
}

/** Browsers have six for a host, and the page may want some. */
const CONNECTIONS = 4;
const MIB = 1 << 20;
/** Other tabs hear of progress so often, in milliseconds. */
const TELL_EVERY = 100;
/** Milliseconds over which the speed is measured. */
const SPEED_OVER = 4000;
/** A file that changes while it is read is begun anew so often. */
const RESTARTS = 2;

/** The model of these addresses, as files of the store; downloads what is missing. */
export async function keep(wish: Wish): Promise<Kept> {
  const key = await keyOf(wish.urls);
  return await alone(key, wish, async (tell) => {
    const unlock = await hold(using(key), "shared");
    const files: Kept["files"] = [];
    const release = () => {
      for (const file of files) if ("handle" in file) file.handle.close();
      unlock();
    };
    try {
      const folder = await folderOf(key);
      const names = await complete(folder, { ...wish, tell });
      for (const [i, name] of names.entries()) files.push(await openToRead(await folder.getDirectoryHandle(String(i)), name));
      const discard = async () => {
        release();
        await alone(key, wish, () => startOver(folder));
      };
      return { files, release, discard };
    } catch (error) {
      release();
      throw error;
    }
  });
}

/** Runs `work` while no other tab writes here; until then tells what the one that does so tells. */
async function alone<T>(key: string, { tell, signal }: Wish, work: (tell: Tell) => Promise<T>): Promise<T> {
  const name = writing(key);
  const channel = new BroadcastChannel(name);
  let last = -Infinity;
  const both: Tell = (...told) => {
    tell(...told);
    const now = performance.now();
    if (now - last < TELL_EVERY) return;
    last = now;
    channel.postMessage(told);
  };
  channel.onmessage = ({ data }: MessageEvent<Parameters<Tell>>) => tell(...data);
  try {
    return await navigator.locks.request(name, { signal }, () => {
      channel.onmessage = null;
      return work(both);
    });
  } finally {
    channel.close();
  }
}

/** Takes a lock, and gives what lets it go. */
function hold(name: string, mode: LockMode): Promise<() => void> {
  return new Promise((resolve, reject) => {
    navigator.locks.request(name, { mode }, () => new Promise<void>((release) => resolve(release))).catch(reject);
  });
}

/** Names of the files, once all are there. */
async function complete(folder: FileSystemDirectoryHandle, wish: Wish): Promise<string[]> {
  const here = await stored(folder, wish);
  if (here) return here;
  for (let restarts = 0; ; restarts++) {
    try {
      return await bring(folder, wish);
    } catch (error) {
      if (!(error instanceof Changed)) throw error;
      if (restarts === RESTARTS) throw new ShardlightError("io", `${error.message}; it changes all the time, so its pieces do not fit`);
    }
  }
}

/** Their names, if all files are there and right. What is not is deleted. The server is not asked, so this works offline. */
async function stored(folder: FileSystemDirectoryHandle, { sha256, signal }: Wish): Promise<string[] | null> {
  const about = await readAbout(folder);
  if (!about?.complete) return null;
  const files = await filesOf(folder, about);
  let right = files !== null;
  for (const [i, file] of (files ?? []).entries()) {
    const [wanted, known] = [sha256[i], about.files[i]];
    if (!wanted || !known || known.sha256 === wanted) continue;
    if ((await checksum(file, signal)) === wanted) known.sha256 = wanted;
    else right = false;
  }
  if (!right) {
    await startOver(folder);
    return null;
  }
  await writeAbout(folder, { ...about, lastUsed: Date.now() });
  return about.files.map(({ name }) => name);
}

async function filesOf(folder: FileSystemDirectoryHandle, { files }: About): Promise<File[] | null> {
  const found = [];
  for (const [i, { name, bytes }] of files.entries()) {
    const file = await fileIn(folder, String(i), name);
    if (file?.size !== bytes) return null;
    found.push(file);
  }
  return found;
}

async function startOver(folder: FileSystemDirectoryHandle): Promise<void> {
  // First what says that all is there: another tab may still have a file open.
  await deleteEntry(folder, ABOUT);
  for await (const name of folder.keys()) await deleteEntry(folder, name);
}

/** Long enough that requests cost little, short enough that little is lost. */
const pieceLength = (bytes: number) => Math.min(Math.max(Math.ceil(bytes / 64 / MIB), 1), 16) * MIB;

/** Downloads what is missing, and checks it. */
async function bring(folder: FileSystemDirectoryHandle, wish: Wish): Promise<string[]> {
  const { urls, signal } = wish;
  const remotes: Remote[] = [];
  await inParallel(urls.map((url, i) => async () => { remotes[i] = await probe(url, signal); }), signal);
  const before = await readAbout(folder);
  const files = urls.map((url, i): StoredFile => {
    const { bytes, ranges, etag, modified } = remotes[i] as Remote;
    return { name: fileName(url), url, bytes, pieceBytes: ranges && bytes ? pieceLength(bytes) : 0, etag, modified, sha256: null };
  });
  for (const [i, file] of files.entries()) {
    const old = before?.files[i];
    const same = old && JSON.stringify({ ...old, sha256: null }) === JSON.stringify(file) && file.pieceBytes > 0;
    if (same) continue;
    await deleteEntry(folder, String(i));
    await deleteEntry(folder, `${i}.pieces`);
  }
  const about: About = { version: 1, name: modelName(urls), files, complete: false, lastUsed: Date.now() };
  const parts: Part[] = [];
  try {
    // In this order: what is marked belongs to what is said of it.
    await writeAbout(folder, about);
    for (const [i, file] of files.entries()) {
      parts.push(await Part.open(folder, i, file, wish.sha256[i] ?? (remotes[i] as Remote).sha256));
    }
    await reserve(about.name, parts);
    await new Download(parts, wish).run();
    for (const part of parts) await part.finish();
    if (parts.every((part) => part.right())) await writeAbout(folder, { ...about, complete: true });
  } catch (error) {
    if (error instanceof Full) throw await full(about.name, "the browser takes no more bytes");
    if (!(error instanceof Lost)) throw error;
    const bytes = parts.reduce((sum, { file, marks }) => sum + bytesMarked(file, marks), 0);
    const total = files.reduce((sum, file) => sum + (file.bytes ?? 0), 0);
    const resumes = files.every(({ pieceBytes }) => pieceBytes > 0);
    const way = resumes ? "load it again to go on from there" : "the server does not know byte ranges, so loading it again begins anew";
    throw new ShardlightError("io", `${about.name}: ${error.message}; ${bytes} of ${total || "unknown"} bytes are stored; ${way}`);
  } finally {
    for (const part of parts) part.close();
  }
  const wrong = parts.filter((part) => !part.right());
  if (wrong.length > 0) {
    for (const { index } of wrong) {
      await deleteEntry(folder, String(index));
      await deleteEntry(folder, `${index}.pieces`);
    }
    const [{ file, wanted, found }] = wrong as [Part];
    throw new ShardlightError("checksum", `${file.url}: its SHA-256 is ${found}, expected ${wanted}; what came was deleted`);
  }
  return files.map(({ name }) => name);
}

/** A file that is being written. */
class Part {
  readonly wanted: string | null;
  readonly index: number;
  readonly file: StoredFile;
  readonly data: SyncHandle;
  /** Which pieces are here. */
  readonly marks: Uint8Array<ArrayBuffer>;
  /** What it came to, where one is wanted. */
  found: string | null = null;
  readonly #marks: SyncHandle;
  #checksum: Checksum | null;

  private constructor(index: number, file: StoredFile, wanted: string | null, data: SyncHandle, marked: SyncHandle, marks: Uint8Array<ArrayBuffer>) {
    [this.index, this.file, this.wanted, this.data, this.#marks, this.marks] = [index, file, wanted, data, marked, marks];
    this.#checksum = wanted ? new Checksum() : null;
  }

  static async open(folder: FileSystemDirectoryHandle, index: number, file: StoredFile, wanted: string | null): Promise<Part> {
    const marks = new Uint8Array(pieceCount(file));
    marks.set((await readMarks(folder, index)).subarray(0, marks.length));
    const data = await openFile(await folder.getDirectoryHandle(String(index), { create: true }), file.name);
    try {
      // Browsers may delete files, one by one.
      const size = data.getSize();
      for (let piece = 0; piece < marks.length; piece++) if (pieceEnd(file, piece) > size) marks[piece] = 0;
      const marked = await openFile(folder, `${index}.pieces`);
      const part = new Part(index, file, wanted, data, marked, marks);
      try {
        write(marked, marks, 0);
      } catch (error) {
        marked.close();
        throw error;
      }
      if (marks[0] === 1) part.#advance();
      return part;
    } catch (error) {
      data.close();
      throw error;
    }
  }

  /** All of the piece was written. */
  mark(piece: number): void {
    // Marked is only what is on the disk.
    this.data.flush();
    write(this.#marks, Uint8Array.of(1), piece);
    this.marks[piece] = 1;
    this.#advance();
  }

  /** The checksum follows the pieces that are there without a gap. */
  #advance(): void {
    if (!this.#checksum) return;
    const gap = this.marks.findIndex((mark) => mark !== 1);
    // `finish` awaits it, and meets what goes wrong.
    this.#checksum.advance(this.data, pieceEnd(this.file, (gap < 0 ? this.marks.length : gap) - 1)).catch(() => {});
  }

  async finish(): Promise<void> {
    this.file.bytes ??= this.data.getSize();
    this.data.truncate(this.file.bytes);
    this.data.flush();
    if (!this.#checksum) return;
    await this.#checksum.advance(this.data, this.file.bytes);
    this.found = this.#checksum.finish();
    if (this.found === this.wanted) this.file.sha256 = this.found;
  }

  right(): boolean {
    return this.found === this.wanted;
  }

  close(): void {
    this.data.close();
    this.#marks.close();
    this.#checksum?.free();
    this.#checksum = null;
  }
}

/** All files of a model, on their way. */
class Download {
  readonly #parts: Part[];
  readonly #wish: Wish;
  readonly #total: number;
  readonly #speed = new Speed();
  #done = 0;

  constructor(parts: Part[], wish: Wish) {
    [this.#parts, this.#wish] = [parts, wish];
    // One length that is not known makes the sum unknown.
    this.#total = parts.some(({ file }) => file.bytes === null) ? 0 : parts.reduce((sum, { file }) => sum + (file.bytes ?? 0), 0);
    this.#done = parts.reduce((sum, { file, marks }) => sum + bytesMarked(file, marks), 0);
  }

  async run(): Promise<void> {
    this.#came(0);
    const jobs = this.#parts.flatMap((part) => {
      if (part.file.pieceBytes === 0) return [(signal: AbortSignal) => this.#whole(part, signal)];
      const missing = [...part.marks.keys()].filter((piece) => part.marks[piece] !== 1);
      return missing.map((piece) => (signal: AbortSignal) => this.#piece(part, piece, signal));
    });
    await inParallel(jobs, this.#wish.signal);
  }

  #came(bytes: number): void {
    this.#done += bytes;
    this.#wish.tell(this.#done, this.#total, this.#speed.after(bytes));
  }

  async #piece(part: Part, piece: number, signal: AbortSignal): Promise<void> {
    const { url, bytes, pieceBytes, etag } = part.file;
    const end = pieceEnd(part.file, piece);
    let at = piece * pieceBytes;
    await patiently(signal, async () => {
      const range: Range = [at, end];
      await receive(url, range, signal, checkPart(url, range, bytes ?? 0, etag), (chunk) => {
        if (at + chunk.length > end) throw lie(url, range, "more bytes than asked for");
        write(part.data, chunk, at);
        at += chunk.length;
        this.#came(chunk.length);
      });
      if (at < end) throw new Lost(`the answer to bytes ${range[0]}-${end - 1} ended at ${at}`);
    }, () => at);
    part.mark(piece);
  }

  /** From a server without ranges; every attempt begins at the beginning. */
  async #whole(part: Part, signal: AbortSignal): Promise<void> {
    const { url, bytes } = part.file;
    let at = 0;
    await patiently(signal, async () => {
      this.#came(-at);
      at = 0;
      part.data.truncate(0);
      await receive(url, null, signal, () => {}, (chunk) => {
        write(part.data, chunk, at);
        at += chunk.length;
        this.#came(chunk.length);
        if (bytes !== null && at > bytes) throw wrongLength(url, bytes, "more came");
      });
      if (bytes !== null && at < bytes) throw new Lost(`the answer ended after ${at} of ${bytes} bytes`);
    });
  }
}

function wrongLength(url: string, bytes: number, came: string): ShardlightError {
  return new ShardlightError("io", `${url}: the server's Content-Length is ${bytes}, but ${came}`);
}

/** Bytes a second, of late. */
class Speed {
  #samples: [time: number, bytes: number][] = [[performance.now(), 0]];
  #sum = 0;

  after(bytes: number): number {
    const now = performance.now();
    this.#sum += Math.max(bytes, 0);
    this.#samples.push([now, this.#sum]);
    // One that is older stays: the first to measure from.
    while (this.#samples.length > 2 && now - (this.#samples[1] as [number, number])[0] > SPEED_OVER) this.#samples.shift();
    const [time, sum] = this.#samples[0] as [number, number];
    return now > time ? ((this.#sum - sum) / (now - time)) * 1000 : 0;
  }
}

/** Runs some jobs at a time; the first that fails ends all. */
async function inParallel(jobs: ((signal: AbortSignal) => Promise<void>)[], signal: AbortSignal): Promise<void> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const waiting = [...jobs];
  let failed: { error: unknown } | undefined;
  const lane = async () => {
    for (let job = waiting.shift(); job && !either.aborted; job = waiting.shift()) {
      try {
        await job(either);
      } catch (error) {
        failed ??= { error };
        stop.abort();
      }
    }
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, lane));
  signal.throwIfAborted();
  if (failed) throw failed.error;
}

/**
 * Sets room aside before anything is downloaded: files get their length. Asking the browser is not enough, since some tell every origin
 * the same quota.
 */
async function reserve(name: string, parts: Part[]): Promise<void> {
  const before = parts.map(({ data }) => data.getSize());
  const needed = parts.reduce((sum, { file }, i) => sum + Math.max((file.bytes ?? 0) - (before[i] ?? 0), 0), 0);
  const { usage = 0, quota = Infinity } = await navigator.storage.estimate();
  if (needed > quota - usage) throw await full(name, `${size(needed)} more are needed, for which the browser has no room`);
  try {
    for (const [i, { file, data }] of parts.entries()) resize(data, Math.max(file.bytes ?? 0, before[i] ?? 0));
  } catch (error) {
    for (const [i, { data }] of parts.entries()) data.truncate(before[i] ?? 0);
    throw error instanceof Full ? await full(name, `${size(needed)} more are needed, for which the browser has no room`) : error;
  }
}

/** So many others are named. */
const NAMED = 5;

async function full(name: string, what: string): Promise<ShardlightError> {
  const { usage = 0, quota = 0 } = await navigator.storage.estimate();
  // The one that was not used for the longest time first.
  const others = (await list()).filter((model) => model.name !== name && model.bytesHere > 0).reverse();
  const names = others.slice(0, NAMED).map((model) => `${model.name} (${size(model.bytesHere)})`).join(", ");
  const more = others.length > NAMED ? ` and ${others.length - NAMED} more` : "";
  const way = names ? `delete another model: ${names}${more}` : "make room on the disk";
  return new ShardlightError("quota", `${name}: ${what} (it says that ${size(usage)} of ${size(quota)} are used); ${way}, or load it with cache: false`);
}

const size = (bytes: number) => (bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`);

/** Writes a stream down, since a model is read more than once and not in order. */
export async function spool(
  stream: ReadableStream<unknown>,
  { sha256, tell, signal }: { sha256: string | null; tell: Tell; signal: AbortSignal },
): Promise<Kept> {
  const root = await navigator.storage.getDirectory();
  const folder = await root.getDirectoryHandle(SPOOL, { create: true });
  await clean(folder);
  const name = crypto.randomUUID();
  const release = await hold(spooling(name), "exclusive");
  // What is left is deleted by the next stream, should this Worker end before.
  const discard = async () => {
    await deleteEntry(folder, name);
    release();
  };
  try {
    const handle = await openFile(folder, name);
    const hash = sha256 ? new Checksum() : null;
    const reader = stream.getReader();
    try {
      const speed = new Speed();
      let at = 0;
      for (;;) {
        signal.throwIfAborted();
        const { done, value } = await reader.read();
        if (done) break;
        const chunk = bytesOf(value);
        write(handle, chunk, at);
        hash?.update(chunk);
        at += chunk.length;
        tell(at, 0, speed.after(chunk.length));
      }
      handle.flush();
      const found = hash?.finish();
      if (found && found !== sha256) throw new ShardlightError("checksum", `stream: its SHA-256 is ${found}, expected ${sha256}`);
      tell(at, at, 0);
    } catch (error) {
      await reader.cancel(error).catch(() => {});
      throw error instanceof Full ? await full("stream", "the browser takes no more bytes") : error;
    } finally {
      handle.close();
      hash?.free();
    }
    const file = await openToRead(folder, name);
    const close = async () => {
      if ("handle" in file) file.handle.close();
      await discard();
    };
    return { files: ["handle" in file ? { ...file, name: "stream" } : new File([file], "stream")], release: () => void close(), discard: close };
  } catch (error) {
    await discard();
    throw error;
  }
}

const spooling = (name: string) => `shardlight:spool:${name}`;

/** Deletes what Workers that have ended have left. */
async function clean(folder: FileSystemDirectoryHandle): Promise<void> {
  for await (const name of folder.keys()) {
    await navigator.locks.request(spooling(name), { ifAvailable: true }, (lock) => lock && deleteEntry(folder, name));
  }
}

function bytesOf(chunk: unknown): Uint8Array<ArrayBuffer> {
  if (chunk instanceof Uint8Array) return chunk as Uint8Array<ArrayBuffer>;
  if (chunk instanceof ArrayBuffer) return new Uint8Array(chunk);
  throw new ShardlightError("invalid", `stream: expected chunks of bytes (Uint8Array), found ${typeof chunk}`);
}
