// The package as others install it: what is in it, and that it runs wherever it is put.

import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import esbuild from "esbuild";
import { rolldown } from "rolldown";
import { build, createServer } from "vite";
import webpack from "webpack";
import { copyFiles, example, install, project, www } from "./consumer.mjs";
import { launch, serve } from "./harness.mjs";

const PROMPT = "Once upon a time";
const OPTIONS = { raw: true, maxTokens: 16 };
/** A program that leaves its answer for the test. */
const PROGRAM = `
  import { Shardlight } from "shardlight";
  const text = async (options) => {
    const model = await Shardlight.load("builtin:tiny", { device: "cpu", ...options });
    const { text } = await model.generate(${JSON.stringify(PROMPT)}, ${JSON.stringify(OPTIONS)});
    model.close();
    return text;
  };
  window.answer = text(window.options).then((text) => ({ text }), ({ name, code, message }) => ({ name, code, message }));
`;
const page = (script, head = "") => `<!doctype html><link rel="icon" href="data:," />${head}<script type="module" src="${script}"></script>`;
const CDN = { "Access-Control-Allow-Origin": "*" };

let consumer, browser, expected;

before(async () => {
  consumer = install();
  browser = await launch();
  const args = ["run", "-m", "builtin:tiny", "--device", "cpu", "--raw", "-n", String(OPTIONS.maxTokens), "--json", PROMPT];
  const told = execFileSync(process.env.SHARDLIGHT_BIN ?? join(www, "../target/debug/shardlight"), args, { encoding: "utf8" });
  expected = JSON.parse(told).text;
  assert.ok(expected.length > 20, told);
});

after(async () => {
  await browser?.close();
  consumer?.remove();
});

/** Opens `path` of a server, and gives what `body` makes of the page; `[result, page's errors, Workers' addresses]`. */
async function visit(address, body = () => window.answer, argument) {
  const context = await browser.browser.newContext();
  try {
    const tab = await context.newPage();
    const [errors, workers] = [[], []];
    tab.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    tab.on("pageerror", (error) => errors.push(String(error)));
    tab.on("worker", (worker) => workers.push(worker.url()));
    await tab.goto(address);
    const begun = () => window.answer !== undefined;
    await tab.waitForFunction(begun, null, { timeout: 20_000 }).catch((error) => assert.fail(`${error.message}: ${errors.join("; ")}`));
    const result = await tab.evaluate(body, argument);
    return { result, errors, workers, isolated: await tab.evaluate(() => crossOriginIsolated || "SharedArrayBuffer" in window) };
  } finally {
    await context.close();
  }
}

/** Serves a folder without any isolation and sees that the program in it gives the native text, from a Worker. */
async function answers(folder, path = "/", headers = {}) {
  const server = await serve(folder, {}, { headers });
  try {
    const { result, errors, workers, isolated } = await visit(server.url + path);
    assert.deepEqual(result, { text: expected });
    assert.deepEqual(errors, []);
    assert.equal(workers.length, 1);
    assert.equal(isolated, false);
    return { workers, requests: server.requests };
  } finally {
    await server.close();
  }
}

test("what is packed is what is needed, within its limits", () => {
  const paths = consumer.files.map(({ path }) => path).sort();
  const allowed = /^(package\.json|README\.md|LICENSE-(MIT|APACHE)|lib\/(index|worker|engine)\.js(\.map)?|lib\/(shardlight|grammar)\.wasm|lib\/tiny[\w-]*\.gguf|lib\/types\/\w+(\.file)?\.d\.ts)$/;
  assert.deepEqual(paths.filter((path) => !allowed.test(path)), []);
  const { exports, main, types, private: hidden } = JSON.parse(readFileSync(join(www, "package.json"), "utf8"));
  const named = Object.values(exports).flatMap((entry) => (typeof entry === "string" ? entry : Object.values(entry)));
  for (const path of [...named, main, types, "LICENSE-MIT", "LICENSE-APACHE", "README.md"]) {
    assert.ok(paths.includes(path.replace("./", "")), `${path} is not packed`);
  }
  assert.equal(hidden, undefined);
  for (const file of consumer.files.filter(({ path }) => /\.(js|map|ts)$/.test(path))) {
    const text = readFileSync(join(consumer.folder, "node_modules/shardlight", file.path), "utf8");
    assert.ok(!text.includes(join(www, "..")), `${file.path} names a folder of this machine`);
  }
  // Prints them, and ends with an error when one is too large.
  console.log(execFileSync(process.execPath, [join(www, "scripts/sizes.mjs")], { encoding: "utf8" }).trim());
});

