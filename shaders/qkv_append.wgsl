// qkv_append: rows of x are the heads of q, k and v of a token; q and k are turned as rope.wgsl turns them; q goes
// to q[t, h], keys to k_cache[g, pos + t], values to v_cache[g, pos + t]
//
// x         (T, (H + 2 KVH) D)  f32   read
// table     (S', ROT / 2)       vec2  read   with ROPE: (cos, sin) of pair i at absolute position s
// q_weight  (D,)                f32   read   with NORM: heads of q are RMS-normalised first (Qwen3)
// k_weight  (D,)                f32   read   with NORM, for k
// q         (T, H, D)           f32   write
// k_cache   (KVH, S, D)               write  f32, f16 or q8_0
// v_cache   (KVH, S, D)               write  likewise
// step      position of the first token; rows past S are dropped
// pages     words              u32   read   with PAGED: positions and rows of the caches, as attention.wgsl has them
//
// Dispatch: one invocation per pair of elements, or with KV_Q8_0 per two chunks. D and ROT are even.
// Source: arXiv:2104.09864, eq. 34; arXiv:1910.07467, eq. 4. Reference: core/src/kernels/qkv_append.rs.

const H: u32 = 9u;
const KVH: u32 = 3u;
const D: u32 = 64u;
const ROT: u32 = 64u;
const EPS: f32 = 1e-6;
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

@group(0) @binding(0) var<storage, read> x: array<f32>;
#if ROPE
@group(0) @binding(1) var<storage, read> table: array<vec2<f32>>;
#endif
#if NORM
@group(0) @binding(2) var<storage, read> q_weight: array<f32>;
@group(0) @binding(3) var<storage, read> k_weight: array<f32>;
#endif
@group(0) @binding(4) var<storage, read_write> q: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> k_cache: array<packed>;
@group(0) @binding(6) var<storage, read_write> v_cache: array<packed>;
@group(0) @binding(7) var<uniform> step: Step;
#if PAGED
@group(0) @binding(8) var<storage, read> pages: array<u32>;
#endif
@group(0) @binding(9) var<uniform> args: Args;

const PARTS: u32 = (D + PART - 1u) / PART;
const HEADS: u32 = H + 2u * KVH;

// Of this invocation: the head's number and first element, the token's position, the head's 1 / RMS.
var<private> head: u32;
var<private> start: u32;
var<private> position: u32;
var<private> scale: f32;

fn element(i: u32) -> f32 {
    let value = x[start + i];
#if NORM
    if head < H {
        return value * scale * q_weight[i];
    }
    if head < H + KVH {
        return value * scale * k_weight[i];
    }
#endif
    return value;
}

fn turned(i: u32) -> f32 {
    let own = element(i);
#if ROPE
    if i >= ROT || head >= H + KVH {
        return own;
    }
#if ADJACENT
    let turn = table[position * (ROT / 2u) + i / 2u];
    let other = element(i ^ 1u);
    let is_first = i % 2u == 0u;
#else
    let turn = table[position * (ROT / 2u) + i % (ROT / 2u)];
    let is_first = i < ROT / 2u;
    let other = element(select(i - ROT / 2u, i + ROT / 2u, is_first));
#endif
    if is_first {
        return own * turn.x - other * turn.y;
    }
    return own * turn.x + other * turn.y;
#else
    return own;
#endif
}

fn pair(_value: bool, i: u32) -> vec2<f32> {
    return vec2<f32>(turned(2u * i), turned(2u * i + 1u));
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = (group.x + group.y * groups.x) * WG + lane;
    let row = id / PARTS;
    let part = id % PARTS;
    let t = row / HEADS;
    if t >= args.T {
        return;
    }
    head = row % HEADS;
    start = row * D;
#if PAGED
    position = pages[4u * t];
    let to_row = pages[4u * t + 1u];
#else
    position = step.pos + t;
    let to_row = position;
#endif
#if NORM
    var sum = 0.0;
    for (var i = 0u; i < D; i += 1u) {
        sum += x[start + i] * x[start + i];
    }
    scale = inverseSqrt(sum / f32(D) + EPS);
#endif
    if head < H {
        let to = (t * H + head) * (D / 2u) + part * (PART / 2u);
        for (var i = 0u; i < min(PART, D - part * PART) / 2u; i += 1u) {
            q[to + i] = pair(false, part * (PART / 2u) + i);
        }
    } else if to_row < args.S {
        let value = head >= H + KVH;
        let g = head - H - select(0u, KVH, value);
        put(value, g * args.S + to_row, D, part);
    }
}
