import { defineConfig } from "vite";
import { offline } from "./scripts/offline.mjs";
import { shell } from "./scripts/shell.mjs";

// A cross-origin isolated page has precise timers, and later threads in wasm.
const headers = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

export default defineConfig({
  // Relative, so that the folder can be put anywhere on a server.
  base: "./",
  plugins: [shell(), offline()],
  build: {
    target: "es2022",
    reportCompressedSize: false,
    assetsInlineLimit: 0,
    rolldownOptions: {
      input: { index: "index.html", explore: "explore.html", shards: "shards.html", experts: "experts.html", sw: "page/service-worker.ts" },
      // A service worker keeps its address, and rules what lies below it.
      output: { entryFileNames: ({ name }) => (name === "sw" ? "sw.js" : "assets/[name]-[hash].js") },
    },
  },
  worker: { format: "es" },
  // core/data is outside of this folder.
  server: { headers, fs: { allow: [".."] } },
  preview: { headers },
});
