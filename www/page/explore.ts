// The Explore page. Tests use the ids of explore.html, `data-state` of #status and the rows of #blocks.

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { Runtime, type Input, type LoadOptions, type MlpSize, type Op } from "../src/index.ts";
import { colour, computedColour, element, exact, memory, message, short, tableRow } from "./page.ts";
import "./console.ts";

/** Points of a curve. */
const POINTS = 513;
/** Runs whose median is shown. */
const RUNS = 5;
/** Shown at first, in this order; the others follow. */
const FIRST = ["relu", "silu"];

const device = element<HTMLSelectElement>("device");
const status = element("status");
const choices = element("choices");
const range = element<HTMLSelectElement>("range");
const form = element<HTMLFormElement>("measure");
const channels = element<HTMLInputElement>("channels");
const tokens = element<HTMLInputElement>("tokens");
const start = element<HTMLButtonElement>("start");
const body = element<HTMLTableElement>("blocks").tBodies[0]!;

let runtime: Runtime | undefined;
let charts: uPlot[] = [];

function show(state: "loading" | "ready" | "measuring" | "error", text: string): void {
  status.dataset.state = state;
  status.textContent = text;
  start.disabled = state !== "ready";
}

function fail(error: unknown): void {
  show("error", message(error));
}

/** The operators that are functions of one number and have a derivative. */
function activations(ops: Op[]): string[] {
  const names = new Set(ops.map((op) => op.name));
  const single = (op: Op) => op.systems.includes("activation names") && op.inputs.length === 1 && op.inputs[0]?.shape === "...";
  const found = ops.filter((op) => single(op) && names.has(`${op.name}_backward`)).map((op) => op.name);
  return [...FIRST.filter((name) => found.includes(name)), ...found.filter((name) => !FIRST.includes(name))];
}

function draw(into: HTMLElement, x: Float32Array, curves: { name: string; index: number; y: Float32Array }[]): uPlot {
  const [text, grid] = [computedColour("var(--quiet)"), computedColour("var(--line)")];
  const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
  into.textContent = "";
  return new uPlot(
    {
      width: into.clientWidth,
      height: 260,
      scales: { x: { time: false } },
      axes: [axis, { ...axis, size: 44 }],
      series: [
        { label: "x", value: (_, v) => (v === null ? "" : v.toFixed(2)) },
        ...curves.map(({ name, index }) => ({
          label: name,
          stroke: computedColour(colour(index)),
          width: 2,
          value: (_: uPlot, v: number | null) => (v === null ? "" : v.toFixed(4)),
        })),
      ],
    },
    [Array.from(x), ...curves.map(({ y }) => Array.from(y))],
    into,
  );
}

async function plot(): Promise<void> {
  if (!runtime) return;
  const r = Number(range.value);
  const x = Float32Array.from({ length: POINTS }, (_, i) => -r + (2 * r * i) / (POINTS - 1));
  const dy = new Float32Array(POINTS).fill(1);
  const boxes = [...choices.querySelectorAll<HTMLInputElement>("input")];
  const values = [];
  const slopes = [];
  for (const [index, { checked, value: name }] of boxes.entries()) {
    if (!checked) continue;
    const { y } = await runtime.op(name, { x });
    const { d_x } = await runtime.op(`${name}_backward`, { x, dy });
    values.push({ name, index, y: y!.data as Float32Array });
    slopes.push({ name, index, y: d_x!.data as Float32Array });
  }
  for (const chart of charts) chart.destroy();
  charts = [draw(element("values"), x, values), draw(element("slopes"), x, slopes)];
  choices.dataset.drawn = values.map(({ name }) => name).join(" ");
}

function row({ op, hidden, parameters, flops, bytes }: MlpSize): HTMLTableRowElement {
  return tableRow(op, [exact(hidden), exact(parameters), exact(flops), memory(bytes), "–", "–"]);
}

function sizes(): void {
  if (!runtime || !form.checkValidity()) return;
  runtime.mlps(Number(channels.value)).then((list) => body.replaceChildren(...list.map(row)), fail);
}

function random(length: number, scale: number): Float32Array {
  return Float32Array.from({ length }, () => (2 * Math.random() - 1) * scale);
}

async function measure(): Promise<void> {
  if (!runtime) return;
  const [c, t] = [Number(channels.value), Number(tokens.value)];
  const list = await runtime.mlps(c);
  body.replaceChildren(...list.map(row));
  for (const [i, { op, flops, inputs }] of list.entries()) {
    show("measuring", `Measuring ${op}…`);
    const given: Record<string, Input> = { x: { data: random(t * c, 1), shape: [t, c] } };
    for (const { name, shape } of inputs) {
      const length = shape.reduce((a, b) => a * b, 1);
      given[name] = { data: random(length, 1 / Math.sqrt(shape.at(-1) ?? 1)), shape };
    }
    const times = (await runtime.time(op, given, {}, RUNS)).sort((a, b) => a - b);
    const ms = times[Math.floor(times.length / 2)]!;
    const cells = body.rows[i]!.cells;
    cells[5]!.textContent = `${short(ms)} ms`;
    cells[6]!.textContent = short((flops * t) / ms / 1e6);
  }
  show("ready", `Median of ${RUNS} runs on ${runtime.device.name} (${runtime.device.backend}, ${runtime.device.kind})`);
}

async function open(): Promise<void> {
  show("loading", "Opening a device…");
  runtime?.close();
  runtime = undefined;
  const opened = await Runtime.open({ device: device.value as LoadOptions["device"] });
  runtime = opened;
  if (!choices.querySelector("input")) {
    for (const [index, name] of activations(opened.ops).entries()) {
      const label = document.createElement("label");
      const box = document.createElement("input");
      box.type = "checkbox";
      box.value = name;
      box.checked = FIRST.includes(name);
      const swatch = document.createElement("i");
      swatch.style.background = colour(index);
      label.append(box, swatch, name);
      choices.append(label);
    }
  }
  await plot();
  sizes();
  const { name, backend, kind } = opened.device;
  show("ready", `${name} (${backend}, ${kind})`);
}

device.addEventListener("change", () => void open().catch(fail));
choices.addEventListener("change", () => void plot().catch(fail));
range.addEventListener("change", () => void plot().catch(fail));
channels.addEventListener("change", sizes);
const again = () => void plot().catch(fail);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
window.addEventListener("themechange", again);
new ResizeObserver(() => {
  for (const chart of charts) chart.setSize({ width: chart.root.parentElement?.clientWidth ?? 300, height: 260 });
}).observe(element("values"));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  void measure().catch(fail);
});
void open().catch(fail);
