// The package: a model in a Worker of its own.

import { type ErrorCode, ShardlightError } from "./errors.ts";
import { Generation } from "./generation.ts";
import { Completions } from "./openai.ts";
import type {
  Answer,
  Device,
  GenerateOptions,
  Input,
  LoadOptions,
  Loaded,
  Message,
  MlpSize,
  Op,
  Piece,
  Progress,
  Reply,
  Request,
  Setting,
  Shard,
  Source,
  Stats,
  Tensor,
  Traffic,
} from "./protocol.ts";

export { ShardlightError, type ErrorCode } from "./errors.ts";
export { Generation } from "./generation.ts";
export type * from "./openai.ts";
export type * from "./protocol.ts";

/** Requests that a Worker answers one by one, each under its id. */
class Calls {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, { resolve: (result: never) => void; reject: (error: Error) => void }>();
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

  failAll(error: ShardlightError): void {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  #take(id: number) {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    return waiting;
  }
}

/** A model on one device or on several, and one conversation with it. */
export class Model {
  /** What was loaded, and onto which device. */
  readonly loaded: Loaded;
  /** As OpenAI's client has it: `chat.completions.create({ messages, stream: true })`. */
  readonly chat: { readonly completions: Completions };
  readonly #worker: Worker;
  readonly #calls: Calls;
  #heard: (reply: Reply) => void = () => {};
  #answering = false;

