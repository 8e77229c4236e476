// What products by cuBLASLt lack: y[t, n] = scale[t] * y[t, n] + bias[n] + residual[t, n], with SCALED scales of halves.cu, or
// with GATED act(gate) * up, whose sums for up are in the workspace.
//
// Blocks by tokens and ITEMS rows of weights. Source of the definition: core/src/kernels/matmul.rs, gated_mlp.rs.

struct Call {
    const float *bias, *gate_bias, *up_bias, *residual;
    float *y;
    const Args *args;
    void *workspace;
};

FN void run(const Call &c) {
    const Args &args = *c.args;
    u32 t = blockIdx.x;
#if SCALED
    float scale = scales(c.workspace)[t];
#if PRODUCT == PLAIN && !BIAS && !RESIDUAL
    if (scale == 1) return;
#endif
#else
    constexpr float scale = 1;
#endif
    u32 end = (blockIdx.y + 1) * ITEMS < args.N ? (blockIdx.y + 1) * ITEMS : args.N;
    for (u32 n = blockIdx.y * ITEMS + threadIdx.x; n < end; n += blockDim.x) {
        u64 at = (u64)t * args.NY + args.ROW0 + n;
        float value = c.y[at] * scale;
#if PRODUCT == GATED
        float other = sums(c.workspace, args.T)[(u64)t * ((args.N + 63) / 64 * 64) + n] * scale;
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
