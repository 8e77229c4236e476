// The chat page as a product: what a visitor does with it, in Chromium.

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { open } from "./harness.mjs";
import { looksWell } from "./shots.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const dist = join(root, "www/dist");
const tiny = join(root, "core/data/tiny.gguf");
const STORY = "Tell me a story about a little dog.";

async function withPage(body, { path = "/", extra } = {}) {
  assert.ok(existsSync(join(dist, "index.html")), "www/dist is not built: run `npm run build` in www");
  const opened = await open(dist, { path, extra });
  try {
    opened.page.setDefaultTimeout(120_000);
    await opened.page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    await body(opened.page, opened);
    assert.deepEqual(opened.errors, []);
  } finally {
    await opened.close();
  }
}

async function settled(page, ...states) {
  const status = page.locator(states.map((state) => `#status[data-state=${state}]`).join(", "));
  await status.waitFor();
  return { state: await status.getAttribute("data-state"), text: await status.textContent() };
}

async function ready(page) {
  const { state, text } = await settled(page, "ready", "error");
  assert.equal(state, "ready", text);
}

/** Loads the built-in model on the CPU. */
async function load(page) {
  await page.selectOption("#device", "cpu");
  await page.click("#load");
  await ready(page);
}

async function ask(page, prompt, maxTokens = 48) {
  await set(page, { "max-tokens": maxTokens });
  await page.fill("#prompt", prompt);
  await page.keyboard.press("Enter");
  await ready(page);
  return page.textContent("#answer");
}

async function set(page, fields) {
  await page.locator("details").evaluate((details) => (details.open = true));
  for (const [id, value] of Object.entries(fields)) await page.fill(`#${id}`, String(value));
}

/** What the package answers by itself. */
const answered = (page, messages, options) =>
  page.evaluate(async ([messages, options]) => {
    const model = await window.shardlight.Shardlight.load("builtin:tiny", { device: "cpu", prefillChunk: 64 });
    const { text } = await model.generate(messages, options);
    model.close();
    return text;
  }, [messages, options]);

/** Puts a conversation where the page keeps them, and opens it. */
async function keep(page, conversation) {
  await page.evaluate(async (conversation) => {
    const done = (request) => new Promise((resolve, reject) => Object.assign(request, { onsuccess: () => resolve(request.result), onerror: () => reject(request.error) }));
    const opening = indexedDB.open("shardlight-chats");
    opening.onupgradeneeded = () => opening.result.createObjectStore("conversations");
    const base = await done(opening);
    await done(base.transaction("conversations", "readwrite").objectStore("conversations").put(conversation, conversation.id));
    base.close();
  }, conversation);
  await page.reload();
  await page.click(`#conversations .title:text-is("${conversation.title}")`);
}

const turn = (id, parent, question, answer) => ({
  id, parent, question, answer, raw: false, tokens: [1], speed: "43.2 tokens/s, first after 0.21 s, 212 tokens", model: "A model with a very long name-Q4_K_M.gguf", at: 1,
});

const MARKDOWN = `Here is **what you asked** for, with \`inline code\` and a [link](https://example.org/page).

# Steps

1. First, do this:
   - nested *one*
   - nested two
2. Then do that.

\`\`\`python
def fibonacci(n: int) -> int:
    """A documentation line that goes far beyond the width of a phone, and even of the column on a desktop."""
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
\`\`\`

| Planet | Radius, km | Day | What is special about it |
|---|--:|---|---|
| Mercury | 2,439.7 | 58.6 days | the smallest, and the closest one to the Sun |
| Jupiter | 69,911 | 9.9 hours | the largest |

> A quotation that is worth it.

- [x] done
- [ ] not done

<script>window.hacked = 1</script><img src="/hacked.png" onerror="window.hacked = 2">

[bad](javascript:window.hacked=3) and ![a picture](http://127.0.0.1:9/hacked.png) <b id="prompt" onclick="window.hacked = 4">bold</b>
`;

const CONVERSATION = {
  id: "kept", title: "Planets, code and more", system: "", created: 1, updated: 2, leaf: "2",
  turns: [turn("1", null, "Show me everything", MARKDOWN), turn("2", "1", "again", "<think>Is it?</think>\n\nIt is."), turn("3", "1", "again, please", "Another one.")],
};

