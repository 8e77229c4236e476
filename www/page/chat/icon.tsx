// Drawn in lines of the text's colour.

const PATHS = {
  send: "M12 19V5m-6 6 6-6 6 6",
  stop: "M7 7h10v10H7z",
  plus: "M12 5v14M5 12h14",
  copy: "M9 9h10v10H9zM5 15V5h10",
  check: "m5 12 5 5L19 7",
  again: "M20 11a8 8 0 1 0-2.3 6.3M20 5v6h-6",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  close: "m6 6 12 12M18 6 6 18",
  bin: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  chats: "M4 5h16v11H9l-5 4z",
  tune: "M4 7h9m5 0h2M4 17h3m5 0h8M15.5 4.5v5M9.5 14.5v5",
  source: "m9 7-5 5 5 5m6-10 5 5-5 5",
  left: "m14 6-6 6 6 6",
  right: "m10 6 6 6-6 6",
  save: "M12 4v11m-5-5 5 5 5-5M5 20h14",
  bolt: "M13 2 5 13h6l-1.500 9L19 11h-6z",
} as const;

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
