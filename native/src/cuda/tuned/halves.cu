// Activations of many tokens as f16 for tensor cores: x[t, k] = scale[t] * half[t, k]. Scales are powers of two that bring a
// token's largest element near 2^11: f16 has its 11 bits for all that is not 2^-25 of it, and nothing is too large for it.

struct Call {
    const float *x;
    const Args *args;
    void *workspace;
};

FN void run(const Call &c) {
    constexpr u32 THREADS = 256;
    __shared__ float tops[THREADS / LANES];
    u32 thread = threadIdx.x, t = blockIdx.x;
    const float *row = c.x + (u64)t * K;
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
    // infinity / infinity: NaN, and so all that is made of this token.
    if (exponent == 255) inverse = 0, scale = top / top;
    if (thread == 0) scales(c.workspace)[t] = scale;
    U4 *to = halves(c.workspace, c.args->T) + (u64)t * PIECES;
    for (u32 p = thread; p < PIECES; p += THREADS) {
        U4 piece;
#pragma unroll
        for (u32 i = 0; i < 8; i += 2) {
            u32 k = 8 * p + i;
            float a = k < K ? row[k] * inverse : 0, b = k + 1 < K ? row[k + 1] * inverse : 0;
            piece.w[i / 2] = pair(a, b);
        }
        to[p] = piece;
    }
}
