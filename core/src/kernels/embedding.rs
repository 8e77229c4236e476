//! Token embedding: rows of a table, decoded.
//!
//! Params: `T` tokens, `C` channels, `SCALE` on every element, `W` the table's type, `N` rows of this slice of the table,
//! `ROW0` its first row. Tokens outside the slice leave their row of y as it is, so a table in
//! several slices is several calls. Switch `ZERO`: their rows become zeros, as a rank's first call
//! needs where each rank has a part of the vocabulary and y is summed over ranks (arXiv:1909.08053,
//! section 3). Switch `POSITIONS`: `tokens` is a step, token t has the number of its position and of the constant
//! `FIRST` together, and rows are added to those of y. With `EACH` every fourth number of `tokens` is a position.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::DType;
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};
use crate::weights::dequant::dequantize;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "embedding",
    bindings: &[
        Binding::new("tokens", Access::Read),
        Binding::new("w", Access::Weight),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["T", "ROW0", "N"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call without `ZERO` and scale.
pub fn params(tokens: usize, channels: usize, dtype: DType, row0: usize, rows: usize) -> Params {
    Params::new()
        .u32("T", tokens as u32)
        .u32("C", channels as u32)
        .f32("SCALE", 1.0)
        .dtype("W", dtype)
        .u32("ROW0", row0 as u32)
        .u32("N", rows as u32)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let invocations = p.get("T") * p.get("C").div_ceil(8);
    vec![Variant::new("eights", fold(invocations.div_ceil(64), limits)).set("WG", 64)]
}

/// The number of token `t`.
fn number(p: &Params, t: usize, tokens: impl Fn(usize) -> u32) -> u32 {
    match p.is("POSITIONS") {
        true if p.is("EACH") => tokens(4 * (p.size("FIRST") + t)),
        true => (tokens(0).wrapping_add(p.get("FIRST"))).wrapping_add(t as u32),
        false => tokens(t),
    }
}

/// The row of this slice that holds `token`.
fn row_of(p: &Params, token: u32) -> Option<usize> {
    let row = token.checked_sub(p.get("ROW0"))?;
    (row < p.get("N")).then_some(row as usize)
}

fn cpu(d: &CpuDispatch<'_>) {
    let (channels, dtype) = (d.params.size("C"), d.params.format("W"));
    let bytes = channels / dtype.block_len() * dtype.block_bytes();
    let (tokens, w, mut y) = (d.u32(0), d.bytes(1), d.f32_mut(2));
    let (tokens, w, scale) = (&*tokens, &*w, d.params.number("SCALE"));
    cpu::for_each_row(&mut y, channels, d.params.size("T"), |t, y| {
        if let Some(row) = row_of(d.params, number(d.params, t, |t| tokens[t])) {
            let row = &w[row * bytes..][..bytes];
            if d.params.is("POSITIONS") {
                let mut added = vec![0.0; channels];
                dequantize(dtype, row, &mut added);
                y.iter_mut().zip(added).for_each(|(y, x)| *y += x);
                return;
            }
            dequantize(dtype, row, y);
            if scale != 1.0 {
                y.iter_mut().for_each(|y| *y *= scale);
            }
        } else if d.params.is("ZERO") {
            y.fill(0.0);
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let channels = p.size("C");
    for t in 0..p.size("T") {
        let row = row_of(p, number(p, t, |t| arrays[0][t] as u32));
        for c in 0..channels {
            if let Some(row) = row {
                let scale = f64::from(p.number("SCALE"));
                let y = scale * arrays[1][row * channels + c];
                match p.is("POSITIONS") {
                    true => arrays[2][t * channels + c] += y,
                    false => arrays[2][t * channels + c] = y,
                }
            } else if p.is("ZERO") {
                arrays[2][t * channels + c] = 0.0;
            }
        }
    }
}

fn case(tokens: &[u32], channels: usize, dtype: DType, row0: usize, rows: usize) -> Case {
    Case {
        params: params(tokens.len(), channels, dtype, row0, rows),
        arrays: vec![
            Some(HostArray::u32(&[tokens.len()], tokens)),
            Some(HostArray::weight(1, dtype, &[rows, channels])),
            Some(HostArray::random(2, &[tokens.len(), channels])),
        ],
        bound: 1e-12,
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &dtype in DType::WEIGHTS {
        for &channels in super::linear::inner_lengths(dtype) {
            // Below, on and beyond the slice.
            let tokens = [10, 99, 16, 9, 0, u32::MAX, 17, 13, 10];
            let slice = case(&tokens, channels, dtype, 10, 7);
            cases.push(Case {
                params: slice.params.clone().bool("ZERO", true),
                ..slice.clone()
            });
            cases.push(slice);
        }
        let mut scaled = case(&[4], 512, dtype, 0, 7);
        scaled.params = scaled.params.f32("SCALE", 12.0);
        cases.push(scaled);
        // Positions 9 to 12 of a table whose slice begins at 10.
        let mut positions = case(&[0; 4], 256, dtype, 10, 7);
        positions.params = (positions.params.bool("POSITIONS", true)).u32("FIRST", 2);
        positions.arrays[0] = Some(HostArray::u32(&[4], &[7, 0, 0, 0]));
        cases.push(positions.clone());
        positions.params = positions.params.bool("EACH", true);
        let words: Vec<u32> = (0..24).map(|i| 9 + i * 3 % 8).collect();
        positions.arrays[0] = Some(HostArray::u32(&[24], &words));
        cases.push(positions);
    }
    cases
}
