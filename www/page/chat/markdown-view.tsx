// An answer as Markdown, while it grows too. Until the Markdown code is there it is shown as it is written.

import { useLayoutEffect, useRef } from "preact/hooks";
import { signal } from "@preact/signals";
import { drew } from "./answers.ts";
import type { MarkdownStream } from "./markdown.ts";
import { follow } from "./scroll.ts";

/** Not needed for the first look at the page. */
const code = signal<typeof import("./markdown.ts") | undefined>(undefined);
let fetching = false;

export function fetchMarkdown(): void {
  if (fetching) return;
  fetching = true;
  import("./markdown.ts").then((found) => (code.value = found), () => (fetching = false));
}

/** Models that think write that first, between marks. */
function split(text: string): [thought: string, answer: string] {
  const begin = /^\s*<think>/.exec(text);
  if (!begin) return ["", text];
  const end = text.indexOf("</think>");
  if (end < 0) return [text.slice(begin[0].length).trim(), ""];
  return [text.slice(begin[0].length, end).trim(), text.slice(end + "</think>".length)];
}

export function MarkdownView({ text, growing }: { text: string; growing: boolean }) {
  const root = useRef<HTMLDivElement>(null);
  const stream = useRef<MarkdownStream | undefined>(undefined);
  const made = code.value;
  const [thought, answer] = split(text);
  useLayoutEffect(() => {
    const begin = performance.now();
    if (made) {
      stream.current ??= new made.MarkdownStream(root.current!);
      stream.current.update(answer);
    } else {
      fetchMarkdown();
      root.current!.textContent = answer;
    }
    if (growing) {
      // Layout counts too.
      follow();
      drew(performance.now() - begin);
    }
  }, [answer, thought, made]);
  return (
    <>
      {thought && <div class="thought"><span>Thinking</span>{thought}</div>}
      <div class={made ? "markdown" : "markdown verbatim"} ref={root} />
    </>
  );
}
