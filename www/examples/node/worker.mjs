// The same in a thread of its own, so that a server goes on serving: node worker.mjs MODEL.gguf "Tell me a story"

import { openAsBlob } from "node:fs";
import { Worker, isMainThread, parentPort, workerData } from "node:worker_threads";

if (isMainThread) {
  const [file, question] = process.argv.slice(2);
  const worker = new Worker(new URL(import.meta.url), { workerData: { file, question } });
  worker.on("message", (text) => process.stdout.write(text));
} else {
  const { Shardlight } = await import("shardlight");
  const model = await Shardlight.load(await openAsBlob(workerData.file), { device: "cpu" });
  const { text } = await model.generate([{ role: "user", content: workerData.question }], { maxTokens: 128 });
  parentPort.postMessage(`${text}\n`);
  model.close();
}
