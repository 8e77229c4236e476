// The package: what a program imports.

import { Calls, failure, listen, send, startWorker } from "./calls.ts";
import { Model } from "./model.ts";
import type { CheckOptions, Fit, Loaded, LoadOptions, Source } from "./protocol.ts";

export { ShardlightError, type ErrorCode } from "./errors.ts";
export { Generation } from "./generation.ts";
export { Model } from "./model.ts";
export { Runtime } from "./runtime.ts";
export type * from "./openai.ts";
export type * from "./protocol.ts";

/**
 * Starts a Worker and puts a model onto a device; aborting `signal` ends both. With `tp` or `pp` it is shared among
 * ranks, such as `load(url, { tp: 2, devices: ["gpu", "cpu"], split: "auto" })`.
 */
async function load(source: Source, { onProgress, signal, ...options }: LoadOptions = {}): Promise<Model> {
  signal?.throwIfAborted();
  const worker = startWorker();
  let abort = () => {};
  try {
    const loaded = await new Promise<Loaded>((resolve, reject) => {
      abort = () => reject(signal?.reason);
      signal?.addEventListener("abort", abort);
      listen(worker, (reply) => {
        if (reply.type === "progress") onProgress?.(reply.progress);
        else if (reply.type === "loaded") resolve(reply.loaded);
        else if (reply.type === "error") reject(failure(reply));
      });
      send(worker, { type: "load", source, options });
    });
    return new Model(worker, loaded);
  } catch (error) {
    worker.terminate();
    throw error;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

/**
 * How a model would fit this machine: its headers are read, nothing is downloaded, and the device is measured for half a
 * second. Fails as `load` would for what is no model, or one that no device can run.
 */
async function check(source: Source, { signal, ...options }: CheckOptions & { signal?: AbortSignal } = {}): Promise<Fit> {
  signal?.throwIfAborted();
  const worker = startWorker();
  const calls = new Calls(worker);
  const abort = () => calls.failAll(signal?.reason);
  signal?.addEventListener("abort", abort);
  listen(worker, (reply) => calls.hear(reply));
  try {
    const { device, contextLength, kv } = options;
    return await calls.ask((id) => ({ type: "check", id, source, options: { device, contextLength, kv } }));
  } finally {
    signal?.removeEventListener("abort", abort);
    worker.terminate();
  }
}

/** Models: `const model = await Shardlight.load("https://…/model.gguf")`. */
export const Shardlight = { load, check };
