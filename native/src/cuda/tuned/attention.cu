// attention of one token over a cache, all query heads of a key/value head together: each key and value is read once.
//
// A block has a part of the keys of one KV head; a part of D / 8 lanes has a key at a time, each lane 8 channels of it and
// of its value, with a softmax of its own (online: arXiv:2205.14135, algorithm 1). Parts are merged in the warp, in the
// block, and, where several blocks share the keys (flash-decoding, split-K), by the block that comes last. Source of the
// definition: core/src/kernels/attention.rs.

constexpr u32 WARPS = 4, LANES = 32, THREADS = WARPS * LANES;
// Lanes of a key, keys of a warp and of a block at a time.
constexpr u32 PART = D / 8, PARTS = LANES / PART, KEYS = WARPS * PARTS;
// Keys at a time of a part, so that loads of one wait with those of the others.
constexpr u32 AHEAD = GROUP > 4 ? 2 : 4;
// Fewer keys are not worth a block.
constexpr u32 LEAST = 64;
// Below every score; finite, so that differences are.
constexpr float LOWEST = -1e30f;

struct Call {
    const float *q;
    const void *k_cache, *v_cache;
    const u32 *step;
    float *y;
    const float *sinks;
    const Args *args;
    // (KVH, SPLITS, GROUP, D + 2): values' sums, the largest score, the sum.
    float *workspace;
    // (KVH): parts that are done.
    u32 *counters;
};

// Channels 8 c to 8 c + 7 of a row of a cache.
struct Eight {
#if KV_Q8_0
    u32 q[2];
    u16 d;
#elif KV_F16
    U4 words;
#else
    F4 halves[2];
#endif
    FN Eight(const void *cache, u64 row, u32 c) {
#if KV_Q8_0
        constexpr u32 ROW = (34 * (D / 32) + 15) / 16 * 16;
        const u8 *at = (const u8 *)cache + row * ROW;
        q[0] = ((const u32 *)at)[2 * c], q[1] = ((const u32 *)at)[2 * c + 1];
        d = ((const u16 *)(at + D))[c / 4];
#elif KV_F16
        words = ((const U4 *)cache)[row * PART + c];
#else
        halves[0] = ((const F4 *)cache)[(row * PART + c) * 2], halves[1] = ((const F4 *)cache)[(row * PART + c) * 2 + 1];
#endif
    }
    FN float operator[](u32 i) const {
#if KV_Q8_0
        return (float)(signed char)(q[i / 4] >> 8 * (i % 4)) * half_to_float(d);
#elif KV_F16
        return half_to_float(words.w[i / 2] >> 16 * (i & 1));
#else
        return halves[i / 4].v[i % 4];
#endif
    }
};

// A softmax over some keys.
struct Softmax {
    float largest, sum, values[8];
    FN void merge(float other_largest, float other_sum, const float (&other)[8]) {
        float all = fmaxf(largest, other_largest), own = expf(largest - all), theirs = expf(other_largest - all);
        largest = all;
        sum = sum * own + other_sum * theirs;
#pragma unroll
        for (u32 i = 0; i < 8; i++) values[i] = values[i] * own + other[i] * theirs;
    }
};

