// What the package has of stored models and of the device's memory. A build without them works too.

import { Shardlight, type Loaded, type Model } from "../../src/index.ts";

/** As `Shardlight.models` lists them. */
export interface StoredModel {
  name: string;
  url: string;
  bytes: number | null;
  /** Of those, what need not be downloaded again. */
  bytesHere: number;
  complete: boolean;
}

interface More {
  models?: {
    list(): Promise<StoredModel[]>;
    delete(nameOrUrl: string): Promise<unknown>;
    usage(): Promise<{ used: number; quota: number }>;
    persist(): Promise<boolean>;
  };
}

const more = Shardlight as unknown as More;

export const { models } = more;

/** Why a model from an address was not kept. */
export function notStored(loaded: Loaded): string | null | undefined {
  return (loaded as { notStored?: string | null }).notStored;
}

/** Bytes of a device's memory by what they are for. */
export interface Ledger {
  device: { name: string };
  weights: number;
  tables: number;
  kv: number;
  activations: number;
  experts: number;
  staging: number;
  total: number;
  peak: number;
  /** A number, not bytes. */
  pipelines: number;
}

export function ledger(model: Model): Promise<Ledger[]> | undefined {
  return (model as unknown as { memory?: () => Promise<Ledger[]> }).memory?.();
}

/** Told when the device is lost, and when it is there again. */
export function watchDevice(model: Model, lost: (reason: string) => void, recovered: (ms: number) => void): void {
  const target = model as unknown as Partial<EventTarget>;
  target.addEventListener?.("devicelost", (event) => lost((event as CustomEvent<{ reason: string }>).detail.reason));
  target.addEventListener?.("recovered", (event) => recovered((event as CustomEvent<{ ms: number }>).detail.ms));
}