test("the wasm needs neither shared nor 64-bit memory, the code no isolation", () => {
  const bytes = readFileSync(join(consumer.folder, "node_modules/shardlight/lib/shardlight.wasm"));
  assert.ok(!bytes.includes(homedir()), "the wasm names a folder of this machine");
  const module = new WebAssembly.Module(bytes);
  assert.deepEqual(WebAssembly.Module.imports(module).filter(({ kind }) => kind === "memory"), []);
  assert.deepEqual(memoryFlags(bytes), [0b000]);
  for (const name of ["index.js", "worker.js"]) {
    const text = readFileSync(join(consumer.folder, "node_modules/shardlight/lib", name), "utf8");
    assert.ok(!/WebAssembly\.(Suspending|promising)/.test(text), `${name} uses JSPI`);
  }
});

/** Of each memory, as bits: 1 has a maximum, 2 shared, 4 of 64 bits; the maximum does not matter. */
function memoryFlags(bytes) {
  let at = 8;
  const number = () => {
    let [value, shift, byte] = [0, 0, 0];
    do {
      byte = bytes[at++];
      value += (byte & 127) * 2 ** shift;
      shift += 7;
    } while (byte & 128);
    return value;
  };
  const found = [];
  while (at < bytes.length) {
    const id = bytes[at++];
    const length = number();
    const end = at + length;
    if (id === 5) {
      for (let left = number(); left > 0; left -= 1) {
        const flags = number();
        found.push(flags & 0b110);
        number();
        if (flags & 1) number();
      }
    }
    at = end;
  }
  return found;
}

test("Vite builds it without any settings", async () => {
  const root = project(consumer, "vite", { "index.html": page("/main.js"), "main.js": PROGRAM });
  await build({ root, configFile: false, logLevel: "warn" });
  const { workers } = await answers(join(root, "dist"));
  assert.match(workers[0], /^blob:/);
});

test("Vite's development server serves it without any settings", async () => {
  const root = project(consumer, "vite-dev", { "index.html": page("/main.js"), "main.js": PROGRAM });
  const server = await createServer({ root, configFile: false, logLevel: "warn", server: { port: 0, host: "127.0.0.1" } });
  await server.listen();
  try {
    const { result, errors } = await visit(`http://127.0.0.1:${server.httpServer.address().port}/`);
    assert.deepEqual(result, { text: expected });
    assert.deepEqual(errors, []);
  } finally {
    await server.close();
  }
});

test("webpack builds it without any settings", async () => {
  const root = project(consumer, "webpack", { "main.js": PROGRAM, "dist/index.html": page("main.js") });
  const compiler = webpack({ context: root, entry: "./main.js", mode: "production", output: { path: join(root, "dist") } });
  const stats = await promisify(compiler.run.bind(compiler))();
  await promisify(compiler.close.bind(compiler))();
  const { errors } = stats.toJson({ all: false, errors: true });
  assert.deepEqual(errors.map(({ message }) => message), []);
  await answers(join(root, "dist"));
});