test("a first visit takes one button", () =>
  withPage(async (page) => {
    await looksWell(page, "chat-empty");
    assert.ok(await page.isDisabled("#prompt"));
    const begin = Date.now();
    await page.click("#start");
    await ready(page);
    console.log(`from the button to a model: ${Date.now() - begin} ms`);
    assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
    await looksWell(page, "chat-ready");
    await page.click(".ideas button >> nth=0");
    await page.locator(".turn .markdown", { hasText: /\w/ }).waitFor();
    await ready(page);
    assert.match(await page.textContent("#speed"), /^\d+\.\d tokens\/s/);
    const words = async (selector) => (await page.textContent(selector)).split(/\s+/).join(" ").trim();
    assert.equal(await words(".turn .markdown"), await words("#answer"));
    await looksWell(page, "chat-answered");
  }));

test("on a phone the columns are drawers that take the focus and give it back", () =>
  withPage(async (page) => {
    await page.setViewportSize({ width: 390, height: 844 });
    const focus = () => page.evaluate(() => [document.activeElement.id, document.activeElement.ariaLabel].join());
    await page.focus("[aria-label='Conversations'].icon-button");
    await page.keyboard.press("Enter");
    await page.locator("#reset").waitFor();
    assert.ok(await page.evaluate(() => document.getElementById("side").contains(document.activeElement)));
    await looksWell(page, "chat-drawer", async (look) => {
      if (look.startsWith("phone") && !(await page.isVisible("#reset"))) await page.click("[aria-label='Conversations'].icon-button");
    });
    await page.setViewportSize({ width: 390, height: 844 });
    await page.keyboard.press("Escape");
    assert.equal(await focus(), ",Conversations");
    assert.ok(!(await page.isVisible("#side")));
    // Loading is watched in the thread.
    await page.click("text=Choose a model");
    await page.click("#load");
    await ready(page);
    assert.ok(!(await page.isVisible("#panel")));
    await page.keyboard.press("/");
    assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
  }));

test("an answer is what the package answers; system prompt, sampling and stop texts go with it", () =>
  withPage(async (page) => {
    await load(page);
    const user = { role: "user", content: STORY };
    assert.equal(await ask(page, STORY), await answered(page, [user], { maxTokens: 48 }));
    await page.click("#reset");
    const drawn = { temperature: 1.2, topK: 20, topP: 0.9, minP: 0.02, repeatPenalty: 1.1, seed: 7 };
    await set(page, { system: "You tell sad stories.", temperature: 1.2, "top-k": 20, "top-p": 0.9, "min-p": 0.02, "repeat-penalty": 1.1, seed: 7 });
    const system = { role: "system", content: "You tell sad stories." };
    const first = await ask(page, STORY);
    assert.equal(first, await answered(page, [system, user], { maxTokens: 48, ...drawn }));
    // The second question carries the first one and its answer.
    await set(page, { temperature: 0, "top-k": "", "top-p": "", "min-p": "", "repeat-penalty": "", seed: "", "stop-texts": "." });
    const messages = [system, user, { role: "assistant", content: first }, { role: "user", content: "Another one." }];
    assert.equal(await ask(page, "Another one."), await answered(page, messages, { maxTokens: 48, stop: ["."] }));
    // Settings are kept, the system prompt belongs to its conversation.
    await page.reload();
    await page.locator("details").evaluate((details) => (details.open = true));
    assert.deepEqual(await page.evaluate(() => ["max-tokens", "stop-texts", "system"].map((id) => document.getElementById(id).value)), ["48", ".", "You tell sad stories."]);
    await looksWell(page, "chat-settings", async (look) => {
      await page.locator("details").evaluate((details) => (details.open = true));
      if (look.startsWith("phone") && !(await page.isVisible("#setup"))) await page.click("[aria-label='Model and settings'].icon-button");
    });
  }));

