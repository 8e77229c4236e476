// gated_mlp: y[t, ROW0 + n] = act(sum_k gate[GATE0 + n, k] x[t, k] (+ gate_bias[GATE_BIAS0 + n]))
//                             * (sum_k up[UP0 + n, k] x[t, k] (+ up_bias[UP_BIAS0 + n]))
//
// x          (T, K)   f32     read
// gate       (.., K)  planar  read: N rows from GATE0 on
// up         (.., K)  planar  read: N rows from UP0 on; with packed weights the same buffer
// gate_bias  (..,)    f32     read, with BIAS
// up_bias    (..,)    f32     read, with BIAS
// y          (T, NY)  f32     write
// pairs      u32              read, with EXPERTS, see shared/experts.wgsl: T are pairs, each with its
//                             own N rows from GATE0, UP0, GATE_BIAS0 and UP_BIAS0 on
// norm       (K,)     f32     read, with NORM, for few tokens: x is RMS-normalised first, with this weight
//
// Dispatch: for few tokens one workgroup for ROWS rows and TB tokens, see shared/rows.wgsl; for
// many, with TILE, one for a tile, see shared/tiles.wgsl; with SERIAL an invocation for a few rows,
// see shared/serial.wgsl. Sums are f32.
// CLAMP: act(min(gate, LIMIT)) * (clamp(up, -LIMIT, LIMIT) + 1), as gpt-oss has it (transformers,
// GptOssExperts). Source: arXiv:2002.05202, section 2. Reference: core/src/kernels/gated_mlp.rs.

const K: u32 = 576u;
const ACT: u32 = 1u;

#import gated
#if TILE
#import tiles
#else
#if SERIAL
#import serial
#else
#import rows
#endif
#endif
