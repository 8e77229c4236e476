// attention, one workgroup per (t, h): each subgroup takes four keys at a time, whose rows its
// invocations read side by side, and has a softmax of its own. No barrier before they merge.

// Bounds that hold for every subgroup size from MIN_SIZE on: subgroups of a workgroup, and columns
// of an invocation.
const MIN_SIZE: u32 = 32u;
const SUBGROUPS_MOST: u32 = WG / MIN_SIZE;
const OWN_COLS: u32 = (COLS + MIN_SIZE - 1u) / MIN_SIZE;
const OWN_COLS_V: u32 = (COLS_V + MIN_SIZE - 1u) / MIN_SIZE;

var<workgroup> all_largest: array<f32, SUBGROUPS_MOST>;
var<workgroup> all_sum: array<f32, SUBGROUPS_MOST>;
var<workgroup> all_sums: array<few, SUBGROUPS_MOST * COLS_V>;

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
    if id >= B * args.T * H {
        return;
    }
    let x = Query(id / (args.T * H), (id / H) % args.T, id % H);
    let keys = seen_keys(x.b, x.t);
    let cache = cache_row(x.b, kv_head(x.h));
    let q_at = query_row(x) * COLS;
    let y_at = query_row(x) * COLS_V;
    var query: array<few, OWN_COLS>;
    for (var n = 0u; n < OWN_COLS; n += 1u) {
        let c = own_lane + n * size;
        if c < COLS {
            query[n] = q[q_at + c] * SCALE;
        }
    }
    var largest = start_largest(x.h);
    var sum = start_sum(own == 0u);
    var sums: array<few, OWN_COLS_V>;
    // The same number of turns for all subgroups: browsers ask for uniform control flow.
    for (var first = keys.first; first < keys.end; first += 4u * subgroups) {
        let s = first + 4u * own;
        let row0 = key_row(cache, x.t, min(s, keys.end - 1u));
        let row1 = key_row(cache, x.t, min(s + 1u, keys.end - 1u));
        let row2 = key_row(cache, x.t, min(s + 2u, keys.end - 1u));
        let row3 = key_row(cache, x.t, min(s + 3u, keys.end - 1u));
        var part = vec4<f32>();
        for (var n = 0u; n < OWN_COLS; n += 1u) {
            let c = own_lane + n * size;
            if c < COLS {
                let a = query[n];
                part += vec4<f32>(
                    dot(a, k_few(row0 * K_ROW, c)),
                    dot(a, k_few(row1 * K_ROW, c)),
                    dot(a, k_few(row2 * K_ROW, c)),
                    dot(a, k_few(row3 * K_ROW, c)),
                );
            }
        }
        let dots = subgroupAdd(part);
        let scores = vec4<f32>(
            seen_score(x, dots.x, s, keys),
            seen_score(x, dots.y, s + 1u, keys),
            seen_score(x, dots.z, s + 2u, keys),
            seen_score(x, dots.w, s + 3u, keys),
        );
        let seen = scores > vec4<f32>(LOWEST);
        let top = max(max(scores.x, scores.y), max(scores.z, scores.w));
        let larger = max(largest, top);
        let p = select(vec4<f32>(), exp(scores - larger), seen);
        let scale = exp(largest - larger);
        largest = larger;
        sum = sum * scale + dot(p, vec4<f32>(1.0));
        for (var n = 0u; n < OWN_COLS_V; n += 1u) {
            let c = own_lane + n * size;
            if c < COLS_V {
                sums[n] = sums[n] * scale
                    + p.x * v_few(row0 * V_ROW, c)
                    + p.y * v_few(row1 * V_ROW, c)
                    + p.z * v_few(row2 * V_ROW, c)
                    + p.w * v_few(row3 * V_ROW, c);
            }
        }
    }
    all_largest[own] = largest;
    all_sum[own] = sum;
    for (var n = 0u; n < OWN_COLS_V; n += 1u) {
        let c = own_lane + n * size;
        if c < COLS_V {
            all_sums[own * COLS_V + c] = sums[n];
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
    for (var c = lane; c < COLS_V; c += WG) {
        var total = few();
        for (var i = 0u; i < subgroups; i += 1u) {
            total += all_sums[i * COLS_V + c] * exp(all_largest[i] - largest);
        }
        y[y_at + c] = divide(total, sum);
    }
}
