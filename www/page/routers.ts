// The Experts page: routers. Tests use the ids of experts.html, `data-state` of #router-status, `data-value` of #losses' dd
// and #outputs' td. Operators compute everything, the input too; fields of settings come from the list of operators.

import { Runtime, type Input, type LoadOptions, type Op, type Setting, type Tensor } from "../src/index.ts";
import { drawColumns } from "./columns.ts";
import { element, exact, headRow, message, short, tableRow } from "./page.ts";

/** Settings by which papers and systems differ; those left out are the operator's own. */
const ROUTERS: { name: string; op: string; settings?: Record<string, Setting>; with?: string[] }[] = [
  { name: "Mixtral", op: "mixtral_router" },
  { name: "Megatron-LM, softmax after the choice", op: "megatron_router", settings: { aux_coeff: 0.01, z_coeff: 0.001 } },
  { name: "Megatron-LM, softmax before the choice", op: "megatron_router", settings: { pre_softmax: true, aux_coeff: 0.01, z_coeff: 0.001 } },
  { name: "Megatron-LM with a capacity", op: "megatron_router", settings: { capacity_factor: 1.25, aux_coeff: 0.01, z_coeff: 0.001 } },
  { name: "Sigmoid with a bias", op: "megatron_router", settings: { score: "sigmoid" }, with: ["bias"] },
  { name: "DeepSeek-V2, groups by their largest", op: "megatron_router", settings: { pre_softmax: true, groups: 4, groups_kept: 2, group_score: "largest" } },
  { name: "DeepSeek-V3, groups by their two largest", op: "megatron_router", settings: { score: "sigmoid", groups: 4, groups_kept: 2, scale: 2.5 }, with: ["bias"] },
  { name: "Switch top-1", op: "switch_router", settings: { capacity_factor: 1.25 } },
  { name: "GShard top-2", op: "gshard_router", settings: { capacity_factor: 1.25 } },
  { name: "Noisy top-k", op: "noisy_top_k_router" },
];

const form = element<HTMLFormElement>("routing");
const router = element<HTMLSelectElement>("router");
const device = element<HTMLSelectElement>("router-device");
const recorded = element<HTMLInputElement>("recorded");
const drawn = element("drawn");
const fields = element("settings");
const route = element<HTMLButtonElement>("route");
const status = element("router-status");
const formula = element("formula");

let runtime: Runtime | undefined;

function show(state: "loading" | "ready" | "routing" | "error", text: string): void {
  status.dataset.state = state;
  status.textContent = text;
  route.disabled = state === "loading" || state === "routing";
}

function fail(error: unknown): void {
  show("error", message(error));
}

function chosen(): { preset: (typeof ROUTERS)[number]; op: Op } {
  const preset = ROUTERS[Number(router.value)]!;
  const op = runtime?.ops.find(({ name }) => name === preset.op);
  if (!op) throw new Error(`there is no operator ${preset.op}`);
  return { preset, op };
}

/** A field for each setting, and for each optional input with an element for each expert. */
function showSettings(): void {
  const { preset, op } = chosen();
  const made = op.settings.map(({ name, default: own, doc, choices }) => {
    const label = document.createElement("label");
    const value = preset.settings?.[name] ?? own;
    let field: HTMLInputElement | HTMLSelectElement;
    if (choices) {
      field = document.createElement("select");
      field.append(...choices.map((choice) => new Option(choice, choice, false, choice === value)));
    } else {
      field = document.createElement("input");
      field.type = typeof own === "boolean" ? "checkbox" : "number";
      if (field.type === "checkbox") field.checked = value === true;
      else Object.assign(field, { step: "any", value: value === null ? "" : String(value) });
    }
    field.name = name;
    field.title = doc;
    const text = document.createElement("span");
    text.textContent = doc === "" ? name : `${name}: ${doc}`;
    const check = field.type === "checkbox";
    label.className = check ? "check" : "";
    label.append(...(check ? [field, text] : [text, field]));
    return label;
  });
  const given = op.inputs.filter(({ optional, shape }) => optional && shape === "E").map(({ name, doc }) => {
    const label = document.createElement("label");
    label.className = "check";
    const field = document.createElement("input");
    Object.assign(field, { type: "checkbox", name: `with ${name}`, checked: preset.with?.includes(name) ?? false });
    label.append(field, `${name}: ${doc}`);
    return label;
  });
  fields.replaceChildren(...made, ...given);
  formula.textContent = op.summary;
}

function settings(op: Op): Record<string, Setting> {
  const entries = op.settings.flatMap(({ name }): [string, Setting][] => {
    const field = form.elements.namedItem(name) as HTMLInputElement | HTMLSelectElement;
    if (field instanceof HTMLInputElement && field.type === "checkbox") return [[name, field.checked]];
    if (field.value === "") return [];
    return [[name, field instanceof HTMLInputElement ? field.valueAsNumber : field.value]];
  });
  return Object.fromEntries(entries);
}

const number = (id: string) => element<HTMLInputElement>(id).valueAsNumber;

/** Normal numbers for what the operator needs: x with the skew as its mean, weights of deviation C^-1/2. */
async function draw(runtime: Runtime, op: Op): Promise<Record<string, Input>> {
  const axes: Record<string, number> = { T: number("tokens"), E: number("experts"), C: number("channels") };
  const inputs: Record<string, Input> = {};
  for (const [stream, { name, shape, optional }] of op.inputs.entries()) {
    const asked = form.elements.namedItem(`with ${name}`) as HTMLInputElement | null;
    if (optional && !asked?.checked) continue;
    const lengths = shape.split(" ").map((axis) => axes[axis]!);
    const [mean, std] = name === "x" ? [number("skew"), 1] : [0, optional ? 0.1 : 1 / Math.sqrt(axes.C!)];
    const { y } = await runtime.op("random_normal", {}, { shape: lengths, mean, std, seed: number("draw"), stream });
    inputs[name] = y!;
  }
  return inputs;
}

