// Downloads and the store, in Chromium with a profile on disk: what is interrupted goes on, what is wrong says so.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { launch, open, serve } from "./harness.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const dist = join(root, "www/dist");
const tiny = readFileSync(join(root, "core/data/tiny.gguf"));
const MIB = 1 << 20;
const PIECES = 13;

/** A model with a tail that nobody reads, but every checksum does. */
const model = () => Buffer.concat([tiny, randomBytes(PIECES * MIB - 5000 - tiny.length)]);
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

const bytes = model();
const extra = {};
/** What goes wrong with a path. */
const faulty = new Map();
const faults = (asked) => faulty.get(asked.path)?.(asked);
let folder, opened, page, text;

before(async () => {
  assert.ok(existsSync(join(dist, "index.html")), "www/dist is not built: run `npm run build` in www");
  folder = await mkdtemp(join(tmpdir(), "shardlight-store-"));
  writeFileSync(join(folder, "model.gguf"), bytes);
  opened = await open(dist, { extra, faults, profile: true });
  page = await newPage();
  text = (await attempt(page, "builtin:tiny")).text;
  assert.ok(text.length > 8, text);
});
after(async () => {
  await opened?.close();
  await rm(folder, { recursive: true });
});

/** A tab with the package in it. */
async function newPage(url = opened.url, context = opened.context) {
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  await page.goto(url);
  return page;
}

/** The path and address of a model of its own; `fault` says what its server does wrong. */
function serving(name, fault, content) {
  const path = `/${name}.gguf`;
  extra[path] = join(folder, content ? `${name}.gguf` : "model.gguf");
  if (content) writeFileSync(extra[path], content);
  if (fault) faulty.set(path, fault);
  return { path, url: opened.url + path };
}

/** Ranges of the pieces that were asked for, without the question for the first byte. */
const pieces = (path, requests = opened.requests) => requests.filter((r) => r.path === path && r.range && r.range !== "bytes=0-0").map(({ range }) => range);

const inPage = (page, body, argument) =>
  page.evaluate(([body, argument]) => new Function("shardlight", "argument", `return (${body})(shardlight, argument)`)(window.shardlight, argument), [String(body), argument]);

/** Loads and answers: `{ text, progress, notStored }` or `{ error, progress }`. `stop` names the phase in which it is aborted. */
const attempt = (page, source, options = {}, stop) =>
  inPage(page, async ({ Shardlight }, [source, options, stop]) => {
    const progress = [];
    const controller = new AbortController();
    const onProgress = (told) => {
      progress.push(told);
      if (told.phase === stop && (stop !== "download" || told.done > 0)) controller.abort(new Error(`stopped in ${stop}`));
    };
    try {
      const model = await Shardlight.load(source, { device: "cpu", ...options, onProgress, signal: controller.signal });
      const { text } = await model.generate("Once upon a time", { raw: true, maxTokens: 8 });
      model.close();
      return { text, progress, notStored: model.loaded.notStored, name: model.loaded.info.model };
    } catch ({ name, code, message }) {
      return { error: { name, code, message }, progress };
    }
  }, [source, options, stop]);

const list = (page) => inPage(page, ({ Shardlight }) => Shardlight.models.list());
const listed = async (page, url) => (await list(page)).find((model) => model.url === url);
const remove = (page, name) =>
  inPage(page, ({ Shardlight }, name) => Shardlight.models.delete(name).then(() => null, ({ name, code, message }) => ({ name, code, message })), name);

/** Waits for something about the store, which is looked at every 20 ms. */
async function until(what, look) {
  for (const end = Date.now() + 20_000; Date.now() < end; await sleep(20)) {
    const found = await look();
    if (found) return found;
  }
  assert.fail(`20 s without ${what}`);
}

function failed(result, code, ...patterns) {
  assert.equal(result?.error?.name, "ShardlightError", JSON.stringify(result?.error ?? result));
  assert.equal(result.error.code, code, result.error.message);
  assert.ok(!result.error.message.includes("\n"), result.error.message);
  for (const pattern of patterns) assert.match(result.error.message, pattern);
}

function succeeded(result) {
  assert.equal(result.error, undefined, JSON.stringify(result.error));
  assert.equal(result.text, text);
}

