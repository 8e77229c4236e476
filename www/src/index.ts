// The package: what a program imports.

import { failure, listen, send, startWorker } from "./calls.ts";
import { Model } from "./model.ts";
import type { Loaded, LoadOptions, Source } from "./protocol.ts";

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

/** Models: `const model = await Shardlight.load("https://…/model.gguf")`. */
export const Shardlight = { load };
