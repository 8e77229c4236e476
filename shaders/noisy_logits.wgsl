// noisy_logits: y = clean + noise * (softplus(raw) + 0.01)
//
// clean  (N,)  f32  read
// raw    (N,)  f32  read   what the noise's standard deviation is made of
// noise  (N,)  f32  read   normal numbers
// y      (N,)  f32  write
//
// Dispatch: an invocation for each element.
// Source: arXiv:1701.06538, eq. 4. Reference: core/src/kernels/noisy_logits.rs.

const WG: u32 = 64u;
const ACT: u32 = 0u;

struct Args {
    N: u32,
}

@group(0) @binding(0) var<storage, read> clean: array<f32>;
@group(0) @binding(1) var<storage, read> raw: array<f32>;
@group(0) @binding(2) var<storage, read> noise: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> args: Args;

#import activation

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + lane;
    if i < args.N {
        y[i] = clean[i] + noise[i] * (act_softplus(raw[i]) + 0.01);
    }
}
