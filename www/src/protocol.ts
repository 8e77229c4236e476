// What the page and the worker say to each other, and the shapes of what `web/` takes and gives.

import type { ErrorCode } from "./errors.ts";
import type { ThreadOptions } from "./start.ts";

/**
 * `"builtin:tiny"`, `"builtin:tiny-moe"`, `"opfs:NAME"`, an address, a file, bytes, a stream of bytes, or the files of a model folder or
 * of a split GGUF. The address of one part of a split GGUF (`…-00001-of-00003.gguf`) stands for all.
 */
export type Source = SourceFile | SourceFile[];
/** Where one file is. */
export type SourceFile = string | URL | Blob | ArrayBuffer | ArrayBufferView<ArrayBuffer> | ReadableStream<Uint8Array>;

/** A model that comes with the package, and where it lies. */
export interface Builtin {
  builtin: string;
  address: string;
}

/** A source for the thread: addresses are whole. */
export type Placed = Exclude<SourceFile, URL> | Builtin;

/** One of several Workers that compute as one. */
export interface RankPlace {
  memory: SharedArrayBuffer;
  rank: number;
  ranks: number;
}

/** How to load a model. */
export interface LoadOptions extends ThreadOptions {
  /** Told how far loading is. */
  onProgress?: (progress: Progress) => void;
  /** Aborting it ends loading: what awaits it gets the signal's reason. */
  signal?: AbortSignal;
  /**
   * Keep what is downloaded from http(s) in the store of this origin (`Shardlight.models`), and take it from there the next time: the
   * default, where there is a store. `false` reads only what is needed, by byte ranges, each time.
   */
  cache?: boolean;
  /** SHA-256 of the file in hex, or one for each of several files (`null`: not known). Else what a server's `X-Linked-ETag` says. */
  sha256?: string | (string | null)[];
  /** `auto`: a real GPU, else the CPU; `gpu`: WebGPU even in software; `cpu`. */
  device?: "auto" | "gpu" | "cpu";
  /**
   * Workers that share the CPU device's work, each with its part of the model. Without it half of the cores, at most 4,
   * where the page is cross-origin isolated; elsewhere there is 1.
   */
  threads?: number;
  contextLength?: number;
  kv?: "f16" | "f32" | "q8_0";
  prefillChunk?: number;
  /** Bytes of device memory for the experts of a mixture: they stay where the source is until tokens need them. */
  expertCache?: number;
  /** Count how often each expert of a mixture is chosen, for `stats()`: one more small read a step. */
  expertStatistics?: boolean;
  /** Tensor-parallel ranks: each holds a part of every layer. */
  tp?: number;
  /** Pipeline stages: each holds some of the layers. */
  pp?: number;
  /** Groups of the tensor-parallel ranks, each of which has some of the experts. */
  ep?: number;
  /** Norms and residuals of a part of the tokens for each tensor-parallel rank. */
  sequenceParallel?: boolean;
  /** Devices, given to the ranks in turn: `["gpu", "cpu"]`. Without them all ranks share `device`. */
  devices?: string[];
  /** Shares of the tensor-parallel ranks: equal, in proportion to how fast their devices are, or these. */
  split?: "even" | "auto" | number[];
}

/** What of `LoadOptions` a fit depends on. */
export type CheckOptions = Pick<LoadOptions, "device" | "contextLength" | "kv">;

/** First and end, the end not included. */
export type Range = [first: number, end: number];

/** What one rank holds. */
export interface Shard {
  rank: number;
  /** Place among the tensor-parallel ranks. */
  tp: number;
  /** Pipeline stage. */
  pp: number;
  device: Device;
  layers: Range;
  /** Query heads. */
  heads: Range;
  /** Key/value heads; neighbours may hold the same. */
  kvHeads: Range;
  /** Hidden channels of each feed-forward block. */
  hidden: Range;
  /** Rows of the embedding and of the output layer. */
  vocab: Range;
  /** Bytes of weights. */
  bytes: number;
  /** Of those, bytes that other tensor-parallel ranks hold as well. */
  replicated: number;
  /** Bytes read from the model's files. */
  read: number;
  /** Bytes of keys and values. */
  cacheBytes: number;
}

/** What all ranks together have sent, by collective: `all_reduce`, `all_gather`, `broadcast`, `send`, … */
export type Traffic = Record<string, { calls: number; bytes: number }>;

/** What has been counted since the model was loaded. */
export interface Stats {
  /** Of a mixture of experts that was loaded with `expertStatistics`. */
  experts?: Experts;
}

