// A model in a Worker of its own, or on the caller's thread.

/// <reference lib="esnext.disposable" preserve="true" />

import { Calls, failure, type Thread } from "./calls.ts";
import { ShardlightError } from "./errors.ts";
import { Generation } from "./generation.ts";
import { Completions } from "./openai.ts";
import type { Answer, DeviceMemory, EmbedOptions, Form, GenerateOptions, Input, Loaded, Message, Piece, Reply, Setting, Shard, Stats, Tensor, Traffic } from "./protocol.ts";
import type { ThreadOptions } from "./start.ts";
import { compiled } from "./wasm.ts";

/** What a model tells besides what it is asked. */
export interface ModelEvents {
  /** A device was lost, as by a driver's reset; the answer waits. */
  devicelost: CustomEvent<{ reason: string }>;
  /** The device was opened anew, and the answer goes on. */
  recovered: CustomEvent<{ ms: number }>;
}

/** What the conversations with a model share. */
interface Shared {
  readonly thread: Thread;
  readonly calls: Calls;
  readonly grammarWasm: ThreadOptions["grammarWasm"];
  /** All that are open, the first one included. */
  readonly conversations: Set<Model>;
  heard: (reply: Reply) => void;
  /** The answer that is being written. */
  answering: { of: Model; end: Promise<unknown> } | undefined;
}

/**
 * A model on one device or on several, and a conversation with it; `fork` gives others.
 *
 * When a device is lost, the answer that is being written pauses, the device is opened anew, the weights are read again from
 * where they came, and the answer goes on with the text that it would have had: `devicelost` and `recovered` tell of it. A device
 * that is lost while nothing runs is found lost by the next call.
 */
export class Model extends EventTarget {
  /** What was loaded, and onto which device. */
  readonly loaded: Loaded;
  /** As OpenAI's client has it: `chat.completions.create({ messages, stream: true })`. */
  readonly chat: { readonly completions: Completions };
  readonly #shared: Shared;
  readonly #calls: Calls;
  /** Its number; 0 is the first one, which has the thread. */
  readonly #conversation: number;
  #closed = false;
  /** For tests of programs. */
  readonly testing = {
    /** Loses the device, as a driver's reset does. */
    destroyDevice: async (): Promise<void> => {
      await this.#calls.ask((id) => ({ type: "destroyDevice", id }));
    },
  };

  /** A thread on which a model was loaded; `Shardlight.load` makes both. @internal */
  static on(thread: Thread, loaded: Loaded, grammarWasm?: ThreadOptions["grammarWasm"]): Model {
    const calls = new Calls(thread);
    const shared: Shared = { thread, calls, grammarWasm, conversations: new Set(), heard: () => {}, answering: undefined };
    thread.listen((reply) => hear(shared, reply));
    return new Model(shared, loaded, 0);
  }

  /** @internal */
  private constructor(shared: Shared, loaded: Loaded, conversation: number) {
    super();
    this.#shared = shared;
    this.#calls = shared.calls;
    this.#conversation = conversation;
    this.loaded = loaded;
    this.chat = {
      completions: new Completions(loaded.info.model, (messages, options) => this.generate(messages, options)),
    };
    shared.conversations.add(this);
  }

