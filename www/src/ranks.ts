// Several Workers that compute as one: each has its part of the model, and they exchange through shared memory.

import { Calls, type Thread } from "./calls.ts";
import { ShardlightError, type ErrorCode } from "./errors.ts";
import type { Device, DeviceMemory, LoadOptions, Reply, Request, Shard } from "./protocol.ts";

/** Bytes of shared memory for each rank. */
const MEMORY = 2 << 20;

/** Most that are started unasked: more cores help little, since memory is what decoding waits for. */
const MOST = 4;

/** Where web/src/threads.rs looks for the rank that is gone, plus 1: a word of the shared memory. */
const FAILED = 0;

/** After these errors of one rank the others would wait for it for ever; all ranks have the other errors alike. */
const GONE: ErrorCode[] = ["internal", "worker", "out_of_memory", "io", "device", "device_lost"];

/** How many threads a model gets; `first` runs already. */
export async function threadCount(first: Thread, options: LoadOptions): Promise<number> {
  const { threads, device, inline, tp, pp, ep, devices, split } = options;
  const shards = [tp, pp, ep, devices, split].some((option) => option !== undefined);
  const shared = globalThis.crossOriginIsolated === true && typeof SharedArrayBuffer === "function" && !inline;
  if (threads !== undefined) {
    const invalid = (what: string) => new ShardlightError("invalid", `threads: ${what}`);
    if (!Number.isInteger(threads) || threads < 1) throw invalid(`${threads} is not a number of Workers`);
    if (threads > 1 && device === "gpu") throw invalid(`${threads} for the GPU; they share the CPU device's work`);
    if (threads > 1 && shards) throw invalid(`${threads} and shards; threads are ranks themselves, leave one of them out`);
    if (threads > 1 && !shared) {
      throw invalid(`${threads} need shared memory: serve the page with COOP same-origin and COEP require-corp, without inline`);
    }
    return threads;
  }
  const most = Math.min(MOST, Math.floor((globalThis.navigator?.hardwareConcurrency ?? 1) / 2));
  if (!shared || shards || device === "gpu" || most < 2) return 1;
  if (device === "cpu") return most;
  const calls = new Calls(first);
  first.listen((reply) => calls.hear(reply));
  const [preferred] = await calls.ask<Device[]>((id) => ({ type: "devices", id }));
  return preferred?.kind === "CPU" ? most : 1;
}

/** These threads as one. The first speaks for all; what all must compute together all are told. */
export function joined(threads: Thread[]): Thread {
  const ranks = threads.length;
  const memory = new SharedArrayBuffer(MEMORY * ranks);
  const [first] = threads as [Thread];
  const others = threads.slice(1);
  const shards = new Shards(ranks);
  let hear: (reply: Reply) => void = () => {};
  let loading: Load | undefined;
  // Told once all are: what is asked then all must be ready for.
  let loaded: Reply | undefined;
  let left = ranks;
  const ready = (reply: Reply, rank: number) => {
    if (rank === 0) loaded = reply;
    left -= 1;
    if (left === 0 && loaded) hear(loaded);
  };
  first.listen((reply) => {
    if (reply.type === "loaded") return ready(reply, 0);
    // It downloads; the others take what is stored then.
    if (reply.type === "source" && loading) {
      const request = loading;
      others.forEach((thread, i) => thread.send(part(request, { memory, rank: i + 1, ranks })));
    }
    const all = shards.take(reply);
    if (all) hear(all);
  });
  others.forEach((thread, i) => thread.listen((reply) => {
    const rank = i + 1;
    if (reply.type === "loaded") return ready(reply, rank);
    const all = reply.type === "result" && shards.take(reply);
    if (all) hear(all);
    if (reply.type !== "error" || !GONE.includes(reply.code)) return;
    Atomics.store(new Int32Array(memory), FAILED, rank + 1);
    hear({ ...reply, message: `thread ${rank}: ${reply.message}` });
  }));
  return {
    send(request) {
      if (request.type === "load") {
        [loading, loaded, left] = [request, undefined, ranks];
        first.send(part(request, { memory, rank: 0, ranks }));
        return;
      }
      const shared = together(request);
      first.send(shared ?? request);
      if (shared) for (const thread of others) thread.send(shared);
    },
    listen: (heard) => (hear = heard),
    terminate() {
      for (const thread of threads) thread.terminate();
    },
  };
}

type Load = Extract<Request, { type: "load" }>;

function part(request: Load, rank: NonNullable<Load["rank"]>): Request {
  // The first one tells why it is not a GPU.
  const device = rank.rank === 0 ? request.options.device : "cpu";
  return { ...request, options: { ...request.options, device, tp: rank.ranks }, rank };
}

/** What every rank is asked; `undefined` for what the first one answers alone. */
function together(request: Request): Request | undefined {
  switch (request.type) {
    case "generate":
      // All must draw the same tokens.
      return { ...request, options: { ...request.options, seed: request.options.seed ?? Date.now() } };
    case "logits":
    case "embed":
    case "reset":
    case "fork":
    case "end":
    case "shards":
    case "memory":
    case "dispose":
      return request;
    default:
      return undefined;
  }
}

/** Joins what each rank says that it holds, and what of its device's memory is taken. */
class Shards {
  readonly #ranks: number;
  readonly #found = new Map<number, Held[]>();

  constructor(ranks: number) {
    this.#ranks = ranks;
  }

  /** What is to be told, if anything yet. */
  take(reply: Reply): Reply | undefined {
    if (reply.type !== "result" || !isHeld(reply.result)) return reply;
    const found = [...(this.#found.get(reply.id) ?? []), ...reply.result];
    this.#found.set(reply.id, found);
    if (found.length < this.#ranks) return undefined;
    this.#found.delete(reply.id);
    const rank = (held: Held) => ("rank" in held ? held.rank : 0);
    return { ...reply, result: found.sort((a, b) => rank(a) - rank(b)) as Shard[] | DeviceMemory[] };
  }
}

type Held = Shard | DeviceMemory;

function isHeld(result: unknown): result is Held[] {
  const first: unknown = Array.isArray(result) ? result[0] : undefined;
  return typeof first === "object" && first !== null && ("cacheBytes" in first || "pipelines" in first);
}
