// Markdown as it comes: blocks that are complete are put into the page once, only the last one is drawn again.
//
// Everything passes DOMPurify. Images are not loaded: an answer must not make the page tell anybody anything.

import DOMPurify from "dompurify";
import { Marked, type Token, type Tokens } from "marked";

const escape = (text: string) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    // The page's own headings are above these.
    heading({ tokens, depth }: Tokens.Heading) {
      const level = Math.min(depth + 2, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>\n`;
    },
    // What a model writes as HTML is shown as it was written.
    html({ text, block }: Tokens.HTML | Tokens.Tag) {
      return block ? `<p>${escape(text.trim()).replace(/\n/g, "<br>")}</p>\n` : escape(text);
    },
    image({ href, text }: Tokens.Image) {
      return `<a href="${escape(href)}">${escape(text || href)}</a>`;
    },
    checkbox({ checked }: Tokens.Checkbox) {
      return `<span class="task">${checked ? "☑" : "☐"}</span> `;
    },
  },
});

const ALLOWED = [
  "a", "b", "blockquote", "br", "code", "del", "em", "h3", "h4", "h5", "h6", "hr", "i", "li", "ol", "p", "pre", "s", "span", "strong", "sub", "sup",
  "table", "tbody", "td", "th", "thead", "tr", "ul",
];

function clean(html: string): DocumentFragment {
  const made = DOMPurify.sanitize(html, {
    ALLOWED_TAGS: ALLOWED,
    ALLOWED_ATTR: ["href", "align", "start", "class"],
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|#)/i,
    ADD_URI_SAFE_ATTR: ["align", "start"],
    RETURN_DOM_FRAGMENT: true,
  });
  for (const link of made.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const code of made.querySelectorAll("pre > code")) frame(code as HTMLElement);
  for (const table of made.querySelectorAll("table")) scrolling(table, "Table");
  return made;
}

/** What is wider than the page scrolls by itself, with the keyboard too. */
function scrolling(what: HTMLElement, label: string): void {
  const box = document.createElement("div");
  box.className = "scroll";
  box.tabIndex = 0;
  box.role = "group";
  box.ariaLabel = label;
  what.replaceWith(box);
  box.append(what);
}

/** A block of code below a line with its language and a button. */
function frame(code: HTMLElement): void {
  const language = /language-(\S+)/.exec(code.className)?.[1] ?? "";
  code.removeAttribute("class");
  const pre = code.parentElement as HTMLPreElement;
  const box = document.createElement("div");
  box.className = "code";
  const head = document.createElement("div");
  head.className = "code-head";
  const name = document.createElement("span");
  name.textContent = language || "text";
  const copy = document.createElement("button");
  copy.type = "button";
  copy.className = "small copy-code";
  copy.textContent = "Copy";
  copy.ariaLabel = language ? `Copy ${language} code` : "Copy code";
  head.append(name, copy);
  pre.replaceWith(box);
  pre.tabIndex = 0;
  pre.role = "group";
  pre.ariaLabel = "Code";
  box.append(head, pre);
}

function render(tokens: Token[], links: Record<string, unknown>): DocumentFragment {
  return clean(marked.parser(Object.assign([...tokens], { links }) as never));
}

/** The last block up to `at` that is not just empty lines; -1 without one. */
function last(tokens: Token[], at: number): number {
  let found = at;
  while (found >= 0 && tokens[found]!.type === "space") found--;
  return found;
}

/** Draws a text that grows into an element. */
export class MarkdownStream {
  readonly #root: HTMLElement;
  readonly #tail = document.createElement("div");
  /** The text, and how much of it is in the page for good. */
  #text = "";
  #settled = 0;
  /** Of the block of code that is last. */
  #language: string | undefined;

  constructor(root: HTMLElement) {
    this.#root = root;
    this.#tail.className = "tail";
    root.replaceChildren(this.#tail);
  }

  /** Shows `text`; the longer it shares its beginning with the last one, the less there is to do. */
  update(text: string): void {
    const lines = text.replace(/\r\n?/g, "\n");
    if (lines === this.#text) return;
    if (!lines.startsWith(this.#text)) {
      this.#root.replaceChildren(this.#tail);
      this.#settled = 0;
    }
    this.#text = lines;
    const tokens = marked.lexer(lines.slice(this.#settled));
    let open = last(tokens, tokens.length - 1);
    // A list goes on after an empty line, if the line behind that turns out to be an item.
    const before = last(tokens, open - 1);
    if (before >= 0 && tokens[before]!.type === "list" && !tokens[open]!.raw.includes("\n")) open = before;
    const done = tokens.slice(0, Math.max(open, 0));
    if (done.length > 0) {
      this.#tail.before(render(done, tokens.links));
      this.#settled += done.reduce((sum, { raw }) => sum + raw.length, 0);
    }
    const rest = tokens.slice(Math.max(open, 0));
    const block = rest[0]?.type === "code" ? (rest[0] as Tokens.Code) : undefined;
    const code = this.#tail.querySelector("pre > code");
    // Of a block of code only the text grows.
    if (block && code && done.length === 0 && block.lang === this.#language) code.textContent = `${block.text}\n`;
    else this.#tail.replaceChildren(render(rest, tokens.links));
    this.#language = block?.lang;
  }
}
