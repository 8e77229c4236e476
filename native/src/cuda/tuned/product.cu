// matvec, gated_mlp and qkv_product for few tokens.
//
// A block of 8 warps first makes its tokens' activations ready in shared memory, RMS-normalised where the call says so,
// while the first weights are on their way; then a warp has ROWS rows of each weight, and its lanes take units of them in
// turn. Weights go from memory into registers once, 16 bytes a load.
//
// There are TOKENS tokens, or with EXPERTS one pair for each blockIdx.y. Everything that WGSL's constants say is a macro; what its
// uniforms say is in `args`. Source of the definition: the kernels' files in core/src/kernels.

constexpr u32 WARPS = 8, LANES = 32, THREADS = WARPS * LANES;

typedef Weight<FORMAT> Own;
typedef Own::X Activations;
#if PRODUCT == GATED
typedef Weight<UP_FORMAT> Other;
#endif

struct Call {
    const float *x;
    const U4 *w, *gate, *up;
    const float *bias, *gate_bias, *up_bias, *residual, *norm;
    const float *table;
    float *y, *q;
    void *k_cache, *v_cache;
    const u32 *step, *pairs;
    const Args *args;
};

FN float warp_sum(float a) {
#pragma unroll
    for (u32 i = LANES / 2; i > 0; i /= 2) a += __shfl_xor_sync(~0u, a, i);
    return a;
}

// Elements 8 p to 8 p + 7 of a row of x, zeros beyond K, times the norm's weight; adds their squares.
FN void eight(const Call &c, const float *row, u32 p, float (&v)[8], float &squares) {
#pragma unroll
    for (u32 i = 0; i < 8; i += 4) {
        u32 k = 8 * p + i;
        F4 a = {};
        if (K % 4 == 0) {
            if (k < K) a = *(const F4 *)(row + k);
        } else {
            for (u32 j = 0; j < 4; j++)
                if (k + j < K) a.v[j] = row[k + j];
        }
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
#if NORM
            squares += a.v[j] * a.v[j];
            if (k + j < K) a.v[j] *= c.norm[k + j];
#endif
            v[i + j] = a.v[j];
        }
    }
}

FN void put(Floats &x, u32 p, const float (&v)[8]) {
    if (p >= 4 * CHUNKS) return;
#pragma unroll
    for (u32 i = 0; i < 8; i++) x.halves[i / 4][p].v[i % 4] = v[i];
}

// Four lanes have a chunk. An element that is no number makes the chunk's scale NaN, and so all sums.
FN void put(Quantised &x, u32 p, const float (&v)[8]) {
    float largest = 0;
    bool finite = true;
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        float size = fabsf(v[i]);
        finite = finite && size < __int_as_float(0x7F800000);
        largest = fmaxf(largest, size);
    }
    if (!finite) largest = __int_as_float(0x7F800000);
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
    bool zero = !(largest > 0);
    float inverse = zero ? 0 : 32767 / largest;
    U4 words;
    int sum = 0;
#pragma unroll
    for (u32 i = 0; i < 8; i += 2) {
        int a = __float2int_rn(v[i] * inverse), b = __float2int_rn(v[i + 1] * inverse);
        words.w[i / 2] = (u32)(a & 0xFFFF) | (u32)b << 16;
        sum += a + b;
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    u32 chunk = p / 4;
    if (chunk >= CHUNKS) return;
    x.pieces[p % 4][chunk] = words;
    if (p % 2 == 0) x.sums[chunk][p / 2 % 2] = sum;
    // infinity / infinity: NaN.
    if (p % 4 == 0) x.scale[chunk] = zero ? 0 : largest / 32767 * (largest / largest);
}

#if PRODUCT == QKV
constexpr u32 PAIR = ROT / 2;
// A quad's second two rows are `apart` from its first two: see shaders/qkv_product.wgsl.
FN bool is_turned(u32 row) { return ROPE && row / D < H + KVH && row % D < ROT; }
FN u32 apart(u32 row) { return !ADJACENT && is_turned(row) ? PAIR : 2; }
FN u32 quad_row(u32 row) { return apart(row) > 2 ? row - row % D + row % D / 2 : row; }
FN u32 place(u32 row) {
    u32 first = quad_row(row - row % 4);
    return first + row % 2 + row / 2 % 2 * apart(row);
}

FN void put_pair(const Call &c, u32 t, u32 head, u32 i, float a, float b) {
    if (head < H) {
        float *to = c.q + ((u64)t * H + head) * D + i;
        to[0] = a, to[1] = b;
        return;
    }
    u32 position = c.step[0] + t;
    if (position >= c.args->S) return;
    void *cache = head < H + KVH ? c.k_cache : c.v_cache;
    u64 at = ((u64)((head - H) % KVH) * c.args->S + position) * D + i;
#if KV_F16
    a = fminf(fmaxf(a, -65504), 65504), b = fminf(fmaxf(b, -65504), 65504);
    ((u32 *)cache)[at / 2] = (u32)float_to_half(a) | (u32)float_to_half(b) << 16;
#else
    ((float *)cache)[at] = a, ((float *)cache)[at + 1] = b;
#endif
}

