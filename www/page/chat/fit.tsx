// Will this model run here? Asked of its header, before anything is downloaded.

import { useEffect } from "preact/hooks";
import { signal } from "@preact/signals";
import { failureOf, type Failure } from "../words.ts";
import { Shardlight, type Fit } from "../../src/index.ts";
import { chosenName, choice, device, source, state } from "./state.ts";
import { size } from "./catalogue.ts";

interface Told {
  fit?: Fit;
  failure?: Failure;
}

/** Of the model that is chosen. */
export const fit = signal<Told | undefined>(undefined);

let asking: AbortController | undefined;

/** Another choice makes what was told, or is being asked, worthless. */
export function forgetFit(): void {
  asking?.abort();
  fit.value = undefined;
}

/** Asks for what the form chooses. */
export async function askFit(): Promise<void> {
  forgetFit();
  // Half a second of measuring would slow down what is under way, and be slowed down by it.
  if (state.value === "loading" || state.value === "answering") return;
  const own = (asking = new AbortController());
  fit.value = {};
  try {
    const told = await Shardlight.check(source(), { device: device.value, signal: own.signal });
    if (asking === own) fit.value = { fit: told };
  } catch (error) {
    if (asking === own && !own.signal.aborted) fit.value = { failure: failureOf(error) };
  }
}

const count = (value: number) => value.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 3 });

function Numbers({ fit }: { fit: Fit }) {
  const { memory, speed, limits } = fit;
  const rows: [string, string][] = [
    ["Model", `${fit.architecture}, ${count(fit.parameters)} parameters, most ${fit.dtype}`],
    ["Download", size(fit.bytes)],
    ["Memory", `${size(memory.total)}${fit.capacity ? ` of ${size(fit.capacity)}` : ""}: weights ${size(memory.weights)}, conversation ${size(memory.kv)}, work ${size(memory.activations)}`],
    ["Context", `${fit.contextLength.toLocaleString("en")} of ${fit.maxContextLength.toLocaleString("en")} tokens`],
    ["Device", fit.device.name],
    ["Bindings", `up to ${size(limits.maxBindingBytes)}${fit.sliced > 0 ? `; ${fit.sliced} tensors in slices` : ""}`],
    ["Uses", [limits.f16 && "f16", limits.packedDot && "packed dot products", limits.subgroups && "subgroups"].filter(Boolean).join(", ") || "nothing special"],
  ];
  if (speed) rows.push(["Speed", `about ${count(speed.decode)} tokens/s; reads ${count(speed.prefill)} tokens/s`]);
  return (
    <dl class="facts">
      {rows.map(([name, text]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{text}</dd>
        </div>
      ))}
    </dl>
  );
}

export function FitCard() {
  const chosen = choice.value;
  // Built-in models fit everywhere.
  const asks = chosen !== "" && chosen !== "file" && chosen !== "url" && !chosen.startsWith("builtin:");
  useEffect(() => {
    forgetFit();
    if (asks) void askFit();
  }, [chosen, device.value]);
  if (chosen.startsWith("builtin:")) return null;
  const told = fit.value;
  if (!told) {
    return (
      <button type="button" class="small" id="check" disabled={state.value === "loading" || state.value === "answering"} onClick={() => void askFit()}>
        Will it run here?
      </button>
    );
  }
  const { fit: found, failure } = told;
  const verdict = failure ? failure.what : !found ? "Looking whether it fits…" : found.fits ? `${chosenName()} runs on this device` : `${chosenName()} does not fit this device`;
  return (
    <div id="fit" class="fit" data-fits={found ? String(found.fits) : undefined} role="status">
      <strong class="break">{verdict}</strong>
      {failure && <p class="quiet">{failure.line}</p>}
      {found && found.problems.length > 0 && (
        <ul class="problems">
          {[...found.problems, ...found.advice].map((text) => (
            <li key={text}>{text}</li>
          ))}
        </ul>
      )}
      {found && <Numbers fit={found} />}
    </div>
  );
}
