// quantize_activations: for each 32 elements of a row, s = max |x| / 127, q = round(x / s)
//
// x      (T, K)              f32  read
// q      (T, CHUNKS) of 8    u32  write: four signed bytes a word, zeros beyond K
// sides  (T, CHUNKS) of 2    f32  write: s, and s times the sum of q
//
// Dispatch: an invocation has one chunk of a row; no barrier.
// Source: fastllm, INF_INT8_GROUP32. Reference: core/src/kernels/quantize_activations.rs.

const WG: u32 = 64u;

struct Args {
    T: u32,
    K: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> q: array<u32>;
@group(0) @binding(2) var<storage, read_write> sides: array<vec2<f32>>;
@group(0) @binding(3) var<uniform> args: Args;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.x + group.y * groups.x) * WG + lane;
    let chunks = (args.K + 31u) / 32u;
    if i >= args.T * chunks {
        return;
    }
    let first = i % chunks * 32u;
    let row = i / chunks * args.K;
    let end = min(first + 32u, args.K);
    var largest = 0.0;
    for (var k = first; k < end; k += 1u) {
        largest = max(largest, abs(x[row + k]));
    }
    let inverse = select(0.0, 127.0 / largest, largest > 0.0);
    var sum = 0;
    for (var j = 0u; j < 8u; j += 1u) {
        var word = 0u;
        for (var b = 0u; b < 4u; b += 1u) {
            let k = first + 4u * j + b;
            if k < end {
                let value = i32(round(x[row + k] * inverse));
                sum += value;
                word |= (u32(value) & 255u) << (8u * b);
            }
        }
        q[8u * i + j] = word;
    }
    let scale = largest / 127.0;
    sides[i] = vec2<f32>(scale, scale * f32(sum));
}
