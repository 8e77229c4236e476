// attention of many tokens over an f16 cache on tensor cores (arXiv:2307.08691, algorithm 1).
//
// A block of 4 warps has 64 rows of one key/value head: a row is one of its query heads at a token. A warp has 16 of them and
// their sums in registers; keys and values go by in tiles of 64, the next on its way while one is multiplied. Scores and
// sums are f32; queries, and the exponentials that values are multiplied by, become f16. Rows of a tile have a piece of 8
// elements more than D, so that eight of them lie in different banks. Source of the definition: core/src/kernels/attention.rs.

constexpr u32 WARPS = 4, THREADS = WARPS * LANES, ROWS = 16 * WARPS, KEYS = 64;
// Pieces of 8 of a row, and with the one that is left free; keys and values of a tile.
constexpr u32 PIECES = D / 8, PITCH = PIECES + 1, TILE = KEYS * PITCH, STAGES = 2;
// Below every score; finite, so that differences are.
constexpr float LOWEST = -1e30f, LOG2_E = 1.4426950408889634f;

struct Call {
    const float *q;
    const U4 *k_cache, *v_cache;
    const u32 *step;
    float *y;
    const float *sinks;
    const Args *args;
};

FN void run(const Call &c) {
    extern __shared__ U4 memory[];
    EXCHANGE(WARPS)
    u32 thread = threadIdx.x, lane = thread % LANES, warp = thread / LANES;
    const Args &args = *c.args;
    u32 g = blockIdx.y, rows = args.T * GROUP, pos = c.step[0];
    // Later tokens see more keys: their blocks begin first.
    u32 row0 = (gridDim.x - 1 - blockIdx.x) * ROWS, last = row0 + ROWS < rows ? row0 + ROWS : rows;
    auto end_of = [&](u32 row) {
        u32 end = pos + row / GROUP + 1;
        return end < args.S ? end : args.S;
    };
    auto first_of = [&](u32 row) {
        u32 seen = pos + row / GROUP + 1;
#if WINDOWED
        return seen > args.WINDOW ? seen - args.WINDOW : 0;
#else
        return seen * 0;
#endif
    };
    u32 begin = first_of(row0) / KEYS * KEYS, end = end_of(last - 1);
    u64 cache = (u64)g * args.S * PIECES;
    auto load = [&](u32 key0) {
        U4 *to = memory + key0 / KEYS % STAGES * 2 * TILE;
#pragma unroll
        for (u32 i = thread; i < KEYS * PIECES; i += THREADS) {
            u32 key = key0 + i / PIECES, piece = i % PIECES;
            // What nobody sees may hold anything; a key that somebody does is there.
            u64 from = cache + (u64)(key < end ? key : end - 1) * PIECES + piece;
            copy(to + i / PIECES * PITCH + piece, c.k_cache + from);
            copy(to + TILE + i / PIECES * PITCH + piece, c.v_cache + from);
        }
    };
    if (begin < end) load(begin);
    commit();

    // This lane's two rows.
    u32 row[2], firsts[2], ends[2];
    const float *of[2];
    u32 at[2];
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        row[h] = row0 + 16 * warp + lane / 4 + 8 * h;
        u32 held = row[h] < rows ? row[h] : rows - 1;
        firsts[h] = first_of(held), ends[h] = end_of(held);
        at[h] = (held / GROUP * KVH + g) * GROUP + held % GROUP;
#if HEADS_FIRST
        at[h] = (g * GROUP + held % GROUP) * args.T + held / GROUP;
#endif
        of[h] = c.q + (u64)at[h] * D + lane % 4 * 2;
    }
    u32 q[D / 16][4];
#pragma unroll
    for (u32 p = 0; p < D / 16; p++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) q[p][i] = pair(of[i % 2][16 * p + i / 2 * 8], of[i % 2][16 * p + i / 2 * 8 + 1]);

    float sums[PIECES][4] = {}, top[2] = {LOWEST, LOWEST}, total[2] = {};
    for (u32 key0 = begin; key0 < end; key0 += KEYS) {
        if (key0 + KEYS < end) load(key0 + KEYS);
        commit();
        wait<1>();
        __syncthreads();
        const U4 *keys = memory + key0 / KEYS % STAGES * 2 * TILE, *values = keys + TILE;
        float scores[KEYS / 8][4] = {};
#pragma unroll
        for (u32 p = 0; p < D / 16; p++)
#pragma unroll
            for (u32 j = 0; j < KEYS / 8; j += 2) {
                u32 b[4];
                load_matrices(b, keys, (8 * j + lane / 16 * 8 + lane % 8) * PITCH + 2 * p + lane / 8 % 2);
                multiply_add(scores[j], q[p], b[0], b[1], seen);
                multiply_add(scores[j + 1], q[p], b[2], b[3], seen);
            }
        float most[2] = {top[0], top[1]};
#pragma unroll
        for (u32 j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                u32 key = key0 + 8 * j + lane % 4 * 2 + i % 2, h = i / 2;
                bool is_seen = key >= firsts[h] && key < ends[h];
                scores[j][i] = is_seen ? scores[j][i] * (SCALE * LOG2_E) : LOWEST;
                most[h] = fmaxf(most[h], scores[j][i]);
            }
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            most[h] = fmaxf(most[h], __shfl_xor_sync(~0u, most[h], 1));
            most[h] = fmaxf(most[h], __shfl_xor_sync(~0u, most[h], 2));
            float factor = exp2f(top[h] - most[h]);
            top[h] = most[h], total[h] *= factor;
#pragma unroll
            for (u32 j = 0; j < PIECES; j++) sums[j][2 * h] *= factor, sums[j][2 * h + 1] *= factor;
        }
#pragma unroll
        for (u32 j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                // Not for NaN, which must not be lost.
                scores[j][i] = scores[j][i] == LOWEST ? 0 : exp2f(scores[j][i] - top[i / 2]);
                total[i / 2] += scores[j][i];
            }
#pragma unroll
        for (u32 p = 0; p < KEYS / 16; p++) {
            const float(&low)[4] = scores[2 * p], (&high)[4] = scores[2 * p + 1];
            u32 a[4] = {pair(low[0], low[1]), pair(low[2], low[3]), pair(high[0], high[1]), pair(high[2], high[3])};
#pragma unroll
            for (u32 j = 0; j < PIECES; j += 2) {
                u32 b[4];
                load_matrices<true>(b, values, (16 * p + lane % 16) * PITCH + j + lane / 16);
                multiply_add(sums[j], a, b[0], b[1], seen);
                multiply_add(sums[j + 1], a, b[2], b[3], seen);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        total[h] += __shfl_xor_sync(~0u, total[h], 1);
        total[h] += __shfl_xor_sync(~0u, total[h], 2);
        float scale = 1;
#if SINKS
        float sink = c.sinks[g * GROUP + row[h] % GROUP] * LOG2_E, all = fmaxf(top[h], sink);
        scale = exp2f(top[h] - all), total[h] = total[h] * scale + exp2f(sink - all);
#endif
        scale = total[h] == 0 ? 0 : scale / total[h];
        if (row[h] >= rows) continue;
        float *to = c.y + (u64)at[h] * D + lane % 4 * 2;
#pragma unroll
        for (u32 j = 0; j < PIECES; j++) to[8 * j] = sums[j][2 * h] * scale, to[8 * j + 1] = sums[j][2 * h + 1] * scale;
    }
}
