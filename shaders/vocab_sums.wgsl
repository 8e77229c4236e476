// vocab_sums: what a rank that holds classes FIRST .. FIRST + C knows of the cross-entropy of row t with
// label y: sums[t] = (sum_c exp(x_c - m), x_y - m or 0 if y is not held, SMOOTH: sum_c (x_c - m)),
// m = largest[t]
//
// logits   (T, C)  f32  read
// labels   (T,)    u32  read
// largest  (T,)    f32  read   over all ranks' classes
// sums     (T, 3)  f32  write
//
// Dispatch: one workgroup per row; with SERIAL one invocation per row.
// Source: Megatron-LM, arXiv:1909.08053, section 3. Reference: core/src/kernels/vocab_sums.rs.

const WG: u32 = 256u;

struct Args {
    T: u32,
    C: u32,
    FIRST: u32,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> largest: array<f32>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;
@group(0) @binding(4) var<uniform> args: Args;

#import row

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
#if SERIAL
    let t = (group.x + group.y * groups.x) * WG + local;
    let lane = 0u;
#else
    let t = group.x + group.y * groups.x;
    let lane = local;
#endif
    if t >= args.T {
        return;
    }
    let first = t * args.C;
    let top = largest[t];
    var part = 0.0;
    var all = 0.0;
    for (var c = lane; c < args.C; c += STEP) {
        let x = logits[first + c] - top;
        part += exp(x);
#if SMOOTH
        all += x;
#endif
    }
    let exponentials = row_sum(part, lane);
#if SMOOTH
    all = row_sum(all, lane);
#endif
    if lane == 0u {
        // Labels before FIRST wrap to large numbers.
        let y = labels[t] - args.FIRST;
        sums[3u * t] = exponentials;
        sums[3u * t + 1u] = select(0.0, logits[first + min(y, args.C - 1u)] - top, y < args.C);
        sums[3u * t + 2u] = all;
    }
}
