// The package in the browser's console: `const r = await shardlight.Runtime.open(); await r.op("silu", { x: [1, 2] })`.

import { Model, Runtime, ShardlightError } from "./index.ts";

Object.assign(window, { shardlight: { Model, Runtime, ShardlightError } });
