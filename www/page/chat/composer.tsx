// Where the visitor writes.

import { useLayoutEffect, useRef } from "preact/hooks";
import { signal } from "@preact/signals";
import { send, stop } from "./answers.ts";
import { Icon } from "./icon.tsx";
import { openShortcuts } from "./shortcuts.tsx";
import { toEnd } from "./scroll.ts";
import { raw } from "./settings.ts";
import { model, ready, state, status } from "./state.ts";

const draft = signal("");

function submit(event: Event): void {
  event.preventDefault();
  const text = draft.value;
  if (!ready.value || text.trim() === "") return;
  toEnd();
  void send(text);
  // A setting that does not fit ends it before it begins: then the text stays.
  if (state.value === "answering") draft.value = "";
}

export function Composer() {
  const field = useRef<HTMLTextAreaElement>(null);
  const text = draft.value;
  const there = model.value !== undefined;
  useLayoutEffect(() => {
    const box = field.current!;
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight + 2}px`;
  }, [text]);
  const key = (event: KeyboardEvent) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  };
  const answering = state.value === "answering";
  return (
    <form id="ask" class="composer" aria-label="Prompt" onSubmit={submit}>
      <div class="box">
        <textarea id="prompt" ref={field} rows={1} aria-label="Prompt" enterkeyhint="send" disabled={!there} value={text} onKeyDown={key}
          placeholder={!there ? "Load a model first" : raw.value ? "Write the beginning of a text" : "Write something"}
          onInput={({ currentTarget }) => (draft.value = currentTarget.value)} />
        <button id="stop" type="button" class="round" aria-label="Stop" title="Stop (Esc)" hidden={!answering} disabled={!answering} onClick={stop}>
          <Icon name="stop" />
        </button>
        <button id="send" type="submit" class="round primary" aria-label="Send" title="Send (Enter)" hidden={answering} disabled={!ready.value}>
          <Icon name="send" />
        </button>
      </div>
      <div class="row between strip">
        <span id="status" data-state={state.value}>{status.value}</span>
        <button type="button" class="link hints" onClick={openShortcuts}>Enter sends · ? for shortcuts</button>
      </div>
    </form>
  );
}
