// all_reduce: y[i] = p0[FIRST + i] + p1[FIRST + i] + ..., from left to right; MAX: the largest instead
//
// p0 .. p6  (FIRST + N or more,)  f32  read    p1 to p6 optional, by the switches P1 to P6
// y         (N,)                  f32  write
//
// MAX works on bits, since WGSL may assume that floats are finite: a NaN gives the quiet NaN, of
// zeros the first stays. FOURS: N and FIRST are multiples of 4.
// Dispatch: each workgroup does EACH * WG of `elem`, neighbouring invocations neighbouring ones.
// Reference: core/src/kernels/all_reduce.rs.

const WG: u32 = 64u;
const EACH: u32 = 4u;

struct Args {
    N: u32,
    FIRST: u32,
}

#if MAX
alias elem = u32;
const WIDTH: u32 = 1u;

#import order

fn reduce(a: elem, b: elem) -> elem {
    if order(a) == NAN_ORDER || order(b) == NAN_ORDER {
        return 0x7FC00000u;
    }
    return select(a, b, order(b) > order(a));
}
#else
#if FOURS
alias elem = vec4<f32>;
const WIDTH: u32 = 4u;
#else
alias elem = f32;
const WIDTH: u32 = 1u;
#endif

fn reduce(a: elem, b: elem) -> elem {
    return a + b;
}
#endif

@group(0) @binding(0) var<storage, read> p0: array<elem>;
#if P1
@group(0) @binding(1) var<storage, read> p1: array<elem>;
#endif
#if P2
@group(0) @binding(2) var<storage, read> p2: array<elem>;
#endif
#if P3
@group(0) @binding(3) var<storage, read> p3: array<elem>;
#endif
#if P4
@group(0) @binding(4) var<storage, read> p4: array<elem>;
#endif
#if P5
@group(0) @binding(5) var<storage, read> p5: array<elem>;
#endif
#if P6
@group(0) @binding(6) var<storage, read> p6: array<elem>;
#endif
@group(0) @binding(7) var<storage, read_write> y: array<elem>;
@group(0) @binding(8) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.x + group.y * groups.x) * (EACH * WG) + lane;
    for (var j = 0u; j < EACH; j += 1u) {
        let i = first + j * WG;
        if i < args.N / WIDTH {
            let at = args.FIRST / WIDTH + i;
            var sum = p0[at];
#if P1
            sum = reduce(sum, p1[at]);
#endif
#if P2
            sum = reduce(sum, p2[at]);
#endif
#if P3
            sum = reduce(sum, p3[at]);
#endif
#if P4
            sum = reduce(sum, p4[at]);
#endif
#if P5
            sum = reduce(sum, p5[at]);
#endif
#if P6
            sum = reduce(sum, p6[at]);
#endif
            y[i] = sum;
        }
    }
}