FN void store_quad(const Call &c, u32 t, u32 n, const float (&sums)[4]) {
    u32 row = c.args->ROW0 + n, first = quad_row(row), second = first + apart(row);
    float a[2] = {sums[0], sums[1]}, b[2] = {sums[2], sums[3]};
#if BIAS
#pragma unroll
    for (u32 i = 0; i < 2; i++) a[i] += c.bias[first + i], b[i] += c.bias[second + i];
#endif
    if (is_turned(row)) {
        const float *turns = c.table + ((u64)(c.step[0] + t) * PAIR + row % D / 2) * 2;
        if (ADJACENT) {
            float x = a[0], y = b[0];
            a[0] = x * turns[0] - a[1] * turns[1], a[1] = a[1] * turns[0] + x * turns[1];
            b[0] = y * turns[2] - b[1] * turns[3], b[1] = b[1] * turns[2] + y * turns[3];
        } else {
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                float x = a[i], y = b[i];
                a[i] = x * turns[2 * i] - y * turns[2 * i + 1], b[i] = y * turns[2 * i] + x * turns[2 * i + 1];
            }
        }
    }
    put_pair(c, t, row / D, first % D, a[0], a[1]);
    put_pair(c, t, row / D, second % D, b[0], b[1]);
}
#endif

FN void run(const Call &c) {
    extern __shared__ U4 memory[];
    __shared__ float partial[WARPS][TOKENS];
    Activations *xs = (Activations *)memory;
    u32 thread = threadIdx.x, lane = thread % LANES, warp = thread / LANES;
    const Args &args = *c.args;
    u32 t0 = 0, from = 0, own = 0;
#if EXPERTS
    t0 = blockIdx.y, from = t0 / DIV;
    u32 expert = c.pairs[t0] - args.FIRST;
    if (expert >= args.COUNT) return;
    own = expert * args.N;
#endif
    u32 n0 = (blockIdx.x * WARPS + warp) * ROWS;
    u32 last = args.N - 1;
    u32 rows[ROWS];
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) {
        u32 n = n0 + r < last ? n0 + r : last;
#if PRODUCT == QKV
        rows[r] = place(args.ROW0 + n) - args.ROW0;
#else
        rows[r] = own + n;
#endif
    }
    struct Unit {
        Own own;
#if PRODUCT == GATED
        Other other;
#endif
    };
    auto fetch = [&](u32 r, u32 unit) {
#if PRODUCT == GATED
        return Unit{Own(c.gate, args.GATE0 + rows[r], unit), Other(c.up, args.UP0 + rows[r], unit)};
#else
        return Unit{Own(c.w, rows[r], unit)};
#endif
    };
    constexpr u32 UNITS = Own::UNITS;
    // Lanes beyond the end fetch the last unit, and leave it.
    auto fetch_all = [&](u32 unit) {
        struct All {
            Unit u[ROWS];
        };
        u32 at = unit < UNITS ? unit : UNITS - 1;
#if ROWS == 1
        return All{fetch(0, at)};
#elif ROWS == 2
        return All{fetch(0, at), fetch(1, at)};
#else
        return All{fetch(0, at), fetch(1, at), fetch(2, at), fetch(3, at)};
#endif
    };
    auto next = fetch_all(lane);

#pragma unroll
    for (u32 t = 0; t < TOKENS; t++) {
        const float *row = c.x + (u64)(from + t) * K;
        float squares = 0;
        for (u32 p = thread; p - lane < 4 * CHUNKS; p += THREADS) {
            float v[8];
            eight(c, row, p, v, squares);
            put(xs[t], p, v);
        }
#if NORM
        squares = warp_sum(squares);
        if (lane == 0) partial[warp][t] = squares;
#endif
    }
    __syncthreads();
    float scale[TOKENS];
#pragma unroll
    for (u32 t = 0; t < TOKENS; t++) {
        scale[t] = 1;
#if NORM
        float squares = 0;
#pragma unroll
        for (u32 i = 0; i < WARPS; i++) squares += partial[i][t];
        scale[t] = rsqrtf(squares / K + EPS);
#endif
    }
    if (n0 > last) return;

    float sums[ROWS][TOKENS] = {};
#if PRODUCT == GATED
    float others[ROWS][TOKENS] = {};
#endif
    for (u32 first = 0; first < UNITS; first += LANES) {
        auto now = next;
        next = fetch_all(first + LANES + lane);
        u32 unit = first + lane;
        if (unit >= UNITS) break;
#pragma unroll
        for (u32 r = 0; r < ROWS; r++)
#pragma unroll
            for (u32 t = 0; t < TOKENS; t++) {
                sums[r][t] += now.u[r].own.dot(xs[t], unit);
#if PRODUCT == GATED
                others[r][t] += now.u[r].other.dot(xs[t], unit);
#endif
            }
    }
    __syncwarp();
#pragma unroll
    for (u32 t = 0; t < TOKENS; t++) {
#if PRODUCT == QKV
        float quad[4];
#pragma unroll
        for (u32 r = 0; r < 4; r++) quad[r] = warp_sum(sums[r][t]) * scale[t];
        if (lane == 0) store_quad(c, t, n0, quad);
#else
#pragma unroll
        for (u32 r = 0; r < ROWS; r++) {
            float value = warp_sum(sums[r][t]) * scale[t];
            u32 n = n0 + r;
#if PRODUCT == GATED
            float up = warp_sum(others[r][t]) * scale[t];
            if (lane != 0 || n > last) continue;
#if BIAS
            value += c.gate_bias[args.GATE_BIAS0 + own + n];
            up += c.up_bias[args.UP_BIAS0 + own + n];
#endif
            c.y[(u64)(t0 + t) * args.NY + args.ROW0 + n] = gated(value, up);
#else
            if (lane != 0 || n > last) continue;
            u64 at = (u64)(t0 + t) * args.NY + (EXPERTS ? 0 : args.ROW0) + n;
#if BIAS
            value += c.bias[args.ROW0 + own + n];
#endif
#if RESIDUAL
            value += c.residual[at];
#endif
            c.y[at] = value;
#endif
        }
#endif
    }
}