test("answers keep to a JSON schema, and are shown as code", () =>
  withPage(async (page) => {
    await load(page);
    const schema = { type: "object", properties: { animal: { enum: ["cat", "dog"] }, legs: { type: "integer", minimum: 0, maximum: 4 } }, required: ["animal", "legs"], additionalProperties: false };
    await set(page, { schema: JSON.stringify(schema) });
    const text = await ask(page, STORY);
    const { animal, legs } = JSON.parse(text);
    assert.ok(["cat", "dog"].includes(animal) && legs >= 0 && legs <= 4, text);
    await page.waitForSelector(".reply pre code");
    assert.equal((await page.locator(".reply pre code").first().textContent()).trim(), text.trim());
    // A question without one is answered as ever.
    await set(page, { schema: "" });
    const free = await ask(page, "Another one.");
    assert.throws(() => JSON.parse(free), SyntaxError);
  }));

test("a setting that does not fit says which, and the question stays", () =>
  withPage(async (page) => {
    await load(page);
    await set(page, { schema: "{ no json" });
    await page.fill("#prompt", STORY);
    await page.click("#send");
    const { text } = await settled(page, "error");
    assert.match(text, /^the JSON schema is no JSON: [^\n]+$/);
    assert.equal(await page.inputValue("#prompt"), STORY);
    assert.equal(await page.locator(".turn").count(), 0);
    await page.click("#failure [aria-label=Dismiss]");
    await set(page, { schema: "", "top-p": "7" });
    await page.click("#send");
    const refused = await settled(page, "error");
    assert.match(refused.text, /top_?p/i);
    assert.equal(await page.getAttribute("#failure", "data-code"), "invalid");
  }));

test("asking again and otherwise makes branches, and what is copied is what was written", () =>
  withPage(async (page) => {
    await load(page);
    const first = await ask(page, STORY);
    await ask(page, "And a cat?");
    await page.locator(".turn").first().locator("[aria-label='Answer again']").click();
    await ready(page);
    assert.equal(await page.textContent("#answer"), first, "greedy answers are the same");
    assert.equal(await page.locator(".turn").count(), 1, "what came after the old answer belongs to its branch");
    assert.equal(await page.textContent(".branches .number"), "2 / 2");
    await page.click("[aria-label='Version before']");
    assert.equal(await page.locator(".turn").count(), 2);
    await page.locator(".turn").first().locator("[aria-label='Edit the question']").click();
    assert.equal(await page.evaluate(() => document.activeElement.tagName), "TEXTAREA");
    await page.keyboard.press("ControlOrMeta+a");
    await page.keyboard.type("Tell me a story about a red ball.");
    await page.keyboard.press("Enter");
    await ready(page);
    assert.equal(await page.textContent(".branches .number"), "3 / 3");
    assert.equal(await page.textContent(".question"), "Tell me a story about a red ball.");
    await page.click("[aria-label='Copy the answer']");
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), await page.textContent("#answer"));
  }));

test("Esc stops an answer, and the keys of the list do what it says", () =>
  withPage(async (page) => {
    await load(page);
    await set(page, { "max-tokens": 400 });
    await page.setChecked("#raw", true);
    await page.evaluate(() => {
      const observer = new MutationObserver(() => {
        observer.disconnect();
        document.getElementById("prompt").dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
      });
      observer.observe(document.getElementById("answer"), { childList: true });
    });
    await page.fill("#prompt", "Once upon a time");
    await page.keyboard.press("Shift+Enter");
    await page.keyboard.type("there");
    assert.equal(await page.inputValue("#prompt"), "Once upon a time\nthere");
    await page.keyboard.press("Enter");
    await ready(page);
    assert.match(await page.textContent("#speed"), /stopped$/);
    assert.equal(await page.textContent(".turn .given"), "Once upon a time\nthere");
    await page.locator("#thread").click({ position: { x: 5, y: 5 } });
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press("?");
    await page.locator("#shortcuts[open]").waitFor();
    await looksWell(page, "chat-shortcuts");
    await page.keyboard.press("Escape");
    assert.equal(await page.locator("#shortcuts[open]").count(), 0);
    await page.keyboard.press("/");
    assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
    await page.keyboard.press("ControlOrMeta+k");
    assert.equal(await page.locator(".turn").count(), 0);
    assert.equal(await page.locator("#conversations li").count(), 1);
  }));

