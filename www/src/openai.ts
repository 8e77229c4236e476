// The shape of OpenAI's chat completions (platform.openai.com/docs/api-reference/chat), as their client has it.

import { ShardlightError } from "./errors.ts";
import type { Generation } from "./generation.ts";
import type { Answer, GenerateOptions, Message, TokenLogprobs, Tool, ToolCall, ToolChoice } from "./protocol.ts";

/** As OpenAI's types have it; we take the roles system, developer, user, assistant and tool, and text. */
export interface ChatCompletionMessageParam {
  role: "system" | "developer" | "user" | "assistant" | "tool" | "function";
  content?: string | { type: string; text?: string }[] | null;
  /** Of the assistant: as an answer had them. */
  tool_calls?: { id: string; type: string; function?: { name: string; arguments: string } }[];
  /** Of a tool. */
  tool_call_id?: string;
}

interface Params {
  messages: ChatCompletionMessageParam[];
  /** There is one model: any name is good. */
  model?: string;
  max_completion_tokens?: number | null;
  max_tokens?: number | null;
  /** 1 when it is left out, as there; 0 is greedy. */
  temperature?: number | null;
  top_p?: number | null;
  seed?: number | null;
  stop?: string | string[] | null;
  /** 1 and no other. */
  n?: number | null;
  /** `text`, `json_object` or `json_schema`. */
  response_format?: { type: string; json_schema?: { name: string; schema?: Record<string, unknown>; strict?: boolean | null; description?: string } };
  /** Tells how likely each token was, */
  logprobs?: boolean | null;
  /** and so many of the likeliest ones: at most 20. */
  top_logprobs?: number | null;
  /** Functions that the model may call. */
  tools?: { type: string; function?: { name: string; description?: string; parameters?: Record<string, unknown>; strict?: boolean | null } }[];
  /** `auto` is the default. */
  tool_choice?: string | { type: string; function?: { name: string } };
  /** `false`: the answer ends with its first call. */
  parallel_tool_calls?: boolean;
}

/** What `create` takes for a whole answer. */
export interface ChatCompletionCreateParamsNonStreaming extends Params {
  stream?: false | null;
}

/** What `create` takes for an answer in chunks. */
export interface ChatCompletionCreateParamsStreaming extends Params {
  stream: true;
  stream_options?: { include_usage?: boolean } | null;
}

/** Tokens of the prompt and of the answer. */
export interface CompletionUsage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
}

/** A token that could have come, and the natural logarithm of its probability. */
export interface ChatCompletionLikelyToken {
  token: string;
  logprob: number;
  bytes: number[] | null;
}

/** How likely tokens were. */
export interface ChatCompletionLogprobs {
  content: (ChatCompletionLikelyToken & { top_logprobs: ChatCompletionLikelyToken[] })[];
  refusal: null;
}

type FinishReason = "stop" | "length" | "tool_calls";

/** A whole answer. */
export interface ChatCompletion {
  id: string;
  object: "chat.completion";
  /** Seconds since 1970. */
  created: number;
  model: string;
  choices: {
    index: 0;
    /** `content` is `null` where there are only calls. */
    message: { role: "assistant"; content: string | null; refusal: null; tool_calls?: ToolCall[] };
    finish_reason: FinishReason;
    logprobs: ChatCompletionLogprobs | null;
  }[];
  usage: CompletionUsage;
}

/** A part of an answer. */
export interface ChatCompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  choices: {
    index: 0;
    delta: { role?: "assistant"; content?: string; tool_calls?: ({ index: number } & ToolCall)[] };
    finish_reason: FinishReason | null;
    logprobs: ChatCompletionLogprobs | null;
  }[];
  /** With the last chunk, when `stream_options` asks for it; `null` in those before. */
  usage?: CompletionUsage | null;
}

/** Chunks as they come; aborting the controller, or leaving a loop, ends the answer. */
export interface ChatCompletionStream extends AsyncIterable<ChatCompletionChunk> {
  controller: AbortController;
}

/** What `create` takes besides. */
export interface RequestOptions {
  signal?: AbortSignal | null;
}

