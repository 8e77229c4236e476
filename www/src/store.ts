// Models kept in the origin private file system (OPFS): one folder for each.
//
//   shardlight/KEY/about.json     addresses, lengths, and what the server called this version of each file
//   shardlight/KEY/0.pieces       a byte for each piece of the first file: 1 when all of it is here
//   shardlight/KEY/0/NAME.gguf    the first file
//
// Only a dedicated Worker can write in place (download.ts). What is here works in pages, too.

import { ShardlightError } from "./errors.ts";

/** A model in the store, or a part of one. */
export interface StoredModel {
  /** The file's name, without the number of its part. */
  name: string;
  /** The address of the first file. */
  url: string;
  urls: string[];
  /** Length of all files; `null` while it is not known. */
  bytes: number | null;
  /** Of those, bytes that need not be downloaded again. */
  bytesHere: number;
  complete: boolean;
  lastUsed: Date;
}

/** How much room the store has. */
export interface StorageUse {
  /** Bytes that this origin takes, all that is not a model included. */
  used: number;
  /** Bytes that the browser allows this origin. */
  quota: number;
  /** Is the browser asked not to delete it when the disk gets full? */
  persisted: boolean;
}

export interface StoredFile {
  name: string;
  url: string;
  /** `null` until a server that does not tell has sent all. */
  bytes: number | null;
  /** Length of all pieces but the last; 0 when the server does not know ranges. */
  pieceBytes: number;
  etag: string | null;
  modified: string | null;
  /** The checksum, once it was found right. */
  sha256: string | null;
}

export interface About {
  version: 1;
  name: string;
  files: StoredFile[];
  complete: boolean;
  /** Milliseconds since 1970. */
  lastUsed: number;
}

export const ABOUT = "about.json";
const FOLDER = "shardlight";
/** Streams that had to be written down. */
export const SPOOL = "shardlight-spool";

/** Held alone by the one who writes. */
export const writing = (key: string) => `shardlight:write:${key}`;
/** Shared by all who may still read. */
export const using = (key: string) => `shardlight:use:${key}`;

/** Why this place has no store; `null` where it has one. */
export async function noStore(): Promise<string | null> {
  if (globalThis.isSecureContext === false) return "the origin private file system needs https or localhost";
  if (!globalThis.navigator?.storage?.getDirectory || !navigator.locks) return "there is no origin private file system here";
  try {
    await navigator.storage.getDirectory();
    return null;
  } catch (error) {
    // Private windows of some browsers.
    return `the origin private file system cannot be opened: ${reason(error)}`;
  }
}

export function reason(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replaceAll("\n", " ");
}

export const named = (error: unknown, name: string) => error instanceof Error && error.name === name;

