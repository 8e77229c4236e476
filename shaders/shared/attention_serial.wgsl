// attention, one invocation per row. All invocations of a workgroup read the same keys in step,
// which compilers for CPUs turn into one load for all. With SPLIT the invocations share one row
// instead and split its keys, with one barrier before they merge.

#if SPLIT
const ROWS: u32 = 1u;
var<workgroup> all_largest: array<f32, WG>;
var<workgroup> all_sum: array<f32, WG>;
var<workgroup> all_sums: array<few, WG * COLS>;
#else
const ROWS: u32 = WG;
#endif

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let rows = args.T * GROUP;
    let id = group.x + group.y * groups.x;
    let g = id % KVH;
    let first = (id / KVH) * ROWS;
    if first >= rows {
        return;
    }
#if SPLIT
    let row = first;
    let s_first = 4u * lane;
    let s_step = 4u * WG;
#else
    let row = min(first + lane, rows - 1u);
    let s_first = 0u;
    let s_step = 4u;
#endif
    let q_at = row_start(g, row);
    var query: array<few, COLS>;
    for (var c = 0u; c < COLS; c += 1u) {
        query[c] = q[q_at + c] * SCALE;
    }
    let keys = row_keys(row);
    // The same for all invocations, so that they load the same keys.
    let end = row_keys(min(first + ROWS, rows) - 1u);
    let cache = g * args.S * COLS;
    var largest = LOWEST;
    var sum = 0.0;
    var sums: array<few, COLS>;
    for (var s = s_first; s < end; s += s_step) {
        let at0 = cache + s * COLS;
        let at1 = cache + min(s + 1u, end - 1u) * COLS;
        let at2 = cache + min(s + 2u, end - 1u) * COLS;
        let at3 = cache + min(s + 3u, end - 1u) * COLS;
        var d0 = few();
        var d1 = few();
        var d2 = few();
        var d3 = few();
        for (var c = 0u; c < COLS; c += 1u) {
            let a = query[c];
            d0 += a * unpack(k_cache[at0 + c]);
            d1 += a * unpack(k_cache[at1 + c]);
            d2 += a * unpack(k_cache[at2 + c]);
            d3 += a * unpack(k_cache[at3 + c]);
        }
        let one = few(1.0);
        let dots = vec4<f32>(dot(d0, one), dot(d1, one), dot(d2, one), dot(d3, one));
        let seen = vec4<u32>(s, s + 1u, s + 2u, s + 3u) < vec4<u32>(keys);
        let scores = select(vec4<f32>(LOWEST), dots, seen);
        let top = max(max(scores.x, scores.y), max(scores.z, scores.w));
        let larger = max(largest, top);
        let p = select(vec4<f32>(0.0), exp(scores - larger), seen);
        let scale = exp(largest - larger);
        largest = larger;
        sum = sum * scale + dot(p, vec4<f32>(1.0));
        for (var c = 0u; c < COLS; c += 1u) {
            sums[c] = sums[c] * scale
                + p.x * unpack(v_cache[at0 + c])
                + p.y * unpack(v_cache[at1 + c])
                + p.z * unpack(v_cache[at2 + c])
                + p.w * unpack(v_cache[at3 + c]);
        }
    }
#if SPLIT
    all_largest[lane] = largest;
    all_sum[lane] = sum;
    for (var c = 0u; c < COLS; c += 1u) {
        all_sums[lane * COLS + c] = sums[c];
    }
    workgroupBarrier();
    for (var i = 0u; i < WG; i += 1u) {
        largest = max(largest, all_largest[i]);
    }
    sum = 0.0;
    for (var i = 0u; i < WG; i += 1u) {
        sum += all_sum[i] * exp(all_largest[i] - largest);
    }
    for (var c = lane; c < COLS; c += WG) {
        var total = few();
        for (var i = 0u; i < WG; i += 1u) {
            total += all_sums[i * COLS + c] * exp(all_largest[i] - largest);
        }
        y[q_at + c] = total / sum;
    }
#else
    if first + lane < rows {
        for (var c = 0u; c < COLS; c += 1u) {
            y[q_at + c] = sums[c] / sum;
        }
    }
#endif
}
