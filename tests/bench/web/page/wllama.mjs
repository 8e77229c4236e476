// wllama as the benchmarks drive it: the same interface as shardlight.mjs.

import { LoggerWithoutDebug, Wllama } from "../node_modules/@wllama/wllama/esm/index.min.js";

const wasm = new URL("../node_modules/@wllama/wllama/esm/wasm/wllama.wasm", import.meta.url).href;

export const version = Wllama.getLibllamaVersion();

export async function load(url, { threads, context }) {
  const wllama = new Wllama({ default: wasm }, { suppressNativeLog: true, logger: LoggerWithoutDebug });
  // Without f16 its WebGPU has no adapter to use; on one that has, this comparison is of CPU with CPU all the same.
  await wllama.loadModelFromUrl(url, { n_threads: threads, n_ctx: context, n_gpu_layers: 0, n_parallel: 1 });
  if (wllama.getNumThreads() !== threads) throw new Error(`wllama runs ${wllama.getNumThreads()} threads, not ${threads}`);
  return {
    async generate(prompt, maxTokens) {
      const times = [];
      let text = "";
      let timings;
      const begin = performance.now();
      await wllama.createCompletion({
        prompt, max_tokens: maxTokens, temperature: 0, top_k: 1, cache_prompt: false, stream: true,
        onData(chunk) {
          const [choice] = chunk.choices;
          timings = chunk.timings ?? timings;
          if (choice.finish_reason !== null && choice.text === "") return;
          text += choice.text;
          times.push(performance.now() - begin);
        },
      });
      if (!timings) throw new Error("wllama told no timings");
      const own = { prefillMs: timings.prompt_ms, decodeMs: timings.predicted_ms };
      return { text, promptTokens: timings.prompt_n, tokens: timings.predicted_n, first: times[0], last: times.at(-1), own };
    },
  };
}
