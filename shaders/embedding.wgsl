// embedding: y[t, c] = SCALE w[tokens[t] - ROW0, c] where ROW0 <= tokens[t] < ROW0 + N; other rows stay,
// with ZERO they become 0; with POSITIONS the row is tokens[0] + FIRST + t - ROW0, and is added; with EACH
// it is tokens[4 (FIRST + t)] - ROW0
//
// tokens  (T,)    u32     read
// w       (N, C)  planar  read: a slice of a table that begins at row ROW0
// y       (T, C)  f32     write
//
// Dispatch: one invocation for 8 elements. Reference: core/src/kernels/embedding.rs.

const C: u32 = 576u;
const K: u32 = C;
const EIGHTS: u32 = (C + 7u) / 8u;
const SCALE: f32 = 1.0;
const FIRST: u32 = 0u;
const WG: u32 = 64u;

#import $W as w

struct Args {
    T: u32,
    ROW0: u32,
    N: u32,
}

@group(0) @binding(0) var<storage, read> tokens: array<u32>;
@group(0) @binding(1) var<storage, read> w_words: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + local;
    let t = i / EIGHTS;
    if t >= args.T {
        return;
    }
#if POSITIONS
#if EACH
    let token = tokens[4u * (FIRST + t)];
#else
    let token = tokens[0] + FIRST + t;
#endif
#else
    let token = tokens[t];
#endif
    let eight = i % EIGHTS;
    if token < args.ROW0 || token - args.ROW0 >= args.N {
#if ZERO
        for (var c = 8u * eight; c < min(8u * eight + 8u, C); c += 1u) {
            y[t * C + c] = 0.0;
        }
#endif
        return;
    }
    let e = w_get(w_load(token - args.ROW0, eight / 4u), eight % 4u);
    var values = array<f32, 8>(e.lo.x, e.lo.y, e.lo.z, e.lo.w, e.hi.x, e.hi.y, e.hi.z, e.hi.w);
    for (var c = 8u * eight; c < min(8u * eight + 8u, C); c += 1u) {
#if POSITIONS
        y[t * C + c] += SCALE * values[c % 8u];
#else
        y[t * C + c] = SCALE * values[c % 8u];
#endif
    }
}
