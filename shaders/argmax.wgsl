// argmax: y[t] = the smallest i with x[t, i] = max_i x[t, i] along an axis, or 0xFFFFFFFF if row t
// holds a NaN. MIN: of the smallest element. LAST: the largest such i. IDS: ids[t, i] instead of i.
//
// x    (OUTER, C, INNER)  f32, read as u32  read
// y    (OUTER, INNER)     u32               write
// ids  (OUTER, C, INNER)  u32               read   optional
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
    INNER: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
#if IDS
@group(0) @binding(2) var<storage, read> ids: array<u32>;
#endif
@group(0) @binding(3) var<uniform> args: Args;

#import axis
#import order

var<workgroup> found: array<vec2<u32>, WG>;

/// What is greatest for the element that is wanted.
fn key(bits: u32) -> u32 {
    let o = order(bits);
#if MIN
    return select(~o, NAN_ORDER, o == NAN_ORDER);
#else
    return o;
#endif
}

/// The better of two (key, index) pairs.
fn better(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
#if LAST
    return select(a, b, b.x > a.x || (b.x == a.x && b.y > a.y));
#else
    return select(a, b, b.x > a.x || (b.x == a.x && b.y < a.y));
#endif
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
    let row = axis_at(t, 0u);
    // (0, any) loses to every element: the key of an infinity is greater than 0.
    var best = vec2<u32>(0u, 0xFFFFFFFFu);
    for (var c = lane; c < args.C; c += WG) {
        let value = key(x[row + c * args.INNER]);
#if LAST
        if value >= best.x {
#else
        if value > best.x {
#endif
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
        var found_id = best.y;
#if IDS
        found_id = ids[axis_at(t, min(found_id, args.C - 1u))];
#endif
        y[t] = select(found_id, 0xFFFFFFFFu, best.x == NAN_ORDER);
    }
}
