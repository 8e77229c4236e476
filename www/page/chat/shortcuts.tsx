// Keys of the page, and the list of them.

import { signal } from "@preact/signals";
import { stop } from "./answers.ts";
import { closeDrawer } from "./drawer.ts";
import { Dialog } from "./dialog.tsx";
import { newConversation } from "./sidebar.tsx";
import { state } from "./state.ts";

const open = signal(false);

export function openShortcuts(): void {
  open.value = true;
}

const command = /mac|iphone|ipad/i.test(navigator.userAgent) ? "⌘" : "Ctrl";

const KEYS: [string[], string][] = [
  [["Enter"], "Send"],
  [["Shift", "Enter"], "New line"],
  [["Esc"], "Stop the answer"],
  [[command, "K"], "New conversation"],
  [["/"], "Write"],
  [["?"], "This list"],
];

const writes = (target: EventTarget | null) =>
  target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));

export function listenForKeys(): () => void {
  const heard = (event: KeyboardEvent) => {
    if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      if (state.value === "answering") stop();
      else closeDrawer();
    } else if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.altKey) {
      event.preventDefault();
      newConversation();
    } else if (!writes(event.target) && !event.ctrlKey && !event.metaKey && !event.altKey) {
      if (event.key === "?") openShortcuts();
      else if (event.key === "/") {
        event.preventDefault();
        document.getElementById("prompt")?.focus();
      }
    }
  };
  window.addEventListener("keydown", heard);
  return () => window.removeEventListener("keydown", heard);
}

export function Shortcuts() {
  return (
    <Dialog open={open} id="shortcuts" title="Keyboard shortcuts">
      <dl class="keys">
        {KEYS.map(([keys, what]) => (
          <div key={what}>
            <dt>{keys.map((key) => <kbd key={key}>{key}</kbd>)}</dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
