// How answers are drawn.

import { conversation, setSystem } from "./conversations.ts";
import { changed, DEFAULTS, raw, settings, type Settings } from "./settings.ts";

type NumberField = { name: keyof Settings; id: string; label: string; min: number; max?: number; step: number | "any"; placeholder: string };

const NUMBERS: NumberField[] = [
  { name: "maxTokens", id: "max-tokens", label: "Most tokens", min: 1, max: 100000, step: 1, placeholder: "256" },
  { name: "temperature", id: "temperature", label: "Temperature (0 is greedy)", min: 0, max: 5, step: 0.1, placeholder: "0" },
  { name: "topK", id: "top-k", label: "Top k", min: 0, step: 1, placeholder: "all" },
  { name: "topP", id: "top-p", label: "Top p", min: 0, max: 1, step: 0.05, placeholder: "1" },
  { name: "minP", id: "min-p", label: "Min p", min: 0, max: 1, step: 0.01, placeholder: "0" },
  { name: "repeatPenalty", id: "repeat-penalty", label: "Repeat penalty", min: 0, max: 5, step: 0.05, placeholder: "1" },
  { name: "seed", id: "seed", label: "Seed", min: 0, step: 1, placeholder: "random" },
];

const EXAMPLE = '{ "type": "object", "properties": { "name": { "type": "string" } } }';

const put = (name: keyof Settings, text: string) => (settings.value = { ...settings.value, [name]: text });

export function Sampling() {
  const now = settings.value;
  return (
    <details class="card settings-card">
      <summary>
        Settings{changed.value > 0 && <span class="count">{changed.value} changed</span>}
      </summary>
      <div class="stack">
        <label>
          System prompt of this conversation
          <textarea id="system" rows={3} placeholder="You are a helpful assistant." value={conversation.value.system}
            onInput={({ currentTarget }) => setSystem(currentTarget.value)} />
        </label>
        <div class="pair">
          {NUMBERS.map(({ name, id, label, ...rest }) => (
            <label key={id}>
              {label}
              <input id={id} type="number" value={now[name]} {...rest} onInput={({ currentTarget }) => put(name, currentTarget.value)} />
            </label>
          ))}
        </div>
        <label>
          Stop texts, one a line
          <textarea id="stop-texts" rows={2} value={now.stop} onInput={({ currentTarget }) => put("stop", currentTarget.value)} />
        </label>
        <label>
          JSON schema that answers must fit
          <textarea id="schema" class="mono" rows={3} spellcheck={false} placeholder={EXAMPLE} value={now.schema}
            onInput={({ currentTarget }) => put("schema", currentTarget.value)} />
        </label>
        <label class="check">
          <input id="raw" type="checkbox" checked={raw.value} onInput={({ currentTarget }) => (raw.value = currentTarget.checked)} />
          Continue the text instead of answering it
        </label>
        <button type="button" class="small" disabled={changed.value === 0} onClick={() => (settings.value = DEFAULTS)}>Back to the defaults</button>
      </div>
    </details>
  );
}
