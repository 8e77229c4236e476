// Activations of many tokens as f16 for tensor cores: x[t, k] = scale[t] * half[t, k]. Scales are powers of two that bring a
// token's largest element near 2^11: f16 has its 11 bits for all that is not 2^-25 of it, and nothing is too large for it.
// With KEPT a token whose largest element is from 2^-4 to 2^15 keeps a scale of 1, so that finish.cu has nothing to do for it: what
// f16 rounds off is 2^-21 of that element at most. With BRAIN they become bf16, whose range is that of f32, without scales.

struct Call {
    const float *x;
    const Args *args;
    void *workspace;
};

#if BRAIN
#ifdef WGSL_HOST
FN u32 brain(float a) {
    u32 bits = (u32)__float_as_int(a);
    // To the nearest, ties to even; a NaN stays one.
    return a != a ? bits >> 16 | 64 : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}
FN u32 both(float a, float b) { return brain(a) | brain(b) << 16; }
#else
FN u32 both(float a, float b) { u32 r; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(b), "f"(a)); return r; }
#endif
#else
FN u32 both(float a, float b) { return pair(a, b); }
#endif

FN void run(const Call &c) {
    constexpr u32 THREADS = 256;
    u32 thread = threadIdx.x, t = blockIdx.x;
    const float *row = c.x + (u64)t * K;
#if BRAIN
    float inverse = 1;
#else
    __shared__ float tops[THREADS / LANES];
    float top = 0;
    for (u32 k = thread; k < K; k += THREADS) {
        float size = fabsf(row[k]);
        // Infinity for what is no number: a maximum would lose it.
        top = fmaxf(top, size < __int_as_float(0x7F800000) ? size : __int_as_float(0x7F800000));
    }
#pragma unroll
    for (u32 i = LANES / 2; i > 0; i /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, i));
    if (thread % LANES == 0) tops[thread / LANES] = top;
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < THREADS / LANES; i++) top = fmaxf(top, tops[i]);
    // Biased by 127; both powers must be normal.
    int exponent = __float_as_int(top) >> 23;
    exponent = exponent < 11 ? 11 : exponent;
    float inverse = __int_as_float((264 - exponent) << 23), scale = __int_as_float((exponent - 10) << 23);
#if KEPT
    // From 2^-4 to 2^15.
    if (exponent >= 123 && exponent < 142) inverse = scale = 1;
#endif
    // infinity / infinity: NaN, and so all that is made of this token.
    if (exponent == 255) inverse = 0, scale = top / top;
    if (thread == 0) scales(c.workspace)[t] = scale;
#endif
    U4 *to = halves(c.workspace, c.args->T) + (u64)t * PIECES;
    for (u32 p = thread; p < PIECES; p += THREADS) {
        U4 piece;
#pragma unroll
        for (u32 i = 0; i < 8; i += 2) {
            u32 k = 8 * p + i;
            float a = k < K ? row[k] * inverse : 0, b = k + 1 < K ? row[k + 1] * inverse : 0;
            piece.w[i / 2] = both(a, b);
        }
        to[p] = piece;
    }
}
