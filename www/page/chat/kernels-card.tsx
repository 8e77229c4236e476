// The button that measures kernels, and what each of them took.

import { signal } from "@preact/signals";
import type { KernelTime, Model, Profile } from "../../src/index.ts";
import { announce } from "./announce.ts";
import { promptOf } from "./bench.ts";
import { Copy } from "./copy.tsx";
import { fail, model, ready, show } from "./state.ts";

const PROMPT = 128;
const WRITTEN = 32;
const STAGES = [["prefill", "Reading the prompt"], ["decode", "Writing"]] as const;

const told = signal<Profile | undefined>(undefined);

/** The conversation's cache is lost, the conversation is not. */
async function measure(of: Model): Promise<Profile> {
  const room = Math.floor(of.loaded.info.contextLength / 2);
  const prompt = await promptOf(of, Math.min(PROMPT, room));
  const options = { raw: true, maxTokens: Math.min(WRITTEN, room) };
  // The first time compiles kernels, and answers with what it finds in caches are not the others'.
  for (let run = 0; run < 2; run++) {
    of.reset();
    const { profile } = await of.generate(prompt, { ...options, profile: run === 1 });
    if (profile) return profile;
  }
  throw new Error("nothing was measured");
}

async function run(): Promise<void> {
  const measured = model.value;
  if (!measured || !ready.value) return;
  show("answering", "Measuring");
  try {
    told.value = await measure(measured);
    show("ready", "Ready.");
    announce("Measured");
  } catch (error) {
    fail(error);
  } finally {
    measured.reset();
  }
}

const short = (value: number) => value.toLocaleString("en", { maximumSignificantDigits: 3 });
/** Units of 1e9 a second. */
const giga = (count: number, ms: number) => (ms > 0 && count > 0 ? short(count / ms / 1e6) : "");

function Stage({ title, stage, kernels }: { title: string; stage: Profile["stages"][number]; kernels: KernelTime[] }) {
  const sum = kernels.reduce((all, { ms }) => all + ms, 0);
  return (
    <>
      <p class="quiet">{title}: {stage.tokens} tokens, {short(stage.ms)} ms, of which kernels {short(sum)} ms</p>
      <div class="scroll" tabIndex={0} role="group" aria-label={title}>
        <table class="numbers kernels" data-stage={stage.stage}>
          <thead>
            <tr>{["Kernel", "Calls", "ms", "Share", "GB/s", "GFLOP/s"].map((name) => <th key={name} scope="col">{name}</th>)}</tr>
          </thead>
          <tbody>
            {kernels.map(({ kernel, calls, ms, bytes, flops }) => (
              <tr key={kernel}>
                <th scope="row">{kernel}</th>
                <td>{calls}</td>
                <td>{short(ms)}</td>
                <td>{sum > 0 ? `${((100 * ms) / sum).toFixed(1)} %` : ""}</td>
                <td>{giga(bytes, ms)}</td>
                <td>{giga(flops, ms)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

export function KernelsCard() {
  const profile = told.value;
  return (
    <section class="card" aria-labelledby="kernels-title">
      <div class="row between">
        <h2 id="kernels-title">Time per kernel</h2>
        {profile && <Copy text={JSON.stringify(profile, null, 2)} label="Copy the kernels as JSON" />}
      </div>
      <p class="quiet">
        Reads a prompt and writes {WRITTEN} tokens, with each kernel measured: by timestamp queries on a GPU, by this page's clock on the CPU.
        Browsers round both, so sums are right and single calls are not.
      </p>
      <div class="row">
        <button type="button" id="kernels" class="primary" disabled={!ready.value} onClick={() => void run()}>Measure kernels</button>
        {!model.value && <span class="quiet">Load a model first, in Chat.</span>}
      </div>
      {profile && (
        <div id="kernels-result" data-json={JSON.stringify(profile)}>
          {STAGES.map(([name, title]) => {
            const stage = profile.stages.find((one) => one.stage === name);
            return stage && <Stage key={name} title={title} stage={stage} kernels={profile.kernels.filter((one) => one.stage === name)} />;
          })}
        </div>
      )}
    </section>
  );
}
