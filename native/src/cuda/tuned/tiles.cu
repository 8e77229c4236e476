// matmul and gated_mlp of many tokens on tensor cores: f16 factors, f32 sums (mma.sync.m16n8k16).
//
// A block of 8 warps, 2 by tokens and 4 by rows, has a tile of TOKEN_TILES * 32 tokens and ROW_TILES * 32 rows of weights (with
// GATED half of them of each weight). It goes along K in steps of 64: while one step is multiplied, the next two are on
// their way into shared memory, activations by cp.async as halves.cu left them, weights of f16 too, quantised ones through
// registers. Rows of a step are 8 pieces of 8 elements, swizzled so that eight rows' pieces lie in different banks.
//
// Source of the definition: core/src/kernels/matmul.rs, gated_mlp.rs.

constexpr u32 WARPS = 8, THREADS = WARPS * LANES;
constexpr u32 TOKEN_WARPS = 2, ROW_WARPS = WARPS / TOKEN_WARPS, STAGES = 3;
// Of a block.
constexpr u32 TOKENS = TOKEN_WARPS * TOKEN_TILES * 16, ROWS = ROW_WARPS * ROW_TILES * 8;
constexpr u32 STEPS = (K + STEP - 1) / STEP, STAGE = 8 * (TOKENS + ROWS);
// Rows of one weight in a tile, and tiles of 8 of them in a warp.
constexpr u32 OWN = PRODUCT == GATED ? ROWS / 2 : ROWS, OWN_TILES = PRODUCT == GATED ? ROW_TILES / 2 : ROW_TILES;

typedef Weight<FORMAT> Unit;

struct Call {
    const float *x;
    const U4 *w, *gate, *up;
    const float *bias, *gate_bias, *up_bias, *residual;
    float *y;
    const Args *args;
    void *workspace;
};

FN u32 place(u32 row, u32 piece) { return row * 8 + (piece ^ (row & 7)); }