test("conversations are kept, saved as files and deleted", () =>
  withPage(async (page) => {
    await load(page);
    const answer = await ask(page, STORY);
    await page.click("#reset");
    await ask(page, "Tell me a story about the sea.", 8);
    await page.reload();
    // The one that was open is open again.
    assert.equal(await page.textContent(".question"), "Tell me a story about the sea.");
    await page.click(`#conversations .title:text-is("${STORY}")`);
    assert.equal(await page.textContent("#answer"), answer);
    const file = async (button) => {
      const [download] = await Promise.all([page.waitForEvent("download"), page.click(button)]);
      return { name: download.suggestedFilename(), text: readFileSync(await download.path(), "utf8") };
    };
    const markdown = await file("#save-markdown");
    assert.equal(markdown.name, "Tell-me-a-story-about-a-little-dog.md");
    assert.ok(markdown.text.includes(STORY) && markdown.text.includes(answer), markdown.text);
    const json = JSON.parse((await file("#save-json")).text);
    assert.deepEqual(json.turns.map(({ question, answer }) => [question, answer]), [[STORY, answer]]);
    await page.click(`#conversations [aria-label="Delete ${STORY}"]`);
    await page.locator(`#conversations .title:text-is("${STORY}")`).waitFor({ state: "detached" });
    assert.deepEqual(await page.locator("#conversations .title").allTextContents(), ["Tell me a story about the sea."]);
    await page.click("#forget-all");
    await page.click("#forget-yes");
    await page.locator("#forget-all").waitFor({ state: "detached" });
    assert.equal(await page.locator("#conversations li").count(), 0);
    await page.reload();
    await page.locator("#start").waitFor();
    assert.equal(await page.locator("#conversations li").count(), 0);
  }));

test("Markdown is drawn, and nothing of it runs or is fetched", () =>
  withPage(async (page, { requests }) => {
    await keep(page, CONVERSATION);
    const first = page.locator(".turn").first();
    await first.locator("table").waitFor();
    assert.equal(await first.locator("h3").textContent(), "Steps");
    assert.equal(await first.locator("li li").count(), 2);
    assert.equal(await first.locator(".code-head span").textContent(), "python");
    assert.equal(await first.locator("td[align=right]").count(), 2);
    assert.equal(await first.locator("a").first().getAttribute("rel"), "noopener noreferrer nofollow");
    // What could run is text.
    assert.equal(await first.locator(".markdown :is(script, img, b, input, [onclick], [id])").count(), 0);
    assert.equal(await first.locator("a[href^=javascript]").count(), 0);
    assert.match(await first.locator(".markdown").textContent(), /<script>window\.hacked = 1<\/script>/);
    assert.equal(await page.evaluate(() => window.hacked), undefined);
    assert.deepEqual(requests.filter(({ path }) => path.includes("hacked")), []);
    await first.locator(".copy-code").click();
    assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^def fibonacci[\s\S]*fibonacci\(n - 2\)\n?$/);
    await first.locator("[aria-label='As it was written']").click();
    assert.equal(await first.locator(".verbatim").textContent(), MARKDOWN);
    await first.locator("[aria-label='As it was written']").click();
    const last = page.locator(".turn").last();
    assert.match(await last.locator(".thought").textContent(), /Is it\?$/);
    assert.equal((await last.locator(".markdown").textContent()).trim(), "It is.");
    assert.equal(await last.locator(".branches .number").textContent(), "1 / 2");
    for (const [name, at] of [["top", 0], ["middle", 420], ["end", 1e6]]) {
      await looksWell(page, `chat-markdown-${name}`, () => page.locator("#thread").evaluate((thread, at) => (thread.scrollTop = at), at));
    }
  }));

