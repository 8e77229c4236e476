// The package: what a program imports.

import { Calls, failure, type Thread } from "./calls.ts";
import { ShardlightError } from "./errors.ts";
import { Model } from "./model.ts";
import { place } from "./places.ts";
import type { CheckOptions, Fit, Loaded, LoadOptions, Source } from "./protocol.ts";
import { joined, threadCount } from "./ranks.ts";
import { startThread, type ThreadOptions } from "./start.ts";
import { Models } from "./store.ts";
import { compiled } from "./wasm.ts";

export { ShardlightError, type ErrorCode } from "./errors.ts";
export { Generation } from "./generation.ts";
export { Model, type ModelEvents } from "./model.ts";
export { Runtime, type OpenOptions } from "./runtime.ts";
export type { ThreadOptions, WasmSource } from "./start.ts";
export type * from "./openai.ts";
export type * from "./protocol.ts";
export type { StorageUse, StoredModel } from "./store.ts";

async function load(source: Source, all: LoadOptions = {}): Promise<Model> {
  const { onProgress, signal, wasm, grammarWasm, worker, inline, threads, ...options } = all;
  signal?.throwIfAborted();
  // Once for all Workers: an answer of `fetch` can be read only once.
  const module = compiled(wasm);
  module.catch(() => {});
  const ended = new AbortController();
  const { source: placed, transfer } = place(source, ended.signal);
  const start = () => startThread({ wasm: module, worker, inline }, signal);
  let first: Thread | undefined;
  let thread: Thread | undefined;
  let abort = () => {};
  try {
    first = thread = await start();
    // Of several Workers only one could read a stream.
    const count = transfer.length > 0 && threads === undefined ? 1 : await threadCount(first, all);
    if (count > 1 && transfer.length > 0) throw new ShardlightError("invalid", `threads: ${count} for a stream, which only one can read`);
    if (count > 1) thread = joined([first, ...(await Promise.all(Array.from({ length: count - 1 }, start)))]);
    signal?.throwIfAborted();
    const loaded = await new Promise<Loaded>((resolve, reject) => {
      abort = () => reject(signal?.reason);
      signal?.addEventListener("abort", abort);
      thread?.listen((reply) => {
        if (reply.type === "progress") onProgress?.(reply.progress);
        else if (reply.type === "loaded") resolve(reply.loaded);
        else if (reply.type === "error") reject(failure(reply));
      });
      thread?.send({ type: "load", source: placed, options }, transfer);
    });
    return Model.on(thread, loaded, grammarWasm);
  } catch (error) {
    thread?.terminate();
    ended.abort(error);
    // How many heads a model has is not known before.
    const alone = thread !== first && threads === undefined && error instanceof ShardlightError && error.code === "invalid";
    if (alone) return load(source, { ...all, wasm: module, threads: 1 });
    throw error;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

async function check(source: Source, all: CheckOptions & ThreadOptions & { signal?: AbortSignal } = {}): Promise<Fit> {
  const { signal, wasm, grammarWasm: _, worker, inline, ...options } = all;
  const ended = new AbortController();
  const { source: placed, transfer } = place(source, ended.signal);
  if (transfer.length > 0) {
    ended.abort();
    throw new ShardlightError("invalid", "a stream cannot be checked: it can be read only once");
  }
  const thread = await startThread({ wasm, worker, inline }, signal);
  const calls = new Calls(thread);
  const abort = () => calls.failAll(signal?.reason);
  signal?.addEventListener("abort", abort);
  thread.listen((reply) => calls.hear(reply));
  try {
    signal?.throwIfAborted();
    const { device, contextLength, kv } = options;
    return await calls.ask((id) => ({ type: "check", id, source: placed, options: { device, contextLength, kv } }));
  } finally {
    signal?.removeEventListener("abort", abort);
    thread.terminate();
  }
}

/** Models: `const model = await Shardlight.load("https://…/model.gguf")`. */
export const Shardlight = {
  /**
   * Puts a model onto a device, in a Worker of its own; aborting `signal` ends that. With `tp` or `pp` it is shared among ranks,
   * such as `load(url, { tp: 2, devices: ["gpu", "cpu"], split: "auto" })`.
   */
  load,
  /**
   * How a model would fit this machine: its headers are read, nothing is downloaded, and the device is measured for half a
   * second. Fails as `load` would for what is no model, or one that no device can run.
   */
  check,
  /** Those that are stored. */
  models: Models,
};
