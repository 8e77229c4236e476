// attention, one workgroup per (t, h), WG keys a tile: each invocation scores one key, then they
// split the columns of v. Four barriers a tile.

// Invocations that hold one column each for their part of a tile's keys.
const PARTS: u32 = WG / COLS_V;
// Scores of which one invocation finds the largest; all then look at the WG / SLICE results.
const SLICE: u32 = 16u;

var<workgroup> query: array<few, COLS>;
var<workgroup> scores: array<f32, WG>;
var<workgroup> slice_largest: array<f32, (WG + SLICE - 1u) / SLICE>;
var<workgroup> part_sum: array<f32, WG>;
var<workgroup> part_sums: array<few, WG>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group.x + group.y * groups.x;
    if id >= B * args.T * H {
        return;
    }
    let x = Query(id / (args.T * H), (id / H) % args.T, id % H);
    let keys = seen_keys(x.b, x.t);
    let cache = cache_row(x.b, kv_head(x.h));
    for (var c = lane; c < COLS; c += WG) {
        query[c] = q[query_row(x) * COLS + c] * SCALE;
    }
    workgroupBarrier();
    let column = lane % COLS_V;
    let part = lane / COLS_V;
    var largest = start_largest(x.h);
    // Of the keys that this invocation scored, and of the column for the keys of its part.
    var sum = start_sum(lane == 0u);
    var sums = few();
    for (var s = keys.first; s < keys.end; s += WG) {
        var score = LOWEST;
        if s + lane < keys.end {
            var d = few();
            let at = key_row(cache, x.t, s + lane) * K_ROW;
            for (var c = 0u; c < COLS; c += 1u) {
                d += query[c] * k_few(at, c);
            }
            score = seen_score(x, dot(d, few(1.0)), s + lane, keys);
        }
        scores[lane] = score;
        workgroupBarrier();
        if lane < (WG + SLICE - 1u) / SLICE {
            var high = LOWEST;
            for (var i = lane * SLICE; i < min(lane * SLICE + SLICE, WG); i += 1u) {
                high = max(high, scores[i]);
            }
            slice_largest[lane] = high;
        }
        workgroupBarrier();
        var larger = largest;
        for (var i = 0u; i < (WG + SLICE - 1u) / SLICE; i += 1u) {
            larger = max(larger, slice_largest[i]);
        }
        let scale = exp(largest - larger);
        largest = larger;
        let p = select(0.0, exp(score - larger), score > LOWEST);
        sum = sum * scale + p;
        scores[lane] = p;
        workgroupBarrier();
        sums *= scale;
        if part < PARTS {
            for (var i = part; i < min(keys.end - s, WG); i += PARTS) {
                sums += scores[i] * v_few(key_row(cache, x.t, s + i) * V_ROW, column);
            }
        }
        workgroupBarrier();
    }
    part_sum[lane] = sum;
    part_sums[lane] = sums;
    workgroupBarrier();
    if lane < SLICE {
        for (var i = lane + SLICE; i < WG; i += SLICE) {
            sum += part_sum[i];
        }
        part_sum[lane] = sum;
    }
    workgroupBarrier();
    if lane < COLS_V {
        var total = 0.0;
        for (var i = 0u; i < min(SLICE, WG); i += 1u) {
            total += part_sum[i];
        }
        for (var i = 1u; i < PARTS; i += 1u) {
            sums += part_sums[i * COLS_V + lane];
        }
        y[query_row(x) * COLS_V + lane] = divide(sums, total);
    }
}
