// A model file may be dropped anywhere.

import { useEffect, useState } from "preact/hooks";
import { loadAndWrite } from "./setup.tsx";
import { fail, state, take } from "./state.ts";

const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;

export function Drop() {
  const [over, setOver] = useState(false);
  useEffect(() => {
    const controller = new AbortController();
    const on = (type: "dragover" | "dragleave" | "drop", heard: (event: DragEvent) => void) =>
      window.addEventListener(type, (event) => hasFiles(event) && heard(event), { signal: controller.signal });
    on("dragover", (event) => {
      event.preventDefault();
      setOver(true);
    });
    on("dragleave", ({ relatedTarget }) => relatedTarget === null && setOver(false));
    on("drop", (event) => {
      event.preventDefault();
      setOver(false);
      if (state.value === "loading" || state.value === "answering") {
        fail(new Error("a model or an answer is under way; end it first, then drop the file again"));
        return;
      }
      take([...(event.dataTransfer?.files ?? [])]);
      void loadAndWrite();
    });
    return () => controller.abort();
  }, []);
  return over ? <div class="drop" aria-hidden="true"><p>Drop a GGUF file to load it</p></div> : null;
}