/** Parameters that we know. Others that ask for something are refused by name. */
const KNOWN = new Set([
  "messages", "model", "max_completion_tokens", "max_tokens", "temperature", "top_p", "seed", "stop", "n", "response_format",
  "tools", "tool_choice", "parallel_tool_calls", "logprobs", "top_logprobs", "stream", "stream_options",
  // Of no consequence here.
  "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
]);

type Generate = (messages: Message[], options: GenerateOptions) => Generation;

/** `model.chat.completions`. */
export class Completions {
  readonly #model: string;
  readonly #generate: Generate;

  constructor(model: string, generate: Generate) {
    this.#model = model;
    this.#generate = generate;
  }

  create(params: ChatCompletionCreateParamsNonStreaming, request?: RequestOptions): Promise<ChatCompletion>;
  create(params: ChatCompletionCreateParamsStreaming, request?: RequestOptions): Promise<ChatCompletionStream>;
  create(
    params: ChatCompletionCreateParamsNonStreaming | ChatCompletionCreateParamsStreaming,
    request?: RequestOptions,
  ): Promise<ChatCompletion | ChatCompletionStream>;
  /** Answers a conversation, whole or with `stream` in chunks. */
  async create(
    params: ChatCompletionCreateParamsNonStreaming | ChatCompletionCreateParamsStreaming,
    request: RequestOptions = {},
  ): Promise<ChatCompletion | ChatCompletionStream> {
    check(params);
    const controller = new AbortController();
    const signals = request.signal ? [controller.signal, request.signal] : [controller.signal];
    const generation = this.#generate(params.messages.map(message), { ...options(params), signal: AbortSignal.any(signals) });
    const about = { id: `chatcmpl-${hex(12)}`, created: Math.floor(Date.now() / 1000), model: this.#model };
    if (params.stream) {
      const chunks = stream(generation, about, params.stream_options?.include_usage === true);
      return { controller, [Symbol.asyncIterator]: () => chunks };
    }
    const answer = await generation;
    const calls = answer.toolCalls ?? [];
    const content = answer.text === "" && calls.length > 0 ? null : answer.text;
    const said = { role: "assistant", content, refusal: null, ...(calls.length > 0 && { tool_calls: calls }) } as const;
    return {
      ...about,
      object: "chat.completion",
      choices: [{ index: 0, message: said, finish_reason: reason(answer), logprobs: logprobs(answer.logprobs) }],
      usage: usage(answer),
    };
  }
}

async function* stream(
  generation: Generation,
  about: { id: string; created: number; model: string },
  withUsage: boolean,
): AsyncGenerator<ChatCompletionChunk, void, undefined> {
  type Delta = ChatCompletionChunk["choices"][0]["delta"];
  const chunk = (delta: Delta, finish_reason: FinishReason | null, likely?: TokenLogprobs): ChatCompletionChunk => ({
    ...about,
    object: "chat.completion.chunk",
    choices: [{ index: 0, delta, finish_reason, logprobs: logprobs(likely && [likely]) }],
    ...(withUsage && { usage: null }),
  });
  yield chunk({ role: "assistant", content: "" }, null);
  let calls = 0;
  for await (const { text, toolCalls, logprobs: likely } of generation) {
    // A token may be a part of a character.
    if (text !== "" || likely) yield chunk({ content: text }, null, likely);
    // A call is known when it is whole.
    if (toolCalls) yield chunk({ tool_calls: toolCalls.map((call) => ({ index: calls++, ...call })) }, null);
  }
  const answer = await generation;
  yield chunk({}, reason(answer));
  if (withUsage) yield { ...about, object: "chat.completion.chunk", choices: [], usage: usage(answer) };
}

function check(params: Params): void {
  const refuse = (what: string, supported: string) => {
    throw new ShardlightError("unsupported", `chat.completions.create: ${what}; supported: ${supported}`);
  };
  if (!Array.isArray(params?.messages) || params.messages.length === 0) {
    throw invalid("messages is no list of messages");
  }
  for (const [name, value] of Object.entries(params)) {
    if (!KNOWN.has(name) && value != null && value !== false && value !== 0) refuse(name, [...KNOWN].slice(0, 17).join(", "));
  }
  if ((params.n ?? 1) !== 1) refuse(`n of ${params.n}`, "1");
  const format = params.response_format?.type ?? "text";
  if (!["text", "json_object", "json_schema"].includes(format)) refuse(`response_format of type ${format}`, "text, json_object, json_schema");
  if (format !== "text" && params.tools?.length) refuse(`response_format of type ${format} with tools`, "one of them");
  if (params.top_logprobs != null && !params.logprobs) throw invalid("top_logprobs without logprobs: true");
  const top = params.top_logprobs ?? 0;
  if (!Number.isInteger(top) || top < 0 || top > 20) throw invalid(`top_logprobs is ${top}, expected 0 to 20`);
}

function invalid(what: string): ShardlightError {
  return new ShardlightError("invalid", `chat.completions.create: ${what}`);
}

/** The JSON schema of an answer, if it shall have one. */
function schema({ response_format: format }: Params): GenerateOptions["schema"] {
  if (format?.type === "json_object") return { type: "object" };
  if (format?.type !== "json_schema") return undefined;
  const { schema } = format.json_schema ?? {};
  if (typeof schema !== "object" || schema === null) throw invalid("response_format.json_schema.schema is no JSON schema");
  return schema;
}

function logprobs(of: TokenLogprobs[] | undefined): ChatCompletionLogprobs | null {
  if (!of) return null;
  const likely = ({ text, logprob, bytes }: { text: string; logprob: number; bytes: number[] }) => ({ token: text, logprob, bytes });
  return { content: of.map((one) => ({ ...likely(one), top_logprobs: one.top.map(likely) })), refusal: null };
}

function message({ role, content, tool_calls, tool_call_id }: ChatCompletionMessageParam, i: number): Message {
  const wrong = (what: string) => new ShardlightError("unsupported", `messages[${i}]: ${what}`);
  const roles = { system: "system", developer: "system", user: "user", assistant: "assistant", tool: "tool" } as const;
  const known = (role: string): role is keyof typeof roles => Object.hasOwn(roles, role);
  if (!known(role)) throw wrong(`role ${String(role)}; supported: ${Object.keys(roles).join(", ")}`);
  const text = (part: { type: string; text?: unknown }) => {
    if (part?.type !== "text" || typeof part.text !== "string") throw wrong(`content of type ${String(part?.type)}; supported: text`);
    return part.text;
  };
  // Who only calls says nothing.
  if (content == null && tool_calls != null) content = "";
  if (typeof content !== "string" && !Array.isArray(content)) throw wrong("content is neither text nor a list of texts");
  return {
    role: roles[role],
    content: typeof content === "string" ? content : content.map(text).join(""),
    // Their shapes are checked where the prompt is made.
    ...(tool_calls != null && { tool_calls: tool_calls as ToolCall[] }),
    ...(tool_call_id != null && { tool_call_id }),
  };
}

function options(params: Params): GenerateOptions {
  const { seed, top_p } = params;
  const maxTokens = params.max_completion_tokens ?? params.max_tokens;
  const stop = typeof params.stop === "string" ? [params.stop] : params.stop;
  const { tools, tool_choice, parallel_tool_calls } = params;
  const form = schema(params);
  return {
    temperature: params.temperature ?? 1,
    ...(maxTokens != null && { maxTokens }),
    ...(top_p != null && { topP: top_p }),
    ...(seed != null && { seed }),
    ...(stop != null && { stop }),
    ...(form && { schema: form }),
    ...(params.logprobs && { logprobs: params.top_logprobs ?? 0 }),
    ...(tools != null && { tools: tools as Tool[] }),
    ...(tool_choice != null && { toolChoice: tool_choice as ToolChoice }),
    ...(parallel_tool_calls != null && { parallelToolCalls: parallel_tool_calls }),
  };
}

function reason(answer: Answer): FinishReason {
  if (answer.stop === "length" || answer.stop === "context") return "length";
  return answer.toolCalls?.length ? "tool_calls" : "stop";
}

function usage({ promptTokens, tokens, timings }: Answer): CompletionUsage {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: tokens.length,
    total_tokens: promptTokens + tokens.length,
    prompt_tokens_details: { cached_tokens: promptTokens - timings.prefillTokens },
  };
}

function hex(bytes: number): string {
  return [...crypto.getRandomValues(new Uint8Array(bytes))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
