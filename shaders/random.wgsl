// random: y[i] = random word, or a number made from it, of element i (see shared/philox.wgsl)
//
// y  (N,)  u32, or f32 as u32  write
//
// DISTRIBUTION 0: words; 1: uniform, in (A, A + B); 2: normal, A + B * N(0, 1) by Box and Muller:
// words 2 k and 2 k + 1 give numbers 2 k and 2 k + 1.
//
// Dispatch: each invocation does EACH neighbouring elements, which share their words.
// Reference: core/src/kernels/random.rs.

const WG: u32 = 64u;
const EACH: u32 = 4u;
const DISTRIBUTION: u32 = 0u;

struct Args {
    N: u32,
    FIRST: u32,
    WIDTH: u32,
    STRIDE: u32,
    STREAM: u32,
    SEED_LOW: u32,
    SEED_HIGH: u32,
    A: f32,
    B: f32,
}

@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@group(0) @binding(1) var<uniform> args: Args;

#import draw
#import negative_log

// cos(2 pi u), or sin, for u in (0, 1), within 2^-22: WGSL's own are only within 2^-11.
fn turn(u: f32, sine: bool) -> f32 {
    let quarter = floor(4.0 * u + 0.5);
    let a = (4.0 * u - quarter) * 1.5707963267948966;
    let a2 = a * a;
    let s = a * (1.0 + a2 * (-1.0 / 6.0 + a2 * (1.0 / 120.0 + a2 * (-1.0 / 5040.0 + a2 / 362880.0))));
    let c = 1.0 + a2 * (-0.5 + a2 * (1.0 / 24.0 + a2 * (-1.0 / 720.0 + a2 * (1.0 / 40320.0 - a2 / 3628800.0))));
    let q = (u32(quarter) + select(0u, 3u, sine)) % 4u;
    let value = select(c, s, q % 2u == 1u);
    return select(value, -value, q == 1u || q == 2u);
}

fn number(n: u32) -> u32 {
    if DISTRIBUTION == 0u {
        return word(n);
    }
    if DISTRIBUTION == 1u {
        return bitcast<u32>(args.A + args.B * to_uniform(word(n)));
    }
    let even = n - n % 2u;
    let radius = sqrt(2.0 * negative_log(to_uniform(word(even))));
    return bitcast<u32>(args.A + args.B * radius * turn(to_uniform(word(even + 1u)), n != even));
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = ((group.x + group.y * groups.x) * WG + local) * EACH;
    for (var i = first; i < min(first + EACH, args.N); i += 1u) {
        y[i] = number(number_of(i));
    }
}
