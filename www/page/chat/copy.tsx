// A button that copies a text and says so.

import { useState } from "preact/hooks";
import { announce } from "./announce.ts";
import { Icon } from "./icon.tsx";
import { fail } from "./state.ts";

/** How long a button says that it has copied, in milliseconds. */
export const SAID = 1600;

export function Copy({ text, label }: { text: string; label: string }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone(true);
      announce("Copied");
      setTimeout(() => setDone(false), SAID);
    } catch (error) {
      fail(error);
    }
  };
  return (
    <button type="button" class="icon-button" aria-label={label} title={label} onClick={() => void copy()}>
      <Icon name={done ? "check" : "copy"} />
    </button>
  );
}

/** For the buttons of code blocks, which Markdown has put there. */
export async function copyCode(button: HTMLButtonElement): Promise<void> {
  const text = button.closest(".code")?.querySelector("pre")?.textContent ?? "";
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    announce("Copied");
    setTimeout(() => (button.textContent = "Copy"), SAID);
  } catch (error) {
    fail(error);
  }
}