test("esbuild builds it, with its files copied or named", async () => {
  const named = PROGRAM.replace('from "shardlight";', 'from "shardlight";\nimport wasm from "shardlight/shardlight.wasm";\nwindow.options = { wasm };');
  const root = project(consumer, "esbuild", { "main.js": PROGRAM, "named.js": named, "dist/index.html": page("main.js"), "dist/named.html": page("named.js") });
  const options = { bundle: true, format: "esm", minify: true, logLevel: "warning", outdir: join(root, "dist"), absWorkingDir: root };
  const warned = (await esbuild.build({ ...options, entryPoints: ["main.js"] })).warnings;
  copyFiles(consumer, join(root, "dist"));
  await answers(join(root, "dist"));
  warned.push(...(await esbuild.build({ ...options, entryPoints: ["named.js"], loader: { ".wasm": "file" } })).warnings);
  const { requests } = await answers(join(root, "dist"), "/named.html");
  assert.deepEqual(warned, []);
  assert.ok(requests.some(({ path }) => /^\/shardlight-\w+\.wasm$/.test(path)), JSON.stringify(requests));
});

test("Rolldown builds it, with its files copied, and leaves out what is not used", async () => {
  const root = project(consumer, "rolldown", { "main.js": PROGRAM, "unused.js": 'import "shardlight";\nimport { Shardlight } from "shardlight";\n', "dist/index.html": page("main.js") });
  const warned = [];
  const made = async (name) => {
    const bundle = await rolldown({ input: join(root, name), platform: "browser", onwarn: ({ message }) => warned.push(message) });
    const { output } = await bundle.write({ dir: join(root, "dist"), entryFileNames: "[name].js", format: "es" });
    return output[0].code;
  };
  await made("main.js");
  copyFiles(consumer, join(root, "dist"));
  await answers(join(root, "dist"));
  assert.equal((await made("unused.js")).trim(), "");
  assert.deepEqual(warned.filter((message) => !/empty chunk/.test(message)), []);
});

test("importing it does nothing: no names, no requests, no threads", async () => {
  const script = `
    const before = Object.getOwnPropertyNames(globalThis);
    globalThis.fetch = globalThis.setTimeout = globalThis.addEventListener = globalThis.queueMicrotask = () => { throw new Error("called") };
    await import("shardlight");
    const added = Object.getOwnPropertyNames(globalThis).filter((name) => !before.includes(name) && name !== "addEventListener");
    console.log(JSON.stringify([added, process.getActiveResourcesInfo().filter((name) => /Port|Timeout|Immediate|Worker|Socket/.test(name))]));
  `;
  const told = execFileSync(process.execPath, ["--input-type=module", "-e", script], { cwd: consumer.folder, encoding: "utf8" });
  assert.deepEqual(JSON.parse(told), [[], []]);
});

test("a page without a bundler uses it, from its own server and from another", async () => {
  const script = PROGRAM.replace('"shardlight"', '"./node_modules/shardlight/lib/index.js"');
  project(consumer, ".", { "plain.html": page("plain.js"), "plain.js": script });
  const { workers } = await answers(consumer.folder, "/plain.html");
  assert.match(workers[0], /^blob:/);

  const cdn = await serve(join(consumer.folder, "node_modules"), {}, { headers: CDN });
  try {
    const script = PROGRAM.replace('"shardlight"', `"${cdn.url}/shardlight/lib/index.js"`);
    const root = project(consumer, "elsewhere", { "index.html": page("main.js"), "main.js": script });
    const { workers, requests } = await answers(root);
    assert.match(workers[0], /^blob:/);
    assert.deepEqual(requests.filter(({ path }) => /wasm|worker|gguf/.test(path)), []);
    assert.ok(cdn.requests.some(({ path }) => path.endsWith("/shardlight.wasm")));
    // And where everything is isolated, from a server that says so.
    const isolated = await serve(root);
    const { result } = await visit(isolated.url).finally(isolated.close);
    assert.deepEqual(result, { text: expected });
  } finally {
    await cdn.close();
  }
});

