// kv_append: k_cache[g, pos + t] = k[t, g],  v_cache[g, pos + t] = v[t, g]
//
// k, v              (T, KVH, D)  f32         read
// k_cache, v_cache  (KVH, S, D)  f32 or f16  write   f16: pairs packed in u32, held to +-65504
// step              position of the first token; rows past S are dropped
//
// Dispatch: one invocation per pair of elements. D is even.
// Reference: core/src/kernels/kv_append.rs.

const KVH: u32 = 3u;
const D: u32 = 64u;
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

#if KV_F16
alias packed = u32;
fn pack(pair: vec2<f32>) -> packed {
    return pack2x16float(clamp(pair, vec2<f32>(-65504.0), vec2<f32>(65504.0)));
}
#else
alias packed = vec2<f32>;
fn pack(pair: vec2<f32>) -> packed {
    return pair;
}
#endif

@group(0) @binding(0) var<storage, read> k: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> v: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> k_cache: array<packed>;
@group(0) @binding(3) var<storage, read_write> v_cache: array<packed>;
@group(0) @binding(4) var<uniform> step: Step;
@group(0) @binding(5) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = (group.x + group.y * groups.x) * WG + lane;
    let row = id / (D / 2u);
    let s = step.pos + row / KVH;
    if row >= args.T * KVH || s >= args.S {
        return;
    }
    let to = ((row % KVH) * args.S + s) * (D / 2u) + id % (D / 2u);
    k_cache[to] = pack(k[id]);
    v_cache[to] = pack(v[id]);
}
