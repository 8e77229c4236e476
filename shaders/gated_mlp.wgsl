// gated_mlp: y[t, ROW0 + n] = act(sum_k gate[n, k] x[t, k]) * sum_k up[n, k] x[t, k]
//
// x     (T, K)   f32     read
// gate  (N, K)   planar  read: a slice of NY rows that begins at row ROW0
// up    (N, K)   planar  read: likewise
// y     (T, NY)  f32     write
//
// Dispatch: for few tokens one workgroup for ROWS rows and TB tokens, see shared/rows.wgsl; for
// many, with TILE, one for a tile, see shared/tiles.wgsl; with SERIAL an invocation for a few rows,
// see shared/serial.wgsl. Sums are f32.
// Source: arXiv:2002.05202, section 2. Reference: core/src/kernels/gated_mlp.rs.

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
