// An error in words, and its own line.

import { useEffect, useRef } from "preact/hooks";
import { Icon } from "./icon.tsx";
import { failure, show, model } from "./state.ts";

export function FailureCard() {
  const told = failure.value;
  const card = useRef<HTMLDivElement>(null);
  useEffect(() => card.current?.scrollIntoView({ block: "nearest" }), [told]);
  if (!told) return null;
  const dismiss = () => show(model.value ? "ready" : "idle", model.value ? "Ready." : "No model is loaded.");
  return (
    <div id="failure" ref={card} class="failure" role="alert" data-code={told.code ?? ""}>
      <div class="row between top">
        <strong>{told.what}</strong>
        <button type="button" class="icon-button" aria-label="Dismiss" onClick={dismiss}>
          <Icon name="close" />
        </button>
      </div>
      <p>{told.do}</p>
      <p class="line">{told.line}</p>
    </div>
  );
}