/** How often routers chose each expert. */
export interface Experts {
  /** The layers with experts. */
  layers: number[];
  /** Experts of a layer. */
  count: number;
  /** For each of the layers, how many tokens each of its experts was chosen for. */
  chosen: number[][];
  /** Tokens that were computed. */
  tokens: number;
  /** With `expertCache`. */
  cache?: ExpertCache;
}

/** A turn of a conversation. */
export interface Message {
  role: "system" | "user" | "assistant" | "tool";
  content: string;
  /** Of the assistant: functions that it called. */
  tool_calls?: ToolCall[];
  /** Of a `tool`, whose content is what a function gave: the call. */
  tool_call_id?: string;
}

/** A function that a model may call. */
export interface Tool {
  type: "function";
  function: {
    /** 1 to 64 letters, digits, `_` and `-`. */
    name: string;
    description?: string;
    /** A JSON schema of an object. */
    parameters?: Record<string, unknown>;
  };
}

/** A function that a model calls. */
export interface ToolCall {
  id: string;
  type: "function";
  function: {
    name: string;
    /** An object, as JSON. */
    arguments: string;
  };
}

/** Whether a model is to call functions: not, as it likes, at least one, or this one. */
export type ToolChoice = "none" | "auto" | "required" | { type: "function"; function: { name: string } };

/** How to answer. */
export interface GenerateOptions {
  /** Aborting it ends the answer: what awaits it gets the signal's reason. */
  signal?: AbortSignal;
  maxTokens?: number;
  /** 0, the default, is greedy. */
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repeatPenalty?: number;
  repeatLastN?: number;
  seed?: number;
  stop?: string[];
  /** Functions that the model may call: `toolCalls` of the pieces and the answer has the calls, which are not in the text. */
  tools?: Tool[];
  /** `auto` is the default. A call that must come takes `grammar.wasm`, as `schema` does; the answer is that call. */
  toolChoice?: ToolChoice;
  /** `false`: the answer ends with its first call. */
  parallelToolCalls?: boolean;
  /** The prompt is text to continue: no chat template. */
  raw?: boolean;
  /**
   * A JSON schema: the answer is JSON that it accepts; `true` for any JSON. This, `regex` and `grammar` fetch the second wasm of the
   * package, `grammar.wasm`. An answer that `maxTokens` cuts short is only the begin of what was asked for.
   */
  schema?: object | boolean;
  /** The answer is text that this regular expression (Rust's syntax) matches whole. */
  regex?: string;
  /** The answer is text of this grammar, in Lark's syntax. */
  grammar?: string;
  /** Tells how likely each token was, and so many of the likeliest ones instead of it. */
  logprobs?: number;
  /**
   * Measures what each kernel takes, and slows the answer down: by timestamp queries on a GPU (without them it is refused), by
   * `performance.now` on the CPU. Browsers round both, Chromium to 100 µs: sums are right, single calls are not.
   */
  profile?: boolean;
}

/** A token, and the natural logarithm of its probability: before penalties, forms and temperature. */
export interface TokenLogprob {
  id: number;
  /** U+FFFD for bytes that are no whole character. */
  text: string;
  bytes: number[];
  logprob: number;
}

/** A token that was chosen, and the likeliest ones. */
export interface TokenLogprobs extends TokenLogprob {
  top: TokenLogprob[];
}

/**
 * The form of an answer, and the module that knows it.
 *
 * @internal
 */
export interface Form {
  /** `calls`: one of the functions that are offered; what that looks like the model's template says. */
  kind: "schema" | "regex" | "grammar" | "calls";
  text: string;
  module: WebAssembly.Module;
}

/** What computes. */
/** How a text becomes one vector. */
export interface EmbedOptions {
  /** The mean of the tokens' vectors (the default), the first one, or the last one. */
  pooling?: "mean" | "cls" | "last";
  /** Length 1, so that products of vectors are cosines: unless this is `false`. */
  normalize?: boolean;
}

/** An adapter as its driver names it, or this machine's processor. */
export interface Device {
  name: string;
  backend: string;
  kind: "discrete GPU" | "integrated GPU" | "GPU" | "CPU" | "software GPU";
  driver: string;
}

/** What a model is, and where it is. */
export interface Info {
  model: string;
  architecture: string;
  layers: number;
  hiddenSize: number;
  vocabSize: number;
  contextLength: number;
  device: Device;
  /** Why `auto` took the CPU, where it did. */
  noGpu: string | null;
  /** Has the model a chat template? */
  chat: boolean;
}

