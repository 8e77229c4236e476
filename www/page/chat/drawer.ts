// On narrow screens the columns beside the thread are drawers.

import { signal } from "@preact/signals";

export type Drawer = "side" | "panel";

export const drawer = signal<Drawer | undefined>(undefined);
let back: Element | null = null;

export function openDrawer(name: Drawer): void {
  back = document.activeElement;
  drawer.value = name;
  // After it is drawn. On wide screens it is there already.
  requestAnimationFrame(() => document.querySelector<HTMLElement>(`#${name} :is(select, button, input)`)?.focus());
}

export function closeDrawer(): void {
  if (!drawer.value) return;
  drawer.value = undefined;
  if (back instanceof HTMLElement) back.focus();
}