test("a model is downloaded once, and then taken from the store", async () => {
  const { path, url } = serving("once");
  const first = await attempt(page, url, { sha256: sha256(bytes) });
  succeeded(first);
  assert.equal(first.name, "once.gguf");
  assert.deepEqual([...new Set(first.progress.map(({ phase }) => phase))], ["download", "upload", "compile", "ready"]);
  const download = first.progress.filter(({ phase }) => phase === "download");
  assert.equal(download.at(-1).done, bytes.length);
  assert.ok(download.every(({ total, bytesPerSecond }) => total === bytes.length && bytesPerSecond >= 0), JSON.stringify(download));
  assert.ok(download.at(-1).bytesPerSecond > 0);
  assert.deepEqual(download.map(({ done }) => done), download.map(({ done }) => done).toSorted((a, b) => a - b));
  assert.equal(pieces(path).length, PIECES);
  assert.equal(first.notStored, null);

  const before = opened.requests.filter((request) => request.path === path).length;
  await page.reload();
  succeeded(await attempt(page, url));
  assert.equal(opened.requests.filter((request) => request.path === path).length, before, "the server was asked again");

  const { name, urls, bytes: length, bytesHere, complete, lastUsed } = await listed(page, url);
  assert.deepEqual([name, urls, length, bytesHere, complete], ["once.gguf", [url], bytes.length, bytes.length, true]);
  assert.ok(Math.abs(new Date(lastUsed) - Date.now()) < 60_000);
  const usage = await inPage(page, ({ Shardlight }) => Shardlight.models.usage());
  assert.ok(usage.used >= bytes.length && usage.quota > usage.used, JSON.stringify(usage));
  assert.equal(typeof usage.persisted, "boolean");
  assert.equal(typeof (await inPage(page, ({ Shardlight }) => Shardlight.models.persist())), "boolean");

  // By what is stored, another checksum is asked of the server once more.
  failed(await attempt(page, url, { sha256: sha256("another") }), "checksum", /once\.gguf/, new RegExp(sha256(bytes)), new RegExp(sha256("another")));
  assert.equal(pieces(path).length, 2 * PIECES);
  assert.equal((await listed(page, url)).bytesHere, 0);
});

test("models are deleted by name or address, unless they are in use", async () => {
  const one = serving("deleted").url;
  succeeded(await attempt(page, one));
  await inPage(page, async ({ Shardlight }, url) => { window.open = await Shardlight.load(url, { device: "cpu" }); }, one);
  const other = await newPage();
  assert.equal((await remove(other, "deleted.gguf"))?.code, "busy");
  await inPage(page, () => window.open.close());
  await until("the Worker's end", async () => (await remove(other, "deleted.gguf")) === null);
  assert.equal(await listed(page, one), undefined);
  const missing = await remove(other, "deleted.gguf");
  assert.equal(missing.code, "invalid");
  succeeded(await attempt(page, one));
  await until("the Worker's end", async () => (await remove(other, one)) === null);
  // Two of one name are told apart by their addresses.
  const twice = [`${one}?a`, `${one}?b`];
  for (const url of twice) succeeded(await attempt(page, url));
  assert.match((await remove(other, "deleted.gguf")).message, /2 models .*\?a|2 models .*\?b/);
  for (const url of twice) await until("the Worker's end", async () => (await remove(other, url)) === null);
  await other.close();
});

test("a download goes on after the tab was closed or reloaded", async () => {
  let asked = 0;
  const never = new Promise(() => {});
  const { path, url } = serving("reloaded", ({ range }) => (range !== "bytes=0-0" && ++asked > 5 ? { wait: never } : {}));
  const tab = await newPage();
  const loading = attempt(tab, url).catch(() => {});
  const part = await until("five pieces", async () => {
    const found = await listed(page, url);
    return found?.bytesHere >= 5 * MIB && found;
  });
  assert.deepEqual([part.complete, part.bytes, part.bytesHere], [false, bytes.length, 5 * MIB]);
  await tab.reload();
  await loading;
  faulty.delete(path);
  const before = pieces(path).length;
  const result = await attempt(tab, url, { sha256: sha256(bytes) });
  succeeded(result);
  assert.equal(pieces(path).length - before, PIECES - 5);
  assert.equal(result.progress[0].done, 5 * MIB);
  await tab.close();
});

