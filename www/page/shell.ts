// What every page has: colours by choice, and the service worker.

type Theme = "light" | "dark" | "system";

const root = document.documentElement;
const buttons = [...document.querySelectorAll<HTMLButtonElement>("[data-theme-choice]")];

function show(): void {
  const now = root.dataset.theme ?? "system";
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.themeChoice === now));
}

function choose(theme: Theme): void {
  if (theme === "system") delete root.dataset.theme;
  else root.dataset.theme = theme;
  try {
    if (theme === "system") localStorage.removeItem("theme");
    else localStorage.setItem("theme", theme);
  } catch {
    // Without storage the choice lasts as long as the page.
  }
  show();
  // Canvases are drawn with colours of their own.
  window.dispatchEvent(new Event("themechange"));
}

for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.themeChoice as Theme));
show();
document.querySelector(".shell nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });

/** After the page's own files are there, and not while Vite serves sources. */
if (import.meta.env.PROD && "serviceWorker" in navigator) {
  const register = () =>
    // Where it cannot be (a file, no https) the page works as before, only not offline.
    navigator.serviceWorker.register(new URL("./sw.js", document.baseURI)).catch(() => undefined);
  if (document.readyState === "complete") void register();
  else window.addEventListener("load", () => void register());
}
