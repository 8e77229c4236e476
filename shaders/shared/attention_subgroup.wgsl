// attention, one workgroup per (t, h): each subgroup takes four keys at a time, whose rows its
// invocations read side by side, and has a softmax of its own. No barrier before they merge.

// Bounds that hold for every subgroup size from MIN_SIZE on: subgroups of a workgroup, and columns
// of an invocation.
const MIN_SIZE: u32 = 32u;
const SUBGROUPS_MOST: u32 = WG / MIN_SIZE;
const OWN_COLS: u32 = (COLS + MIN_SIZE - 1u) / MIN_SIZE;

var<workgroup> all_largest: array<f32, SUBGROUPS_MOST>;
var<workgroup> all_sum: array<f32, SUBGROUPS_MOST>;
var<workgroup> all_sums: array<few, SUBGROUPS_MOST * COLS>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) own: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) own_lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    let id = group.x + group.y * groups.x;
    if id >= args.T * H {
        return;
    }
    let keys = min(step.pos + id / H + 1u, args.S);
    let cache = (id % H / GROUP) * args.S * COLS;
    var query: array<few, OWN_COLS>;
    for (var n = 0u; n < OWN_COLS; n += 1u) {
        let c = own_lane + n * size;
        if c < COLS {
            query[n] = q[id * COLS + c] * SCALE;
        }
    }
    var largest = LOWEST;
    var sum = 0.0;
    var sums: array<few, OWN_COLS>;
    // The same number of turns for all subgroups: browsers ask for uniform control flow.
    for (var first = 0u; first < keys; first += 4u * subgroups) {
        let s = first + 4u * own;
        let at0 = cache + min(s, keys - 1u) * COLS;
        let at1 = cache + min(s + 1u, keys - 1u) * COLS;
        let at2 = cache + min(s + 2u, keys - 1u) * COLS;
        let at3 = cache + min(s + 3u, keys - 1u) * COLS;
        var part = vec4<f32>();
        for (var n = 0u; n < OWN_COLS; n += 1u) {
            let c = own_lane + n * size;
            if c < COLS {
                let a = query[n];
                part += vec4<f32>(
                    dot(a, unpack(k_cache[at0 + c])),
                    dot(a, unpack(k_cache[at1 + c])),
                    dot(a, unpack(k_cache[at2 + c])),
                    dot(a, unpack(k_cache[at3 + c])),
                );
            }
        }
        let dots = subgroupAdd(part);
        let seen = vec4<u32>(s, s + 1u, s + 2u, s + 3u) < vec4<u32>(keys);
        let scores = select(vec4<f32>(LOWEST), dots, seen);
        let top = max(max(scores.x, scores.y), max(scores.z, scores.w));
        let larger = max(largest, top);
        let p = select(vec4<f32>(), exp(scores - larger), seen);
        let scale = exp(largest - larger);
        largest = larger;
        sum = sum * scale + dot(p, vec4<f32>(1.0));
        for (var n = 0u; n < OWN_COLS; n += 1u) {
            let c = own_lane + n * size;
            if c < COLS {
                sums[n] = sums[n] * scale
                    + p.x * unpack(v_cache[at0 + c])
                    + p.y * unpack(v_cache[at1 + c])
                    + p.z * unpack(v_cache[at2 + c])
                    + p.w * unpack(v_cache[at3 + c]);
            }
        }
    }
    all_largest[own] = largest;
    all_sum[own] = sum;
    for (var n = 0u; n < OWN_COLS; n += 1u) {
        let c = own_lane + n * size;
        if c < COLS {
            all_sums[own * COLS + c] = sums[n];
        }
    }
    workgroupBarrier();
    for (var i = 0u; i < subgroups; i += 1u) {
        largest = max(largest, all_largest[i]);
    }
    sum = 0.0;
    for (var i = 0u; i < subgroups; i += 1u) {
        sum += all_sum[i] * exp(all_largest[i] - largest);
    }
    for (var c = lane; c < COLS; c += WG) {
        var total = few();
        for (var i = 0u; i < subgroups; i += 1u) {
            total += all_sums[i * COLS + c] * exp(all_largest[i] - largest);
        }
        y[id * COLS + c] = total / sum;
    }
}
