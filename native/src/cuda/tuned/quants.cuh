// Weights in the device's layout (core/src/weights/planar.rs) times activations as 16-bit integers: dp2a multiplies two of
// these with two 8-bit quants. A unit is what a lane takes at a time: 32 elements, 8 of f16.
//
// Source: PTX ISA 9.0, section 9.7.1.24 (dp2a).

#ifdef WGSL_HOST
FN int dp2a_lo(int x, int q, int sum) { return sum + (short)x * (signed char)q + (x >> 16) * (signed char)(q >> 8); }
FN int dp2a_hi(int x, int q, int sum) { return dp2a_lo(x, q >> 16, sum); }
#else
FN int dp2a_lo(int x, int q, int sum) { int r; asm("dp2a.lo.s32.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(x), "r"(q), "r"(sum)); return r; }
FN int dp2a_hi(int x, int q, int sum) { int r; asm("dp2a.hi.s32.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(x), "r"(q), "r"(sum)); return r; }
#endif

constexpr u32 CHUNKS = (K + 31) / 32;
constexpr u32 LOW = 0x0F0F0F0F;

// A token's activations in shared memory: x = scale * q of each chunk, the sum of q of each half. Pieces of eight lie as
// [piece of a chunk][chunk], so that lanes read neighbours.
struct Quantised {
    U4 pieces[4][CHUNKS];
    float scale[CHUNKS];
    int sums[CHUNKS][2];
};
// Or, for weights that are floats, as they are: [half of eight][eight].
struct Floats {
    F4 halves[2][4 * CHUNKS];
};

// Eight nibbles times a piece.
FN int dot_nibbles(u32 word, const U4 &x, int sum) {
    u32 low = word & LOW, high = word >> 4 & LOW;
    return dp2a_hi(x.w[3], high, dp2a_lo(x.w[2], high, dp2a_hi(x.w[1], low, dp2a_lo(x.w[0], low, sum))));
}
FN int dot_nibbles(const U4 &q, const Quantised &x, u32 chunk) {
    int sum = 0;
#pragma unroll
    for (u32 j = 0; j < 4; j++) sum = dot_nibbles(q.w[j], x.pieces[j][chunk], sum);
    return sum;
}
FN float both(const int (&sums)[2]) { return (float)(sums[0] + sums[1]); }

// With HALVES: eight elements of f16. Bytes become 1024 + byte by setting the exponent, which is exact.
#if HALVES
FN u32 raised(u32 bytes, u32 which) {
#ifdef WGSL_HOST
    return (bytes >> 16 * which & 255) | 0x64006400 | (bytes >> 16 * which + 8 & 255) << 16;
#else
    u32 r;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(bytes), "r"(0x64646464), "r"(which ? 0x4342 : 0x4140));
    return r;
#endif
}
// scale * (byte - zero) + least; zero and scale are pairs, and the bytes of the first four elements, then of the others.
FN U4 affine(u32 first, u32 second, u32 zero, u32 scale, u32 least) {
    U4 r;
#pragma unroll
    for (u32 i = 0; i < 4; i++) r.w[i] = fma2(sub2(raised(i < 2 ? first : second, i % 2), zero), scale, least);
    return r;
}
// The same with f32 inside, for scales that f16 would round.
FN U4 affine(u32 first, u32 second, float zero, float scale, float least) {
    U4 r;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        u32 two = (i < 2 ? first : second) >> 16 * (i % 2);
        r.w[i] = pair(((float)(two & 255) - zero) * scale + least, ((float)(two >> 8 & 255) - zero) * scale + least);
    }
    return r;
}
FN u32 twice(u16 a) { return a * 0x10001u; }
#endif

enum Format { Q4_0, Q4_1, Q8_0, Q4_K, Q6_K, F16, BF16 };
template <Format> struct Weight;

template <> struct Weight<Q4_0> {
    typedef Quantised X;
    static constexpr u32 UNITS = CHUNKS, ROW = CHUNKS + (2 * CHUNKS + 15) / 16;
    U4 q;
    u16 d;
    FN Weight(const U4 *words, u32 row, u32 chunk) {
        const U4 *at = words + (u64)row * ROW;
        q = load4(at + chunk);
        d = load((const u16 *)(at + CHUNKS) + chunk);
    }
    FN float dot(const X &x, u32 chunk) const {
        int sum = dot_nibbles(q, x, chunk) - 8 * (x.sums[chunk][0] + x.sums[chunk][1]);
        return half_to_float(d) * x.scale[chunk] * (float)sum;
    }
#if HALVES
    FN void to_halves(U4 (&to)[4], u32) const {
        // 1024 + 8.
#pragma unroll
        for (u32 j = 0; j < 4; j++) to[j] = affine(q.w[j] & LOW, q.w[j] >> 4 & LOW, twice(0x6408), twice(d), 0);
    }
#endif
};

template <> struct Weight<Q4_1> {
    typedef Quantised X;
    static constexpr u32 UNITS = CHUNKS, ROW = CHUNKS + (4 * CHUNKS + 15) / 16;
    U4 q;
    u32 dm;
    FN Weight(const U4 *words, u32 row, u32 chunk) {
        const U4 *at = words + (u64)row * ROW;
        q = load4(at + chunk);
        dm = load((const u32 *)(at + CHUNKS) + chunk);
    }
    FN float dot(const X &x, u32 chunk) const {
        float d = half_to_float(dm & 0xFFFF), m = half_to_float(dm >> 16);
        return x.scale[chunk] * (d * (float)dot_nibbles(q, x, chunk) + m * both(x.sums[chunk]));
    }
#if HALVES
    FN void to_halves(U4 (&to)[4], u32) const {
#pragma unroll
        for (u32 j = 0; j < 4; j++) to[j] = affine(q.w[j] & LOW, q.w[j] >> 4 & LOW, twice(0x6400), twice(dm), twice(dm >> 16));
    }
#endif
};

template <> struct Weight<Q8_0> {
    typedef Quantised X;
    static constexpr u32 UNITS = CHUNKS, ROW = 2 * CHUNKS + (2 * CHUNKS + 15) / 16;
    U4 q[2];
    u16 d;
    FN Weight(const U4 *words, u32 row, u32 chunk) {
        const U4 *at = words + (u64)row * ROW;
        q[0] = load4(at + 2 * chunk);
        q[1] = load4(at + 2 * chunk + 1);
        d = load((const u16 *)(at + 2 * CHUNKS) + chunk);
    }
    FN float dot(const X &x, u32 chunk) const {
        int sum = 0;
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            const U4 &piece = x.pieces[j][chunk];
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                u32 four = q[j / 2].w[j % 2 * 2 + i];
                sum = dp2a_hi(piece.w[2 * i + 1], four, dp2a_lo(piece.w[2 * i], four, sum));
            }
        }
        return half_to_float(d) * x.scale[chunk] * (float)sum;
    }
#if HALVES
    FN void to_halves(U4 (&to)[4], u32) const {
        // Two's complement plus 128; 1024 + 128.
        const u32 sign = 0x80808080;
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            const U4 &words = q[j / 2];
            to[j] = affine(words.w[j % 2 * 2] ^ sign, words.w[j % 2 * 2 + 1] ^ sign, twice(0x6480), twice(d), 0);
        }
    }
