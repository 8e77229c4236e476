// rope: x[t, h, a] = x_a cos - x_b sin,  x[t, h, b] = x_b cos + x_a sin, in place, for the ROT / 2
// pairs (a, b) of a head: (i, i + ROT / 2), or (2i, 2i + 1) with ADJACENT; the rest is untouched
//
// x      (T, H, D)       f32   read, write
// table  (S, ROT / 2)    vec2  read   (cos, sin) of pair i at absolute position s
// step   position of the first token
//
// Dispatch: one invocation per pair.
// Source: arXiv:2104.09864, eq. 34. Reference: core/src/kernels/rope.rs.

const H: u32 = 9u;
const D: u32 = 64u;
const ROT: u32 = 64u;
const WG: u32 = 64u;

struct Step {
    pos: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

struct Args {
    T: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read> table: array<vec2<f32>>;
@group(0) @binding(2) var<uniform> step: Step;
@group(0) @binding(3) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = (group.x + group.y * groups.x) * WG + lane;
    let row = id / (ROT / 2u);
    let i = id % (ROT / 2u);
    if row >= args.T * H {
        return;
    }
    let turn = table[(step.pos + row / H) * (ROT / 2u) + i];
#if ADJACENT
    let a = row * D + 2u * i;
    let b = a + 1u;
#else
    let a = row * D + i;
    let b = a + ROT / 2u;
#endif
    let xa = x[a];
    let xb = x[b];
    x[a] = xa * turn.x - xb * turn.y;
    x[b] = xb * turn.x + xa * turn.y;
}
