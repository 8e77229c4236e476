// The chat page. Tests use the ids that README.md lists.

import { render } from "preact";
import { App } from "./chat/app.tsx";
import "./console.ts";

render(<App />, document.getElementById("main")!);
