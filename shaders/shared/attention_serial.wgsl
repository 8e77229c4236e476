// attention, one invocation per row. All invocations of a workgroup read the same keys in step,
// which compilers for CPUs turn into one load for all. With SPLIT the invocations share one row
// instead and split its keys, with one barrier before they merge.

#if SPLIT
const ROWS: u32 = 1u;
var<workgroup> all_largest: array<f32, WG>;
var<workgroup> all_sum: array<f32, WG>;
var<workgroup> all_sums: array<few, WG * COLS_V>;
#else
const ROWS: u32 = WG;
#endif

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group.x + group.y * groups.x;
    let b = (id % ALL_KVH) / KVH;
    let g = id % KVH;
    let heads = heads_of(g);
    let rows = args.T * heads;
    let first = (id / ALL_KVH) * ROWS;
    if first >= rows {
        return;
    }
#if SPLIT
    let row = first;
    let own_keys = 4u * lane;
    let s_step = 4u * WG;
    let one = lane == 0u;
#else
    let row = min(first + lane, rows - 1u);
    let own_keys = 0u;
    let s_step = 4u;
    let one = true;
#endif
    let x = query_of(b, g, row);
    let q_at = query_row(x) * COLS;
    let y_at = query_row(x) * COLS_V;
    var query: array<few, COLS>;
    for (var c = 0u; c < COLS; c += 1u) {
        query[c] = q[q_at + c] * SCALE;
    }
    let keys = seen_keys(b, x.t);
    // The same for all invocations, so that they load the same keys.
    let begin = seen_keys(b, first / heads).first;
    let end = seen_keys(b, (min(first + ROWS, rows) - 1u) / heads).end;
    let cache = cache_row(b, g);
    var largest = start_largest(x.h);
    var sum = start_sum(one);
    var sums: array<few, COLS_V>;
    for (var s = begin + own_keys; s < end; s += s_step) {
        let row0 = key_row(cache, x.t, s);
        let row1 = key_row(cache, x.t, min(s + 1u, end - 1u));
        let row2 = key_row(cache, x.t, min(s + 2u, end - 1u));
        let row3 = key_row(cache, x.t, min(s + 3u, end - 1u));
        var d0 = few();
        var d1 = few();
        var d2 = few();
        var d3 = few();
        for (var c = 0u; c < COLS; c += 1u) {
            let a = query[c];
            d0 += a * k_few(row0 * K_ROW, c);
            d1 += a * k_few(row1 * K_ROW, c);
            d2 += a * k_few(row2 * K_ROW, c);
            d3 += a * k_few(row3 * K_ROW, c);
        }
        let one = few(1.0);
        let dots = vec4<f32>(dot(d0, one), dot(d1, one), dot(d2, one), dot(d3, one));
        let scores = vec4<f32>(
            seen_score(x, dots.x, s, keys),
            seen_score(x, dots.y, s + 1u, keys),
            seen_score(x, dots.z, s + 2u, keys),
            seen_score(x, dots.w, s + 3u, keys),
        );
        let seen = scores > vec4<f32>(LOWEST);
        let top = max(max(scores.x, scores.y), max(scores.z, scores.w));
        let larger = max(largest, top);
        let p = select(vec4<f32>(0.0), exp(scores - larger), seen);
        let scale = exp(largest - larger);
        largest = larger;
        sum = sum * scale + dot(p, vec4<f32>(1.0));
        for (var c = 0u; c < COLS_V; c += 1u) {
            sums[c] = sums[c] * scale
                + p.x * v_few(row0 * V_ROW, c)
                + p.y * v_few(row1 * V_ROW, c)
                + p.z * v_few(row2 * V_ROW, c)
                + p.w * v_few(row3 * V_ROW, c);
        }
    }
#if SPLIT
    all_largest[lane] = largest;
    all_sum[lane] = sum;
    for (var c = 0u; c < COLS_V; c += 1u) {
        all_sums[lane * COLS_V + c] = sums[c];
    }
    workgroupBarrier();
    for (var i = 0u; i < WG; i += 1u) {
        largest = max(largest, all_largest[i]);
    }
    sum = 0.0;
    for (var i = 0u; i < WG; i += 1u) {
        sum += all_sum[i] * exp(all_largest[i] - largest);
    }
    for (var c = lane; c < COLS_V; c += WG) {
        var total = few();
        for (var i = 0u; i < WG; i += 1u) {
            total += all_sums[i * COLS_V + c] * exp(all_largest[i] - largest);
        }
        y[y_at + c] = divide(total, sum);
    }
#else
    if first + lane < rows {
        for (var c = 0u; c < COLS_V; c += 1u) {
            y[y_at + c] = divide(sums[c], sum);
        }
    }
#endif
}
