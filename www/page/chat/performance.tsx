// Figures of the answers on this page, the device's memory, the adapter and a bench.

import { useEffect, useState } from "preact/hooks";
import type { Model } from "../../src/index.ts";
import "../performance.css";
import { exact, memory } from "../page.ts";
import { BenchCard } from "./bench-card.tsx";
import { FailureCard } from "./failure.tsx";
import { KernelsCard } from "./kernels-card.tsx";
import { beat, figures, latencies } from "./metrics.ts";
import { Plot } from "./plot.tsx";
import { asked, model, state } from "./state.ts";

type Row = [name: string, value: string];

const OWNERS = [
  ["weights", "Weights"], ["kv", "Keys and values"], ["tables", "Tables by position"], ["activations", "Activations"], ["experts", "Slots for experts"],
  ["staging", "On its way"], ["total", "All on the device"], ["peak", "The most there was"], ["mapped", "Weights used where they are"],
] as const;

async function held(loaded: Model): Promise<Row[]> {
  const devices = await loaded.memory();
  const rows: Row[] = [];
  for (const told of devices) {
    const of = devices.length > 1 ? `${told.device.name}: ` : "";
    for (const [key, name] of OWNERS) if (told[key] > 0 || key === "total") rows.push([of + name, memory(told[key])]);
    rows.push([`${of}Compiled kernels`, exact(told.pipelines)]);
  }
  const heap = (performance as { memory?: { usedJSHeapSize: number } }).memory?.usedJSHeapSize;
  rows.push(["wasm, after loading", memory(loaded.loaded.wasmBytes)]);
  if (heap) rows.push(["JavaScript of the page", memory(heap)]);
  return rows;
}

interface Gpu {
  rows: Row[];
  features: string;
}

const LIMITS = [
  ["maxBufferSize", "Largest buffer"],
  ["maxStorageBufferBindingSize", "Largest binding"],
  ["maxStorageBuffersPerShaderStage", "Storage buffers a stage"],
  ["maxComputeWorkgroupStorageSize", "Workgroup memory"],
  ["maxComputeInvocationsPerWorkgroup", "Invocations a workgroup"],
] as const;

async function adapter(): Promise<Gpu | string> {
  const gpu = navigator.gpu;
  if (!gpu) return "This browser has no WebGPU.";
  const found = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!found) return "This browser has WebGPU, but no adapter for it.";
  const { vendor, architecture, description, subgroupMinSize, subgroupMaxSize } = found.info as GPUAdapterInfo & { subgroupMinSize?: number; subgroupMaxSize?: number };
  const name = [vendor, architecture, description].filter((text) => text).join(", ");
  const rows: Row[] = [["Adapter", name || "not told"]];
  if (subgroupMinSize) rows.push(["Subgroups", subgroupMinSize === subgroupMaxSize ? `${subgroupMinSize} lanes` : `${subgroupMinSize} to ${subgroupMaxSize} lanes`]);
  for (const [limit, name] of LIMITS) {
    const value = Number(found.limits[limit]);
    rows.push([name, /Size$/.test(limit) ? memory(value) : exact(value)]);
  }
  return { rows, features: [...found.features].sort().join(", ") };
}

function Facts({ rows }: { rows: Row[] }) {
  return (
    <table class="numbers facts-table">
      <tbody>
        {rows.map(([name, value]) => <tr key={name}><th scope="row">{name}</th><td>{value}</td></tr>)}
      </tbody>
    </table>
  );
}

function Plots() {
  const all = figures.value;
  const now = beat.value;
  return (
    <div class="plots">
      <Plot title="Writing" unit="tokens/s" of="answer" points y={all.map(({ decode }) => decode)} />
      <Plot title="Reading the prompt" unit="tokens/s" of="answer" points y={all.map(({ prefill }) => prefill)} />
      <Plot title="First token" unit="ms" of="answer" points y={all.map(({ first }) => first)} />
      <Plot title="From token to token" unit="ms" of="token of the last answer" y={latencies} beat={now} />
    </div>
  );
}

export function Panel() {
  const loaded = model.value;
  const busy = state.value === "answering" || state.value === "loading";
  const [rows, setRows] = useState<Row[]>([]);
  const [gpu, setGpu] = useState<Gpu | string>("");
  useEffect(() => {
    adapter().then(setGpu, (error: unknown) => setGpu(String(error)));
  }, []);
  useEffect(() => {
    if (!loaded) {
      setRows([]);
      return;
    }
    // A model that was closed meanwhile has nothing to tell.
    const read = () => void held(loaded).then(setRows, () => undefined);
    read();
    const timer = setInterval(read, 1000);
    return () => clearInterval(timer);
  }, [loaded, busy]);
  return (
    <div id="performance" class="performance">
      <header>
        <h1>Performance</h1>
        <p>{loaded ? `${asked.value.name} on ${loaded.loaded.info.device.name}` : "Load a model in Chat, and its figures come here."}</p>
      </header>
      <FailureCard />
      <section class="card" aria-labelledby="answers-title">
        <h2 id="answers-title">Answers since the page was opened</h2>
        <Plots />
      </section>
      <div class="columns-2">
        <section class="card" aria-labelledby="memory-title">
          <h2 id="memory-title">Memory</h2>
          {rows.length > 0 ? <Facts rows={rows} /> : <p class="quiet">No model is loaded.</p>}
        </section>
        <section class="card" aria-labelledby="adapter-title">
          <h2 id="adapter-title">WebGPU adapter</h2>
          {typeof gpu === "string" ? <p class="quiet">{gpu || "Asking…"}</p> : (
            <>
              <Facts rows={gpu.rows} />
              <p class="quiet break">Features: {gpu.features}</p>
            </>
          )}
        </section>
      </div>
      <KernelsCard />
      <BenchCard />
    </div>
  );
}
