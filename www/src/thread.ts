// A Worker of ours.

import { engine } from "./engine.ts";
import type { Reply, Request } from "./protocol.ts";

const { receive, fail } = engine((reply: Reply) => self.postMessage(reply));

self.addEventListener("message", (event: MessageEvent<Request>) => void receive(event.data));
self.addEventListener("messageerror", () => fail(new Error("the Worker cannot read what it was sent")));
// A panic inside wasm leaves its promise open for ever. What it throws reaches the page's `onerror`, or this.
self.addEventListener("unhandledrejection", (event) => fail(event.reason));
