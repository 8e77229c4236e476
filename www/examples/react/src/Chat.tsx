import { type FormEvent, useState } from "react";
import type { Message, Source } from "shardlight";
import { useModel } from "./useModel";

export function Chat({ source }: { source: Source }) {
  const { model, status } = useModel(source);
  const [messages, setMessages] = useState<Message[]>([]);
  const [question, setQuestion] = useState("");
  const [busy, setBusy] = useState(false);

  async function send(event: FormEvent) {
    event.preventDefault();
    const asked: Message[] = [...messages, { role: "user", content: question }];
    setQuestion("");
    setBusy(true);
    let content = "";
    for await (const { text } of model!.generate(asked, { maxTokens: 128 })) {
      content += text;
      setMessages([...asked, { role: "assistant", content }]);
    }
    setBusy(false);
  }

  return (
    <main>
      <h1>Chat</h1>
      {messages.map(({ role, content }, i) => (
        <p key={i} className={role}>
          {content}
        </p>
      ))}
      <p role="status">{status}</p>
      <form onSubmit={send}>
        <input aria-label="Message" value={question} onChange={(event) => setQuestion(event.target.value)} />
        <button disabled={!model || busy}>Send</button>
      </form>
    </main>
  );
}