test("Markdown that comes in pieces looks as if it had come at once", () =>
  withPage(async (page) => {
    const code = readdirSync(join(dist, "assets")).find((name) => /^markdown-.*\.js$/.test(name));
    const texts = [MARKDOWN, "# a\r\n\r\nb\r\n\r\n```js\r\nlet x;\r\n", "1. a\n\n2. b\n\n   c\n\nd", "a\n***\nb\n---\nc", "| a |\n|---|\n| b |\n\nx", "```\na\n\nb\n```\n\n    code\n\nend"];
    const differ = await page.evaluate(async ([code, texts]) => {
      const { MarkdownStream } = await import(code);
      const html = (feed) => {
        const root = document.createElement("div");
        const stream = new MarkdownStream(root);
        feed(stream);
        root.querySelector(".tail").replaceWith(...root.querySelector(".tail").childNodes);
        return root.innerHTML.replace(/>\n+/g, ">");
      };
      const differ = [];
      for (const text of texts) {
        const whole = html((stream) => stream.update(text));
        for (const step of [1, 3, 7, 50]) {
          const pieces = html((stream) => {
            for (let end = step; end < text.length; end += step) stream.update(text.slice(0, end));
            stream.update(text);
          });
          if (pieces !== whole) differ.push({ step, whole, pieces });
        }
      }
      return differ;
    }, [`/assets/${code}`, texts]);
    assert.deepEqual(differ, []);
  }));

test("every error has words, and visitors see them with the error's own line", () => {
  const codes = [...readFileSync(join(root, "www/src/errors.ts"), "utf8").matchAll(/^ {2}\| "(\w+)"/gm)].map(([, code]) => code);
  const words = readFileSync(join(root, "www/page/words.ts"), "utf8");
  assert.ok(codes.length >= 15, codes.join());
  for (const code of codes) assert.match(words, new RegExp(`^ {2}${code}: \\{\\n {4}what: "[^"]{8,80}",\\n {4}do: "[^"]{20,}",\\n {2}\\},$`, "m"), code);
  return withPage(async (page) => {
    await page.selectOption("#model", "url");
    const failing = async (url) => {
      await page.fill("#url", url);
      await page.click("#load");
      await page.locator("#status:not([data-state=loading])").waitFor();
      const { text } = await settled(page, "error");
      assert.equal(await page.textContent("#failure .line"), text);
      return page.getAttribute("#failure", "data-code");
    };
    assert.equal(await failing("/index.html"), "format");
    assert.equal(await page.textContent("#failure strong"), "This file is not a model that can be read");
    await looksWell(page, "chat-error");
    await page.click("#failure [aria-label=Dismiss]");
    assert.equal(await page.getAttribute("#status", "data-state"), "idle");
    assert.equal(await failing("http://"), "");
    assert.equal(await failing(""), "");
  });
});

test("whether a model fits is told before it is loaded", () =>
  withPage(
    async (page) => {
      await page.selectOption("#device", "cpu");
      await page.selectOption("#model", "url");
      await page.fill("#url", "/tiny.gguf");
      await page.click("#check");
      const fit = page.locator("#fit[data-fits]");
      await fit.waitFor();
      assert.equal(await fit.getAttribute("data-fits"), "true");
      assert.match(await fit.textContent(), /tiny\.gguf runs on this device.*llama.*Memory/s);
      await looksWell(page, "chat-fit", async (look) => {
        if (look.startsWith("phone") && !(await page.isVisible("#setup"))) await page.click("[aria-label='Model and settings'].icon-button");
      });
      // Another choice makes it worthless.
      await page.selectOption("#model", "builtin:tiny");
      assert.equal(await fit.count(), 0);
    },
    { extra: { "/tiny.gguf": tiny } },
  ));

test("a file that is dropped anywhere is loaded, and loading can be cancelled", () =>
  withPage(
    async (page) => {
      await page.selectOption("#device", "cpu");
      const drag = (type, name) =>
        page.evaluate(async ([type, name]) => {
          const data = new DataTransfer();
          data.items.add(new File([await (await fetch("/tiny.gguf")).arrayBuffer()], name));
          document.querySelector("#thread").dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
        }, [type, name]);
      await drag("dragover", "dropped.gguf");
      await page.locator(".drop").waitFor();
      await drag("drop", "dropped.gguf");
      await ready(page);
      assert.match(await page.textContent(".topbar"), /dropped\.gguf/);
      assert.equal(await page.locator(".drop").count(), 0);
      await page.evaluate(() => {
        document.getElementById("load").click();
        requestAnimationFrame(() => document.getElementById("cancel").click());
      });
      assert.equal((await settled(page, "error")).text, "loading was cancelled");
      await load(page);
    },
    { extra: { "/tiny.gguf": tiny } },
  ));

