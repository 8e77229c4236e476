// The model's thread: all computing happens here, so that the page never freezes.

import init, { check, devices, load, mlps, open, ops, type WebRuntime, type WebSession } from "../pkg/shardlight.js";
import type { ErrorCode } from "./errors.ts";
import type { Adapter, Answer, Device, Fit, Info, MlpSize, Op, Progress, Reply, Request, Result, Shard, Source, Stats, Tensor, Traffic } from "./protocol.ts";

/** Progress is told at most this often, in milliseconds. */
const PROGRESS_EVERY = 50;
/** And statistics with a token. */
const STATS_EVERY = 100;

/** The built-in mixture of experts is a file beside the wasm, fetched when it is asked for. */
const TINY_MOE = new URL("../../core/data/tiny-moe.gguf", import.meta.url).href;

let session: WebSession | undefined;
let runtime: WebRuntime | undefined;

function reply(message: Reply): void {
  self.postMessage(message);
}

async function adapter(): Promise<Adapter | null> {
  const found = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!found) return null;
  const { vendor, architecture, description, isFallbackAdapter } = found.info;
  return { vendor, architecture, description, fallback: isFallbackAdapter };
}

/** A function that hears of every step and tells of few; never returns `true`, so nothing stops. */
function teller(): (phase: Progress["phase"], done: number, total: number) => void {
  let [lastPhase, lastTime] = ["", 0];
  return (phase, done, total) => {
    const now = performance.now();
    if (phase === lastPhase && done < total && now - lastTime < PROGRESS_EVERY) return;
    [lastPhase, lastTime] = [phase, now];
    reply({ type: "progress", progress: { phase, done, total } });
  };
}

/** What `web/` reads for a source. */
function file(source: Source): Source {
  return source === "builtin:tiny-moe" ? TINY_MOE : source;
}

/** Bytes of memory that a GPU has at most: what the machine has. Browsers tell no more than 8 GiB, which then says nothing. */
function gpuMemory(): number | undefined {
  const { deviceMemory } = navigator as { deviceMemory?: number };
  return deviceMemory !== undefined && deviceMemory < 8 ? deviceMemory * 2 ** 30 : undefined;
}

type Call = Extract<Request, { id: number }>;

function opened<T>(what: T | undefined, missing: string): T {
  if (!what) throw new Error(missing);
  return what;
}

const theModel = () => opened(session, "no model is loaded");
const theRuntime = () => opened(runtime, "no device is open");

async function compute(request: Call): Promise<Result> {
  switch (request.type) {
    case "op":
      return (await theRuntime().op(request.name, request.inputs, request.settings)) as Record<string, Tensor>;
    case "time":
      return [...(await theRuntime().time(request.name, request.inputs, request.settings, request.runs))];
    case "mlps":
      return mlps(request.channels) as MlpSize[];
    case "check": {
      await init();
      return (await check(file(request.source), request.options, gpuMemory())) as Fit;
    }
    case "shards":
      return theModel().shards() as Shard[];
    case "traffic":
      return theModel().traffic() as Traffic;
    case "stats":
      return theModel().stats() as Stats;
    case "tokenize":
      return [...theModel().tokenize(request.text)];
    case "detokenize":
      return theModel().detokenize(Uint32Array.from(request.tokens));
    case "logits":
      return await theModel().logits(Uint32Array.from(request.tokens));
  }
}

async function handle(request: Request): Promise<void> {
  switch (request.type) {
    case "load": {
      const { memory } = await init();
      session = await load(file(request.source), request.options, teller());
      const info = session.info() as Info;
      reply({
        type: "loaded",
        loaded: {
          info,
          devices: (await devices()) as Device[],
          adapter: await adapter(),
          wasmBytes: memory.buffer.byteLength,
        },
      });
      return;
    }
    case "open": {
      await init();
      runtime = await open({ device: request.device });
      reply({ type: "opened", device: runtime.info() as Device, ops: ops() as Op[] });
      return;
    }
    case "op":
    case "time":
    case "mlps":
    case "check":
    case "shards":
    case "traffic":
    case "stats":
    case "tokenize":
    case "detokenize":
    case "logits": {
      const { id } = request;
      try {
        reply({ type: "result", id, result: await compute(request) });
      } catch (error) {
        reply({ type: "failed", id, ...told(error) });
      }
      return;
    }
    case "generate": {
      const model = theModel();
      let last = -Infinity;
      const onToken = (text: string, id: number) => {
        const now = performance.now();
        const due = now - last >= STATS_EVERY;
        if (due) last = now;
        reply({ type: "token", piece: { text, id, ...(due && { stats: model.stats() as Stats }) } });
      };
      const answer = (await model.generate(request.prompt, request.options, onToken)) as Answer;
      reply({ type: "answer", answer });
      return;
    }
    case "cancel":
      session?.cancel();
      return;
    case "reset":
      session?.reset();
      return;
  }
}

/** What `web/` throws has a code; what else is thrown should not be. */
function told(error: unknown): { code: ErrorCode; message: string } {
  if (!(error instanceof Error)) return { code: "internal", message: String(error) };
  return { code: (error as { code?: ErrorCode }).code ?? "internal", message: error.message };
}

function fail(error: unknown): void {
  reply({ type: "error", ...told(error) });
}

self.addEventListener("message", (event: MessageEvent<Request>) => {
  handle(event.data).catch(fail);
});
// A panic inside wasm leaves its promise open for ever. What it throws reaches the page's `onerror`, or this.
self.addEventListener("unhandledrejection", (event) => fail(event.reason));