  /**
   * Answers text or a conversation; what it shares with the last one is not computed again. One at a time: while an answer
   * is being written, another one is refused with code `busy`, of a fork too.
   *
   * `await model.generate(…)` gives the answer; `for await (const { text } of model.generate(…))` its pieces.
   */
  generate(prompt: string | Message[], { signal, ...options }: GenerateOptions = {}): Generation {
    return new Generation((hear) => this.#answer(prompt, options, hear, signal), () => this.cancel());
  }

  async #answer(
    prompt: string | Message[],
    { schema, regex, grammar, ...options }: Omit<GenerateOptions, "signal">,
    hear: (piece: Piece) => void,
    signal: AbortSignal | undefined,
  ): Promise<Answer> {
    signal?.throwIfAborted();
    checkPrompt(prompt);
    const { toolChoice } = options;
    const calls = toolChoice === "required" || (typeof toolChoice === "object" && toolChoice !== null) || undefined;
    const wanted = form({ schema, regex, grammar, calls });
    const shared = this.#shared;
    if (this.#closed) throw closed();
    if (shared.answering) throw new ShardlightError("busy", "an answer is being written; cancel it first");
    let done = () => {};
    shared.answering = { of: this, end: new Promise<void>((resolve) => (done = resolve)) };
    const abort = () => this.cancel();
    signal?.addEventListener("abort", abort);
    try {
      const module = wanted && (await compiled(shared.grammarWasm, "grammarWasm"));
      signal?.throwIfAborted();
      if (this.#closed) throw closed();
      const answer = await new Promise<Answer>((resolve, reject) => {
        shared.heard = (reply) => {
          if (reply.type === "token") hear(reply.piece);
          else if (reply.type === "answer") resolve(reply.answer);
          else if (reply.type === "error") reject(failure(reply));
        };
        shared.thread.send({ type: "generate", conversation: this.#conversation, prompt, options, form: wanted && module && { ...wanted, module } });
      });
      signal?.throwIfAborted();
      if (this.#closed) throw closed();
      return answer;
    } finally {
      signal?.removeEventListener("abort", abort);
      shared.answering = undefined;
      done();
    }
  }

  /** Ends the answer that is being written: `generate` gives what there is. */
  cancel(): void {
    const { answering, thread } = this.#shared;
    if (answering?.of === this) thread.send({ type: "cancel" });
  }

  /** Forgets the conversation. */
  reset(): void {
    this.#shared.thread.send({ type: "reset", conversation: this.#conversation });
  }

  /**
   * Another conversation with the same model, which begins as a copy of this one: it shares the weights, and has keys and values of
   * its own. What is common is not computed again. `dispose` ends it, and the first conversation's `dispose` ends all.
   */
  async fork(): Promise<Model> {
    if (this.#closed) throw closed();
    const number = await this.#calls.ask<number>((id) => ({ type: "fork", id, conversation: this.#conversation }));
    return new Model(this.#shared, this.loaded, number);
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

  /** The text of token ids; bytes that are no character become U+FFFD. */
  detokenize(tokens: number[]): Promise<string> {
    return this.#calls.ask((id) => ({ type: "detokenize", id, tokens }));
  }

  /** Logits after these tokens, one for each token of the vocabulary. Forgets the conversation. */
  logits(tokens: number[]): Promise<Float32Array> {
    return this.#calls.ask((id) => ({ type: "logits", id, conversation: this.#conversation, tokens }));
  }

  /** One vector for a text or for tokens: their hidden states behind the last norm, pooled. Forgets the conversation. */
  embed(input: string | number[], { pooling = "mean", normalize = true }: EmbedOptions = {}): Promise<Float32Array> {
    return this.#calls.ask((id) => ({ type: "embed", id, conversation: this.#conversation, input, options: { pooling, normalize } }));
  }

  /**
   * Runs an operator beside the model, as `Runtime.op` does, on a device of the same kind that is opened for it the first time.
   */
  op(name: string, inputs: Record<string, Input>, settings: Record<string, Setting> = {}): Promise<Record<string, Tensor>> {
    return this.#calls.ask((id) => ({ type: "op", id, name, inputs, settings }));
  }

  /** What is taken of each device's memory; also while it answers. */
  memory(): Promise<DeviceMemory[]> {
    return this.#calls.ask((id) => ({ type: "memory", id }));
  }

  /**
   * Gives back all memory, on devices and in wasm, and ends the Worker; of a fork its own memory. What still runs, and what is called
   * later, fails with the code `closed`. Gives what is left: nothing, but for what other conversations have.
   */
  async dispose(): Promise<DeviceMemory[]> {
    if (this.#closed) return [];
    const shared = this.#shared;
    this.#end();
    if (this.#conversation === 0) {
      try {
        return await this.#calls.ask((id) => ({ type: "dispose", id }));
      } finally {
        this.#calls.end(closed());
      }
    }
    // Its own was cancelled; another's goes on.
    while (shared.answering) await shared.answering.end;
    return this.#calls.ask((id) => ({ type: "end", id, conversation: this.#conversation }));
  }

  /** `dispose`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose().then(() => {});
  }

  /** As `dispose`, at once and without an account. */
  close(): void {
    if (this.#closed) return;
    if (this.#conversation !== 0) {
      // The model may be closed before; then it is gone anyway.
      this.dispose().catch(() => {});
      return;
    }
    this.#end();
    this.#calls.end(closed());
  }

  /** This conversation and, of the first one, all: what is asked now fails. */
  #end(): void {
    const { conversations, answering, heard } = this.#shared;
    const ends = this.#conversation === 0 ? [...conversations] : [this as Model];
    for (const model of ends) {
      model.#closed = true;
      conversations.delete(model);
    }
    if (!answering || !ends.includes(answering.of)) return;
    if (this.#conversation !== 0) this.cancel();
    else heard({ type: "error", code: "closed", message: closed().message });
  }

  /** As of any `EventTarget`; the types know the events of `ModelEvents`. */
  override addEventListener<K extends keyof ModelEvents>(
    type: K,
    listener: ((event: ModelEvents[K]) => void) | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  override addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  override addEventListener(type: string, listener: unknown, options?: boolean | AddEventListenerOptions): void {
    super.addEventListener(type, listener as EventListener | null, options);
  }
}

function hear(shared: Shared, reply: Reply): void {
  if (reply.type === "device") {
    const { what, value } = reply;
    const [name, detail] = what === "lost" ? ["devicelost", { reason: value }] : ["recovered", { ms: value }];
    for (const model of shared.conversations) model.dispatchEvent(new CustomEvent(name as string, { detail }));
    return;
  }
  shared.heard(reply);
  shared.calls.hear(reply);
}

const closed = () => new ShardlightError("closed", "the model was closed");

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

/** The form that an answer shall have, if any. */
function form(asked: Pick<GenerateOptions, "schema" | "regex" | "grammar"> & { calls: true | undefined }): Omit<Form, "module"> | undefined {
  const given = (Object.keys(asked) as Form["kind"][]).filter((kind) => asked[kind] !== undefined && asked[kind] !== false);
  const [kind] = given;
  if (!kind) return undefined;
  const invalid = (what: string) => new ShardlightError("invalid", `${given.join(", ").replace("calls", "toolChoice")}: ${what}`);
  if (given.length > 1) throw invalid("an answer has one form; leave the others out");
  if (kind === "calls") return { kind, text: "" };
  const value = asked[kind];
  if (kind !== "schema") {
    if (typeof value !== "string") throw invalid(`expected text, found ${typeof value}`);
    return { kind, text: value };
  }
  if (value !== true && (typeof value !== "object" || value === null || Array.isArray(value))) {
    throw invalid("a JSON schema is an object, or true for any JSON");
  }
  try {
    return { kind, text: JSON.stringify(value) };
  } catch (error) {
    throw invalid(error instanceof Error ? error.message : String(error));
  }
}
