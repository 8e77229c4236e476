// What the pages have in common: fields of the form that chooses a model, and how numbers are written.

import type { Progress, Source } from "../src/protocol.ts";

/** The element of an id that the page's html must have. */
export function element<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`${location.pathname} has no #${id}`);
  return found as T;
}

export function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Reads #model, #file and #url, and shows the field that the choice needs. */
export function sourceField(): () => Source {
  const kind = element<HTMLSelectElement>("model");
  kind.addEventListener("change", () => {
    element("file-field").hidden = kind.value !== "file";
    element("url-field").hidden = kind.value !== "url";
  });
  return () => {
    switch (kind.value) {
      case "file": {
        const files = [...(element<HTMLInputElement>("file").files ?? [])];
        if (files.length === 0) throw new Error("choose a file first");
        return files;
      }
      case "url": {
        const address = element<HTMLInputElement>("url").value.trim();
        if (address === "") throw new Error("write the address of a GGUF file first");
        return new URL(address, location.href).href;
      }
      default:
        return kind.value;
    }
  };
}

/** Says how far loading is, in a progress bar and a line. */
export function showProgress(bar: HTMLProgressElement, line: HTMLElement, { phase, done, total }: Progress): void {
  const part = total > 0 ? done / total : 0;
  const shares: Record<Progress["phase"], [begin: number, share: number]> = { download: [0, 0.7], upload: [0.7, 0.2], compile: [0.9, 0.1], ready: [1, 0] };
  const [begin, share] = shares[phase];
  bar.value = begin + part * share;
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
  const verb = { download: "Downloading", upload: "Uploading", compile: "", ready: "" }[phase];
  line.textContent = verb ? `${verb} ${megabytes(done)} of ${total > 0 ? megabytes(total) : "?"} MB` : "Compiling kernels";
}

/** A colour that differs from its neighbours', readable on both grounds. */
export function colour(index: number): string {
  return `light-dark(hsl(${(index * 137.5 + 245) % 360} 70% 38%), hsl(${(index * 137.5 + 245) % 360} 75% 70%))`;
}

export function exact(value: number): string {
  return value.toLocaleString("en");
}

export function short(value: number): string {
  return value.toLocaleString("en", { maximumSignificantDigits: 3 });
}

export function memory(bytes: number): string {
  const [size, unit] = bytes < 2 ** 20 ? [2 ** 10, "KiB"] : [2 ** 20, "MiB"];
  return `${short(bytes / size)} ${unit}`;
}

/** The row above a table's columns. */
export function headRow(names: string[]): HTMLTableRowElement {
  const line = document.createElement("tr");
  for (const name of names) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    line.append(cell);
  }
  return line;
}

/** A row of a table: its head, and cells of text. */
export function tableRow(head: string, cells: string[]): HTMLTableRowElement {
  const line = document.createElement("tr");
  const first = document.createElement("th");
  first.scope = "row";
  first.textContent = head;
  line.append(first);
  for (const text of cells) line.insertCell().textContent = text;
  return line;
}

/** What the browser makes of a CSS colour here: canvases do not know `light-dark`. */
export function computedColour(css: string): string {
  const probe = document.createElement("span");
  probe.style.color = css;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
