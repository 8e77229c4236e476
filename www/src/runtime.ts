// Operators in a Worker of their own.

/// <reference lib="esnext.disposable" preserve="true" />

import { Calls, failure, type Thread } from "./calls.ts";
import { ShardlightError } from "./errors.ts";
import type { Device, DeviceMemory, Input, LoadOptions, MlpSize, Op, Setting, Tensor } from "./protocol.ts";
import { startThread, type ThreadOptions } from "./start.ts";

/** Where operators shall run. */
export interface OpenOptions extends ThreadOptions {
  /** As `Shardlight.load` takes it. */
  device?: LoadOptions["device"];
}

/** A device that runs operators: every kernel and layer by name. */
export class Runtime {
  /** Where operators run. */
  readonly device: Device;
  /** Every operator with its inputs, settings and outputs. */
  readonly ops: Op[];
  readonly #calls: Calls;
  /** For tests of programs. */
  readonly testing = {
    /** Loses the device, as a driver's reset does; operators then run on it opened anew. */
    destroyDevice: async (): Promise<void> => {
      await this.#calls.ask((id) => ({ type: "destroyDevice", id }));
    },
  };

  private constructor(thread: Thread, device: Device, ops: Op[]) {
    this.#calls = new Calls(thread);
    this.device = device;
    this.ops = ops;
    thread.listen((reply) => this.#calls.hear(reply));
  }

  /** Starts a Worker and opens a device in it. */
  static async open({ device, ...where }: OpenOptions = {}): Promise<Runtime> {
    const thread = await startThread(where);
    try {
      return await new Promise((resolve, reject) => {
        thread.listen((reply) => {
          if (reply.type === "opened") resolve(new Runtime(thread, reply.device, reply.ops));
          else if (reply.type === "error") reject(failure(reply));
        });
        thread.send({ type: "open", device });
      });
    } catch (error) {
      thread.terminate();
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

  /** What is taken of the device's memory. */
  memory(): Promise<DeviceMemory[]> {
    return this.#calls.ask((id) => ({ type: "memory", id }));
  }

  /** Gives back all memory and ends the Worker; what still runs, and what is called later, fails. Gives what is left. */
  async dispose(): Promise<DeviceMemory[]> {
    try {
      return await this.#calls.ask((id) => ({ type: "dispose", id }));
    } finally {
      this.close();
    }
  }

  /** `dispose`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose().then(() => {});
  }

  /** As `dispose`, at once and without an account. */
  close(): void {
    this.#calls.end(new ShardlightError("closed", "the runtime was closed"));
  }
}
