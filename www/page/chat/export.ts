// A conversation as a file.

import { conversation, path } from "./conversations.ts";

function save(name: string, type: string, text: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  // Not before the browser has begun to read it.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const fileName = () => conversation.value.title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "conversation";

/** The path that is shown. */
export function saveMarkdown(): void {
  const { title, system } = conversation.value;
  const parts = [`# ${title}`];
  if (system.trim()) parts.push(`**System:** ${system}`);
  for (const { question, answer, raw, model } of path.value) {
    parts.push(raw ? `**Text continued by ${model}:**` : "**You:**", question, ...(raw ? [] : [`**${model}:**`]), answer);
  }
  save(`${fileName()}.md`, "text/markdown", `${parts.join("\n\n")}\n`);
}

/** Every branch. */
export function saveJson(): void {
  save(`${fileName()}.json`, "application/json", `${JSON.stringify(conversation.value, null, 2)}\n`);
}
