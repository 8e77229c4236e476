// The conversation that is shown.

import { useEffect, useRef } from "preact/hooks";
import { live } from "./answers.ts";
import { conversation, path } from "./conversations.ts";
import { copyCode } from "./copy.tsx";
import { FailureCard } from "./failure.tsx";
import { Hero } from "./hero.tsx";
import { Loading } from "./loading.tsx";
import { toEnd, watch } from "./scroll.ts";
import { loadAndWrite } from "./setup.tsx";
import { chosenName, state } from "./state.ts";
import { Turn } from "./turn.tsx";

/** The last answer as the model writes it, before Markdown: what programs read. It is no part of what is seen or heard. */
function Answer() {
  const turn = path.value.at(-1);
  const growing = live.value && live.value.turn === turn?.id ? live.value : undefined;
  const text = growing ? growing.text : (turn?.answer ?? "");
  return <div id="answer" class="source" aria-hidden="true" data-tokens={growing ? undefined : turn?.tokens?.join(",")}>{text || null}</div>;
}

export function Thread() {
  const scroller = useRef<HTMLDivElement>(null);
  const turns = path.value;
  const { id } = conversation.value;
  useEffect(() => watch(scroller.current), []);
  useEffect(toEnd, [id, turns.length]);
  const clicked = ({ target }: Event) => {
    const button = (target as Element).closest<HTMLButtonElement>(".copy-code");
    if (button) void copyCode(button);
  };
  return (
    <div id="thread" class="thread" ref={scroller} onClick={clicked}>
      <section id="conversation" aria-label="Conversation" class={turns.length === 0 ? "empty" : ""}>
        {turns.length === 0 ? <Hero /> : <h2 class="sr-only">Conversation</h2>}
        {turns.map((turn, i) => <Turn key={turn.id} turn={turn} last={i === turns.length - 1} />)}
        <Answer />
        {turns.length > 0 && state.value === "idle" && (
          <div class="resume">
            <span>No model is loaded.</span>
            <button type="button" class="primary" onClick={() => void loadAndWrite()}>Load {chosenName()}</button>
          </div>
        )}
        <FailureCard />
        <Loading />
      </section>
    </div>
  );
}