#endif
};

template <> struct Weight<Q4_K> {
    typedef Quantised X;
    static constexpr u32 UNITS = CHUNKS, ROW = CHUNKS + CHUNKS / 8;
    U4 q, head;
    FN Weight(const U4 *words, u32 row, u32 chunk) {
        const U4 *at = words + (u64)row * ROW;
        q = load4(at + chunk);
        head = load4(at + CHUNKS + chunk / 8);
    }
    // ggml, get_scale_min_k4: 6 bits each, the upper two of the last four in the first four's bytes.
    FN void scales(u32 chunk, float &d, float &least) const {
        u32 shift = 8 * (chunk & 3);
        u32 a = head.w[1] >> shift & 255, b = head.w[2] >> shift & 255, c = head.w[3] >> shift & 255;
        bool early = (chunk & 7) < 4;
        u32 s = early ? a & 63 : (c & 15) | a >> 6 << 4, m = early ? b & 63 : c >> 4 | b >> 6 << 4;
        d = half_to_float(head.w[0] & 0xFFFF) * (float)s, least = half_to_float(head.w[0] >> 16) * (float)m;
    }
    FN float dot(const X &x, u32 chunk) const {
        float d, least;
        scales(chunk, d, least);
        return x.scale[chunk] * (d * (float)dot_nibbles(q, x, chunk) - least * both(x.sums[chunk]));
    }
#if HALVES
    FN void to_halves(U4 (&to)[4], u32 chunk) const {
        float scale, least;
        scales(chunk, scale, least);
#pragma unroll
        for (u32 j = 0; j < 4; j++) to[j] = affine(q.w[j] & LOW, q.w[j] >> 4 & LOW, 0.0f, scale, -least);
    }
#endif
};