test("a lost connection is taken up where it broke off", async () => {
  const seen = new Set();
  // Every piece breaks off once, at 300,000 bytes.
  const { path, url } = serving("lost", ({ range }) => {
    const end = range?.split("-")[1];
    if (range === "bytes=0-0" || seen.has(end)) return {};
    seen.add(end);
    return { cut: 300_000 };
  });
  succeeded(await attempt(page, url, { sha256: sha256(bytes) }));
  const starts = pieces(path).map((range) => Number(/\d+/.exec(range)[0])).toSorted((a, b) => a - b);
  assert.equal(starts.length, 2 * PIECES);
  // A browser may drop the last that came before the end.
  const further = starts.filter((_, i) => i % 2).map((start, i) => start - i * MIB);
  assert.deepEqual(starts.filter((_, i) => i % 2 === 0), Array.from({ length: PIECES }, (_, i) => i * MIB));
  assert.ok(further.every((bytes) => bytes >= 0 && bytes <= 300_000) && Math.max(...further) > 100_000, further.join());
});

test("a connection that stays lost is an error that says how far it came, and the next load goes on", async () => {
  let asked = 0;
  const { path, url } = serving("gone", ({ range }) => (range !== "bytes=0-0" && ++asked > 4 ? { cut: 0 } : {}));
  failed(await attempt(page, url), "io", /gone\.gguf/, new RegExp(`${4 * MIB} of ${bytes.length} bytes`), /load it again to go on/);
  faulty.delete(path);
  const before = pieces(path).length;
  succeeded(await attempt(page, url, { sha256: sha256(bytes) }));
  assert.equal(pieces(path).length - before, PIECES - 4);
});

test("errors of the moment are tried again", async () => {
  const seen = new Map();
  const { url } = serving("moment", ({ range }) => {
    const times = seen.get(range) ?? 0;
    seen.set(range, times + 1);
    return times === 0 ? { status: [503, 429, 500][seen.size % 3] } : {};
  });
  succeeded(await attempt(page, url));
});

test("another version on the server begins anew", async () => {
  let [asked, etag] = [0, '"one"'];
  const never = new Promise(() => {});
  const versioned = ({ range }) => ({ headers: { ETag: etag }, ...(range !== "bytes=0-0" && ++asked > 3 && { wait: never }) });
  const { path, url } = serving("version", versioned, bytes);
  const tab = await newPage();
  const loading = attempt(tab, url).catch(() => {});
  await until("three pieces", async () => (await listed(page, url))?.bytesHere === 3 * MIB);
  await tab.close();
  await loading;
  const next = model();
  serving("version", () => ({ headers: { ETag: '"two"' } }), next);
  const before = pieces(path).length;
  succeeded(await attempt(page, url, { sha256: sha256(next) }));
  assert.equal(pieces(path).length - before, PIECES);

  // In the middle of a download.
  let [count, third] = [0, model()];
  const changing = serving("changing", ({ range }) => {
    if (range !== "bytes=0-0") count += 1;
    if (count === 5) writeFileSync(join(folder, "changing.gguf"), third);
    return { headers: { ETag: count < 5 ? '"one"' : '"two"' } };
  }, bytes);
  succeeded(await attempt(page, changing.url, { sha256: sha256(third) }));
  let always = 0;
  const restless = serving("restless", () => ({ headers: { ETag: `"${always++}"` } }));
  failed(await attempt(page, restless.url), "io", /restless\.gguf/, /ETag/, /changes all the time/);
});

test("a server without ranges sends all at once, and is stored, too", async () => {
  const { path, url } = serving("whole", () => ({ ranges: false }));
  const result = await attempt(page, url, { sha256: sha256(bytes) });
  succeeded(result);
  assert.equal(result.progress.filter(({ phase }) => phase === "download").at(-1).done, bytes.length);
  const before = opened.requests.length;
  succeeded(await attempt(page, url));
  assert.ok(!opened.requests.slice(before).some((request) => request.path === path));
  // One that breaks off begins anew; one that does not say how long it is ends when it ends.
  let times = 0;
  const broken = serving("broken", () => ({ ranges: false, ...(times++ === 1 && { cut: 5 * MIB }) }));
  succeeded(await attempt(page, broken.url, { sha256: sha256(bytes) }));
  assert.equal(times, 3);
  const silent = serving("silent", () => ({ ranges: false, headers: { "Content-Length": null } }));
  const told = await attempt(page, silent.url, { sha256: sha256(bytes) });
  succeeded(told);
  assert.ok(told.progress.filter(({ phase }) => phase === "download").every(({ total }) => total === 0));
  assert.equal((await listed(page, silent.url)).bytes, bytes.length);
});

