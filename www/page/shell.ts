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

/** Offers the build that waits until the pages of this one are closed. */
function offer(waiting: ServiceWorker): void {
  if (document.getElementById("update")) return;
  const button = document.createElement("button");
  button.id = "update";
  button.type = "button";
  button.className = "small";
  button.textContent = "New version: reload";
  button.addEventListener("click", () => {
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
    waiting.postMessage("take over");
  });
  document.querySelector(".shell .themes")?.before(button);
}

async function register(): Promise<void> {
  const { serviceWorker } = navigator;
  const registration = await serviceWorker.register(new URL("./sw.js", document.baseURI));
  const look = ({ waiting }: ServiceWorkerRegistration) => waiting && serviceWorker.controller && offer(waiting);
  look(registration);
  registration.addEventListener("updatefound", () => {
    registration.installing?.addEventListener("statechange", () => look(registration));
  });
}

/** After the page's own files are there, and not while Vite serves sources. */
if (import.meta.env.PROD && "serviceWorker" in navigator) {
  // Where it cannot be (a file, no https) the page works as before, only not offline.
  const begin = () => void register().catch(() => undefined);
  if (document.readyState === "complete") begin();
  else window.addEventListener("load", begin);
}
