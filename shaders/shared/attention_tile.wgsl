// attention, one workgroup per ROWS rows of one KV head: k and v are read once for all of them,
// in tiles of KEYS keys. WG / ROWS invocations share a row. Four barriers a tile.

// Rows of a workgroup, keys of a tile.
const ROWS: u32 = 16u;
const KEYS: u32 = 16u;
// Invocations of a row, and columns of v of each.
const LANES: u32 = WG / ROWS;
const OWN_COLS: u32 = (COLS_V + LANES - 1u) / LANES;
// One more, so that rows start in different banks.
const PITCH: u32 = max(COLS, COLS_V) + 1u;

var<workgroup> queries: array<few, ROWS * COLS>;
var<workgroup> tile: array<few, KEYS * PITCH>;
var<workgroup> scores: array<f32, ROWS * KEYS>;
var<workgroup> weights: array<f32, ROWS * KEYS>;

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
    if (id / ALL_KVH) * ROWS >= rows {
        return;
    }
    // The longest rows first: they finish last.
    let first = ((rows - 1u) / ROWS - id / ALL_KVH) * ROWS;
    let begin = seen_keys(b, first / heads).first;
    let end = seen_keys(b, (min(first + ROWS, rows) - 1u) / heads).end;
    let cache = cache_row(b, g);
    for (var i = lane; i < ROWS * COLS; i += WG) {
        let other = query_of(b, g, min(first + i / COLS, rows - 1u));
        queries[i] = q[query_row(other) * COLS + i % COLS] * SCALE;
    }
    let own = lane / LANES;
    let own_lane = lane % LANES;
    let x = query_of(b, g, min(first + own, rows - 1u));
    let keys = seen_keys(b, x.t);
    var largest = start_largest(x.h);
    var sum = start_sum(true);
    var sums: array<few, OWN_COLS>;
    for (var s = begin; s < end; s += KEYS) {
        for (var i = lane; i < KEYS * COLS; i += WG) {
            let row = cache + min(s + i / COLS, end - 1u) * NEXT_KEY;
            tile[(i / COLS) * PITCH + i % COLS] = k_few(row * K_ROW, i % COLS);
        }
        workgroupBarrier();
        for (var j = own_lane; j < KEYS; j += LANES) {
            var d = few();
            for (var c = 0u; c < COLS; c += 1u) {
                d += queries[own * COLS + c] * tile[j * PITCH + c];
            }
            scores[own * KEYS + j] = seen_score(x, dot(d, few(1.0)), s + j, keys);
        }
        workgroupBarrier();
        var larger = largest;
        for (var j = 0u; j < KEYS; j += 1u) {
            larger = max(larger, scores[own * KEYS + j]);
        }
        for (var j = own_lane; j < KEYS; j += LANES) {
            let score = scores[own * KEYS + j];
            weights[own * KEYS + j] = select(0.0, exp(score - larger), score > LOWEST);
        }
        for (var i = lane; i < KEYS * COLS_V; i += WG) {
            let row = cache + min(s + i / COLS_V, end - 1u) * NEXT_KEY;
            tile[(i / COLS_V) * PITCH + i % COLS_V] = v_few(row * V_ROW, i % COLS_V);
        }
        workgroupBarrier();
        let scale = exp(largest - larger);
        largest = larger;
        sum *= scale;
        for (var n = 0u; n < OWN_COLS; n += 1u) {
            sums[n] *= scale;
        }
        for (var j = 0u; j < KEYS; j += 1u) {
            let p = weights[own * KEYS + j];
            sum += p;
            for (var n = 0u; n < OWN_COLS; n += 1u) {
                let c = min(own_lane + n * LANES, COLS_V - 1u);
                sums[n] += p * tile[j * PITCH + c];
            }
        }
        workgroupBarrier();
    }
    if first + own < rows {
        for (var n = 0u; n < OWN_COLS; n += 1u) {
            let c = own_lane + n * LANES;
            if c < COLS_V {
                y[query_row(x) * COLS_V + c] = divide(sums[n], sum);
            }
        }
    }
}