test("what a server does wrong is one clear error", async () => {
  const { url: missing } = serving("missing", () => ({ status: 404 }));
  failed(await attempt(page, missing), "io", /missing\.gguf/, /status 404/);
  const { url: refused } = serving("refused", ({ range }) => (range === "bytes=0-0" ? {} : { status: 416 }));
  failed(await attempt(page, refused), "io", /status 416/);
  const { url: html } = serving("html", () => ({ headers: { "Content-Type": "text/html; charset=utf-8" } }));
  failed(await attempt(page, html), "format", /html\.gguf/, /web page/);
  const { url: liar } = serving("liar", ({ range }) => (range === "bytes=0-0" ? {} : { headers: { "Content-Range": `bytes 7-${MIB + 6}/${bytes.length}` } }));
  failed(await attempt(page, liar), "io", /asked for bytes/, /Content-Range: bytes 7-/);
  const { url: forgets } = serving("forgets", ({ range }) => (range === "bytes=0-0" ? {} : { ranges: false }));
  failed(await attempt(page, forgets), "io", /asked for bytes/, /status 200/);
  const { url: down } = serving("down", () => ({ status: 503 }));
  failed(await attempt(page, down), "network", /down\.gguf/, /status 503/);
  // Says that there is one byte more than there is.
  const { url: short } = serving("short", ({ range }) => ({ ranges: false, headers: { "Content-Length": String(bytes.length + 1) }, ...(range === undefined && { cut: bytes.length - 1 }) }));
  failed(await attempt(page, short), "io", /short\.gguf/, /broke off|ended after/, /begins anew/);
  const junk = serving("junk", null, Buffer.alloc(3 * MIB, 7));
  failed(await attempt(page, junk.url), "format", /junk\.gguf/);
  assert.equal(await listed(page, junk.url), undefined, "what is no model stays in the store");
});

test("other origins are read when they allow it", async () => {
  const allow = { "Access-Control-Allow-Origin": "*" };
  let headers = {};
  const other = await serve(dist, { "/other.gguf": join(folder, "model.gguf") }, { faults: () => ({ headers }) });
  try {
    const url = `${other.url}/other.gguf`;
    failed(await attempt(page, url), "network", /CORS/, /other\.gguf/);
    // Content-Range and ETag are hidden from us.
    headers = allow;
    succeeded(await attempt(page, url, { sha256: sha256(bytes) }));
    assert.equal(pieces("/other.gguf", other.requests).length, PIECES);
  } finally {
    await other.close();
  }
  failed(await attempt(page, `${other.url}/nobody.gguf`), "network", /nobody\.gguf/);
});

test("checksums are compared, and what is wrong is not kept", async () => {
  const wrong = sha256("other");
  const { path, url } = serving("checksum");
  failed(await attempt(page, url, { sha256: wrong }), "checksum", new RegExp(wrong), new RegExp(sha256(bytes)));
  assert.equal((await listed(page, url)).bytesHere, 0);
  succeeded(await attempt(page, url, { sha256: sha256(bytes).toUpperCase() }));
  // Hugging Face's way of saying it.
  const linked = serving("linked", () => ({ headers: { "X-Linked-ETag": `"${wrong}"` } }));
  failed(await attempt(page, linked.url), "checksum", new RegExp(wrong));
  faulty.set(linked.path, () => ({ headers: { "X-Linked-ETag": `"${sha256(bytes)}"` } }));
  succeeded(await attempt(page, linked.url));
  failed(await attempt(page, url, { sha256: "abc" }), "invalid", /64 hexadecimal/);
  failed(await attempt(page, url, { sha256: [wrong, wrong] }), "invalid", /2 checksums for 1 file/);
  failed(await attempt(page, url, { sha256: wrong, cache: false }), "unsupported", /sha256/);
  const ofBytes = (sum) => inPage(page, async ({ Shardlight }, [url, sum]) => {
    const bytes = await (await fetch(url)).arrayBuffer();
    const sources = [new File([bytes], "mine.gguf"), bytes, new Uint8Array(bytes), new Float32Array(bytes.slice(0, bytes.byteLength & ~3))];
    const told = [];
    for (const source of sources) {
      told.push(await Shardlight.load(source, { device: "cpu", sha256: sum }).then((model) => (model.close(), "loaded"), (error) => error.code));
    }
    return told;
  }, [url, sum]);
  assert.deepEqual(await ofBytes(wrong), ["checksum", "checksum", "checksum", "checksum"]);
  assert.deepEqual(await ofBytes(sha256(bytes)), ["loaded", "loaded", "loaded", "loaded"]);
});