/** What a cache of experts has, and what it has done since the model was loaded. */
export interface ExpertCache {
  /** Device memory. */
  bytes: number;
  /** Experts that it has room for, of `experts`. */
  slots: number;
  experts: number;
  /** Experts that a layer needed and found, and that had to be read then. */
  hits: number;
  misses: number;
  hitRate: number;
  bytesRead: number;
  /** Experts that were read before they were needed, and of these those that then were. */
  prefetched: number;
  prefetchHits: number;
}

/** What an answer grows by: a token. */
export interface Piece {
  /** Empty when a character is not complete yet. */
  text: string;
  /** The token. */
  id: number;
  /** Calls that are complete with it, of `tools`. */
  toolCalls?: ToolCall[];
  /** As they were before the token was computed: with the first token, and then ten times a second. */
  stats?: Stats;
  /** With `logprobs`. */
  logprobs?: TokenLogprobs;
}

/** A whole answer. */
export interface Answer {
  text: string;
  tokens: number[];
  /** With `logprobs`. */
  logprobs?: TokenLogprobs[];
  /** Tokens of the prompt, those that the conversation had already included. */
  promptTokens: number;
  stop: "eos" | "length" | "context" | "stop" | "cancelled";
  /** Milliseconds. */
  timings: {
    loadMs: number;
    prefillTokens: number;
    prefillMs: number;
    firstTokenMs: number;
    decodeTokens: number;
    decodeMs: number;
  };
  device: Device;
  /** With `expertCache`. */
  expertCache?: ExpertCache;
  /** With `tools`: all calls. */
  toolCalls?: ToolCall[];
  /** With `profile`. */
  profile?: Profile;
}

/** What the kernels of an answer took. */
export interface Profile {
  /** Reading the prompt, and writing; `ms` from the begin of each step to its end. */
  stages: { stage: "prefill" | "decode"; steps: number; tokens: number; ms: number }[];
  /** By stage, those that took longest first. */
  kernels: KernelTime[];
}

/** All calls of a kernel in a stage. */
export interface KernelTime {
  stage: "prefill" | "decode";
  /** Or `communication` between devices, `paging` of experts. */
  kernel: string;
  calls: number;
  ms: number;
  /** What they moved and computed, in total. */
  bytes: number;
  flops: number;
}

/** How far a phase of loading is: `upload` in bytes, `compile` in kernels. */
export interface Progress {
  /**
   * In this order: `download` into the store (bytes; what was there counts as done), `upload` to the device (bytes), `compile`
   * (kernels), and once `ready`.
   */
  phase: "download" | "upload" | "compile" | "ready";
  done: number;
  /** 0 while it is not known. */
  total: number;
  /** Of a download, over the last seconds; the time left is `(total - done) / bytesPerSecond` seconds. */
  bytesPerSecond?: number;
}

/** How a model would fit a device: what `Shardlight.check` tells. */
export interface Fit {
  /** Address or file. */
  name: string;
  architecture: string;
  parameters: number;
  /** Bytes of all tensors in the file. */
  bytes: number;
  /** The element type of most of them. */
  dtype: string;
  /** Tokens of context that memory is counted for. */
  contextLength: number;
  /** The longest that the model knows. */
  maxContextLength: number;
  /** Bytes of device memory. */
  memory: { weights: number; kv: number; activations: number; total: number };
  /** Bytes that there are, where the browser tells. */
  capacity: number | null;
  /** The longest context that there is room for, where that is known. */
  largestContext: number | null;
  device: Device;
  limits: {
    /** Larger tensors are kept in slices. */
    maxBindingBytes: number;
    maxWorkgroupSize: number;
    maxWorkgroupBytes: number;
    f16: boolean;
    packedDot: boolean;
    subgroups: boolean;
  };
  /** Tensors that are kept in slices. */
  sliced: number;
  /** Kernels that would run, and which variant of each: `matvec dp4a`. */
  variants: string[];
  /** Tokens per second, estimated from half a second of measuring; `null` when the model is too small for that. */
  speed: { prefill: number; decode: number } | null;
  /** Nothing is known that speaks against it. */
  fits: boolean;
  /** What speaks against it, one line each, and what to do about it. */
  problems: string[];
  advice: string[];
}

/** What the browser tells of its WebGPU adapter. */
export interface Adapter {
  vendor: string;
  architecture: string;
  description: string;
  fallback: boolean;
}

/** What was loaded. */
export interface Loaded {
  info: Info;
  /** All devices, the preferred one first. */
  devices: Device[];
  /** `null` without WebGPU. */
  adapter: Adapter | null;
  /** Length of wasm's memory, which never shrinks: the most there was. */
  wasmBytes: number;
  /** Why a model from an address was not kept in the store, where there is none. */
  notStored: string | null;
}

