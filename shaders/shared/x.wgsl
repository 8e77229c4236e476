// x_at: elements 4 i to 4 i + 3 of row t of x (T, K); those beyond K are 0. The kernel declares K
// and args.T. X4: K is a multiple of 4, so rows are whole vec4s. x_row: the row of x that row t of y
// is made of. NORM: norm_at are the elements of `norm` (K,) likewise, by which x is multiplied, and
// rms_scale makes the other half of RMSNorm of a row's sum of squares.

#if !EXPERTS
fn x_row(t: u32) -> u32 {
    return t;
}
#endif

#if X4
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;

fn x_at(t: u32, i: u32) -> vec4<f32> {
    if K % 32u != 0u && i >= K / 4u {
        return vec4<f32>();
    }
    return x[t * (K / 4u) + i];
}

#if NORM
fn norm_at(i: u32) -> vec4<f32> {
    if K % 32u != 0u && i >= K / 4u {
        return vec4<f32>();
    }
    return norm[i];
}
#endif
#else
@group(0) @binding(0) var<storage, read> x: array<f32>;

fn x_one(row: u32, k: u32) -> f32 {
    if k >= K {
        return 0.0;
    }
    return x[row + k];
}

fn x_at(t: u32, i: u32) -> vec4<f32> {
    let row = t * K;
    let k = 4u * i;
    return vec4<f32>(x_one(row, k), x_one(row, k + 1u), x_one(row, k + 2u), x_one(row, k + 3u));
}

#if NORM
fn norm_one(k: u32) -> f32 {
    if k >= K {
        return 0.0;
    }
    return norm[k];
}

fn norm_at(i: u32) -> vec4<f32> {
    let k = 4u * i;
    return vec4<f32>(norm_one(k), norm_one(k + 1u), norm_one(k + 2u), norm_one(k + 3u));
}
#endif
#endif

#if NORM
const EPS: f32 = 1e-5;

fn rms_scale(squares: f32) -> f32 {
    return inverseSqrt(squares / f32(K) + EPS);
}
#endif
