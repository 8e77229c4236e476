// quantized_matvec: y[t, ROW0 + n] = sum_k (min[n, g] + scale[n, g] q[n, k]) x[t, k] (+ bias[ROW0 + n])
//
// x       (T, K)             f32  read
// quants  (N, CHUNKS)        read: 32 unsigned elements, 4 bits each as in planar q4_0, or with INT8
//                            8 bits
// sides   (N, GROUPS) of 2   f32  read: min and scale of GC chunks
// bias    (NY,)              f32  read, with BIAS
// y       (T, NY)            f32  write
//
// For few tokens, as matvec. Dispatch: see shared/rows.wgsl, or with SERIAL shared/serial.wgsl. Sums
// are f32. Source: fastllm, gemv_int8 and gemv_int4. Reference: core/src/kernels/quantized_matvec.rs.

const K: u32 = 576u;

#import quantized
#if SERIAL
#import serial
#else
#import rows
#endif