  private constructor(worker: Worker, loaded: Loaded) {
    this.#worker = worker;
    this.#calls = new Calls(worker);
    this.loaded = loaded;
    this.chat = {
      completions: new Completions(loaded.info.model, (messages, options) => this.generate(messages, options)),
    };
    listen(worker, (reply) => this.#hear(reply));
  }

  /**
   * Starts a Worker and puts the model onto a device; aborting ends both. With `tp` or `pp` it is shared among
   * ranks, such as `load(url, { tp: 2, devices: ["gpu", "cpu"], split: "auto" })`.
   */
  static async load(
    source: Source,
    options: LoadOptions = {},
    onProgress: (progress: Progress) => void = () => {},
    signal?: AbortSignal,
  ): Promise<Model> {
    const worker = startWorker();
    try {
      const loaded = await new Promise<Loaded>((resolve, reject) => {
        signal?.throwIfAborted();
        signal?.addEventListener("abort", () => reject(signal.reason));
        listen(worker, (reply) => {
          if (reply.type === "progress") onProgress(reply.progress);
          else if (reply.type === "loaded") resolve(reply.loaded);
          else if (reply.type === "error") reject(failure(reply));
        });
        send(worker, { type: "load", source, options });
      });
      return new Model(worker, loaded);
    } catch (error) {
      worker.terminate();
      throw error;
    }
  }

  /**
   * Answers text or a conversation; what it shares with the last one is not computed again. One at a time: while an answer
   * is being written another one is refused with code `busy`.
   *
   * `await model.generate(…)` gives the answer; `for await (const { text } of model.generate(…))` its pieces.
   */
  generate(prompt: string | Message[], { signal, ...options }: GenerateOptions = {}): Generation {
    return new Generation((hear) => this.#answer(prompt, options, hear, signal), () => this.cancel());
  }

  async #answer(
    prompt: string | Message[],
    options: GenerateOptions,
    hear: (piece: Piece) => void,
    signal: AbortSignal | undefined,
  ): Promise<Answer> {
    signal?.throwIfAborted();
    checkPrompt(prompt);
    if (this.#answering) throw new ShardlightError("busy", "an answer is being written; cancel it first");
    this.#answering = true;
    const abort = () => this.cancel();
    signal?.addEventListener("abort", abort);
    try {
      const answer = await new Promise<Answer>((resolve, reject) => {
        this.#heard = (reply) => {
          if (reply.type === "token") hear(reply.piece);
          else if (reply.type === "answer") resolve(reply.answer);
          else if (reply.type === "error") reject(failure(reply));
        };
        send(this.#worker, { type: "generate", prompt, options });
      });
      signal?.throwIfAborted();
      return answer;
    } finally {
      signal?.removeEventListener("abort", abort);
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

  /** What each rank holds. */
  shards(): Promise<Shard[]> {
    return this.#calls.ask((id) => ({ type: "shards", id }));
  }

  /** What all ranks have sent to each other since the model was loaded. */
  traffic(): Promise<Traffic> {
    return this.#calls.ask((id) => ({ type: "traffic", id }));
  }

  /** What has been counted since the model was loaded; also while it answers. */
  stats(): Promise<Stats> {
    return this.#calls.ask((id) => ({ type: "stats", id }));
  }

  /** Token ids of a text, special tokens in it included. */
  tokenize(text: string): Promise<number[]> {
    return this.#calls.ask((id) => ({ type: "tokenize", id, text }));
  }

  /** Logits after these tokens, one for each token of the vocabulary. Forgets the conversation. */
  logits(tokens: number[]): Promise<Float32Array> {
    return this.#calls.ask((id) => ({ type: "logits", id, tokens }));
  }

  /** Frees the model and its device; what still runs fails. */
  close(): void {
    this.#worker.terminate();
    this.#hear({ type: "error", code: "closed", message: "the model was closed" });
  }

  #hear(reply: Reply): void {
    this.#heard(reply);
    this.#calls.hear(reply);
  }
}

/** A device that runs operators: every kernel and layer by name. */
export class Runtime {
  /** Where operators run. */
  readonly device: Device;
  /** Every operator with its inputs, settings and outputs. */
  readonly ops: Op[];
  readonly #worker: Worker;
  readonly #calls: Calls;

  private constructor(worker: Worker, device: Device, ops: Op[]) {
    this.#worker = worker;
    this.#calls = new Calls(worker);
    this.device = device;
    this.ops = ops;
    listen(worker, (reply) => this.#calls.hear(reply));
  }

  /** Starts a Worker and opens a device in it. */
  static async open(options: { device?: LoadOptions["device"] } = {}): Promise<Runtime> {
    const worker = startWorker();
    try {
      return await new Promise((resolve, reject) => {
        listen(worker, (reply) => {
          if (reply.type === "opened") resolve(new Runtime(worker, reply.device, reply.ops));
          else if (reply.type === "error") reject(failure(reply));
        });
        send(worker, { type: "open", device: options.device });
      });
    } catch (error) {
      worker.terminate();
      throw error;
    }
  }

  /** Runs an operator, such as `op("rms_norm", { x, weight }, { eps: 1e-6 })`. */
  op(name: string, inputs: Record<string, Input>, settings: Record<string, Setting> = {}): Promise<Record<string, Tensor>> {
    return this.#calls.ask((id) => ({ type: "op", id, name, inputs, settings }));
  }

  /** Milliseconds of each of `runs` runs, after one that does not count. */
  time(name: string, inputs: Record<string, Input>, settings: Record<string, Setting>, runs: number): Promise<number[]> {
    return this.#calls.ask((id) => ({ type: "time", id, name, inputs, settings, runs }));
  }

  /** The feed-forward blocks at a width of `channels`, each with the hidden size of its own rule. */
  mlps(channels: number): Promise<MlpSize[]> {
    return this.#calls.ask((id) => ({ type: "mlps", id, channels }));
  }

  /** Frees the device; what still runs fails. */
  close(): void {
    this.#worker.terminate();
    this.#calls.failAll(new ShardlightError("closed", "the runtime was closed"));
  }
}

/** Templates do whatever they like with other shapes. */
function checkPrompt(prompt: unknown): void {
  if (typeof prompt === "string") return;
  const wrong = (what: string) => new ShardlightError("invalid", what);
  if (!Array.isArray(prompt) || prompt.length === 0) throw wrong("the prompt is neither text nor a list of messages");
  prompt.forEach((message, i) => {
    if (typeof message?.role === "string" && typeof message.content === "string") return;
    throw wrong(`messages[${i}]: expected { role, content }, both text, found ${JSON.stringify(message)?.slice(0, 80)}`);
  });
}

function startWorker(): Worker {
  return new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
}

function listen(worker: Worker, heard: (reply: Reply) => void): void {
  worker.onmessage = (event: MessageEvent<Reply>) => heard(event.data);
  // What wasm throws where nobody waits comes without its code.
  worker.onerror = ({ message }) => {
    if (message) heard({ type: "error", code: "internal", message });
    else heard({ type: "error", code: "worker", message: "the worker could not start" });
  };
}

function failure({ code, message }: { code: ErrorCode; message: string }): ShardlightError {
  return new ShardlightError(code, message);
}

function send(worker: Worker, request: Request): void {
  worker.postMessage(request);
}
