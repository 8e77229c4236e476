// load_loss: loss = COEFF (cv2(importance) + cv2(load)), cv2 = variance / (mean^2 + 1e-10), and its gradients
//
// importance    (E,)  f32  read
// load          (E,)  f32  read
// loss          (1,)  f32  write
// d_importance  (E,)  f32  write
// d_load        (E,)  f32  write
//
// The variance is divided by args.DEGREES: E - 1, or E. Dispatch (1, 1, 1).
// Source: arXiv:1701.06538, eq. 7 and 11. Reference: core/src/kernels/load_loss.rs.

const WG: u32 = 256u;

struct Args {
    E: u32,
    DEGREES: u32,
    COEFF: f32,
}

@group(0) @binding(0) var<storage, read> importance: array<f32>;
@group(0) @binding(1) var<storage, read> load: array<f32>;
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;
@group(0) @binding(3) var<storage, read_write> d_importance: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_load: array<f32>;
@group(0) @binding(5) var<uniform> args: Args;

#import row

struct Spread {
    mean: f32,
    variance: f32,
    below: f32,
}

fn value(which: u32, e: u32) -> f32 {
    if which == 0u {
        return importance[e];
    }
    return load[e];
}

fn spread(which: u32, lane: u32) -> Spread {
    var sum = 0.0;
    for (var e = lane; e < args.E; e += STEP) {
        sum += value(which, e);
    }
    let mean = row_sum(sum, lane) / f32(args.E);
    var squares = 0.0;
    for (var e = lane; e < args.E; e += STEP) {
        let difference = value(which, e) - mean;
        squares += difference * difference;
    }
    let variance = row_sum(squares, lane) / f32(args.DEGREES);
    return Spread(mean, variance, mean * mean + 1e-10);
}

fn slope(s: Spread, x: f32) -> f32 {
    let rises = 2.0 * (x - s.mean) / f32(args.DEGREES);
    let below = 2.0 * s.mean / f32(args.E);
    return args.COEFF * (rises - s.variance / s.below * below) / s.below;
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    let a = spread(0u, lane);
    let b = spread(1u, lane);
    for (var e = lane; e < args.E; e += STEP) {
        d_importance[e] = slope(a, importance[e]);
        d_load[e] = slope(b, load[e]);
    }
    if lane == 0u {
        loss[0] = args.COEFF * (a.variance / a.below + b.variance / b.below);
    }
}