/** The folder's name: addresses are too long, and have characters that file names may not. */
export async function keyOf(urls: string[]): Promise<string> {
  const bytes = new TextEncoder().encode(urls.join("\n"));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest.subarray(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The last part of an address, as a name that file systems take. */
export function fileName(url: string): string {
  const last = new URL(url).pathname.split("/").at(-1) ?? "";
  let name = last;
  try {
    name = decodeURIComponent(last);
  } catch {
    // Not every % begins a code.
  }
  name = name.replaceAll(/[\p{Cc}\\/:*?"<>|]/gu, "_").replace(/^[.\s]+|[.\s]+$/g, "");
  // The ending says what it is, so long names lose their beginning.
  return name.slice(-120) || "model";
}

/** What people call the model of these files. */
export const modelName = (urls: string[]) => fileName(urls[0] ?? "").replace(/-\d{5}-of-\d{5}(?=\.gguf$)/, "");

/** The folder of all models; `null` when there is none and none shall be made. */
async function models(create: boolean): Promise<FileSystemDirectoryHandle | null> {
  const missing = await noStore();
  if (missing) throw new ShardlightError("unsupported", `no models can be kept here: ${missing}`);
  const root = await navigator.storage.getDirectory();
  try {
    return await root.getDirectoryHandle(FOLDER, { create });
  } catch (error) {
    if (named(error, "NotFoundError")) return null;
    throw error;
  }
}

/** The folder of one model, made when it is missing. */
export async function folderOf(key: string): Promise<FileSystemDirectoryHandle> {
  const folder = await models(true);
  return await (folder as FileSystemDirectoryHandle).getDirectoryHandle(key, { create: true });
}

/** The file, or `null`. */
export async function fileIn(folder: FileSystemDirectoryHandle, ...path: string[]): Promise<File | null> {
  try {
    for (const part of path.slice(0, -1)) folder = await folder.getDirectoryHandle(part);
    return await (await folder.getFileHandle(path.at(-1) as string)).getFile();
  } catch (error) {
    if (named(error, "NotFoundError") || named(error, "TypeMismatchError")) return null;
    throw error;
  }
}

/** The bytes of a small file that somebody may be writing. */
async function contents(folder: FileSystemDirectoryHandle, name: string): Promise<ArrayBuffer> {
  for (let attempts = 1; ; attempts++) {
    try {
      return await ((await fileIn(folder, name)) ?? new Blob()).arrayBuffer();
    } catch (error) {
      // It was written after it was found.
      if (!named(error, "NotReadableError") || attempts === 10) throw error;
    }
  }
}

/** What the folder says of itself; `null` when that was cut short or is none of ours. */
export async function readAbout(folder: FileSystemDirectoryHandle): Promise<About | null> {
  const text = new TextDecoder().decode(await contents(folder, ABOUT));
  try {
    // Behind the line there may be the rest of a longer one.
    const about = JSON.parse(text.slice(0, text.indexOf("\n"))) as About;
    const known = about.version === 1 && Array.isArray(about.files) && about.files.length > 0;
    return known && about.files.every((file) => typeof file?.url === "string") ? about : null;
  } catch {
    return null;
  }
}

export const pieceCount = ({ bytes, pieceBytes }: StoredFile) => (pieceBytes > 0 ? Math.ceil((bytes ?? 0) / pieceBytes) : 0);
export const pieceEnd = ({ bytes, pieceBytes }: StoredFile, i: number) => Math.min((i + 1) * pieceBytes, bytes ?? 0);

/** Bytes of the pieces that are marked. */
export function bytesMarked(file: StoredFile, marks: Uint8Array): number {
  let bytes = 0;
  for (let i = 0; i < pieceCount(file); i++) if (marks[i] === 1) bytes += pieceEnd(file, i) - i * file.pieceBytes;
  return bytes;
}

export async function readMarks(folder: FileSystemDirectoryHandle, index: number): Promise<Uint8Array> {
  return new Uint8Array(await contents(folder, `${index}.pieces`));
}

type Entry = StoredModel & { key: string };

async function entries(): Promise<Entry[]> {
  const folder = await models(false);
  const found: Entry[] = [];
  for await (const [key, handle] of folder?.entries() ?? []) {
    if (handle.kind !== "directory") continue;
    const about = await readAbout(handle);
    if (!about) {
      // Cut short when it was begun: it has a name so that it can be deleted.
      found.push({ key, name: key, url: "", urls: [], bytes: null, bytesHere: 0, complete: false, lastUsed: new Date(0) });
      continue;
    }
    const { name, files, complete, lastUsed } = about;
    const bytes = files.reduce<number | null>((sum, file) => (sum === null || file.bytes === null ? null : sum + file.bytes), 0);
    let bytesHere = complete ? (bytes ?? 0) : 0;
    if (!complete) {
      for (const [i, file] of files.entries()) bytesHere += bytesMarked(file, await readMarks(handle, i));
    }
    const urls = files.map(({ url }) => url);
    found.push({ key, name, url: urls[0] ?? "", urls, bytes, bytesHere, complete, lastUsed: new Date(lastUsed) });
  }
  return found.sort((a, b) => b.lastUsed.getTime() - a.lastUsed.getTime());
}

export async function list(): Promise<StoredModel[]> {
  return (await entries()).map(({ key: _, ...model }) => model);
}

async function remove(nameOrUrl: string): Promise<void> {
  const all = await entries();
  const wanted = fullAddress(nameOrUrl);
  const found = all.filter(({ name, urls }) => name === nameOrUrl || urls.includes(wanted));
  const [model] = found;
  if (!model) {
    const names = all.map(({ name }) => name).join(", ") || "none";
    throw new ShardlightError("invalid", `${nameOrUrl}: no such model is stored; there are: ${names}`);
  }
  if (found.length > 1) {
    const urls = found.map(({ url }) => url).join(", ");
    throw new ShardlightError("invalid", `${found.length} models are called ${nameOrUrl}; name one by its address: ${urls}`);
  }
  const { key, name } = model;
  const now = { ifAvailable: true };
  const deleted = await navigator.locks.request(writing(key), now, (lock) => lock && navigator.locks.request(using(key), now, async (lock) => {
    if (!lock) return false;
    await (await models(true))?.removeEntry(key, { recursive: true });
    return true;
  }));
  if (!deleted) throw new ShardlightError("busy", `${name} is being downloaded or in use, here or in another tab; close that model first`);
}

function fullAddress(text: string): string {
  try {
    return withoutFragment(new URL(text, location.href));
  } catch {
    return text;
  }
}

/** The address that is asked: what stands behind # never is. */
export function withoutFragment(url: URL): string {
  const copy = new URL(url);
  copy.hash = "";
  return copy.href;
}

export async function usage(): Promise<StorageUse> {
  if (!navigator.storage?.estimate) throw new ShardlightError("unsupported", "this browser does not tell how much is stored; it needs https or localhost");
  const { usage = 0, quota = 0 } = await navigator.storage.estimate();
  return { used: usage, quota, persisted: await navigator.storage.persisted() };
}

export async function persist(): Promise<boolean> {
  return (await navigator.storage?.persist?.()) ?? false;
}

/** The models that are stored. */
export const Models = {
  /** The models that are stored, in whole or in part, the one used last first. */
  list,
  /** Deletes the model of this name or address. One that is loaded or being downloaded, in any tab, is `busy`. */
  delete: remove,
  /** What this origin uses of what it may. */
  usage,
  /** Asks the browser not to delete models when the disk gets full; gives whether it will not. Only in pages. */
  persist,
};
