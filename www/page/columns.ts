// Columns of parts on top of each other, as SVG.

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, BELOW] = [640, 200, 18];

/** What a column is made of, from below; `class` gives its colour. */
export interface Part {
  class: string;
  values: readonly number[];
}

function add(into: Element, name: string, attributes: Record<string, string | number>, text = ""): Element {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (text) made.textContent = text;
  into.append(made);
  return made;
}

/** Draws a column for each index of the parts' values, and a line across at `line`. */
export function drawColumns(svg: Element, parts: Part[], line?: number): void {
  const count = parts[0]?.values.length ?? 0;
  const sums = Array.from({ length: count }, (_, i) => parts.reduce((sum, { values }) => sum + values[i]!, 0));
  const most = Math.max(...sums, line ?? 0, Number.MIN_VALUE);
  const y = (value: number) => HEIGHT - (value / most) * (HEIGHT - 4);
  const step = WIDTH / Math.max(count, 1);
  const label = Math.ceil(28 / step);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT + BELOW}`);
  for (let i = 0; i < count; i++) {
    let base = 0;
    for (const { class: name, values } of parts) {
      const top = base + values[i]!;
      const box = { x: i * step + step * 0.1, y: y(top), width: step * 0.8, height: y(base) - y(top) };
      const made = add(svg, "rect", { ...box, class: name });
      add(made, "title", {}, `expert ${i}, ${name}: ${values[i]!.toLocaleString("en", { maximumSignificantDigits: 4 })}`);
      base = top;
    }
    if (i % label === 0) add(svg, "text", { x: (i + 0.5) * step, y: HEIGHT + 14, "text-anchor": "middle" }, String(i));
  }
  add(svg, "line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, class: "base" });
  if (line !== undefined) add(svg, "line", { x1: 0, x2: WIDTH, y1: y(line), y2: y(line), class: "limit" });
}
