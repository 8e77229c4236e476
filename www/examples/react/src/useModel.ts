import { useEffect, useState } from "react";
import { type Model, Shardlight, type Source } from "shardlight";

/** Loads a model, and frees it when the component goes. */
export function useModel(source: Source): { model?: Model; status: string } {
  const [model, setModel] = useState<Model>();
  const [status, setStatus] = useState("Loading");
  useEffect(() => {
    const controller = new AbortController();
    let loaded: Model | undefined;
    Shardlight.load(source, {
      signal: controller.signal,
      onProgress: ({ phase, done, total }) => setStatus(`${phase} ${Math.round((100 * done) / total)} %`),
    }).then(
      (model) => {
        if (controller.signal.aborted) return model.close();
        loaded = model;
        setModel(model);
        setStatus(`${model.loaded.info.model} on ${model.loaded.info.device.name}`);
      },
      (error: Error) => controller.signal.aborted || setStatus(error.message),
    );
    return () => {
      controller.abort();
      loaded?.close();
      setModel(undefined);
    };
  }, [source]);
  return { model, status };
}
