// How far loading is.

import { asked, cancelLoading, progress } from "./state.ts";

export function Loading() {
  const told = progress.value;
  return (
    <div class="loading" hidden={!told}>
      {told && (
        <div class="row between">
          <strong class="break">Loading {asked.value.name}</strong>
          <button type="button" id="cancel" class="small" onClick={cancelLoading}>Cancel</button>
        </div>
      )}
      <progress id="progress" max="1" value={told?.part ?? 0} aria-label="Loading" />
    </div>
  );
}
