// Our package as the benchmarks drive it: the same interface as wllama.mjs.

import { Shardlight } from "/www/lib/index.js";

export async function load(url, { threads, context }) {
  const model = await Shardlight.load(url, { device: "cpu", threads, contextLength: context });
  return {
    /** Text of exactly `count` tokens that begins as `text` does. */
    async cut(text, count) {
      let all = text;
      let ids = await model.tokenize(all);
      while (ids.length < count) ids = await model.tokenize((all += ` ${text}`));
      for (let end = Math.min(count + 8, ids.length); end > 0; end--) {
        const part = await model.detokenize(ids.slice(0, end));
        if ((await model.tokenize(part)).length === count) return part;
      }
      throw new Error(`no beginning of the prompt has ${count} tokens`);
    },
    async generate(prompt, maxTokens) {
      model.reset();
      const times = [];
      const begin = performance.now();
      const answer = model.generate(prompt, { raw: true, maxTokens, temperature: 0 });
      for await (const _ of answer) times.push(performance.now() - begin);
      const { text, tokens, timings } = await answer;
      const own = { prefillMs: timings.prefillMs, decodeMs: timings.decodeMs };
      return { text, promptTokens: timings.prefillTokens, tokens: tokens.length, first: times[0], last: times.at(-1), own };
    },
  };
}
