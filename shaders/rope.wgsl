// rope: x[t, h, a] = x_a cos - x_b sin,  x[t, h, b] = x_b cos + x_a sin, in place, for the ROT / 2
// pairs (a, b) of a head: (i, i + ROT / 2), or (2i, 2i + 1) with ADJACENT; the rest is untouched
//
// x          (B, T, H, D)      f32   read, write   HEADS_FIRST: (B, H, T, D)
// table      (S, ROT / 2)      vec2  read          (cos, sin) of pair i at absolute position s
// step       position of the first token
// positions  (1 or 2, B, T)    u32   read          optional: a position for each token, one of EVERY numbers
//
// TWO_D: each half of the ROT channels is turned on its own, by its own row of positions and the
// same table (S, ROT / 4).
//
// Dispatch: one invocation per pair.
// Source: arXiv:2104.09864, eq. 34; 2D: arXiv:2103.10360. Reference: core/src/kernels/rope.rs.

const B: u32 = 1u;
const H: u32 = 9u;
const D: u32 = 64u;
const ROT: u32 = 64u;
const EVERY: u32 = 1u;
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
#if POSITIONS
@group(0) @binding(3) var<storage, read> positions: array<u32>;
#endif
@group(0) @binding(4) var<uniform> args: Args;

#if TWO_D
const PARTS: u32 = 2u;
#else
const PARTS: u32 = 1u;
#endif
// Channels and pairs of a part.
const CHANNELS: u32 = ROT / PARTS;
const PAIRS: u32 = CHANNELS / 2u;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = (group.x + group.y * groups.x) * WG + lane;
    let row = id / (ROT / 2u);
    if row >= B * args.T * H {
        return;
    }
    let part = (id % (ROT / 2u)) / PAIRS;
    let i = id % PAIRS;
    let b = row / (H * args.T);
#if HEADS_FIRST
    let t = row % args.T;
#else
    let t = (row / H) % args.T;
#endif
#if POSITIONS
    let s = positions[EVERY * ((part * B + b) * args.T + t)];
#else
    let s = step.pos + t;
#endif
    let turn = table[s * PAIRS + i];
#if ADJACENT
    let at_a = row * D + part * CHANNELS + 2u * i;
    let at_b = at_a + 1u;
#else
    let at_a = row * D + part * CHANNELS + i;
    let at_b = at_a + PAIRS;
#endif
    let xa = x[at_a];
    let xb = x[at_b];
    x[at_a] = xa * turn.x - xb * turn.y;
    x[at_b] = xb * turn.x + xa * turn.y;
}