template <> struct Weight<Q6_K> {
    typedef Quantised X;
    // Offsets in bytes: scales, high pairs, d.
    static constexpr u32 UNITS = CHUNKS, SUPER = CHUNKS / 8, A = 16 * CHUNKS, B = A + 16 * SUPER, C = B + 8 * CHUNKS;
    static constexpr u32 ROW = (C + 2 * SUPER + 15) / 16;
    U4 q;
    u32 high[2];
    u16 scales, d;
    FN Weight(const U4 *words, u32 row, u32 chunk) {
        const U4 *start = words + (u64)row * ROW;
        const u8 *at = (const u8 *)start;
        q = load4(start + chunk);
        high[0] = load((const u32 *)(at + B) + 2 * chunk);
        high[1] = load((const u32 *)(at + B) + 2 * chunk + 1);
        scales = load((const u16 *)(at + A) + chunk);
        d = load((const u16 *)(at + C) + chunk / 8);
    }
    // Bits 4 and 5 of four elements, from bits 0 to 7.
    static FN u32 spread(u32 pairs) {
        return (pairs & 3) << 4 | (pairs & 12) << 10 | (pairs & 48) << 16 | (pairs & 192) << 22;
    }
    // 6 bits each, of the first four of eight elements and of the others.
    FN void bytes(u32 j, u32 &first, u32 &second) const {
        u32 pairs = high[j / 2] >> 16 * (j & 1);
        first = (q.w[j] & LOW) | spread(pairs), second = (q.w[j] >> 4 & LOW) | spread(pairs >> 8);
    }
    FN float dot(const X &x, u32 chunk) const {
        float total = 0;
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            int sum = -32 * x.sums[chunk][h];
#pragma unroll
            for (u32 j = 2 * h; j < 2 * h + 2; j++) {
                u32 first, second;
                bytes(j, first, second);
                const U4 &p = x.pieces[j][chunk];
                sum = dp2a_hi(p.w[3], second, dp2a_lo(p.w[2], second, dp2a_hi(p.w[1], first, dp2a_lo(p.w[0], first, sum))));
            }
            total += (float)(signed char)(scales >> 8 * h) * (float)sum;
        }
        return half_to_float(d) * x.scale[chunk] * total;
    }
#if HALVES
    FN void to_halves(U4 (&to)[4], u32) const {
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            u32 first, second;
            bytes(j, first, second);
            float scale = half_to_float(d) * (float)(signed char)(scales >> 8 * (j / 2));
            to[j] = affine(first, second, 32.0f, scale, 0.0f);
        }
    }
#endif
};

template <> struct Weight<F16> {
    typedef Floats X;
    static constexpr u32 UNITS = 4 * CHUNKS, ROW = 4 * CHUNKS;
    U4 q;
    FN Weight(const U4 *words, u32 row, u32 unit) { q = load4(words + (u64)row * ROW + unit); }
    FN float dot(const X &x, u32 unit) const {
        float sum = 0;
#pragma unroll
        for (u32 i = 0; i < 8; i++)
            sum += half_to_float(q.w[i / 2] >> 16 * (i & 1)) * x.halves[i / 4][unit].v[i % 4];
        return sum;
    }
};

template <> struct Weight<BF16> {
    static constexpr u32 ROW = 4 * CHUNKS;
    static FN float value(const U4 &q, u32 i) { return __int_as_float((int)(i & 1 ? q.w[i / 2] & 0xFFFF0000 : q.w[i / 2] << 16)); }
#if HALVES
    U4 q[4];
    FN Weight(const U4 *words, u32 row, u32 chunk) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) q[j] = load4(words + (u64)row * ROW + 4 * chunk + j);
    }
    // f16 has all of their bits, but for weights below 2^-14, whose rounding is 2^-25 at most.
    FN void to_halves(U4 (&to)[4], u32) const {
#pragma unroll
        for (u32 i = 0; i < 16; i++) to[i / 4].w[i % 4] = pair(value(q[i / 4], i % 4 * 2), value(q[i / 4], i % 4 * 2 + 1));
    }
#else
    typedef Floats X;
    static constexpr u32 UNITS = 4 * CHUNKS;
    U4 q;
    FN Weight(const U4 *words, u32 row, u32 unit) { q = load4(words + (u64)row * ROW + unit); }
    FN float dot(const X &x, u32 unit) const {
        float sum = 0;
#pragma unroll
        for (u32 i = 0; i < 8; i++) sum += value(q, i) * x.halves[i / 4][unit].v[i % 4];
        return sum;
    }
#endif
};