test("the other pages look well, and colours can be chosen", () =>
  withPage(async (page, { url }) => {
    for (const name of ["explore", "shards", "experts"]) {
      await page.goto(`${url}/${name}.html`);
      await page.locator("#status:not([data-state=loading])").waitFor();
      assert.equal(await page.textContent(".shell [aria-current]"), name[0].toUpperCase() + name.slice(1));
      await looksWell(page, name);
    }
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    await page.click("[data-theme-choice=dark]");
    assert.notEqual(await ground(), light);
    await page.goto(url);
    assert.equal(await page.getAttribute("html", "data-theme"), "dark");
    assert.equal(await page.getAttribute("[data-theme-choice=dark]", "aria-pressed"), "true");
    await page.click("[data-theme-choice=system]");
    assert.equal(await page.getAttribute("html", "data-theme"), null);
    assert.equal(await ground(), light);
  }));

test("Performance plots answers, lists memory and limits, and measures", () =>
  withPage(async (page) => {
    await load(page);
    await ask(page, STORY);
    await ask(page, "And a cat?");
    await page.click(".shell a:text-is('Performance')");
    assert.equal(await page.textContent(".shell [aria-current]"), "Performance");
    await page.locator(".plot canvas").nth(3).waitFor();
    for (const figure of await page.locator(".plot figcaption").allTextContents()) assert.match(figure, /[\d.,]+ (tokens\/s|ms)$/);
    await page.locator("#performance th", { hasText: /^Weights/ }).first().waitFor();
    await page.locator("#performance th", { hasText: "Largest binding" }).waitFor();
    await page.click("#bench");
    const table = page.locator("#bench-result");
    await table.waitFor();
    const told = JSON.parse(await table.getAttribute("data-json"));
    for (const { runs, median } of told.results) {
      assert.equal(runs.length, 5);
      assert.equal(median, [...runs].sort((a, b) => a - b)[2]);
      assert.ok(median > 0);
    }
    assert.match(told.browser, /Chrome/);
    assert.equal(told.device.backend, "cpu");
    console.log(`bench, tiny on the CPU in wasm: ${told.results.map(({ test, median }) => `${test} ${median.toFixed(0)} tokens/s`).join(", ")}`);
    await page.click("[aria-label='Copy the result as JSON']");
    assert.deepEqual(JSON.parse(await page.evaluate(() => navigator.clipboard.readText())), told);
    await page.click("#kernels");
    const kernels = page.locator("#kernels-result");
    await kernels.waitFor();
    const profile = JSON.parse(await kernels.getAttribute("data-json"));
    for (const stage of ["prefill", "decode"]) {
      const rows = await kernels.locator(`[data-stage=${stage}] tbody th`).allTextContents();
      assert.deepEqual(rows, profile.kernels.filter((of) => of.stage === stage).map(({ kernel }) => kernel));
      assert.ok(rows.includes("attention"), rows.join());
    }
    await page.click("[aria-label='Copy the kernels as JSON']");
    assert.deepEqual(JSON.parse(await page.evaluate(() => navigator.clipboard.readText())), profile);
    for (const [name, at] of [["plots", 0], ["tables", 1e6]]) {
      await looksWell(page, `performance-${name}`, () => page.locator("#performance").evaluate((panel, at) => (panel.scrollTop = at), at));
    }
    await looksWell(page, "performance-kernels", () => kernels.evaluate((result) => result.scrollIntoView()));
    // The model and the conversation are still there.
    await page.click(".shell a:text-is('Chat')");
    assert.equal(await page.locator(".turn").count(), 2);
    await ask(page, "And a bird?", 8);
  }));

test("what the first look needs is small", () => {
  const read = (name) => readFileSync(join(dist, name));
  const html = read("index.html").toString();
  const entries = [...html.matchAll(/(?:src|href)="\.\/(assets\/[^"]+\.(?:js|css))"/g)].map(([, name]) => name);
  const [js, css] = [".js", ".css"].map((end) => entries.filter((name) => name.endsWith(end)).reduce((sum, name) => sum + gzipSync(read(name)).length, 0));
  console.log(`first look: ${js} bytes of JavaScript and ${css} of CSS, gzip`);
  assert.ok(js > 1000 && js < 48_000, `${js} bytes of JavaScript: ${entries.join(", ")}`);
});
