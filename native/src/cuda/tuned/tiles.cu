// matmul and gated_mlp of many tokens on tensor cores: f16 factors, f32 sums (mma.sync.m16n8k16).
//
// A block of 8 warps, 2 by tokens and 4 by rows, has a tile of TOKEN_TILES * 32 tokens and ROW_TILES * 32 rows of weights (with
// GATED half of them of each weight). It goes along K in steps of 64: while one step is multiplied, the next two are on
// their way into shared memory, activations by cp.async as halves.cu left them, weights of f16 too, quantised ones through
// registers. Rows of a step are 8 pieces of 8 elements, swizzled so that eight rows' pieces lie in different banks.
//
// Source of the definition: core/src/kernels/matmul.rs, gated_mlp.rs. Layouts of fragments: PTX ISA 9.0, sections 9.7.14.5.8
// (mma.m16n8k16) and 9.7.14.5.15 (ldmatrix).

constexpr u32 WARPS = 8, LANES = 32, THREADS = WARPS * LANES;
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

#ifdef WGSL_HOST
FN void copy(U4 *to, const U4 *from) { *to = *from; }
FN void commit() {}
template <u32 PENDING> FN void wait() {}
#else
FN u32 shared(const void *at) { return (u32)__cvta_generic_to_shared(at); }
FN void copy(U4 *to, const U4 *from) { asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared(to)), "l"(from) : "memory"); }
FN void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <u32 PENDING> FN void wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }
#endif

// Four matrices of 8 rows of a piece; lane l names row l % 8 of matrix l / 8 and gets elements 2 (l % 4) and the next of
// row l / 4 of each.
FN void load_matrices(u32 (&to)[4], const U4 *memory, u32 at) {
#ifdef WGSL_HOST
    u32 lane = threadIdx.x % LANES;
    for (u32 i = 0; i < 4; i++) to[i] = memory[__shfl_sync(~0u, at, 8 * i + lane / 4)].w[lane % 4];
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(shared(memory + at)) : "memory");
#endif
}

// c += a b^T of 16 tokens, 8 rows and 16 elements. With g = lane / 4 and e = 2 (lane % 4) a lane has of
//   a: tokens g, g + 8, g, g + 8; elements e, e, e + 8, e + 8, and the next of each
//   b: row g; elements e, e + 8, and the next
//   c: tokens g, g, g + 8, g + 8; rows e, e + 1, e, e + 1
#ifdef WGSL_HOST
FN void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, u32 (*seen)[6]) {
    u32 lane = threadIdx.x % LANES, g = lane / 4, e = lane % 4 * 2;
    for (u32 i = 0; i < 4; i++) seen[lane][i] = a[i];
    seen[lane][4] = b0, seen[lane][5] = b1;
    __syncwarp();
    for (u32 i = 0; i < 4; i++)
        for (u32 k = 0; k < 16; k++) {
            u32 from = k / 2 % 4, shift = 16 * (k % 2);
            u32 of = seen[4 * g + from][i / 2 + k / 8 * 2] >> shift, row = seen[4 * (e + i % 2) + from][4 + k / 8] >> shift;
            c[i] += half_to_float(of) * half_to_float(row);
        }
    __syncwarp();
}
#else
FN void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, u32 (*)[6]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

FN void run(const Call &c) {
    extern __shared__ U4 memory[];
#ifdef WGSL_HOST
    __shared__ u32 exchange[WARPS][LANES][6];
    u32 (*seen)[6] = exchange[threadIdx.x / LANES];
#else
    u32 (*seen)[6] = nullptr;
#endif
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