test("two tabs share one download", async () => {
  const { path, url } = serving("shared", () => ({ rate: 4 * MIB }));
  const other = await newPage();
  const [one, two] = await Promise.all([attempt(page, url), attempt(other, url)]);
  succeeded(one);
  succeeded(two);
  assert.equal(pieces(path).length, PIECES);
  for (const { progress } of [one, two]) {
    const part = progress.filter(({ phase, done, total }) => phase === "download" && done > 0 && done < total);
    assert.ok(part.length > 3, JSON.stringify(progress));
  }

  // The one that downloads is closed.
  const handed = serving("handed", () => ({ rate: 2 * MIB }));
  const first = attempt(other, handed.url).catch(() => {});
  await until("a piece", async () => (await listed(page, handed.url))?.bytesHere > 0);
  const second = attempt(page, handed.url, { sha256: sha256(bytes) });
  await until("another piece", async () => (await listed(page, handed.url))?.bytesHere >= 5 * MIB);
  await other.close();
  await first;
  succeeded(await second);
  const asked = pieces(handed.path);
  // At most what was under way is asked for again.
  assert.ok(asked.length <= PIECES + 4 && new Set(asked).size === PIECES, asked.join());
});

test("aborting ends every phase with the signal's reason, and the next load works", async () => {
  const { path, url } = serving("aborted", () => ({ rate: 8 * MIB }));
  const aborted = async (phase) => {
    const { error } = await attempt(page, url, {}, phase);
    assert.deepEqual(error, { name: "Error", code: undefined, message: `stopped in ${phase}` });
  };
  await aborted("download");
  await until("the Worker's end", async () => !(await listed(page, url)) || (await inPage(page, () => navigator.locks.query())).held.length === 0);
  assert.equal((await listed(page, url)).complete, false);
  faulty.delete(path);
  succeeded(await attempt(page, url, { sha256: sha256(bytes) }));
  await aborted("upload");
  await aborted("compile");
  const before = pieces(path).length;
  succeeded(await attempt(page, url));
  assert.equal(pieces(path).length, before);
});

test("no room is an error before anything is downloaded", async () => {
  succeeded(await attempt(page, serving("earlier").url));
  const session = await opened.context.newCDPSession(page);
  const { used } = await inPage(page, ({ Shardlight }) => Shardlight.models.usage());
  const quota = (quotaSize) => session.send("Storage.overrideQuotaForOrigin", { origin: opened.url, ...(quotaSize !== undefined && { quotaSize }) });
  const { path, url } = serving("large", () => ({ rate: 4 * MIB }));
  try {
    await quota(used + 5 * MIB);
    failed(await attempt(page, url), "quota", /large\.gguf: 13\.6 MB more are needed/, /delete another model: earlier\.gguf \(13\.6 MB\)|delete another model: .*and \d+ more/, /cache: false/);
    assert.equal(pieces(path).length, 0);
    succeeded(await attempt(page, url, { cache: false }));
    // Nobody knew how much would come.
    const silent = serving("endless", () => ({ ranges: false, headers: { "Content-Length": null } }));
    failed(await attempt(page, silent.url), "quota", /endless\.gguf: the browser takes no more bytes/, /delete another model/);
    assert.equal((await listed(page, silent.url)).complete, false);
    // What has begun has its room.
    await quota();
    const loading = attempt(page, url, { sha256: sha256(bytes) });
    await until("a piece", async () => (await listed(page, url))?.bytesHere > 0);
    await quota(used + 5 * MIB);
    succeeded(await loading);
  } finally {
    await quota();
  }
});