test("a strict policy takes the Worker's file, and one that forbids Workers is told of", async () => {
  const script = PROGRAM.replace('"shardlight"', '"./node_modules/shardlight/lib/index.js"');
  const given = `window.options = { worker: () => new Worker("./node_modules/shardlight/lib/worker.js", { type: "module" }) };\n`;
  project(consumer, ".", {
    "strict.html": page("strict.js"), "strict.js": script,
    "given.html": page("given.js"), "given.js": script.replace("lib/index.js\";", `lib/index.js";\n${given}`),
  });
  const policy = (workers) => ({ "Content-Security-Policy": `default-src 'self' data:; script-src 'self' 'wasm-unsafe-eval'; worker-src ${workers}` });
  const at = async (path, headers) => {
    const server = await serve(consumer.folder, {}, { headers });
    return visit(server.url + path).finally(server.close);
  };
  const strict = await at("/strict.html", policy("'self'"));
  assert.deepEqual(strict.result, { text: expected });
  assert.match(strict.workers.at(-1), /\/lib\/worker\.js$/);
  const own = await at("/given.html", policy("'self'"));
  assert.deepEqual(own.result, { text: expected });
  assert.deepEqual(own.errors, []);
  const none = await at("/strict.html", policy("'none'"));
  assert.equal(none.result.code, "worker");
  assert.match(none.result.message, /worker-src/);
  const noWasm = await at("/strict.html", { "Content-Security-Policy": "default-src 'self' data:; worker-src 'self' blob:" });
  assert.equal(noWasm.result.name, "ShardlightError");
  assert.match(noWasm.result.message, /shardlight\.wasm: .*(unsafe-eval|Security)/);
});

test("a wasm that is not there, or something else, is one clear line", async () => {
  const script = (wasm) => PROGRAM.replace('"shardlight";', `"./node_modules/shardlight/lib/index.js";\nwindow.options = { wasm: ${wasm} };`);
  const wrong = {
    missing: ['"nowhere.wasm"', /nowhere\.wasm: status 404.*give its address as `wasm`/],
    page: ['"wrong-page.html"', /wrong-page\.html: \d+ bytes that are not WebAssembly/],
    answer: ['fetch("nowhere.wasm")', /nowhere\.wasm: status 404/],
    bytes: ["new Uint8Array(3)", /wasm: 3 bytes that are not WebAssembly/],
    cut: ["new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1])", /^wasm: .*WebAssembly/],
    other: ["new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])", /not the wasm of this version/],
  };
  const files = Object.entries(wrong).map(([name, [wasm]]) => [[`wrong-${name}.html`, page(`wrong-${name}.js`)], [`wrong-${name}.js`, script(wasm)]]);
  project(consumer, ".", Object.fromEntries(files.flat()));
  const server = await serve(consumer.folder, {}, { headers: {} });
  try {
    for (const [name, [, message]] of Object.entries(wrong)) {
      const { result } = await visit(`${server.url}/wrong-${name}.html`);
      assert.equal(result.name, "ShardlightError", `${name}: ${JSON.stringify(result)}`);
      assert.match(result.message, message);
      assert.ok(!result.message.includes("\n"), result.message);
    }
  } finally {
    await server.close();
  }
});

test("models of a page share the wasm, and one's own module, bytes or answer will do", async () => {
  const script = `
    import { Shardlight } from "./node_modules/shardlight/lib/index.js";
    const wasm = "./node_modules/shardlight/lib/shardlight.wasm";
    const load = (options) => Shardlight.load("builtin:tiny", { device: "cpu", ...options });
    const text = async (model) => (await model.generate(${JSON.stringify(PROMPT)}, ${JSON.stringify(OPTIONS)})).text;
    const answered = async (options) => {
      const model = await load(options);
      return text(model).finally(() => model.close());
    };
    window.answer = (async () => {
      const models = await Promise.all([load(), load()]);
      const both = await Promise.all(models.map(text));
      models.forEach((model) => model.close());
      const fetched = performance.getEntriesByType("resource").filter(({ name }) => name.endsWith(".wasm")).length;
      const given = [];
      for (const own of [await WebAssembly.compileStreaming(fetch(wasm)), await (await fetch(wasm)).arrayBuffer(), fetch(wasm), new URL(wasm, location.href)]) {
        given.push(await answered({ wasm: own }));
      }
      return { both, fetched, given };
    })();
  `;
  project(consumer, ".", { "shared.html": page("shared.js"), "shared.js": script });
  const server = await serve(consumer.folder, {}, { headers: {} });
  const { result } = await visit(`${server.url}/shared.html`).finally(server.close);
  assert.deepEqual(result, { both: [expected, expected], fetched: 1, given: Array(4).fill(expected) });
});