FN void run(const Call &c) {
    extern __shared__ U4 memory[];
    EXCHANGE(WARPS)
    u32 thread = threadIdx.x, lane = thread % LANES, warp = thread / LANES;
    const Args &args = *c.args;
    // Neighbouring blocks share weights, which are then read from memory once.
    u32 token_tiles = (args.T + TOKENS - 1) / TOKENS;
    u32 t0 = blockIdx.x % token_tiles * TOKENS, n0 = blockIdx.x / token_tiles * OWN;
    const U4 *activations = halves(c.workspace, args.T);

    // Rows of the weight, beyond the end the last one.
    auto row_of = [&](u32 i, const U4 *&weight) {
        u32 n = n0 + i % OWN;
        n = n < args.N ? n : args.N - 1;
#if PRODUCT == GATED
        weight = i < OWN ? c.gate : c.up;
        return n + (i < OWN ? args.GATE0 : args.UP0);
#else
        weight = c.w;
        return n;
#endif
    };
    auto load_activations = [&](u32 step) {
        U4 *to = memory + step % STAGES * STAGE;
#pragma unroll
        for (u32 i = thread; i < 8 * TOKENS; i += THREADS) {
            u32 t = t0 + i / 8;
            copy(to + place(i / 8, i % 8), activations + (u64)(t < args.T ? t : args.T - 1) * PIECES + 8 * step + i % 8);
        }
    };
#if FORMAT_IS_F16
    auto load_weights = [&](u32 step) {
        U4 *to = memory + step % STAGES * STAGE + 8 * TOKENS;
#pragma unroll
        for (u32 i = thread; i < 8 * ROWS; i += THREADS) {
            const U4 *weight;
            u32 row = row_of(i / 8, weight), piece = 8 * step + i % 8;
            // What is beyond K meets zeros.
            copy(to + place(i / 8, i % 8), weight + (u64)row * Unit::ROW + (piece < Unit::ROW ? piece : Unit::ROW - 1));
        }
    };
#else
    // A thread has a chunk of a row, as long as there are some.
    const U4 *weight;
    u32 chunk_row = thread / 2, row = row_of(chunk_row % ROWS, weight);
    auto fetch = [&](u32 step) {
        u32 chunk = 2 * step + thread % 2;
        return Unit(weight, row, chunk < CHUNKS ? chunk : CHUNKS - 1);
    };
    auto put = [&](const Unit &unit, u32 step) {
        if (chunk_row >= ROWS) return;
        U4 pieces[4];
        u32 chunk = 2 * step + thread % 2;
        unit.to_halves(pieces, chunk < CHUNKS ? chunk : CHUNKS - 1);
        U4 *to = memory + step % STAGES * STAGE + 8 * TOKENS;
#pragma unroll
        for (u32 i = 0; i < 4; i++) to[place(chunk_row, thread % 2 * 4 + i)] = pieces[i];
    };
    static_assert(2 * ROWS <= THREADS, "one chunk a thread");
#endif

    for (u32 step = 0; step < STAGES - 1; step++) {
        if (step < STEPS) {
            load_activations(step);
#if FORMAT_IS_F16
            load_weights(step);
#else
            put(fetch(step), step);
#endif
        }
        commit();
    }
    u32 token0 = warp / ROW_WARPS * TOKEN_TILES * 16, row0 = warp % ROW_WARPS * OWN_TILES * 8;
    float sums[TOKEN_TILES][ROW_TILES][4] = {};
    for (u32 step = 0; step < STEPS; step++) {
        wait<STAGES - 2>();
        __syncthreads();
        u32 next = step + STAGES - 1;
        if (next < STEPS) {
            load_activations(next);
#if FORMAT_IS_F16
            load_weights(next);
#endif
        }
        commit();
#if !FORMAT_IS_F16
        Unit ahead = fetch(next < STEPS ? next : STEPS - 1);
#endif
        const U4 *own = memory + step % STAGES * STAGE;
#pragma unroll
        for (u32 p = 0; p < 8; p += 2) {
            u32 a[TOKEN_TILES][4], b[ROW_TILES / 2][4];
#pragma unroll
            for (u32 i = 0; i < TOKEN_TILES; i++) load_matrices(a[i], own, place(token0 + 16 * i + lane % 16, p + lane / 16));
#pragma unroll
            for (u32 j = 0; j < ROW_TILES; j += 2) {
                // Two tiles of 8 rows, two pieces of each.
                u32 tile = j + lane / 16, start = tile / OWN_TILES * OWN + row0 + tile % OWN_TILES * 8;
                load_matrices(b[j / 2], own + 8 * TOKENS, place(start + lane % 8, p + lane / 8 % 2));
            }
#pragma unroll
            for (u32 i = 0; i < TOKEN_TILES; i++)
#pragma unroll
                for (u32 j = 0; j < ROW_TILES; j++) multiply_add(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], seen);
        }
#if !FORMAT_IS_F16
        if (next < STEPS) put(ahead, next);
#endif
    }
#pragma unroll
    for (u32 i = 0; i < TOKEN_TILES; i++)
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            u32 t = t0 + token0 + 16 * i + 8 * h + lane / 4;
            if (t >= args.T) continue;
            float scale = scales(c.workspace)[t];
#pragma unroll
            for (u32 j = 0; j < OWN_TILES; j++)
#pragma unroll
                for (u32 e = 0; e < 2; e++) {
                    u32 n = n0 + row0 + 8 * j + lane % 4 * 2 + e;
                    if (n >= args.N) continue;
                    u64 at = (u64)t * args.NY + args.ROW0 + n;
                    float value = sums[i][j][2 * h + e] * scale;
#if PRODUCT == GATED
                    float other = sums[i][j + OWN_TILES][2 * h + e] * scale;
#if BIAS
                    value += c.gate_bias[args.GATE_BIAS0 + n], other += c.up_bias[args.UP_BIAS0 + n];
#endif
                    value = gated(value, other);
#else
#if BIAS
                    value += c.bias[args.ROW0 + n];
#endif
#if RESIDUAL
                    value += c.residual[at];
#endif
#endif
                    c.y[at] = value;
                }
        }
}
