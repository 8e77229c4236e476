import { defineConfig } from "vite";

// A cross-origin isolated page has precise timers, and later threads in wasm.
const headers = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

export default defineConfig({
  // Relative, so that the folder can be put anywhere on a server.
  base: "./",
  build: {
    target: "es2022",
    reportCompressedSize: false,
    assetsInlineLimit: 0,
    rolldownOptions: { input: ["index.html", "explore.html", "shards.html", "experts.html"] },
  },
  worker: { format: "es" },
  // core/data is outside of this folder.
  server: { headers, fs: { allow: [".."] } },
  preview: { headers },
});
