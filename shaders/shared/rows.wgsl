// Dot products of R rows of the weight with TB tokens at a time: each chunk of a row is read and
// decoded once for all TB tokens. linear.wgsl or gated.wgsl says what a row is.
//
// EXPERTS: each pair has rows of its own, so TB is 1. NORM: x is RMS-normalised: its elements are multiplied by
// those of `norm` on the way, the sums by what the sum of squares gives. QUADS: R is 4, and the sums of four rows go
// to store_quad together.
//
// A workgroup has one block of rows and one of tokens (the faster index). How rows are shared:
//   SUBGROUP   a subgroup, whatever its size, has R rows; ROWS rows a workgroup
//   otherwise  LANES invocations have R rows and meet in workgroup memory

const R: u32 = 2u;
const TB: u32 = 1u;
const WG: u32 = 64u;
#if SUBGROUP
const ROWS: u32 = 16u;
#else
const LANES: u32 = 32u;
const ROWS: u32 = WG / LANES * R;
#endif
const SUMS: u32 = R * TB;
const CHUNKS: u32 = (K + 31u) / 32u;

#if NORM
// Of each token, over the same chunks.
var<private> squares: array<f32, TB>;
#endif

// Sum r * TB + i is row n + r with token t + i, over chunks `first`, `first + step`, ...
fn dots(n: u32, t: u32, first: u32, step: u32) -> array<Sum, SUMS> {
    var sums: array<Sum, SUMS>;
#if NORM
    squares = array<f32, TB>();
#endif
    for (var chunk = first; chunk < CHUNKS; chunk += step) {
        var blocks: array<Block, R>;
        for (var r = 0u; r < R; r += 1u) {
            blocks[r] = load(min(n + r, args.N - 1u), chunk);
        }
        for (var j = 0u; j < 4u; j += 1u) {
            var rows: array<Elements, R>;
            for (var r = 0u; r < R; r += 1u) {
                rows[r] = decode(blocks[r], j);
            }
            for (var i = 0u; i < TB; i += 1u) {
                let token = x_row(min(t + i, args.T - 1u));
                let quad = 8u * chunk + 2u * j;
                var lo = x_at(token, quad);
                var hi = x_at(token, quad + 1u);
#if NORM
                squares[i] += dot(lo, lo) + dot(hi, hi);
                lo *= norm_at(quad);
                hi *= norm_at(quad + 1u);
#endif
                for (var r = 0u; r < R; r += 1u) {
                    sums[r * TB + i] += dot8(rows[r], lo, hi);
                }
            }
        }
    }
    return sums;
}

#if SUBGROUP
var<workgroup> subgroups: atomic<u32>;
var<workgroup> subgroup_count: u32;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    // Subgroups number themselves: how they map to invocation indices is not specified.
    let lane = subgroupExclusiveAdd(1u);
    let lanes = subgroupAdd(1u);
    var slot = 0u;
    if lane == 0u {
        slot = atomicAdd(&subgroups, 1u);
    }
    slot = subgroupBroadcastFirst(slot);
    workgroupBarrier();
    if local == 0u {
        subgroup_count = atomicLoad(&subgroups);
    }
    let count = workgroupUniformLoad(&subgroup_count);

    let token_blocks = (args.T + TB - 1u) / TB;
    let block = group.x + group.y * groups.x;
    let t = block % token_blocks * TB;
#if EXPERTS
    expert = pairs[t] - args.FIRST;
    if pairs[t] - args.FIRST >= args.COUNT {
        return;
    }
#endif
    let end = block / token_blocks * ROWS + ROWS;
    for (var n0 = end - ROWS; n0 < min(end, args.N); n0 += count * R) {
        let n = n0 + slot * R;
        var sums = dots(n, t, lane, lanes);
#if NORM
        for (var i = 0u; i < TB; i += 1u) {
            squares[i] = rms_scale(subgroupAdd(squares[i]));
        }
#endif
#if QUADS
        for (var i = 0u; i < TB; i += 1u) {
            var quad = subgroupAdd(vec4<f32>(sums[i], sums[TB + i], sums[2u * TB + i], sums[3u * TB + i]));
#if NORM
            quad *= squares[i];
#endif
            if lane == 0u && n < end {
                store_quad(t + i, n, quad);
            }
        }
#else
        for (var i = 0u; i < SUMS; i += 1u) {
            var sum = subgroupAdd(sums[i]);
#if NORM
            sum *= squares[i % TB];
#endif
            if lane == 0u && n + i / TB < end {
                store(t + i % TB, n + i / TB, sum);
            }
        }
#endif
    }
}
#else
var<workgroup> partials: array<Sum, WG * SUMS>;
#if NORM
var<workgroup> square_partials: array<f32, WG * TB>;

// 1 / RMS of a token, once all lanes' squares are in its first one's; those of any row.
fn scale_of(token: u32, row: u32) -> f32 {
    return rms_scale(square_partials[token * WG + row / R * LANES]);
}
#endif

fn sum_of(token: u32, row: u32) -> Sum {
    let sum = partials[(row % R * TB + token) * WG + row / R * LANES];
#if NORM
    return sum * scale_of(token, row);
#else
    return sum;
#endif
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let token_blocks = (args.T + TB - 1u) / TB;
    let block = group.x + group.y * groups.x;
    let t = block % token_blocks * TB;
    let n = block / token_blocks * ROWS;
    if n >= args.N {
        return;
    }
#if EXPERTS
    // From the binding, which is uniform; a private variable is not.
    expert = pairs[t] - args.FIRST;
    if pairs[t] - args.FIRST >= args.COUNT {
        return;
    }
#endif
    let lane = local % LANES;
    var sums = dots(n + local / LANES * R, t, lane, LANES);
    for (var i = 0u; i < SUMS; i += 1u) {
        partials[i * WG + local] = sums[i];
    }
#if NORM
    for (var i = 0u; i < TB; i += 1u) {
        square_partials[i * WG + local] = squares[i];
    }
#endif
    for (var stride = LANES / 2u; stride > 0u; stride = stride / 2u) {
        workgroupBarrier();
        if lane < stride {
            for (var i = 0u; i < SUMS; i += 1u) {
                partials[i * WG + local] += partials[i * WG + local + stride];
            }
#if NORM
            for (var i = 0u; i < TB; i += 1u) {
                square_partials[i * WG + local] += square_partials[i * WG + local + stride];
            }
#endif
        }
    }
    workgroupBarrier();
#if QUADS
    for (var i = local; i < ROWS / 4u * TB; i += WG) {
        let row = i % (ROWS / 4u) * 4u;
        let token = i / (ROWS / 4u);
        let quad = vec4<f32>(
            sum_of(token, row),
            sum_of(token, row + 1u),
            sum_of(token, row + 2u),
            sum_of(token, row + 3u),
        );
        store_quad(t + token, n + row, quad);
    }
#else
    for (var i = local; i < ROWS * TB; i += WG) {
        store(t + i / ROWS, n + i % ROWS, sum_of(i / ROWS, i % ROWS));
    }
#endif
}
#endif
