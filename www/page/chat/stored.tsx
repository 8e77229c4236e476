// Models that were downloaded and are kept on this device.

import { signal } from "@preact/signals";
import { Shardlight, type StoredModel } from "../../src/index.ts";
import { message } from "../page.ts";
import { entryOf, size } from "./catalogue.ts";
import { Dialog } from "./dialog.tsx";
import { Icon } from "./icon.tsx";
import { choice } from "./state.ts";

const { models } = Shardlight;

export const stored = signal<StoredModel[]>([]);
const usage = signal("");
const open = signal(false);
const trouble = signal("");

export async function readStored(): Promise<void> {
  try {
    stored.value = await models.list();
    const { used, quota } = await models.usage();
    usage.value = `${size(used)} of the ${size(quota)} that the browser gives this page.`;
    trouble.value = "";
  } catch (error) {
    trouble.value = message(error);
  }
}

export function openStored(): void {
  open.value = true;
  void readStored();
}

async function remove(url: string): Promise<void> {
  try {
    await models.delete(url);
    if (choice.value === url && !entryOf(url)) choice.value = "builtin:tiny";
  } catch (error) {
    trouble.value = message(error);
    return;
  }
  await readStored();
}

async function persist(): Promise<void> {
  const kept = await models.persist();
  usage.value = kept ? `${usage.value.split(" The browser")[0]} The browser will not delete them by itself.` : `${usage.value} The browser may delete them when it needs room.`;
}

export function Stored() {
  return (
    <Dialog open={open} id="stored-dialog" title="Stored models">
      <p class="quiet">{usage.value}</p>
      {trouble.value && <p class="notice" role="alert">{trouble.value}</p>}
      {stored.value.length === 0 && <p>Nothing is stored yet. What you download stays here, and works without a network.</p>}
      <ul class="list">
        {stored.value.map(({ name, url, bytes, bytesHere, complete }) => (
          <li key={url}>
            <span class="grow break">{name}</span>
            <span class="quiet">{complete ? size(bytesHere) : `${size(bytesHere)}${bytes ? ` of ${size(bytes)}` : ""}, not complete`}</span>
            <button type="button" class="icon-button" aria-label={`Delete ${name}`} onClick={() => void remove(url)}>
              <Icon name="bin" />
            </button>
          </li>
        ))}
      </ul>
      <button type="button" onClick={() => void persist()}>Keep them for good</button>
    </Dialog>
  );
}
