// Operators: our Runtime and onnxruntime-web, in one page, both on WebGPU.

import { fileURLToPath } from "node:url";
import { open } from "../../web/harness.mjs";

const root = fileURLToPath(new URL("../../..", import.meta.url));
/** A call must end some day, and say where it hung. */
const PATIENCE = 900_000;

/** Calls `use({ opened, ask })` with the page ready; `ask(name, …arguments)` calls a function of page/operators.mjs. */
export async function withOperators(use) {
  const { page, errors, close } = await open(root, { path: "/tests/bench/web/page/index.html" });
  try {
    const call = async ([name, args]) => (await import("/tests/bench/web/page/operators.mjs"))[name](...args);
    const ask = (name, ...args) => {
      const hung = new Promise((_, reject) => {
        setTimeout(reject, PATIENCE, new Error(`${name}(${args.join(", ")}): no end after ${PATIENCE / 1000} s`)).unref();
      });
      return Promise.race([hung, page.evaluate(call, [name, args])]);
    };
    const opened = await ask("open");
    const told = await use({ opened, ask });
    if (errors.length > 0) throw new Error(`operators: the page told of errors: ${errors[0]}`);
    return told;
  } finally {
    await close();
  }
}
