// A plot of uPlot's, in the page's colours.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { computedColour } from "../page.ts";

const HEIGHT = 190;

export interface Props {
  title: string;
  /** What `x` counts. */
  of: string;
  unit: string;
  y: (number | undefined)[];
  points?: boolean;
  /** Changes when `y` has grown in place. */
  beat?: number;
}

const written = (value: number) => value.toLocaleString("en", { maximumSignificantDigits: 4 });

export function Plot({ title, of, unit, y, points = false, beat = 0 }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | undefined>(undefined);
  const data = (): uPlot.AlignedData => [y.map((_, i) => i + 1), y.map((value) => value ?? null)];
  useEffect(() => {
    const into = box.current!;
    const make = () => {
      chart.current?.destroy();
      const [text, grid, line] = [computedColour("var(--quiet)"), computedColour("var(--line)"), computedColour("var(--accent)")];
      const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: "12px system-ui" };
      chart.current = new uPlot(
        {
          width: into.clientWidth,
          height: HEIGHT,
          legend: { show: false },
          cursor: { drag: { x: false, y: false } },
          scales: { x: { time: false }, y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
          axes: [{ ...axis, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] }, { ...axis, size: 52 }],
          series: [{}, { label: unit, stroke: line, width: 1.5, points: { show: points, size: 7, fill: line } }],
        },
        data(),
        into,
      );
    };
    make();
    const sizes = new ResizeObserver(() => chart.current?.setSize({ width: into.clientWidth, height: HEIGHT }));
    sizes.observe(into);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", make);
    window.addEventListener("themechange", make);
    return () => {
      sizes.disconnect();
      dark.removeEventListener("change", make);
      window.removeEventListener("themechange", make);
      chart.current?.destroy();
    };
  }, []);
  useEffect(() => chart.current?.setData(data()), [y, y.length, beat]);
  const known = y.filter((value) => value !== undefined);
  const last = points ? known.at(-1) : [...known].sort((a, b) => a - b)[known.length >> 1];
  const now = last === undefined ? "nothing yet" : `${points ? "" : "median "}${written(last)} ${unit}`;
  return (
    <figure class="plot">
      <figcaption>
        <strong>{title}</strong>
        <span class="number">{now}</span>
      </figcaption>
      <div ref={box} role="img" aria-label={`${title}: ${now}, by ${of}`} />
      <p class="axis">{of}</p>
    </figure>
  );
}
