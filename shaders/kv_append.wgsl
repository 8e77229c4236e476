// kv_append: k_cache[b, g, pos + t] = k[b, t, g],  v_cache[b, g, pos + t] = v[b, t, g]
//
// k, v      (B, T, KVH, D), (B, T, KVH, DV)  f32    read    HEADS_FIRST: (B, KVH, T, ...)
// k_cache   (B, KVH, S, D)                          write   f32, f16 or q8_0
// v_cache   (B, KVH, S, DV)                         write   likewise
// step      position of the first token; rows past S are dropped
// pages     words                            u32    read    with PAGED: rows of the caches, as attention.wgsl has them
//
// Dispatch: one invocation per pair of elements, or with KV_Q8_0 of chunks. D and DV are even.
// Reference: core/src/kernels/kv_append.rs.

const B: u32 = 1u;
const KVH: u32 = 3u;
const D: u32 = 64u;
const DV: u32 = 64u;
const WG: u32 = 64u;

struct Step {
    pos: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

struct Args {
    T: u32,
    S: u32,
}

#import kv_store

@group(0) @binding(0) var<storage, read> k: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> v: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> k_cache: array<packed>;
@group(0) @binding(3) var<storage, read_write> v_cache: array<packed>;
@group(0) @binding(4) var<uniform> step: Step;
#if PAGED
@group(0) @binding(5) var<storage, read> pages: array<u32>;
#endif
@group(0) @binding(6) var<uniform> args: Args;

var<private> start: u32;

fn pair(value: bool, i: u32) -> vec2<f32> {
    if value {
        return v[start * (DV / 2u) + i];
    }
    return k[start * (D / 2u) + i];
}

// Parts of a row of k, of v, and of the longer one.
const PARTS_K: u32 = (D + PART - 1u) / PART;
const PARTS_V: u32 = (DV + PART - 1u) / PART;
const PARTS: u32 = max(PARTS_K, PARTS_V);

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = (group.x + group.y * groups.x) * WG + lane;
    let row = id / PARTS;
    let part = id % PARTS;
#if HEADS_FIRST
    let t = row % args.T;
    let g = row / args.T;
#else
    let t = (row / KVH) % args.T;
    let g = row / (KVH * args.T) * KVH + row % KVH;
#endif
    if row >= B * args.T * KVH {
        return;
    }
#if PAGED
    let s = pages[4u * t + 1u];
#else
    let s = step.pos + t;
#endif
    if s >= args.S {
        return;
    }
    let to = g * args.S + s;
    start = row;
    if part < PARTS_K {
        put(false, to, D, part);
    }
    if part < PARTS_V {
        put(true, to, DV, part);
    }
}
