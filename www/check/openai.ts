// Checked by `npm run check`: a program that is written for OpenAI's client takes our model in its place.

import type OpenAI from "openai";
import type { Model } from "../src/index.ts";

/** What such a program calls. */
interface Client {
  chat: {
    completions: {
      create(
        body: OpenAI.Chat.ChatCompletionCreateParamsNonStreaming,
        options?: OpenAI.RequestOptions,
      ): PromiseLike<OpenAI.Chat.ChatCompletion>;
      create(
        body: OpenAI.Chat.ChatCompletionCreateParamsStreaming,
        options?: OpenAI.RequestOptions,
      ): PromiseLike<AsyncIterable<OpenAI.Chat.ChatCompletionChunk> & { controller: AbortController }>;
    };
  };
}

export const official = (client: OpenAI): Client => client;
export const ours = (model: Model): Client => model;
