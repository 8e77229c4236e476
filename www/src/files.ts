// Writing in the origin private file system, which only dedicated Workers can do in place; and checksums.

import { Sha256 } from "../pkg/shardlight.js";
import { ShardlightError } from "./errors.ts";
import { eachChunk, sleep } from "./http.ts";
import { ABOUT, type About, named, reason } from "./store.ts";

/** A file open for writing, by nobody else. TypeScript has it among the types of Workers only. */
export interface SyncHandle {
  read(into: Uint8Array<ArrayBuffer>, options: { at: number }): number;
  write(bytes: Uint8Array<ArrayBuffer>, options: { at: number }): number;
  truncate(bytes: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
  /** Where the browser has modes. */
  readonly mode?: string;
}

/** A stored file, open for reading. */
export interface OpenFile {
  name: string;
  handle: SyncHandle;
}

/** What is read at once to compute the checksum of what is being written. */
const SLICE = 4 << 20;

/** Why this thread cannot write; `null` where it can. */
export function noWriting(): string | null {
  return "createSyncAccessHandle" in FileSystemFileHandle.prototype ? null : "only a dedicated Worker can store models, and this is none (`inline`)";
}

/** Opens a file for writing, and makes it when it is missing. */
export async function openFile(folder: FileSystemDirectoryHandle, name: string): Promise<SyncHandle> {
  const file = await folder.getFileHandle(name, { create: true });
  for (let pause = 10; ; pause *= 2) {
    try {
      return await open(file);
    } catch (error) {
      // A Worker that was ended has lost its locks, but perhaps not yet its files.
      if (!named(error, "NoModificationAllowedError") || pause > 2000) throw inUse(error, name);
      await sleep(pause);
    }
  }
}

type Open = (options?: { mode: "read-only" }) => Promise<SyncHandle>;
const open = (file: FileSystemFileHandle, options?: { mode: "read-only" }) =>
  (file as unknown as { createSyncAccessHandle: Open }).createSyncAccessHandle(options);

/**
 * Opens a file for reading, as others may, too. Where a browser cannot share handles it is a `File`, which is read many times
 * slower (700 MB in 2 s, not 31 ms, in Chromium with the file in memory).
 */
export async function openToRead(folder: FileSystemDirectoryHandle, name: string): Promise<OpenFile | File> {
  const file = await folder.getFileHandle(name);
  try {
    const handle = await open(file, { mode: "read-only" });
    if (handle.mode === "read-only") return { name, handle };
    handle.close();
  } catch {
    // Another tab has it, in a browser without modes.
  }
  return await file.getFile();
}

function inUse(error: unknown, name: string): unknown {
  if (!named(error, "NoModificationAllowedError")) return error;
  return new ShardlightError("busy", `${name}: another tab uses the stored file, which is to be written anew; close the model there`);
}

/** Writes all of `bytes`, or throws `Full`. */
export function write(handle: SyncHandle, bytes: Uint8Array<ArrayBuffer>, at: number): void {
  if (roomFor(() => handle.write(bytes, { at })) !== bytes.length) throw new Full();
}

/** Gives a file this length, or throws `Full`. */
export function resize(handle: SyncHandle, bytes: number): void {
  roomFor(() => handle.truncate(bytes));
}

function roomFor<T>(change: () => T): T {
  try {
    return change();
  } catch (error) {
    throw named(error, "QuotaExceededError") ? new Full() : error;
  }
}

/** The browser gives no more room. */
export class Full extends Error {
  override message = "the browser gives no more room";
}

export async function writeAbout(folder: FileSystemDirectoryHandle, about: About): Promise<void> {
  const handle = await openFile(folder, ABOUT);
  try {
    // With room for checksums, so that a full store takes them.
    const text = JSON.stringify(about);
    const line = new TextEncoder().encode(`${text}${" ".repeat(4096 - (text.length % 4096))}\n`);
    // One write, so that there always is a whole line: whoever ends this Worker ends it before or after.
    write(handle, line, 0);
    handle.truncate(line.length);
    handle.flush();
  } finally {
    handle.close();
  }
}

/** Deletes a file or folder that may be there. */
export async function deleteEntry(folder: FileSystemDirectoryHandle, name: string): Promise<void> {
  try {
    await folder.removeEntry(name, { recursive: true });
  } catch (error) {
    if (!named(error, "NotFoundError")) throw inUse(error, name);
  }
}

/** The SHA-256 of a file in hex. */
export async function checksum(blob: Blob, signal: AbortSignal): Promise<string> {
  const hash = new Sha256();
  const broken = (error: unknown) => {
    const name = blob instanceof File ? blob.name : "bytes";
    throw new ShardlightError("io", `${name}: ${reason(error)}`);
  };
  try {
    await eachChunk(blob.stream(), broken, (chunk) => {
      signal.throwIfAborted();
      hash.update(chunk);
    });
    return hash.finish();
  } finally {
    hash.free();
  }
}

/** The SHA-256 of a file whose beginning grows. */
export class Checksum {
  readonly #hash = new Sha256();
  readonly #slice = new Uint8Array(SLICE);
  #at = 0;
  #running: Promise<void> = Promise.resolve();

  /** Takes bytes `..end`, which are all there, from where it was. */
  advance(handle: SyncHandle, end: number): Promise<void> {
    this.#running = this.#running.then(async () => {
      while (this.#at < end) {
        const slice = this.#slice.subarray(0, Math.min(SLICE, end - this.#at));
        if (handle.read(slice, { at: this.#at }) !== slice.length) throw new Error("a stored file is shorter than what was written");
        this.#hash.update(slice);
        this.#at += slice.length;
        // What comes from the network shall not wait long.
        await sleep(0);
      }
    });
    return this.#running;
  }

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
  }

  finish(): string {
    return this.#hash.finish();
  }

  free(): void {
    this.#hash.free();
  }
}