test("a stream is written down and read from there", async () => {
  const { url } = serving("stream");
  const told = await inPage(page, async ({ Shardlight }, [url, right, wrong]) => {
    const chunks = (chunk, onCancel) => new ReadableStream({ pull: (c) => c.enqueue(chunk), cancel: onCancel });
    const body = async () => (await fetch(url)).body;
    const progress = [];
    const onProgress = (p) => progress.push(p);
    const failing = (promise) => promise.then(() => null, ({ name, code, message }) => ({ name, code, message }));
    const model = await Shardlight.load(await body(), { device: "cpu", sha256: right, onProgress });
    const { text } = await model.generate("Once upon a time", { raw: true, maxTokens: 8 });
    model.close();
    const told = { text, progress };
    told.wrong = await failing(Shardlight.load(await body(), { sha256: wrong }));
    told.words = await failing(Shardlight.load(chunks("words")));
    const broken = new ReadableStream({ start: (c) => c.error(new Error("the source dried up")) });
    told.broken = await failing(Shardlight.load(broken));
    const controller = new AbortController();
    let cancelled;
    const endless = chunks(new Uint8Array(65536), (reason) => (cancelled = reason.message));
    told.aborted = await failing(Shardlight.load(endless, { signal: controller.signal, onProgress: () => controller.abort(new Error("enough")) }));
    await new Promise((resolve) => setTimeout(resolve, 200));
    told.cancelled = cancelled;
    return told;
  }, [url, sha256(bytes), sha256("other")]);
  assert.equal(told.text, text);
  assert.equal(told.progress.filter(({ phase }) => phase === "download").at(-1).done, bytes.length);
  assert.equal(told.wrong.code, "checksum");
  assert.equal(told.words.code, "invalid");
  assert.match(told.broken.message, /dried up/);
  assert.equal(told.aborted.message, "enough");
  assert.equal(told.cancelled, "enough");
  // What they left is gone once another stream comes.
  await inPage(page, async ({ Shardlight }, url) => (await Shardlight.load((await fetch(url)).body, { device: "cpu" })).close(), url);
  const left = await inPage(page, async () => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("shardlight-spool");
    const names = [];
    for await (const name of folder.keys()) names.push(name);
    return names;
  });
  assert.ok(left.length <= 1, left.join());
});

test("the address of one part of a split GGUF stands for all", async () => {
  const part = (i) => serving(`split-${String(i).padStart(5, "0")}-of-00003`);
  const urls = [1, 2, 3].map((i) => part(i));
  // These are three times a whole model: the core says so, after all three came.
  failed(await attempt(page, urls[1].url), "invalid");
  for (const { path } of urls) assert.equal(pieces(path).length, PIECES, path);
  const stored = (await list(page)).find(({ name }) => name === "split.gguf");
  assert.deepEqual(stored.urls, urls.map(({ url }) => url));
  assert.equal(stored.bytes, 3 * bytes.length);
  failed(await attempt(page, `${opened.url}/x-00001-of-99999.gguf`), "invalid", /99999 parts/);
});

test("where there is no store, addresses are read by ranges, and the rest says why not", async () => {
  const port = new URL(opened.url).port;
  const { context, close } = await launch({ flags: ["--host-resolver-rules=MAP insecure.test 127.0.0.1"] });
  try {
    const origin = `http://insecure.test:${port}`;
    const page = await newPage(origin, context);
    const { path } = serving("insecure");
    const result = await attempt(page, origin + path);
    succeeded(result);
    assert.match(result.notStored, /https or localhost/);
    assert.ok(!result.progress.some(({ phase }) => phase === "download"));
    failed(await attempt(page, origin + path, { cache: true }), "unsupported", /https or localhost/, /cache: false/);
    const told = await inPage(page, async ({ Shardlight }) => {
      const failing = (promise) => promise.then(() => null, ({ name, code, message }) => ({ error: { name, code, message } }));
      return [await failing(Shardlight.load(new ReadableStream())), await failing(Shardlight.models.list())];
    });
    failed(told[0], "unsupported", /a stream must be stored/, /https or localhost/);
    failed(told[1], "unsupported", /https or localhost/);
  } finally {
    await close();
  }
});

test("without the store an address is read by ranges, also when experts are needed", async () => {
  const { path, url } = serving("ranges", null, readFileSync(join(root, "core/data/tiny-moe.gguf")));
  const [loaded, answered] = await inPage(page, async ({ Shardlight }, url) => {
    const model = await Shardlight.load(url, { device: "cpu", cache: false, expertCache: 400_000 });
    const { notStored } = model.loaded;
    const { expertCache } = await model.generate("Once upon a time", { raw: true, maxTokens: 12 });
    model.close();
    return [{ notStored }, expertCache];
  }, url);
  assert.equal(loaded.notStored, null);
  assert.ok(answered.misses > 0 && answered.bytesRead > 0, JSON.stringify(answered));
  const ranges = opened.requests.filter((request) => request.path === path);
  assert.ok(ranges.length > 10 && ranges.every(({ range }) => range), `${ranges.length} requests`);
  assert.equal(await listed(page, url), undefined);
});

test("names that mean nothing are refused at once", async () => {
  failed(await attempt(page, "builtin:huge"), "invalid", /builtin:huge/, /builtin:tiny/);
  failed(await attempt(page, "http://["), "invalid");
  // Relative to the page.
  serving("relative");
  succeeded(await attempt(page, "relative.gguf"));
});
