// attention, one workgroup per (t, h), WG keys a tile: each invocation scores one key, then they
// split the columns of v. Four barriers a tile.

// Invocations that hold one column each for their part of a tile's keys.
const PARTS: u32 = WG / COLS;
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
    if id >= args.T * H {
        return;
    }
    let t = id / H;
    let h = id % H;
    let keys = min(step.pos + t + 1u, args.S);
    let cache = (h / GROUP) * args.S * COLS;
    for (var c = lane; c < COLS; c += WG) {
        query[c] = q[id * COLS + c] * SCALE;
    }
    workgroupBarrier();
    let column = lane % COLS;
    let part = lane / COLS;
    var largest = LOWEST;
    // Of the keys that this invocation scored, and of the column for the keys of its part.
    var sum = 0.0;
    var sums = few();
    for (var s = 0u; s < keys; s += WG) {
        var score = LOWEST;
        if s + lane < keys {
            var d = few();
            let at = cache + (s + lane) * COLS;
            for (var c = 0u; c < COLS; c += 1u) {
                d += query[c] * unpack(k_cache[at + c]);
            }
            score = dot(d, few(1.0));
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
        let p = select(0.0, exp(score - larger), s + lane < keys);
        sum = sum * scale + p;
        scores[lane] = p;
        workgroupBarrier();
        sums *= scale;
        if part < PARTS {
            for (var i = part; i < min(keys - s, WG); i += PARTS) {
                sums += scores[i] * unpack(v_cache[cache + (s + i) * COLS + column]);
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
    if lane < COLS {
        var total = 0.0;
        for (var i = 0u; i < min(SLICE, WG); i += 1u) {
            total += part_sum[i];
        }
        for (var i = 1u; i < PARTS; i += 1u) {
            sums += part_sums[i * COLS + lane];
        }
        y[id * COLS + lane] = sums / total;
    }
}