/** The f32 tensors of a .safetensors file that the operator takes. */
async function read(file: File, op: Op): Promise<Record<string, Input>> {
  const bytes = await file.arrayBuffer();
  const broken = (why: string) => new Error(`${file.name}: ${why}; give a .safetensors file with x and weight`);
  if (bytes.byteLength < 8) throw broken(`${bytes.byteLength} bytes are no header`);
  const length = Number(new DataView(bytes).getBigUint64(0, true));
  if (length > bytes.byteLength - 8) throw broken(`a header of ${length} bytes in a file of ${bytes.byteLength}`);
  type Stored = { dtype: string; shape: number[]; data_offsets: [number, number] };
  let header: Record<string, Stored>;
  try {
    header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, length)));
  } catch {
    throw broken("its header is no JSON");
  }
  const found = op.inputs.flatMap(({ name }): [string, Input][] => {
    const stored = header[name];
    if (stored?.dtype !== "F32") return [];
    const [first, end] = stored.data_offsets;
    if (8 + length + end > bytes.byteLength) throw broken(`${name} ends behind the file`);
    return [[name, { data: new Float32Array(bytes.slice(8 + length + first, 8 + length + end)), shape: stored.shape }]];
  });
  return Object.fromEntries(found);
}

/** Numbers of an output; zeros where there is none. */
function list(outputs: Record<string, Tensor>, name: string, count: number): number[] {
  return [...(outputs[name]?.data ?? new Float32Array(count))];
}

function showRouted(op: Op, outputs: Record<string, Tensor>, tokens: number, count: number): void {
  const of = (pattern: string) => op.outputs.filter(({ name, shape }) => shape === pattern && outputs[name]);
  const losses = of("1").flatMap(({ name, doc }) => {
    const [term, value] = [document.createElement("dt"), document.createElement("dd")];
    const got = outputs[name]!.data[0]!;
    term.textContent = term.title = doc === "" ? name : `${name}: ${doc}`;
    value.textContent = got.toLocaleString("en", { maximumSignificantDigits: 6 });
    value.title = op.summary;
    Object.assign(value.dataset, { name, value: String(got) });
    return [term, value];
  });
  element("losses").replaceChildren(...losses);

  const add = (a: number[], b: number[]) => a.map((value, e) => value + b[e]!);
  const both = (name: string) => add(list(outputs, name, count), list(outputs, `${name}2`, count));
  const [assigned, dropped] = [both("assigned"), both("dropped")];
  const room = outputs.capacity?.data[0];
  const limit = room !== undefined && room < tokens ? room : undefined;
  const kept = assigned.map((value, e) => value - dropped[e]!);
  drawColumns(element("loads"), [{ class: "kept", values: kept }, { class: "dropped", values: dropped }], limit);
  const lost = dropped.reduce((all, value) => all + value, 0);
  element("room").textContent = limit === undefined
    ? "; no expert is ever full"
    : `: ${exact(lost)} of ${exact(assigned.reduce((all, value) => all + value, 0))}; the line is the capacity, ${exact(limit)}`;

  const weighed = ["mean_prob", "load"].find((name) => outputs[name]);
  const { doc } = op.outputs.find(({ name }) => name === weighed)!;
  element("weighed").textContent = `${weighed}: ${doc}`;
  const values = list(outputs, weighed!, count);
  drawColumns(element("probs"), [{ class: "kept", values }], values.reduce((all, value) => all + value, 0) / count);

  const columns = of("E");
  const table = element<HTMLTableElement>("outputs");
  const head = headRow(["Expert", ...columns.map(({ name }) => name)]);
  for (const [i, { doc }] of columns.entries()) head.cells[i + 1]!.title = doc;
  table.tHead!.replaceChildren(head);
  const rows = Array.from({ length: count }, (_, e) => {
    const row = tableRow(String(e), columns.map(({ name }) => short(outputs[name]!.data[e]!)));
    for (const [i, { name }] of columns.entries()) {
      Object.assign(row.cells[i + 1]!.dataset, { name, value: String(outputs[name]!.data[e]!) });
    }
    return row;
  });
  table.tBodies[0]!.replaceChildren(...rows);
  element("routed").hidden = false;
}

async function run(): Promise<void> {
  if (!runtime) return;
  show("routing", "Routing…");
  const { op } = chosen();
  const file = recorded.files?.[0];
  const inputs = file ? await read(file, op) : await draw(runtime, op);
  const outputs = await runtime.op(op.name, inputs, settings(op));
  const { shape } = (inputs.x as { shape: number[] } | undefined) ?? { shape: [0] };
  const count = outputs.assigned?.data.length ?? 0;
  showRouted(op, outputs, shape[0]!, count);
  show("ready", `${exact(shape[0]!)} tokens, ${exact(count)} experts on ${runtime.device.name} (${runtime.device.backend})`);
}

async function open(): Promise<void> {
  show("loading", "Opening a device…");
  runtime?.close();
  runtime = undefined;
  runtime = await Runtime.open({ device: device.value as LoadOptions["device"] });
  if (fields.childElementCount === 0) showSettings();
  const { name, backend, kind } = runtime.device;
  show("ready", `${name} (${backend}, ${kind})`);
}

router.append(...ROUTERS.map(({ name }, i) => new Option(name, String(i))));
router.addEventListener("change", () => {
  if (runtime) showSettings();
});
device.addEventListener("change", () => void open().catch(fail));
recorded.addEventListener("change", () => {
  drawn.hidden = (recorded.files?.length ?? 0) > 0;
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  void run().catch(fail);
});
void open().catch(fail);
