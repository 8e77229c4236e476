// The thread stays at its end while an answer grows, unless the visitor has scrolled up.

/** Pixels from the end that still count as being there. */
const NEAR = 60;
let scroller: HTMLElement | null = null;
let atEnd = true;

export function watch(element: HTMLElement | null): void {
  scroller = element;
  element?.addEventListener("scroll", () => {
    atEnd = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR;
  }, { passive: true });
}

export function follow(): void {
  if (scroller && atEnd) scroller.scrollTop = scroller.scrollHeight;
}

export function toEnd(): void {
  atEnd = true;
  follow();
}
