// Requests, and what comes of them.

import { type ErrorCode, ShardlightError } from "./errors.ts";
import type { Reply, Request } from "./protocol.ts";

/** Where requests are handled: a Worker, or this thread. */
export interface Thread {
  /** What is in `transfer` goes over, and is not here any more. */
  send(request: Request, transfer?: Transferable[]): void;
  /** Who is told from now on. */
  listen(heard: (reply: Reply) => void): void;
  /** Frees what is open there; nobody is told any more. */
  terminate(): void;
}

export function failure({ code, message }: { code: ErrorCode; message: string }): ShardlightError {
  return new ShardlightError(code, message);
}

/** Requests that a thread answers one by one, each under its id. */
export class Calls {
  readonly #thread: Thread;
  readonly #waiting = new Map<number, { resolve: (result: never) => void; reject: (error: unknown) => void }>();
  #last = 0;
  #ended: unknown;

  constructor(thread: Thread) {
    this.#thread = thread;
  }

  ask<T>(request: (id: number) => Request): Promise<T> {
    if (this.#ended) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const id = ++this.#last;
      this.#waiting.set(id, { resolve, reject });
      this.#thread.send(request(id));
    });
  }

  hear(reply: Reply): void {
    if (reply.type === "result") this.#take(reply.id)?.resolve(reply.result as never);
    else if (reply.type === "failed") this.#take(reply.id)?.reject(failure(reply));
    else if (reply.type === "error") this.failAll(failure(reply));
  }

  /** Ends the thread: all that is asked now and later is rejected with `error`. */
  end(error: unknown): void {
    this.#ended = error;
    this.#thread.terminate();
    this.failAll(error);
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
