// The package in the browser's console: `const r = await shardlight.Runtime.open(); await r.op("silu", { x: [1, 2] })`.

import { Runtime, Shardlight, ShardlightError } from "../src/index.ts";

Object.assign(window, { shardlight: { Runtime, Shardlight, ShardlightError } });
