// node ask.mjs MODEL.gguf "Tell me a story": on the CPU, read from disk as it is needed.

import { openAsBlob } from "node:fs";
import { Shardlight } from "shardlight";

const [file, question] = process.argv.slice(2);
if (!question) {
  console.error('usage: node ask.mjs MODEL.gguf "a question"');
  process.exit(2);
}
const model = await Shardlight.load(await openAsBlob(file), { device: "cpu" });
for await (const { text } of model.generate([{ role: "user", content: question }], { maxTokens: 128 })) {
  process.stdout.write(text);
}
process.stdout.write("\n");
model.close();
