// What the package has of stored models and of the device's memory. A build without them works too.

import { Shardlight, type Model } from "../../src/index.ts";

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

/** Bytes on the device by owner. */
export function ledger(model: Model): Promise<unknown> | undefined {
  return (model as unknown as { memory?: () => Promise<unknown> }).memory?.();
}
