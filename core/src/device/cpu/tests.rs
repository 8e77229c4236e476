use super::attention::Attention;
use super::dot::Activations;
use super::matvec::Linear;
use super::*;
use crate::kernels::Params;
use crate::kernels::attention_rules::Adjust;
use crate::kernels::case::random;
use crate::weights::dequant::{dequantize, quantize, random_blocks};

/// sum (got - want)^2 / sum want^2.
fn nmse(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error = |(g, w): (&f32, &f64)| (f64::from(*g) - w).powi(2);
    let sum: f64 = got.iter().zip(want).map(error).sum();
    sum / want.iter().map(|w| w * w).sum::<f64>().max(1e-30)
}

fn decoded(dtype: DType, bytes: &[u8], len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    dequantize(dtype, bytes, &mut values);
    values
}

fn product(w: &[f32], x: &[f32]) -> f64 {
    let products = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
    products.sum()
}

#[test]
fn every_level_decodes_what_the_definition_does() {
    for &dtype in DType::WEIGHTS {
        let len = if dtype.block_len() == 1 {
            37
        } else {
            5 * dtype.block_len()
        };
        let bytes = random_blocks(dtype, len / dtype.block_len(), 7);
        let want: Vec<f64> = decoded(dtype, &bytes, len)
            .into_iter()
            .map(f64::from)
            .collect();
        for level in Level::available() {
            let mut got = vec![0.0; len];
            dot::decode_row(level, dtype, &bytes, &mut got);
            let error = nmse(&got, &want);
            assert!(error < 1e-13, "{dtype} {level:?}: NMSE {error:e}");
        }
    }
}

#[test]
fn every_level_multiplies_as_f64_does() {
    for &dtype in DType::WEIGHTS {
        for k in [1, 31, 32, 96, 256, 576, 1536] {
            let Some(row_bytes) = dtype.bytes(k) else {
                continue;
            };
            let (rows, tokens) = (37, 7);
            let bytes = random_blocks(dtype, rows * k / dtype.block_len(), k as u64);
            let w = decoded(dtype, &bytes, rows * k);
            let x = random(3, tokens * k);
            let want: Vec<f64> = (0..tokens * rows)
                .map(|i| product(&w[i % rows * k..][..k], &x[i / rows * k..][..k]))
                .collect();
            // One byte off: rows in files are not aligned.
            let shifted: Vec<u8> = [0].into_iter().chain(bytes).collect();
            for level in Level::available() {
                let mut got = vec![0.0; tokens * rows];
                let activations = Activations::new(dtype, &x, k);
                let mut out: Vec<&mut [f32]> = got.chunks_mut(rows).collect();
                dot::dot_into(level, dtype, &shifted[1..], &activations, &mut out);
                let error = nmse(&got, &want);
                assert!(error < 1e-12, "{dtype} {level:?} K={k}: NMSE {error:e}");
                let first = dot(level, dtype, &shifted[1..1 + row_bytes], &x[..k]);
                assert_eq!(
                    first.to_bits(),
                    dot(level, dtype, &shifted[1..1 + row_bytes], &x[..k]).to_bits()
                );
            }
        }
    }
}

#[test]
fn tiles_multiply_as_f64_does_on_and_off_their_edges() {
    let cases = [
        (DType::F32, 37, 9, 5),
        (DType::F32, 515, 17, 99),
        (DType::F16, 64, 64, 96),
        (DType::Q4_1, 576, 65, 192),
        (DType::Q6K, 1024, 33, 50),
        (DType::Q8_0, 32, 513, 7),
    ];
    for (dtype, k, tokens, rows) in cases {
        let bytes = random_blocks(dtype, rows * k / dtype.block_len(), 5);
        let w = decoded(dtype, &bytes, rows * k);
        let (x, ny, row0) = (random(6, tokens * k), rows + 3, 2);
        let (bias, residual) = (random(7, ny), random(8, tokens * ny));
        let call = Linear {
            k,
            tokens,
            rows,
            row0,
            ny,
            x: &x,
            bias: Some(&bias),
            residual: Some(&residual),
        };
        let mut got = vec![-7.0; tokens * ny];
        matmul::matmul(&call, dtype, &bytes, &mut got);
        let want: Vec<f64> = (0..tokens * ny)
            .map(|i| {
                let (t, n) = (i / ny, i % ny);
                if !(row0..row0 + rows).contains(&n) {
                    return -7.0;
                }
                let dot = product(&w[(n - row0) * k..][..k], &x[t * k..][..k]);
                dot + f64::from(bias[n]) + f64::from(residual[i])
            })
            .collect();
        let error = nmse(&got, &want);
        assert!(
            error < 1e-12,
            "{dtype} T={tokens} K={k} N={rows}: NMSE {error:e}"
        );
    }
}

fn attention_in_f64(call: &Attention<'_>, position: usize, k: &[f32], v: &[f32]) -> Vec<f64> {
    let (heads, d) = (call.kv_heads * call.group, call.d);
    let mut y = Vec::new();
    for row in 0..call.tokens * heads {
        let (last, g) = (position + row / heads, row % heads / call.group);
        let at = |cache: &'_ [f32], j: usize| cache[(g * call.capacity + j) * d..][..d].to_vec();
        let q = &call.q[row * d..][..d];
        let score = |j| f64::from(call.scale) * product(q, &at(k, j));
        let scores: Vec<f64> = (0..=last).map(score).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        for c in 0..d {
            let value = |(j, s): (usize, &f64)| (s - max).exp() * f64::from(at(v, j)[c]);
            y.push(scores.iter().enumerate().map(value).sum::<f64>() / total);
        }
    }
    y
}

#[test]
fn attention_is_that_of_f64_at_every_level() {
    let (f32, f16, q8_0) = (DType::F32, DType::F16, DType::Q8_0);
    // KV heads, group, head size, tokens, position, cache.
    let cases = [
        (1, 1, 4, 1, 0, f32),
        (3, 3, 64, 1, 511, f16),
        (2, 1, 24, 5, 70, f32),
        (1, 9, 80, 7, 300, f16),
        (3, 3, 64, 130, 3, f32),
        (1, 4, 256, 40, 63, f16),
        (3, 3, 64, 9, 200, q8_0),
    ];
    for (kv_heads, group, d, tokens, position, dtype) in cases {
        let capacity = position + tokens + 5;
        let cache = |seed| {
            let x = random(seed, kv_heads * capacity * d);
            let x: Vec<f32> = x.iter().map(|x| 0.2 * x).collect();
            let bytes = quantize(dtype, &x);
            let values = decoded(dtype, &bytes, x.len());
            (bytes, values)
        };
        let (q, (k, k_values), (v, v_values)) =
            (random(1, tokens * kv_heads * group * d), cache(2), cache(3));
        let params = Params::new().u32("S", capacity as u32);
        let rules = Adjust::plain(&params, position);
        let call = Attention {
            batch: 1,
            heads: kv_heads * group,
            kv_heads,
            group,
            first_head: 0,
            d,
            dv: d,
            scale: 0.1,
            dtype,
            tokens,
            capacity,
            heads_first: false,
            tokens_first: false,
            first: 0,
            pages: None,
            rules: &rules,
            sinks: None,
            q: &q,
            k: &k,
            v: &v,
        };
        let want = attention_in_f64(&call, position, &k_values, &v_values);
        for level in Level::available() {
            let mut got = vec![0.0; q.len()];
            call.run(level, &mut got);
            let error = nmse(&got, &want);
            assert!(
                error < 1e-11,
                "{level:?} G={group} D={d} T={tokens} pos={position}: NMSE {error:e}"
            );
        }
    }
}
