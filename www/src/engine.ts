// Handles requests: in a Worker (thread.ts), so that the page never freezes, or in the caller's own thread.

import init, { check, devices, load, mlps, open, ops, Thread, type WebRuntime, type WebSession } from "../pkg/shardlight.js";
import initGrammar, { Tokens } from "../pkg/grammar.js";
import type { ErrorCode } from "./errors.ts";
import type { Adapter, Answer, Device, DeviceMemory, Fit, Form, Info, MlpSize, Op, Piece, Progress, RankPlace, Reply, Request, Result, Shard, Stats, Tensor, Traffic } from "./protocol.ts";
import { ready, type Ready } from "./source.ts";

/** Progress is told at most this often, in milliseconds. */
const PROGRESS_EVERY = 50;
/** And statistics with a token. */
const STATS_EVERY = 100;

/** What is open, and who is told. */
interface Engine {
  readonly reply: (message: Reply) => void;
  /** wasm's memory, once it runs. */
  memory?: WebAssembly.Memory;
  session?: WebSession;
  /** The model's tokens, for answers of a given form. */
  tokens?: Tokens;
  /** What the session was read from. */
  source?: Ready;
  /** Ends what waits for a network or a disk. */
  readonly stop: AbortController;
  runtime?: WebRuntime;
  /** The same beside a model, while it is opened. */
  beside?: Promise<WebRuntime>;
  /** Of the model's device. */
  backend?: string;
  /** Requests that are being handled, but for `dispose`, which waits for the others. */
  running: number;
  closed: boolean;
}

/** What takes requests; `reply` is told all that comes of them. */
export function engine(reply: (message: Reply) => void) {
  const engine: Engine = { reply: (message) => engine.closed || reply(message), running: 0, closed: false, stop: new AbortController() };
  const fail = (error: unknown) => engine.reply({ type: "error", ...told(error) });
  const receive = async (request: Request): Promise<void> => {
    const waits = request.type === "dispose" ? 0 : 1;
    engine.running += waits;
    await handle(engine, request).catch(fail);
    engine.running -= waits;
    if (engine.closed) free(engine);
  };
  /** Frees what is open, once nothing uses it. */
  const close = () => {
    engine.closed = true;
    engine.stop.abort();
    engine.session?.cancel();
    free(engine);
  };
  return { receive, fail, close };
}

function free(engine: Engine): void {
  if (engine.running > 0) return;
  for (const open of [engine.session, engine.runtime]) {
    open?.dispose();
    open?.free();
  }
  engine.tokens?.free();
  engine.source?.release();
  engine.source = undefined;
  engine.session = engine.runtime = engine.tokens = undefined;
}

/** The form of an answer, compiled for the model's tokens. */
async function constraint(engine: Engine, { kind, text, module }: Form, options: unknown) {
  const schema = kind === "calls" ? theModel(engine).callSchema(options) : undefined;
  if (kind === "calls" && schema === undefined) return undefined;
  if (!engine.tokens) {
    const [bytes, ends, eos] = theModel(engine).words() as [Uint8Array, Uint32Array, Uint32Array];
    await initGrammar({ module_or_path: module });
    engine.tokens = new Tokens(bytes, ends, eos);
  }
  return schema === undefined ? engine.tokens.compile(kind, text) : engine.tokens.compile("schema", schema);
}

async function initial(module: WebAssembly.Module): Promise<WebAssembly.Memory> {
  try {
    return (await init({ module_or_path: module })).memory;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw Object.assign(new Error(`this is not the wasm of this version of the package: ${reason}`), { code: "format" });
  }
}

async function adapter(): Promise<Adapter | null> {
  const found = await globalThis.navigator?.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!found) return null;
  const { vendor, architecture, description, isFallbackAdapter } = found.info;
  return { vendor, architecture, description, fallback: isFallbackAdapter };
}

/** A function that hears of every step and tells of few; what it returns says whether to stop. */
function teller(engine: Engine): (phase: Progress["phase"], done: number, total: number, bytesPerSecond?: number) => boolean {
  let [lastPhase, lastTime] = ["", 0];
  return (phase, done, total, bytesPerSecond) => {
    const now = performance.now();
    if (phase === lastPhase && done !== total && now - lastTime < PROGRESS_EVERY) return engine.closed;
    [lastPhase, lastTime] = [phase, now];
    engine.reply({ type: "progress", progress: { phase, done, total, ...(bytesPerSecond !== undefined && { bytesPerSecond }) } });
    return engine.closed;
  };
}

/** Bytes of memory that a GPU has at most: what the machine has. Browsers tell no more than 8 GiB, which then says nothing. */
function gpuMemory(): number | undefined {
  const { deviceMemory } = (globalThis.navigator ?? {}) as { deviceMemory?: number };
  return deviceMemory !== undefined && deviceMemory < 8 ? deviceMemory * 2 ** 30 : undefined;
}

const rank = ({ memory, rank, ranks }: RankPlace) => new Thread(memory, rank, ranks);

type Call = Extract<Request, { id: number }>;

function opened<T>(what: T | undefined, missing: string): T {
  if (!what) throw new Error(missing);
  return what;
}

const theModel = ({ session }: Engine) => opened(session, "no model is loaded");
/** What runs operators; beside a model it is opened when it is first needed, on a device of the same kind. */
async function theRuntime(engine: Engine): Promise<WebRuntime> {
  const { session } = engine;
  if (!session) return opened(engine.runtime, "no device is open");
  engine.beside ??= open({ device: engine.backend === "cpu" ? "cpu" : "gpu" });
  return (engine.runtime = await engine.beside);
}

