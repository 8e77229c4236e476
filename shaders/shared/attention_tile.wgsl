// attention, one workgroup per ROWS rows of one KV head: k and v are read once for all of them,
// in tiles of KEYS keys. WG / ROWS invocations share a row. Four barriers a tile.

// Rows of a workgroup, keys of a tile.
const ROWS: u32 = 16u;
const KEYS: u32 = 16u;
// Invocations of a row, and columns and keys of each.
const LANES: u32 = WG / ROWS;
const OWN_COLS: u32 = (COLS + LANES - 1u) / LANES;
// One more, so that rows start in different banks.
const PITCH: u32 = COLS + 1u;

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
    let rows = args.T * GROUP;
    let id = group.x + group.y * groups.x;
    let g = id % KVH;
    if (id / KVH) * ROWS >= rows {
        return;
    }
    // The longest rows first: they finish last.
    let first = ((rows - 1u) / ROWS - id / KVH) * ROWS;
    let end = row_keys(min(first + ROWS, rows) - 1u);
    let cache = g * args.S * COLS;
    for (var i = lane; i < ROWS * COLS; i += WG) {
        let row = min(first + i / COLS, rows - 1u);
        queries[i] = q[row_start(g, row) + i % COLS] * SCALE;
    }
    let own = lane / LANES;
    let own_lane = lane % LANES;
    let row = min(first + own, rows - 1u);
    let keys = row_keys(row);
    var largest = LOWEST;
    var sum = 0.0;
    var sums: array<few, OWN_COLS>;
    for (var s = 0u; s < end; s += KEYS) {
        for (var i = lane; i < KEYS * COLS; i += WG) {
            let at = cache + min(s + i / COLS, end - 1u) * COLS + i % COLS;
            tile[(i / COLS) * PITCH + i % COLS] = unpack(k_cache[at]);
        }
        workgroupBarrier();
        for (var j = own_lane; j < KEYS; j += LANES) {
            var d = few();
            for (var c = 0u; c < COLS; c += 1u) {
                d += queries[own * COLS + c] * tile[j * PITCH + c];
            }
            scores[own * KEYS + j] = select(LOWEST, dot(d, few(1.0)), s + j < keys);
        }
        workgroupBarrier();
        var larger = largest;
        for (var j = 0u; j < KEYS; j += 1u) {
            larger = max(larger, scores[own * KEYS + j]);
        }
        for (var j = own_lane; j < KEYS; j += LANES) {
            let p = exp(scores[own * KEYS + j] - larger);
            weights[own * KEYS + j] = select(0.0, p, s + j < keys);
        }
        for (var i = lane; i < KEYS * COLS; i += WG) {
            let at = cache + min(s + i / COLS, end - 1u) * COLS + i % COLS;
            tile[(i / COLS) * PITCH + i % COLS] = unpack(v_cache[at]);
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
                let c = min(own_lane + n * LANES, COLS - 1u);
                sums[n] += p * tile[j * PITCH + c];
            }
        }
        workgroupBarrier();
    }
    if first + own < rows {
        for (var n = 0u; n < OWN_COLS; n += 1u) {
            let c = own_lane + n * LANES;
            if c < COLS {
                y[row_start(g, row) + c] = sums[n] / sum;
            }
        }
    }
}
