// The package: a model in a Worker of its own.

import type { Answer, GenerateOptions, LoadOptions, Loaded, Message, Progress, Reply, Request, Source } from "./protocol.ts";

export type * from "./protocol.ts";

/** A model on a device, and one conversation with it. */
export class Model {
  /** What was loaded, and onto which device. */
  readonly loaded: Loaded;
  readonly #worker: Worker;
  #heard: (reply: Reply) => void = () => {};
  #answering = false;

  private constructor(worker: Worker, loaded: Loaded) {
    this.#worker = worker;
    this.loaded = loaded;
    listen(worker, (reply) => this.#heard(reply));
  }

  /** Starts a Worker and puts the model onto a device; aborting ends both. */
  static async load(
    source: Source,
    options: LoadOptions = {},
    onProgress: (progress: Progress) => void = () => {},
    signal?: AbortSignal,
  ): Promise<Model> {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    try {
      const loaded = await new Promise<Loaded>((resolve, reject) => {
        signal?.throwIfAborted();
        signal?.addEventListener("abort", () => reject(signal.reason));
        listen(worker, (reply) => {
          if (reply.type === "progress") onProgress(reply.progress);
          else if (reply.type === "loaded") resolve(reply.loaded);
          else if (reply.type === "error") reject(new Error(reply.message));
        });
        send(worker, { type: "load", source, options });
      });
      return new Model(worker, loaded);
    } catch (error) {
      worker.terminate();
      throw error;
    }
  }

  /** Answers text or a conversation; what it shares with the last one is not computed again. */
  async generate(
    prompt: string | Message[],
    options: GenerateOptions = {},
    onToken: (text: string, id: number) => void = () => {},
  ): Promise<Answer> {
    if (this.#answering) throw new Error("an answer is being written; cancel it first");
    this.#answering = true;
    try {
      return await new Promise((resolve, reject) => {
        this.#heard = (reply) => {
          if (reply.type === "token") onToken(reply.text, reply.id);
          else if (reply.type === "answer") resolve(reply.answer);
          else if (reply.type === "error") reject(new Error(reply.message));
        };
        send(this.#worker, { type: "generate", prompt, options });
      });
    } finally {
      this.#answering = false;
    }
  }

  /** Ends the answer that is being written: `generate` gives what there is. */
  cancel(): void {
    send(this.#worker, { type: "cancel" });
  }

  /** Forgets the conversation. */
  reset(): void {
    send(this.#worker, { type: "reset" });
  }

  /** Frees the model and its device. */
  close(): void {
    this.#worker.terminate();
    this.#heard({ type: "error", message: "the model was closed" });
  }
}

function listen(worker: Worker, heard: (reply: Reply) => void): void {
  worker.onmessage = (event: MessageEvent<Reply>) => heard(event.data);
  worker.onerror = (event) => heard({ type: "error", message: event.message || "the worker could not start" });
}

function send(worker: Worker, request: Request): void {
  worker.postMessage(request);
}