test("inline it computes on the thread that calls, and errors keep their codes", async () => {
  const worker = `
    import { Runtime, Shardlight } from "./node_modules/shardlight/lib/index.js";
    const failing = (promise) => promise.then(() => null, ({ name, code }) => [name, code]);
    const load = () => Shardlight.load("builtin:tiny", { device: "cpu", inline: true });
    const generate = (model, options) => model.generate(${JSON.stringify(PROMPT)}, { ...${JSON.stringify(OPTIONS)}, ...options });
    // No Worker can be had.
    self.Worker = class { constructor() { throw new Error("a Worker was made"); } };
    self.onmessage = async () => {
      const [a, b] = await Promise.all([load(), load()]);
      const pieces = [];
      for await (const { text } of generate(a)) pieces.push(text);
      const other = (await generate(b)).text;
      const option = await failing(generate(a, { maxToken: 1 }).answer);
      const long = await failing(a.generate("word ".repeat(9000), { raw: true }).answer);
      const busy = generate(a, { maxTokens: 200 });
      const second = await failing(generate(a).answer);
      a.close();
      const closed = await failing(busy.answer);
      const aborted = await failing(Shardlight.load("builtin:tiny", { device: "cpu", inline: true, signal: AbortSignal.abort() }));
      const format = await failing(Shardlight.load(new Uint8Array([71, 71, 85, 70]), { inline: true }));
      const runtime = await Runtime.open({ device: "cpu", inline: true });
      const { y } = await runtime.op("silu", { x: [0, 1] });
      runtime.close();
      const still = (await generate(b)).text;
      b.close();
      postMessage({ text: pieces.join(""), other, still, option, long, second, closed, aborted, format, y: [...y.data] });
    };
  `;
  const script = `
    const worker = new Worker("inline-worker.js", { type: "module" });
    window.answer = new Promise((resolve) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = ({ message }) => resolve({ message });
    });
    worker.postMessage(0);
  `;
  project(consumer, ".", { "inline.html": page("inline.js"), "inline.js": script, "inline-worker.js": worker });
  const server = await serve(consumer.folder, {}, { headers: {} });
  const { result, errors, workers } = await visit(`${server.url}/inline.html`).finally(server.close);
  assert.deepEqual(errors, []);
  assert.equal(workers.length, 1);
  const { text, other, still, y, aborted, ...codes } = result;
  assert.deepEqual([text, other, still], [expected, expected, expected], JSON.stringify(result));
  assert.deepEqual(aborted?.[0], "AbortError");
  const failed = (code) => ["ShardlightError", code];
  assert.deepEqual(codes, { option: failed("invalid"), long: failed("context_exceeded"), second: failed("busy"), closed: failed("closed"), format: failed("format") });
  assert.ok(y[0] === 0 && Math.abs(y[1] - 1 / (1 + Math.exp(-1))) < 1e-6);
});

