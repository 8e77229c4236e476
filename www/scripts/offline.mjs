// A Vite plugin: the service worker learns the names of all built files, and which build they are of.

import { createHash } from "node:crypto";

export function offline() {
  return {
    name: "shardlight-offline",
    apply: "build",
    enforce: "post",
    generateBundle: {
      order: "post",
      handler(_, bundle) {
        const worker = bundle["sw.js"];
        if (!worker) return;
        const files = Object.values(bundle).filter(({ fileName }) => fileName !== "sw.js" && !fileName.endsWith(".map"));
        const names = files.map(({ fileName }) => fileName).sort();
        const hash = createHash("sha256");
        for (const name of names) hash.update(name).update(bundle[name].code ?? bundle[name].source);
        const version = hash.digest("hex").slice(0, 16);
        worker.code = worker.code
          .replace("__FILES__", () => JSON.stringify(names))
          .replace("__VERSION__", () => JSON.stringify(version));
      },
    },
  };
}
