// A question and its answer.

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { again, live } from "./answers.ts";
import { choose, siblings, type Turn as Said } from "./conversations.ts";
import { Copy } from "./copy.tsx";
import { Icon } from "./icon.tsx";
import { MarkdownView } from "./markdown-view.tsx";
import { ready, state } from "./state.ts";

function Question({ turn }: { turn: Said }) {
  const [draft, setDraft] = useState<string | undefined>(undefined);
  const field = useRef<HTMLTextAreaElement>(null);
  const edits = draft !== undefined;
  useLayoutEffect(() => {
    if (edits) field.current?.focus();
  }, [edits]);
  if (draft === undefined) {
    return (
      <div class="question-row">
        <button type="button" class="icon-button quiet-button" aria-label="Edit the question" title="Edit the question"
          disabled={state.value === "answering"} onClick={() => setDraft(turn.question)}>
          <Icon name="edit" />
        </button>
        <p class="question">{turn.question}</p>
      </div>
    );
  }
  const save = (event: Event) => {
    event.preventDefault();
    if (draft.trim() === "" || !ready.value) return;
    setDraft(undefined);
    void again(turn, draft);
  };
  const key = (event: KeyboardEvent) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      setDraft(undefined);
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) save(event);
  };
  return (
    <form class="edit" onSubmit={save}>
      <textarea rows={3} aria-label="The question, changed" value={draft} onKeyDown={key}
        ref={field}
        onInput={({ currentTarget }) => setDraft(currentTarget.value)} />
      <div class="row end">
        <button type="button" onClick={() => setDraft(undefined)}>Cancel</button>
        <button type="submit" class="primary" disabled={!ready.value}>Ask this instead</button>
      </div>
    </form>
  );
}

function Branches({ turn }: { turn: Said }) {
  const all = siblings(turn);
  if (all.length < 2) return null;
  const at = all.findIndex(({ id }) => id === turn.id);
  const to = (index: number) => all[index] && choose(all[index]);
  const busy = state.value === "answering";
  return (
    <span class="branches" role="group" aria-label="Versions">
      <button type="button" class="icon-button" aria-label="Version before" disabled={busy || at === 0} onClick={() => to(at - 1)}>
        <Icon name="left" />
      </button>
      <span class="number">{at + 1} / {all.length}</span>
      <button type="button" class="icon-button" aria-label="Next version" disabled={busy || at === all.length - 1} onClick={() => to(at + 1)}>
        <Icon name="right" />
      </button>
    </span>
  );
}

export function Turn({ turn, last }: { turn: Said; last: boolean }) {
  const [plain, setPlain] = useState(false);
  const growing = last && live.value?.turn === turn.id ? live.value : undefined;
  const text = growing ? growing.text : turn.answer;
  return (
    <article class="turn" aria-label={turn.question.slice(0, 80)}>
      <Question turn={turn} />
      <div class="reply">
        {growing && text === "" && <p class="thinking" aria-hidden="true"><i /><i /><i /></p>}
        {turn.raw || plain
          ? <p class="verbatim">{turn.raw && <span class="given">{turn.question}</span>}{text}</p>
          : <MarkdownView text={turn.json && text !== "" ? `\`\`\`json\n${text}${growing ? "" : "\n```"}` : text} growing={growing !== undefined} />}
        <div class="row foot">
          {!growing && (
            <span class="tools" role="group" aria-label="Answer">
              <Copy text={turn.answer} label="Copy the answer" />
              <button type="button" class="icon-button" aria-label="Answer again" title="Answer again" disabled={!ready.value} onClick={() => void again(turn)}>
                <Icon name="again" />
              </button>
              {!turn.raw && (
                <button type="button" class="icon-button" aria-label="As it was written" title="As it was written" aria-pressed={plain} onClick={() => setPlain(!plain)}>
                  <Icon name="source" />
                </button>
              )}
              <Branches turn={turn} />
            </span>
          )}
          <span id={last ? "speed" : undefined} class="quiet number break">{growing ? growing.speed : turn.speed}</span>
        </div>
      </div>
    </article>
  );
}
