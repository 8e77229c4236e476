// The form that chooses a model and loads it.

import { useRef } from "preact/hooks";
import type { LoadOptions, Loaded } from "../../src/index.ts";
import { BUILT_IN, CATALOGUE, entryOf, size } from "./catalogue.ts";
import { closeDrawer } from "./drawer.ts";
import { FitCard, fit, forgetFit } from "./fit.tsx";
import { Icon } from "./icon.tsx";
import { address, asked, choice, device, expertCache, files, load, model, state } from "./state.ts";
import { openStored, readStored, stored } from "./stored.tsx";

/** After a model is there, the visitor writes. */
export async function loadAndWrite(): Promise<void> {
  forgetFit();
  closeDrawer();
  const loaded = await load();
  // What was downloaded is stored now, in part if it was cancelled.
  void readStored();
  if (loaded) document.getElementById("prompt")?.focus();
}

function Choice() {
  const here = new Set(stored.value.map(({ url }) => url));
  return (
    <label>
      Model
      <select id="model" value={choice.value} onInput={({ currentTarget }) => (choice.value = currentTarget.value)}>
        <optgroup label="Built in, there at once">
          {BUILT_IN.map(({ value, name }) => <option key={value} value={value}>{name}</option>)}
        </optgroup>
        {stored.value.length > 0 && (
          <optgroup label="Stored on this device">
            {stored.value.map(({ name, url, bytesHere, complete }) => (
              <option key={url} value={url}>{`${entryOf(url)?.name ?? name}, ${complete ? size(bytesHere) : "in part"}`}</option>
            ))}
          </optgroup>
        )}
        {CATALOGUE.map(({ group, models: list }) => (
          <optgroup key={group} label={group}>
            {list.filter(({ url }) => !here.has(url)).map(({ name, url, bytes }) => <option key={url} value={url}>{`${name}, ${size(bytes)}`}</option>)}
          </optgroup>
        ))}
        <optgroup label="Your own">
          <option value="file">File on this computer</option>
          <option value="url">Address</option>
        </optgroup>
      </select>
    </label>
  );
}

function About() {
  const entry = entryOf(choice.value);
  if (!entry || stored.value.some(({ url, complete }) => complete && url === entry.url)) return null;
  return (
    <p class="quiet">
      {entry.about} {entry.format}, {size(entry.bytes)}, licence {entry.licence}. It comes from <a href={entry.page} target="_blank" rel="noopener noreferrer">Hugging Face</a> and is kept on this device.
    </p>
  );
}

/** What runs where, and whether that is slow. */
function where({ info, devices, adapter: found }: Loaded, wanted: LoadOptions["device"]) {
  const { name, backend, kind } = info.device;
  const details = found && backend === "webgpu" ? [found.vendor, found.architecture].filter((text) => text !== "").join(" ") : "";
  const runs = `Runs on ${name} (${[...new Set([backend, kind])].join(", ")}${details ? `: ${details}` : ""}).`;
  const software = devices.some((one) => one.kind === "software GPU");
  let notice = "";
  if (kind === "software GPU") notice = "This WebGPU adapter is software: the CPU device is faster.";
  else if (kind === "CPU" && wanted === "auto") {
    notice = software
      ? "This browser's only WebGPU adapter is software, so the model runs on the CPU, which is faster."
      : `No WebGPU: ${info.noGpu}. The model runs on the CPU, and it will be slow.`;
  }
  return { notice, text: `${runs} ${info.architecture}, ${info.layers} layers, context of ${info.contextLength} tokens.` };
}

function Where() {
  const loaded = model.value?.loaded;
  const told = loaded && where(loaded, asked.value.device);
  return (
    <>
      <p id="notice" class="notice" role="note" hidden={!told?.notice}>{told?.notice}</p>
      <p id="adapter" class="quiet" hidden={!told} data-wasm-bytes={loaded?.wasmBytes}>{told?.text}</p>
      {loaded?.notStored && <p class="quiet">It is not kept on this device: {loaded.notStored}.</p>}
    </>
  );
}

export function Setup() {
  const fileField = useRef<HTMLInputElement>(null);
  const kind = choice.value;
  const loading = state.value === "loading";
  const experts = kind === "builtin:tiny-moe" || kind === "file" || kind === "url" || /moe/i.test(kind);
  const label = loading ? "Cancel" : fit.value?.fit?.fits === false ? "Load anyway" : "Load";
  const submit = (event: Event) => {
    event.preventDefault();
    void loadAndWrite();
  };
  return (
    <form id="setup" class="card" aria-labelledby="setup-title" onSubmit={submit}>
      <h2 id="setup-title">Model</h2>
      <Choice />
      <About />
      <label id="file-field" hidden={kind !== "file"}>
        GGUF file, or config.json, tokenizer.json and *.safetensors
        <input id="file" ref={fileField} type="file" multiple accept=".gguf,.safetensors,.json,.jinja"
          onInput={({ currentTarget }) => (files.value = [...(currentTarget.files ?? [])])} />
      </label>
      {kind === "file" && files.value.length > 0 && <p class="quiet">{files.value.map(({ name, size: bytes }) => `${name}, ${size(bytes)}`).join("; ")}</p>}
      <label id="url-field" hidden={kind !== "url"}>
        Address of a GGUF file
        <input id="url" type="text" inputMode="url" autocomplete="off" placeholder="https://…/model.gguf" value={address.value}
          onInput={({ currentTarget }) => (address.value = currentTarget.value)} />
      </label>
      <div class="pair">
        <label>
          Device
          <select id="device" value={device.value} onInput={({ currentTarget }) => (device.value = currentTarget.value as typeof device.value)}>
            <option value="auto">Automatic</option>
            <option value="gpu">WebGPU, even in software</option>
            <option value="cpu">CPU</option>
          </select>
        </label>
        <label hidden={!experts}>
          Experts, MiB
          <input id="expert-cache" type="number" min="0" step="any" placeholder="all" title="Device memory for the experts of a mixture"
            value={expertCache.value} onInput={({ currentTarget }) => (expertCache.value = currentTarget.value)} />
        </label>
      </div>
      <FitCard />
      <div class="row">
        <button id="load" class={loading ? "" : "primary"} type="submit" disabled={state.value === "answering"}>{label}</button>
        <button type="button" id="stored" class="small" onClick={openStored}>
          <Icon name="save" /> Stored models
        </button>
      </div>
      <Where />
    </form>
  );
}
