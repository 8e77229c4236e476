//! Activations to signed bytes, each 32 elements of a row with a scale of their own:
//! `s = max |x| / 127`, `q = round(x / s)`.
//!
//! Params: `T` rows of `K` elements.
//!
//! Source: fastllm, `INF_INT8_GROUP32`.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};
use crate::weights::fastllm::CHUNK;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "quantize_activations",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("q", Access::Write),
        Binding::new("sides", Access::Write),
    ],
    uniforms: &["T", "K"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call.
pub fn params(rows: usize, columns: usize) -> Params {
    Params::new().u32("T", rows as u32).u32("K", columns as u32)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let chunks = p.get("T") * p.get("K").div_ceil(CHUNK as u32);
    vec![Variant::new("chunks", fold(chunks.div_ceil(64), limits)).set("WG", 64)]
}

/// Quants of a chunk, and its scale.
pub(super) fn quantize(x: &[f32]) -> ([i8; CHUNK], f32) {
    let largest = x.iter().fold(0.0f32, |a, x| a.max(x.abs()));
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let mut q = [0; CHUNK];
    for (q, x) in q.iter_mut().zip(x) {
        *q = (x * inverse).round_ties_even() as i8;
    }
    (q, largest / 127.0)
}

fn cpu(d: &CpuDispatch<'_>) {
    let (rows, columns) = (d.params.size("T"), d.params.size("K"));
    let chunks = columns.div_ceil(CHUNK);
    let (x, mut q, mut sides) = (d.f32(0), d.write::<[u8; CHUNK]>(1), d.write::<[f32; 2]>(2));
    let x = &*x;
    let chunk = |i: usize| {
        let row = &x[i / chunks * columns..][..columns];
        let row = &row[i % chunks * CHUNK..];
        quantize(&row[..row.len().min(CHUNK)])
    };
    cpu::for_each_part(&mut q[..rows * chunks], |start, q| {
        for (i, q) in q.iter_mut().enumerate() {
            *q = chunk(start + i).0.map(|q| q as u8);
        }
    });
    cpu::for_each_part(&mut sides[..rows * chunks], |start, sides| {
        for (i, side) in sides.iter_mut().enumerate() {
            let (q, scale) = chunk(start + i);
            *side = [
                scale,
                scale * q.iter().map(|q| i32::from(*q)).sum::<i32>() as f32,
            ];
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let columns = p.size("K");
    let chunks = columns.div_ceil(CHUNK);
    for i in 0..p.size("T") * chunks {
        let row = &arrays[0][i / chunks * columns..][..columns];
        let x = row[i % chunks * CHUNK..].iter().take(CHUNK);
        // Rounding is defined on f32, in which every device has x.
        let x: Vec<f32> = x.map(|x| *x as f32).collect();
        let (q, scale) = quantize(&x);
        for (j, four) in q.chunks(4).enumerate() {
            let word = four
                .iter()
                .rev()
                .fold(0u32, |w, q| w << 8 | u32::from(*q as u8));
            arrays[1][8 * i + j] = f64::from(word);
        }
        arrays[2][2 * i] = f64::from(scale);
        arrays[2][2 * i + 1] = f64::from(scale) * q.iter().map(|q| f64::from(*q)).sum::<f64>();
    }
}

fn cases() -> Vec<Case> {
    let case_of = |rows: usize, columns: usize, x: HostArray| {
        let chunks = columns.div_ceil(CHUNK);
        let words = vec![7; rows * chunks * 8];
        Case {
            params: params(rows, columns),
            arrays: vec![
                Some(x),
                Some(HostArray::u32(&[rows, chunks, 8], &words)),
                Some(HostArray::random(2, &[rows, chunks, 2])),
            ],
            bound: 1e-12,
        }
    };
    let mut cases: Vec<Case> = [(1, 1), (3, 37), (7, 576), (2, 100)]
        .into_iter()
        .map(|(rows, columns)| case_of(rows, columns, HostArray::random(1, &[rows, columns])))
        .collect();
    cases.push(case_of(2, 64, HostArray::zeros(&[2, 64])));
    cases
}
