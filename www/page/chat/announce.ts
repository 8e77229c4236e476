// What a screen reader says. An answer is said once, when it is whole: a region that changes with every token chatters.

import { signal } from "@preact/signals";

export const announced = signal("");

export function announce(text: string): void {
  // The same text again is no change; a space at the end is one, and is not heard.
  announced.value = announced.value === text ? `${text} ` : text;
}
