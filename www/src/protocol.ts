// What the page and the worker say to each other, and the shapes of what `web/` takes and gives.

/** `"builtin:tiny"`, `"opfs:NAME"`, an address, a file, bytes, or the files of a model folder. */
export type Source = string | Blob | ArrayBuffer | Uint8Array | (string | Blob)[];

export interface LoadOptions {
  /** `auto`: a real GPU, else the CPU; `gpu`: WebGPU even in software; `cpu`. */
  device?: "auto" | "gpu" | "cpu";
  contextLength?: number;
  kv?: "f16" | "f32";
  prefillChunk?: number;
}

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

export interface GenerateOptions {
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
  /** The prompt is text to continue: no chat template. */
  raw?: boolean;
}

export interface Device {
  name: string;
  backend: string;
  kind: "discrete GPU" | "integrated GPU" | "GPU" | "CPU" | "software GPU";
  driver: string;
}

export interface Info {
  model: string;
  architecture: string;
  layers: number;
  hiddenSize: number;
  vocabSize: number;
  contextLength: number;
  device: Device;
  /** Has the model a chat template? */
  chat: boolean;
}

export interface Answer {
  text: string;
  tokens: number[];
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
}

export interface Progress {
  phase: "upload" | "compile";
  done: number;
  total: number;
}

/** What the browser tells of its WebGPU adapter. */
export interface Adapter {
  vendor: string;
  architecture: string;
  description: string;
  fallback: boolean;
}

export interface Loaded {
  info: Info;
  /** All devices, the preferred one first. */
  devices: Device[];
  /** `null` without WebGPU. */
  adapter: Adapter | null;
}

export type Request =
  | { type: "load"; source: Source; options: LoadOptions }
  | { type: "generate"; prompt: string | Message[]; options: GenerateOptions }
  | { type: "cancel" }
  | { type: "reset" };

export type Reply =
  | { type: "progress"; progress: Progress }
  | { type: "token"; text: string; id: number }
  | { type: "loaded"; loaded: Loaded }
  | { type: "answer"; answer: Answer }
  | { type: "error"; message: string };
