// Errors in words for visitors: what happened, and what to do. The error's own line is shown below them.

import { ShardlightError, type ErrorCode } from "../src/index.ts";

export interface Words {
  /** What happened, as a title. */
  what: string;
  /** What to do. */
  do: string;
}

export const WORDS: Record<ErrorCode, Words> = {
  format: {
    what: "This file is not a model that can be read",
    do: "Choose a GGUF file, or config.json, tokenizer.json and *.safetensors together. If it was downloaded, the download may have been cut off: get it again.",
  },
  io: {
    what: "The model could not be read",
    do: "Check the address and your connection. Some servers do not let other pages read their files; then download the file yourself and choose it here.",
  },
  network: {
    what: "The server does not answer",
    do: "Check your connection. If it is there, the server does not let other pages read its files: download the file yourself and choose it here.",
  },
  checksum: {
    what: "The file is not the one it should be",
    do: "It was damaged on its way, or has changed on the server. Load it again; what was wrong is not kept.",
  },
  quota: {
    what: "The browser has no room for this model",
    do: "Delete stored models that you do not need, free space on this device, or take a smaller model.",
  },
  unsupported: {
    what: "This model or setting is not supported yet",
    do: "Take another model, or a file of it in another format. The line below says which ones work.",
  },
  invalid: {
    what: "A setting does not fit",
    do: "Look at the settings: the line below names the one to change.",
  },
  context_exceeded: {
    what: "The conversation is too long for this model",
    do: "Start a new conversation, shorten your question, or load a model with a longer context.",
  },
  device: {
    what: "The graphics processor cannot be used",
    do: "Choose CPU as the device, update the browser, or turn on hardware acceleration in its settings.",
  },
  out_of_memory: {
    what: "There is not enough memory for this model",
    do: "Close other tabs and programs, or take a smaller model. For a mixture of experts set a limit to the memory of its experts.",
  },
  device_lost: {
    what: "The graphics processor was taken away",
    do: "Load the model again; your conversation is kept. If it happens again, choose CPU as the device or take a smaller model.",
  },
  communication: {
    what: "A part of the model does not answer",
    do: "Load the model again; your conversation is kept.",
  },
  numeric: {
    what: "The model gave no sensible numbers",
    do: "Ask again, or load the model on another device. The file may be damaged.",
  },
  cancelled: {
    what: "It was cancelled",
    do: "Nothing is wrong: start it again when you like.",
  },
  busy: {
    what: "An answer is being written",
    do: "Wait until it is done, or stop it first.",
  },
  closed: {
    what: "The model was closed",
    do: "Load it again; your conversation is kept.",
  },
  worker: {
    what: "The model's thread could not start",
    do: "Reload the page. If that does not help, look whether an extension or a rule of your network blocks scripts of this page.",
  },
  internal: {
    what: "Something is wrong with Shardlight itself",
    do: "Load the model again; your conversation is kept. Please report the line below.",
  },
};

export interface Failure extends Words {
  code: ErrorCode | null;
  /** The error's own line. */
  line: string;
}

/** What to tell of an error; those of the page itself have no code, and their line says it all. */
export function failureOf(error: unknown): Failure {
  const line = error instanceof Error ? error.message : String(error);
  if (error instanceof ShardlightError) {
    // An older page may meet a newer code.
    return { ...(WORDS[error.code] ?? WORDS.internal), code: error.code, line };
  }
  if (error instanceof DOMException && error.name === "QuotaExceededError") {
    return { what: "The browser has no room for this model", do: "Delete stored models, or free space on this device.", code: null, line };
  }
  return { what: "That did not work", do: "Change what the line below names, and try again.", code: null, line };
}
