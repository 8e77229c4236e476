// The Worker as the page sees it: requests, and what it tells.

import { type ErrorCode, ShardlightError } from "./errors.ts";
import type { Reply, Request } from "./protocol.ts";

export function startWorker(): Worker {
  return new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
}

export function listen(worker: Worker, heard: (reply: Reply) => void): void {
  worker.onmessage = (event: MessageEvent<Reply>) => heard(event.data);
  // What wasm throws where nobody waits comes without its code.
  worker.onerror = ({ message }) => {
    if (message) heard({ type: "error", code: "internal", message });
    else heard({ type: "error", code: "worker", message: "the worker could not start" });
  };
}

export function failure({ code, message }: { code: ErrorCode; message: string }): ShardlightError {
  return new ShardlightError(code, message);
}

export function send(worker: Worker, request: Request): void {
  worker.postMessage(request);
}

/** Requests that a Worker answers one by one, each under its id. */
export class Calls {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, { resolve: (result: never) => void; reject: (error: unknown) => void }>();
  #last = 0;

  constructor(worker: Worker) {
    this.#worker = worker;
  }

  ask<T>(request: (id: number) => Request): Promise<T> {
    return new Promise((resolve, reject) => {
      const id = ++this.#last;
      this.#waiting.set(id, { resolve, reject });
      send(this.#worker, request(id));
    });
  }

  hear(reply: Reply): void {
    if (reply.type === "result") this.#take(reply.id)?.resolve(reply.result as never);
    else if (reply.type === "failed") this.#take(reply.id)?.reject(failure(reply));
    else if (reply.type === "error") this.failAll(failure(reply));
  }

  failAll(error: unknown): void {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  #take(id: number) {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    return waiting;
  }
}