function memory({ session, runtime }: Engine): DeviceMemory[] {
  const open = [session, runtime].filter((one) => one !== undefined);
  opened(open[0], "nothing is open");
  return open.flatMap((one) => one.memory() as DeviceMemory[]);
}

async function compute(engine: Engine, request: Call): Promise<Result> {
  switch (request.type) {
    case "op":
      return (await (await theRuntime(engine)).op(request.name, request.inputs, request.settings)) as Record<string, Tensor>;
    case "time":
      return [...(await (await theRuntime(engine)).time(request.name, request.inputs, request.settings, request.runs))];
    case "mlps":
      return mlps(request.channels) as MlpSize[];
    case "devices":
      return (await devices()) as Device[];
    case "check": {
      // Headers by ranges: what is to be stored is decided after.
      const { source, release } = await ready(request.source, { cache: false }, () => {}, engine.stop.signal);
      try {
        return (await check(source, request.options, gpuMemory())) as Fit;
      } finally {
        release();
      }
    }
    case "shards":
      return theModel(engine).shards() as Shard[];
    case "memory":
      return memory(engine);
    case "dispose":
      engine.session?.dispose();
      engine.runtime?.dispose();
      // What is being computed ends soon, and frees what it has.
      while (engine.running > 0) await new Promise((resolve) => setTimeout(resolve));
      engine.source?.release();
      engine.source = undefined;
      return memory(engine);
    case "destroyDevice":
      engine.session?.destroyDevice();
      engine.runtime?.destroyDevice();
      return memory(engine);
    case "traffic":
      return theModel(engine).traffic() as Traffic;
    case "stats":
      return theModel(engine).stats() as Stats;
    case "tokenize":
      return [...theModel(engine).tokenize(request.text)];
    case "detokenize":
      return theModel(engine).detokenize(Uint32Array.from(request.tokens));
    case "logits":
      return await theModel(engine).logits(Uint32Array.from(request.tokens), request.conversation);
    case "embed": {
      const { input, options } = request;
      const tokens = typeof input === "string" ? theModel(engine).tokenize(input) : Uint32Array.from(input);
      return await theModel(engine).embed(tokens, options.pooling, options.normalize, request.conversation);
    }
    case "fork":
      return await theModel(engine).fork(request.conversation);
    case "end":
      await theModel(engine).end(request.conversation);
      return memory(engine);
  }
}

async function handle(engine: Engine, request: Request): Promise<void> {
  const { reply } = engine;
  switch (request.type) {
    case "init":
      engine.memory = await initial(request.module);
      reply({ type: "ready" });
      return;
    case "load": {
      const { cache, sha256, ...options } = request.options;
      const tell = teller(engine);
      const download = (done: number, total: number, speed: number) => void tell("download", done, total, speed);
      engine.source?.release();
      const source = await ready(request.source, { cache, sha256 }, download, engine.stop.signal);
      engine.source = source;
      reply({ type: "source" });
      let session;
      try {
        session = await load(source.source, options, tell, request.rank && rank(request.rank));
      } catch (error) {
        engine.source = undefined;
        // What is no model shall not be met again.
        if (told(error).code === "format") await source.discard().catch(() => {});
        else source.release();
        throw error;
      }
      engine.session = session;
      session.onDevice((what: "lost" | "recovered", value: string | number) => reply({ type: "device", what, value }));
      tell("ready", 1, 1);
      const info = session.info() as Info;
      engine.backend = info.device.backend;
      reply({
        type: "loaded",
        loaded: {
          info,
          devices: (await devices()) as Device[],
          adapter: await adapter(),
          wasmBytes: engine.memory!.buffer.byteLength,
          notStored: source.notStored,
        },
      });
      return;
    }
    case "open": {
      const runtime = await open({ device: request.device });
      engine.runtime = runtime;
      reply({ type: "opened", device: runtime.info() as Device, ops: ops() as Op[] });
      return;
    }
    case "op":
    case "time":
    case "mlps":
    case "devices":
    case "check":
    case "shards":
    case "memory":
    case "dispose":
    case "destroyDevice":
    case "traffic":
    case "stats":
    case "tokenize":
    case "detokenize":
    case "logits":
    case "embed":
    case "fork":
    case "end": {
      const { id } = request;
      try {
        reply({ type: "result", id, result: await compute(engine, request) });
      } catch (error) {
        reply({ type: "failed", id, ...told(error) });
      }
      return;
    }
    case "generate": {
      const model = theModel(engine);
      let last = -Infinity;
      const onToken = (text: string, id: number, more?: Pick<Piece, "toolCalls" | "logprobs">) => {
        const now = performance.now();
        const due = now - last >= STATS_EVERY;
        if (due) last = now;
        reply({ type: "token", piece: { text, id, ...more, ...(due && { stats: model.stats() as Stats }) } });
      };
      const form = request.form && (await constraint(engine, request.form, request.options));
      try {
        const answer = (await model.generate(request.prompt, request.options, onToken, form, request.conversation)) as Answer;
        reply({ type: "answer", answer });
      } finally {
        form?.free();
      }
      return;
    }
    case "cancel":
      engine.session?.cancel();
      return;
    case "reset":
      engine.session?.reset(request.conversation);
      return;
  }
}

/** What `web/` throws has a code; what else is thrown should not be. */
function told(error: unknown): { code: ErrorCode; message: string } {
  if (!(error instanceof Error)) return { code: "internal", message: String(error) };
  return { code: (error as { code?: ErrorCode }).code ?? "internal", message: error.message };
}
