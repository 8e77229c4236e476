// A Vite plugin: the same head and header on every page, in the place of two comments.

const ICON = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M9 0 3 9h4l-1 7 7-10H8z' fill='%235b5bd6'/%3E%3C/svg%3E";

/** Name, address and the page whose entry is marked as current. */
const PAGES = [
  ["Chat", "./index.html", "index"],
  ["Explore", "./explore.html", "explore"],
  ["Shards", "./shards.html", "shards"],
  ["Experts", "./experts.html", "experts"],
  ["Performance", "./index.html#performance", ""],
];

const THEMES = [
  ["light", "Light", "M12 4V2m0 20v-2m8-8h2M2 12h2m13.7-5.7 1.4-1.4M4.9 19.1l1.4-1.4m0-11.4L4.9 4.9m14.2 14.2-1.4-1.4M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8Z"],
  ["system", "As the system", "M4 5h16v11H4zM9 20h6m-3-4v4"],
  ["dark", "Dark", "M20 14.5A8 8 0 0 1 9.5 4a8 8 0 1 0 10.5 10.5Z"],
];

// Before anything is drawn, so that no page flashes white in the dark.
const HEAD = `<meta charset="utf-8" />
    <meta name="viewport" content="width=device-width, initial-scale=1, interactive-widget=resizes-content" />
    <meta name="color-scheme" content="light dark" />
    <link rel="icon" href="${ICON}" />
    <script>try { const t = localStorage.getItem("theme"); if (t) document.documentElement.dataset.theme = t; } catch {}</script>
    <link rel="stylesheet" href="./page/style.css" />`;

function header(page) {
  const links = PAGES.map(([name, href, of]) => `<a href="${href}"${of === page ? ' aria-current="page"' : ""}>${name}</a>`);
  const themes = THEMES.map(([value, name, path]) =>
    `<button type="button" data-theme-choice="${value}" aria-pressed="false" title="${name}"><svg viewBox="0 0 24 24" aria-hidden="true"><path d="${path}" /></svg><span class="sr-only">${name}</span></button>`);
  return `<header class="shell">
      <a class="skip" href="#main">To the content</a>
      <a class="brand" href="./index.html"><svg viewBox="0 0 16 16" aria-hidden="true"><path d="M9 0 3 9h4l-1 7 7-10H8z" /></svg>Shardlight</a>
      <nav aria-label="Pages">
        ${links.join("\n        ")}
      </nav>
      <div class="themes" role="group" aria-label="Colours">${themes.join("")}</div>
    </header>`;
}

export function shell() {
  return {
    name: "shardlight-shell",
    transformIndexHtml: {
      order: "pre",
      handler(html, { filename }) {
        const page = /([^/\\]+)\.html$/.exec(filename)?.[1] ?? "index";
        return html
          .replace("<!--head-->", () => HEAD)
          .replace("<!--shell-->", () => header(page))
          .replace("</body>", `  <script type="module" src="./page/shell.ts"></script>\n  </body>`);
      },
    },
  };
}
