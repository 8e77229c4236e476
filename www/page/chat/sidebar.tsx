// Conversations that are kept in this browser.

import { signal } from "@preact/signals";
import { stop } from "./answers.ts";
import { begin, conversation, forget, forgetAll, kept, path, show, unkept } from "./conversations.ts";
import { Dialog } from "./dialog.tsx";
import { closeDrawer } from "./drawer.ts";
import { saveJson, saveMarkdown } from "./export.ts";
import { Icon } from "./icon.tsx";
import { model, show as say, state } from "./state.ts";

const sure = signal(false);

export function newConversation(): void {
  if (state.value === "loading") return;
  if (state.value === "answering") {
    stop();
    return;
  }
  model.value?.reset();
  begin();
  if (model.value) say("ready", "Ready.");
  closeDrawer();
  document.getElementById("prompt")?.focus();
}

function open(id: string): void {
  if (state.value === "answering") return;
  show(id);
  closeDrawer();
}

async function remove(id: string): Promise<void> {
  await forget(id);
  document.getElementById("reset")?.focus();
}

export function Sidebar() {
  const busy = state.value === "answering";
  const now = conversation.value.id;
  const none = path.value.length === 0;
  return (
    <>
      <button id="reset" type="button" class="wide-button" disabled={busy || state.value === "loading"} onClick={newConversation}>
        <Icon name="plus" /> New conversation
      </button>
      {unkept.value && <p class="notice">{unkept.value}</p>}
      <h2 class="small-title" id="kept-title">Conversations</h2>
      {kept.value.length === 0 && <p class="quiet">What you write is kept in this browser only.</p>}
      <ul id="conversations" class="list" aria-labelledby="kept-title">
        {kept.value.map(({ id, title }) => (
          <li key={id} class={id === now ? "current" : ""}>
            <button type="button" class="grow title" aria-current={id === now ? "true" : undefined} disabled={busy} onClick={() => open(id)}>{title}</button>
            <button type="button" class="icon-button" aria-label={`Delete ${title}`} disabled={busy} onClick={() => void remove(id)}>
              <Icon name="bin" />
            </button>
          </li>
        ))}
      </ul>
      {kept.value.length > 0 && (
        <button type="button" id="forget-all" class="link" disabled={busy} onClick={() => (sure.value = true)}>Delete all</button>
      )}
      <div class="save">
        <h2 class="small-title" id="save-title">Save this conversation</h2>
        <div class="row" role="group" aria-labelledby="save-title">
          <button type="button" class="small" id="save-markdown" disabled={none} onClick={saveMarkdown}>Markdown</button>
          <button type="button" class="small" id="save-json" disabled={none} onClick={saveJson}>JSON</button>
        </div>
      </div>
    </>
  );
}

export function ForgetAll() {
  const yes = () => {
    sure.value = false;
    void forgetAll();
  };
  return (
    <Dialog open={sure} id="forget-dialog" title="Delete all conversations?">
      <p>{kept.value.length === 1 ? "One conversation" : `${kept.value.length} conversations`} in this browser. They cannot be brought back.</p>
      <div class="row end">
        <button type="button" onClick={() => (sure.value = false)}>Keep them</button>
        <button type="button" class="danger" id="forget-yes" onClick={yes}>Delete all</button>
      </div>
    </Dialog>
  );
}