FN void run(const Call &c) {
    __shared__ float values[WARPS][GROUP][D], largest[WARPS][GROUP], sum[WARPS][GROUP];
    __shared__ u32 arrived;
    u32 thread = threadIdx.x, lane = thread % LANES, warp = thread / LANES, channel = lane % PART;
    u32 g = blockIdx.x, split = blockIdx.y;
    const Args &args = *c.args;
    u32 seen = c.step[0] + 1, end = seen < args.S ? seen : args.S, first = 0;
#if WINDOWED
    first = seen > args.WINDOW ? seen - args.WINDOW : 0;
#endif
    u32 count = end > first ? end - first : 0;
    u32 each = (count + SPLITS - 1) / SPLITS;
    each = each > LEAST ? each : LEAST;
    u32 blocks = count > each ? (count + each - 1) / each : 1;
    if (split >= blocks) return;
    first += split * each;
    end = first + each < end ? first + each : end;

    float q[GROUP][8];
    Softmax own[GROUP];
#pragma unroll
    for (u32 h = 0; h < GROUP; h++) {
        own[h] = {LOWEST, 0, {}};
#pragma unroll
        for (u32 i = 0; i < 8; i++) q[h][i] = c.q[(g * GROUP + h) * D + 8 * channel + i] * SCALE;
    }
    u64 row = (u64)g * args.S;
    for (u32 base = first; base < end; base += KEYS * AHEAD) {
        u32 key = base + warp * PARTS + lane / PART;
        auto at = [&](u32 n) { return row + (key + n * KEYS < end ? key + n * KEYS : end - 1); };
        float score[GROUP][AHEAD];
#pragma unroll
        for (u32 n = 0; n < AHEAD; n++) {
            Eight k(c.k_cache, at(n), channel);
#pragma unroll
            for (u32 h = 0; h < GROUP; h++) {
                float dot = 0;
#pragma unroll
                for (u32 i = 0; i < 8; i++) dot += q[h][i] * k[i];
#pragma unroll
                for (u32 i = PART / 2; i > 0; i /= 2) dot += __shfl_xor_sync(~0u, dot, i);
                score[h][n] = key + n * KEYS < end ? dot : LOWEST;
            }
        }
#pragma unroll
        for (u32 h = 0; h < GROUP; h++) {
            float top = own[h].largest;
#pragma unroll
            for (u32 n = 0; n < AHEAD; n++) top = fmaxf(top, score[h][n]);
            float scale = expf(own[h].largest - top);
            own[h].largest = top;
            own[h].sum *= scale;
#pragma unroll
            for (u32 i = 0; i < 8; i++) own[h].values[i] *= scale;
#pragma unroll
            for (u32 n = 0; n < AHEAD; n++) {
                score[h][n] = key + n * KEYS < end ? expf(score[h][n] - top) : 0;
                own[h].sum += score[h][n];
            }
        }
#pragma unroll
        for (u32 n = 0; n < AHEAD; n++) {
            Eight v(c.v_cache, at(n), channel);
            // What is not seen may hold anything.
            if (key + n * KEYS >= end) continue;
#pragma unroll
            for (u32 h = 0; h < GROUP; h++)
#pragma unroll
                for (u32 i = 0; i < 8; i++) own[h].values[i] += score[h][n] * v[i];
        }
    }
    __syncwarp();
#pragma unroll
    for (u32 h = 0; h < GROUP; h++) {
#pragma unroll
        for (u32 far = PART; far < LANES; far *= 2) {
            float other[8];
#pragma unroll
            for (u32 i = 0; i < 8; i++) other[i] = __shfl_xor_sync(~0u, own[h].values[i], far);
            float their_largest = __shfl_xor_sync(~0u, own[h].largest, far), their_sum = __shfl_xor_sync(~0u, own[h].sum, far);
            own[h].merge(their_largest, their_sum, other);
        }
        if (lane >= PART) continue;
#pragma unroll
        for (u32 i = 0; i < 8; i++) values[warp][h][8 * channel + i] = own[h].values[i];
        if (lane == 0) largest[warp][h] = own[h].largest, sum[warp][h] = own[h].sum;
    }
    __syncthreads();

    // Element i of a head is a sum of values, or behind them the largest score and the sum of a part.
    constexpr u32 SIZE = D + 2;
    float *parts = c.workspace + (u64)g * SPLITS * GROUP * SIZE;
    for (u32 i = thread; i < GROUP * D; i += THREADS) {
        u32 h = i / D;
        float top = largest[0][h], total = 0, value = 0;
        for (u32 w = 1; w < WARPS; w++) top = fmaxf(top, largest[w][h]);
        for (u32 w = 0; w < WARPS; w++) {
            float scale = expf(largest[w][h] - top);
            total += sum[w][h] * scale;
            value += values[w][h][i % D] * scale;
        }
        if (blocks == 1) {
#if SINKS
            float all = fmaxf(top, c.sinks[g * GROUP + h]), scale = expf(top - all);
            value *= scale, total = total * scale + expf(c.sinks[g * GROUP + h] - all);
#endif
            c.y[(g * GROUP + h) * D + i % D] = total == 0 ? 0 : value / total;
            continue;
        }
        float *part = parts + (split * GROUP + h) * SIZE;
        part[i % D] = value;
        if (i % D == 0) part[D] = top, part[D + 1] = total;
    }
    if (blocks == 1) return;

    u32 *counter = c.counters + g;
    __threadfence();
    __syncthreads();
    if (thread == 0) arrived = atomicAdd(counter, 1u);
    __syncthreads();
    if (arrived != blocks - 1) return;
    // The last one: all parts are there, and the counter is ready for the next launch.
    __threadfence();
    if (thread == 0) *counter = 0;
    for (u32 i = thread; i < GROUP * D; i += THREADS) {
        u32 h = i / D;
        float top = LOWEST, total = 0, value = 0;
#if SINKS
        top = c.sinks[g * GROUP + h];
#endif
        for (u32 b = 0; b < blocks; b++) top = fmaxf(top, __ldcg(parts + (b * GROUP + h) * SIZE + D));
#if SINKS
        total = expf(c.sinks[g * GROUP + h] - top);
#endif
        for (u32 b = 0; b < blocks; b++) {
            const float *part = parts + (b * GROUP + h) * SIZE;
            float scale = expf(__ldcg(part + D) - top);
            total += __ldcg(part + D + 1) * scale;
            value += __ldcg(part + i % D) * scale;
        }
        c.y[(g * GROUP + h) * D + i % D] = total == 0 ? 0 : value / total;
    }
}
