//! WGSL kernels of Shardlight.
