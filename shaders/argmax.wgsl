// argmax: y[t] = the smallest c with x[t, c] = max_c x[t, c], or 0xFFFFFFFF if row t holds a NaN
//
// x  (T, C)  f32, read as u32  read
// y  (T,)    u32               write
//
// Dispatch: one workgroup per row, and one barrier. FEW: the workgroup is so small that its first
// invocation merges alone (adapters that are CPUs).
// Reference: core/src/kernels/argmax.rs.

const WG: u32 = 256u;
// Invocations that merge the others' results in a first step.
const MERGE: u32 = 16u;

struct Args {
    T: u32,
    C: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(2) var<uniform> args: Args;

#import order

var<workgroup> found: array<vec2<u32>, WG>;

/// The better of two (order, index) pairs.
fn better(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return select(a, b, b.x > a.x || (b.x == a.x && b.y < a.y));
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let t = group.x + group.y * groups.x;
    if t >= args.T {
        return;
    }
    let row = t * args.C;
    // (0, last) loses to every element: the order of -inf is greater than 0.
    var best = vec2<u32>(0u, 0xFFFFFFFFu);
    for (var c = lane; c < args.C; c += WG) {
        let value = order(x[row + c]);
        if value > best.x {
            best = vec2<u32>(value, c);
        }
    }
    found[lane] = best;
    workgroupBarrier();
#if !FEW
    if lane < MERGE {
        for (var i = lane + MERGE; i < WG; i += MERGE) {
            best = better(best, found[i]);
        }
        found[lane] = best;
    }
    workgroupBarrier();
#endif
    if lane == 0u {
        for (var i = 1u; i < min(MERGE, WG); i += 1u) {
            best = better(best, found[i]);
        }
        y[t] = select(best.y, 0xFFFFFFFFu, best.x == NAN_ORDER);
    }
}
