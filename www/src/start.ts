// Starting the thread on which everything is computed.

import type { Thread } from "./calls.ts";
import { failure } from "./calls.ts";
import { ShardlightError } from "./errors.ts";
import type { Reply, Request } from "./protocol.ts";
import { compiled, type WasmSource } from "./wasm.ts";

export type { WasmSource };

/** Where the computing is done, and by what. */
export interface ThreadOptions {
  /**
   * `shardlight.wasm`, if it is not beside the code: its address, its bytes, an answer of `fetch`, or compiled already.
   * What has one address is fetched and compiled once in a page.
   */
  wasm?: WasmSource | Promise<WasmSource> | undefined;
  /** The same for `grammar.wasm`, which only answers of a given form need. */
  grammarWasm?: WasmSource | Promise<WasmSource> | undefined;
  /**
   * Makes the Worker out of the module `shardlight/worker`, where the package may not make it itself. Otherwise that needs
   * no set-up, only `worker-src blob:` or `'self'` where there is a Content-Security-Policy.
   */
  worker?: (() => Worker) | undefined;
  /**
   * No Worker: computes on the thread that calls, for programs that have a Worker of their own. A page freezes while the CPU
   * device computes there. Without Workers, in Node, this is what is done.
   */
  inline?: boolean | undefined;
}

/** Text of the Worker: the package's build puts it here, the page's does not. */
declare const WORKER_TEXT: string;

/** A thread on which wasm runs; aborting `signal` ends it. */
export async function startThread({ wasm, worker, inline }: ThreadOptions, signal?: AbortSignal): Promise<Thread> {
  signal?.throwIfAborted();
  const module = compiled(wasm);
  // Told below, once; a Worker that does not start is told first.
  module.catch(() => {});
  let failed: unknown;
  for (const start of inline || typeof Worker === "undefined" ? [inlineThread] : workers(worker)) {
    try {
      return await ready(await start(), module, signal);
    } catch (error) {
      signal?.throwIfAborted();
      // Only a Worker that did not start may have started otherwise.
      if (error instanceof ShardlightError && error.code !== "worker") throw error;
      failed = error;
    }
  }
  const reason = failed instanceof Error ? `: ${failed.message}` : "";
  throw new ShardlightError(
    "worker",
    `the Worker could not start${reason}; a Content-Security-Policy must allow worker-src blob: or 'self', or give worker: () => new Worker(…)`,
  );
}

/** Ways to a Worker, the next one for when the last one is not allowed. */
function workers(given: ThreadOptions["worker"]): (() => Thread)[] {
  if (given) return [() => workerThread(given())];
  // Bundlers look for just this form.
  const file = () => workerThread(new Worker(new URL("./thread.ts", import.meta.url), { type: "module" }));
  return typeof WORKER_TEXT === "string" ? [() => textThread(WORKER_TEXT), file] : [file];
}

/** A Worker may be made of a text where it may not be of another server's file; and a text needs no bundler. */
function textThread(text: string): Thread {
  const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  const thread = workerThread(new Worker(address, { name: "shardlight" }));
  const { terminate } = thread;
  // It is read some time after this; the address costs its few bytes until the model is closed.
  return {
    ...thread,
    terminate() {
      terminate();
      URL.revokeObjectURL(address);
    },
  };
}

function workerThread(worker: Worker): Thread {
  return {
    send: (request, transfer = []) => worker.postMessage(request, transfer),
    listen(heard) {
      worker.onmessage = (event: MessageEvent<Reply>) => heard(event.data);
      // What wasm throws where nobody waits comes without its code.
      worker.onerror = ({ message }) => {
        if (message) heard({ type: "error", code: "internal", message });
        else heard({ type: "error", code: "worker", message: "its file may not be loaded" });
      };
    },
    terminate: () => worker.terminate(),
  };
}

async function inlineThread(): Promise<Thread> {
  // A file of its own: few programs need it twice, as a Worker's text and here.
  const { engine } = await import("./engine.ts");
  let hear: (reply: Reply) => void = () => {};
  // As from a Worker: never before the caller's next line.
  const { receive, fail, close } = engine((reply) => queueMicrotask(() => hear(reply)));
  // A panic inside wasm leaves its promise open for ever; what it throws is an Error with this code.
  const uncaught = (event: { error?: unknown; reason?: unknown }) => {
    const error = event.error ?? event.reason;
    if (error instanceof Error && (error as { code?: unknown }).code === "internal") fail(error);
  };
  const events = ["error", "unhandledrejection"];
  for (const name of events) globalThis.addEventListener?.(name, uncaught as (event: unknown) => void);
  return {
    send: (request: Request) => queueMicrotask(() => void receive(request)),
    listen: (heard) => (hear = heard),
    terminate() {
      hear = () => {};
      close();
      for (const name of events) globalThis.removeEventListener?.(name, uncaught as (event: unknown) => void);
    },
  };
}

/** Gives the thread its wasm. */
async function ready(thread: Thread, module: Promise<WebAssembly.Module>, signal?: AbortSignal): Promise<Thread> {
  let abort = () => {};
  try {
    signal?.throwIfAborted();
    return await new Promise<Thread>((resolve, reject) => {
      abort = () => reject(signal?.reason);
      signal?.addEventListener("abort", abort);
      thread.listen((reply) => {
        if (reply.type === "ready") resolve(thread);
        else if (reply.type === "error") reject(failure(reply));
      });
      module.then((module) => thread.send({ type: "init", module }), reject);
    });
  } catch (error) {
    thread.terminate();
    throw error;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}
