// A modal dialog: the browser keeps the focus in it, closes it with Escape, and puts the focus back.

import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Signal } from "@preact/signals";
import { Icon } from "./icon.tsx";

export function Dialog({ open, title, id, children }: { open: Signal<boolean>; title: string; id: string; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const shown = open.value;
  useEffect(() => {
    if (shown && !dialog.current!.open) dialog.current!.showModal();
    else if (!shown && dialog.current!.open) dialog.current!.close();
  }, [shown]);
  return (
    <dialog id={id} ref={dialog} aria-labelledby={`${id}-title`} onClose={() => (open.value = false)}
      onClick={({ target }) => target === dialog.current && (open.value = false)}>
      <div class="dialog">
        <div class="row between">
          <h2 id={`${id}-title`}>{title}</h2>
          <button type="button" class="icon-button" aria-label="Close" onClick={() => (open.value = false)}>
            <Icon name="close" />
          </button>
        </div>
        {shown && children}
      </div>
    </dialog>
  );
}