test("the examples run: one file, React with Vite, Node", async () => {
  example(consumer, "vanilla");
  project(consumer, ".", { "vanilla.html": readFileSync(join(consumer.folder, "example-vanilla/index.html"), "utf8") });
  const react = example(consumer, "react");
  // As its script says: types first.
  execFileSync(process.execPath, [join(consumer.folder, "node_modules/typescript/bin/tsc")], { cwd: react, stdio: "inherit" });
  await build({ root: react, logLevel: "warn", base: "./" });
  const server = await serve(consumer.folder, {}, { headers: {} });
  try {
    for (const path of ["/vanilla.html", "/example-react/dist/index.html"]) {
      const context = await browser.browser.newContext();
      const tab = await context.newPage();
      const errors = [];
      tab.on("pageerror", (error) => errors.push(String(error)));
      await tab.goto(server.url + path);
      await tab.waitForSelector("button:not([disabled])", { timeout: 30_000 }).catch(async (error) => assert.fail(`${path}: ${error.message} ${errors} ${await tab.textContent("body")}`));
      await tab.fill("input", "Tell me a story");
      await tab.click("button");
      await tab.waitForFunction(() => document.querySelector("button").disabled === false && document.body.innerText.length > 120, null, { timeout: 60_000 });
      assert.match(await tab.textContent("body"), /Tell me a story/);
      assert.deepEqual(errors, [], path);
      await context.close();
    }
  } finally {
    await server.close();
  }
  const node = example(consumer, "node");
  const model = join(www, "../core/data/tiny.gguf");
  const question = "Tell me a story";
  const args = ["run", "-m", model, "--device", "cpu", "-n", "128", "--json", question];
  const native = JSON.parse(execFileSync(process.env.SHARDLIGHT_BIN ?? join(www, "../target/debug/shardlight"), args, { encoding: "utf8" })).text;
  for (const program of ["ask.mjs", "worker.mjs"]) {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [program, model, question], { cwd: node, timeout: 120_000 });
    assert.equal(stdout, `${native}\n`, program);
    assert.equal(stderr, "");
  }
});

test("types fit strict programs, whichever way modules are found", () => {
  const program = `
    import { type Answer, type ErrorCode, type Model, Runtime, Shardlight, ShardlightError } from "shardlight";
    import wasm from "shardlight/shardlight.wasm";
    export async function main(file: File, signal: AbortSignal): Promise<Answer> {
      const model: Model = await Shardlight.load(file, { wasm, signal, device: "cpu", onProgress: ({ phase, done, total }) => console.log(phase, done / total) });
      for await (const { text, id } of model.generate([{ role: "user", content: "Hello" }], { maxTokens: 3 })) console.log(text, id);
      const stream = await model.chat.completions.create({ messages: [{ role: "user", content: "Hello" }], stream: true });
      for await (const chunk of stream) console.log(chunk.choices[0]?.delta.content);
      try {
        return await model.generate("Hello");
      } catch (error) {
        const code: ErrorCode | undefined = error instanceof ShardlightError ? error.code : undefined;
        throw code ?? error;
      } finally {
        model.close();
      }
    }
    export const own = () => Runtime.open({ worker: () => new Worker("worker.js") });
    // @ts-expect-error there is no such device
    export const wrong = () => Shardlight.load("x", { device: "abacus" });
    // @ts-expect-error there is no such option
    export const unknown = () => Shardlight.load("x", { contextlength: 3 });
  `;
  const root = project(consumer, "types", { "main.ts": program, "package.json": '{ "type": "module" }' });
  const tsc = join(consumer.folder, "node_modules/typescript/bin/tsc");
  for (const [module, resolution] of [["esnext", "bundler"], ["nodenext", "nodenext"]]) {
    const args = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--skipLibCheck", "false", "--target", "es2022", "--lib", "es2022,dom,dom.iterable", "--types", ""];
    try {
      execFileSync(process.execPath, [tsc, ...args, "--module", module, "--moduleResolution", resolution, "main.ts"], { cwd: root, encoding: "utf8" });
    } catch (error) {
      assert.fail(`${resolution}: ${error.stdout}`);
    }
  }
});

test("every exported thing is documented", () => {
  const out = join(consumer.folder, "docs");
  const typedoc = join(www, "node_modules/typedoc/bin/typedoc");
  try {
    execFileSync(process.execPath, [typedoc, "--treatWarningsAsErrors", "--out", out], { cwd: www, encoding: "utf8", stdio: "pipe" });
  } catch (error) {
    assert.fail(`${error.stdout}${error.stderr}`);
  }
  assert.ok(existsSync(join(out, "index.html")));
});