/** Bytes of a device's memory, by what they are for. */
export interface DeviceMemory {
  device: Device;
  weights: number;
  /** Tables by position. */
  tables: number;
  /** Keys and values. */
  kv: number;
  /** Inputs, outputs and what lies between them. */
  activations: number;
  /** Slots of `expertCache`. */
  experts: number;
  /** On its way to or from the device. */
  staging: number;
  /** All of these. */
  total: number;
  /** The most there was at a time. */
  peak: number;
  /** Bytes of the model that are used where they are: not allocated, so not in the total. */
  mapped: number;
  /** Compiled kernels: a number, not bytes. */
  pipelines: number;
}

/** Elements, slowest axis first. Indices are `Int32Array`. */
export interface Tensor {
  data: Float32Array | Int32Array;
  shape: number[];
}

type TypedArray =
  | Float32Array | Float64Array | Int8Array | Uint8Array | Int16Array | Uint16Array
  | Int32Array | Uint32Array | BigInt64Array | BigUint64Array;
type Nested = number[] | Nested[];

/** An input of an operator: with its shape, of one axis, or nested arrays of numbers. */
export type Input = { data: TypedArray; shape: number[] } | TypedArray | Nested;

/** What an operator's setting may be. */
export type Setting = number | boolean | string | number[];

/** What an operator takes and gives; shapes are patterns in axis letters, such as `... C`. */
export interface Op {
  name: string;
  also: string[];
  systems: string[];
  summary: string;
  inputs: { name: string; shape: string; optional: boolean; doc: string }[];
  settings: { name: string; default: Setting | null; doc: string; choices?: string[] }[];
  outputs: { name: string; shape: string; doc: string }[];
  /** Largest normalised mean squared error of a float output. */
  bound: number;
}

/** A feed-forward block at some width. */
export interface MlpSize {
  op: string;
  hidden: number;
  parameters: number;
  /** Floating-point operations of a token. */
  flops: number;
  /** Bytes of the weights in f32. */
  bytes: number;
  inputs: { name: string; shape: number[] }[];
}

/**
 * What a thread is asked.
 *
 * @internal
 */
export type Request =
  | { type: "init"; module: WebAssembly.Module }
  | { type: "open"; device: LoadOptions["device"] }
  | { type: "op"; id: number; name: string; inputs: Record<string, Input>; settings: Record<string, Setting> }
  | { type: "time"; id: number; name: string; inputs: Record<string, Input>; settings: Record<string, Setting>; runs: number }
  | { type: "mlps"; id: number; channels: number }
  | {
      type: "load";
      source: Placed | Placed[];
      options: Omit<LoadOptions, "onProgress" | "signal" | "threads" | keyof ThreadOptions>;
      rank?: RankPlace;
    }
  | { type: "devices"; id: number }
  | { type: "check"; id: number; source: Placed | Placed[]; options: CheckOptions }
  | { type: "shards"; id: number }
  | { type: "memory"; id: number }
  | { type: "dispose"; id: number }
  | { type: "destroyDevice"; id: number }
  | { type: "traffic"; id: number }
  | { type: "stats"; id: number }
  | { type: "tokenize"; id: number; text: string }
  | { type: "detokenize"; id: number; tokens: number[] }
  | { type: "logits"; id: number; conversation: number; tokens: number[] }
  | { type: "embed"; id: number; conversation: number; input: string | number[]; options: Required<EmbedOptions> }
  | { type: "fork"; id: number; conversation: number }
  | { type: "end"; id: number; conversation: number }
  | { type: "generate"; conversation: number; prompt: string | Message[]; options: Omit<GenerateOptions, "signal" | "schema" | "regex" | "grammar">; form?: Form | undefined }
  | { type: "cancel" }
  | { type: "reset"; conversation: number };

/**
 * What a request with an id gives.
 *
 * @internal
 */
export type Result =
  | Record<string, Tensor> | number | number[] | MlpSize[] | Shard[] | Traffic | Stats | Fit | Device[] | DeviceMemory[] | string | Float32Array;

/**
 * What a thread says.
 *
 * @internal
 */
export type Reply =
  | { type: "ready" }
  | { type: "opened"; device: Device; ops: Op[] }
  | { type: "result"; id: number; result: Result }
  | { type: "failed"; id: number; code: ErrorCode; message: string }
  | { type: "progress"; progress: Progress }
  | { type: "device"; what: "lost" | "recovered"; value: string | number }
  /** What is loaded is in the store, where it shall be: the thread's other ranks can read it. */
  | { type: "source" }
  | { type: "token"; piece: Piece }
  | { type: "loaded"; loaded: Loaded }
  | { type: "answer"; answer: Answer }
  | { type: "error"; code: ErrorCode; message: string };
