// What a first visitor sees: one button.

import { Icon } from "./icon.tsx";
import { openDrawer } from "./drawer.ts";
import { send } from "./answers.ts";
import { asked, choice, model, state } from "./state.ts";
import { loadAndWrite } from "./setup.tsx";

const STORIES = ["Tell me a story about a little dog.", "Tell me a story about a girl and the sea.", "Tell me a story about a red ball."];
const QUESTIONS = ["Explain why the sky is blue in three sentences.", "Write a haiku about the sea.", "Give me a table of five planets with one fact each."];

function start(): void {
  choice.value = "builtin:tiny";
  void loadAndWrite();
}

export function Hero() {
  const loaded = model.value;
  if (state.value === "loading") return null;
  if (loaded) {
    const ideas = asked.value.name.startsWith("Tiny") ? STORIES : QUESTIONS;
    return (
      <section class="hero" aria-labelledby="hero-title">
        <h2 id="hero-title" class="break">{asked.value.name} is listening</h2>
        <p class="quiet">It runs on this device. Nothing you write leaves it.</p>
        <div class="ideas">
          {ideas.map((text) => (
            <button type="button" key={text} onClick={() => void send(text)} disabled={state.value === "answering"}>{text}</button>
          ))}
        </div>
      </section>
    );
  }
  return (
    <section class="hero" aria-labelledby="hero-title">
      <span class="mark"><Icon name="bolt" /></span>
      <h2 id="hero-title">A language model that runs in this page</h2>
      <p class="quiet">No server, no account. What you write stays on this device, and it works offline.</p>
      <div class="row centre">
        <button type="button" id="start" class="primary large" onClick={start}>Start chatting</button>
        <button type="button" class="large" onClick={() => openDrawer("panel")}>Choose a model</button>
      </div>
      <p class="quiet">Starts with a tiny built-in model that writes simple stories: 1 MB, ready in a second.</p>
    </section>
  );
}
