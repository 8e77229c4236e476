// The button that measures, and what came of it.

import { signal } from "@preact/signals";
import { announce } from "./announce.ts";
import { bench, type Report } from "./bench.ts";
import { Copy } from "./copy.tsx";
import { asked, fail, model, ready, show } from "./state.ts";

const report = signal<Report | undefined>(undefined);
const part = signal<number | undefined>(undefined);

async function run(): Promise<void> {
  const measured = model.value;
  if (!measured || !ready.value) return;
  show("answering", "Measuring");
  part.value = 0;
  try {
    report.value = await bench(measured, asked.value.name, (done) => (part.value = done));
    show("ready", "Ready.");
    announce("Measured");
  } catch (error) {
    fail(error);
  } finally {
    part.value = undefined;
  }
}

const short = (value: number) => value.toLocaleString("en", { maximumSignificantDigits: 4 });

export function BenchCard() {
  const told = report.value;
  return (
    <section class="card" aria-labelledby="bench-title">
      <div class="row between">
        <h2 id="bench-title">Bench</h2>
        {told && <Copy text={JSON.stringify(told, null, 2)} label="Copy the result as JSON" />}
      </div>
      <p class="quiet">Reads a prompt (pp) and writes tokens (tg), as llama-bench does: the median of five runs, after one that does not count.</p>
      <div class="row">
        <button type="button" id="bench" class="primary" disabled={!ready.value} onClick={() => void run()}>Bench</button>
        {part.value !== undefined && <progress max="1" value={part.value} aria-label="Measuring" />}
        {!model.value && <span class="quiet">Load a model first, in Chat.</span>}
      </div>
      {told && (
        <div class="scroll" tabIndex={0} role="group" aria-label="Result">
          <table id="bench-result" class="numbers" data-json={JSON.stringify(told)}>
            <thead>
              <tr><th scope="col">Test</th><th scope="col">Median, tokens/s</th><th scope="col">Runs</th></tr>
            </thead>
            <tbody>
              {told.results.map(({ test, median, runs }) => (
                <tr key={test}><th scope="row">{test}</th><td>{short(median)}</td><td>{runs.map(short).join(", ")}</td></tr>
              ))}
              <tr><th scope="row">First token</th><td>{short(told.firstTokenMs)} ms</td><td /></tr>
              <tr><th scope="row">Loading</th><td>{short(told.loadMs)} ms</td><td /></tr>
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}
