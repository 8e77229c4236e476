// matvec: y[t, ROW0 + n] = sum_k w[n, k] x[t, k] (+ bias[ROW0 + n]) (+ residual[t, ROW0 + n])
//
// x         (T, K)         f32     read
// w         (N, K)         planar  read: a slice of NY rows that begins at row ROW0
// bias      (NY,)          f32     read, with BIAS
// residual  (T, NY)        f32     read, with RESIDUAL
// y         (T, NY)        f32     write
// pairs     u32                    read, with EXPERTS, see shared/experts.wgsl: T are pairs, each with
//                                  its own N rows of w; ROW0 is the place of w's first row in bias
// norm      (K,)           f32     read, with NORM: x is RMS-normalised first, with this weight
//
// For few tokens: what costs is reading w, once for TB tokens. Dispatch: one workgroup for ROWS
// rows and TB tokens, see shared/rows.wgsl, or with SERIAL shared/serial.wgsl. Sums are f32.
// Source: arXiv:1910.07467, eq. 4. Reference: core/src/kernels/matvec.rs.

const K: u32 = 576u;

#import linear
#if SERIAL
#import serial
#else
#import rows
#endif
