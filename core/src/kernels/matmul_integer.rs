//! Matrix product of signed bytes with zero points, in 32-bit integers:
//! `y[b, m, n] = sum_k (a[b, m, k] - a_zero[m]) (w[b, n, k] - w_zero[n])`.
//!
//! Params: `B` matrices a, `BW` (`B` or 1) matrices w, sizes `M`, `N`, `K`.
//!
//! Source: ONNX, `MatMulInteger`. Its unsigned operands become signed by taking 128 from elements
//! and zero points.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, case, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "matmul_integer",
    bindings: &[
        Binding::new("a", Access::Read),
        Binding::new("w", Access::Read),
        Binding::new("a_zero", Access::Read),
        Binding::new("w_zero", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["B", "BW", "M", "N", "K"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call: `matrices` a and `others` w, of `rows`, `columns` and `inner` elements.
pub fn params(matrices: usize, others: usize, [rows, columns, inner]: [usize; 3]) -> Params {
    (Params::new()
        .u32("B", matrices as u32)
        .u32("BW", others as u32))
    .u32("M", rows as u32)
    .u32("N", columns as u32)
    .u32("K", inner as u32)
}

/// Rows of `inner` bytes, each padded with zeros to whole words.
pub fn pack(bytes: &[i8], inner: usize) -> Vec<u32> {
    let word = |four: &[i8]| {
        four.iter()
            .rev()
            .fold(0u32, |w, b| w << 8 | u32::from(*b as u8))
    };
    bytes
        .chunks(inner)
        .flat_map(|row| row.chunks(4).map(word))
        .collect()
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let elements = p.get("B") * p.get("M") * p.get("N");
    let variant = |name| Variant::new(name, fold(elements.div_ceil(64), limits)).set("WG", 64);
    let mut variants = vec![variant("elements")];
    if limits.packed_dot {
        variants.insert(0, variant("dot4").flag("DOT4"));
    }
    variants
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (rows, columns, inner) = (p.size("M"), p.size("N"), p.size("K"));
    let (matrices, others) = (p.size("B"), p.size("BW"));
    let (a, w) = (d.bytes(0), d.bytes(1));
    let (a_zero, w_zero, mut y) = (d.read::<i32>(2), d.read::<i32>(3), d.write::<i32>(4));
    let (a, w, a_zero, w_zero) = (&*a, &*w, &*a_zero, &*w_zero);
    let width = inner.next_multiple_of(4);
    cpu::for_each_row(&mut y, columns, matrices * rows, |row, y| {
        let a = &a[row * width..][..inner];
        let (b, m) = (row / rows, row % rows);
        for (n, y) in y.iter_mut().enumerate() {
            let w = &w[(b % others * columns + n) * width..][..inner];
            *y = a.iter().zip(w).fold(0i32, |sum, (a, w)| {
                let a = i32::from(*a as i8).wrapping_sub(a_zero[m]);
                let w = i32::from(*w as i8).wrapping_sub(w_zero[n]);
                sum.wrapping_add(a.wrapping_mul(w))
            });
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (rows, columns, inner) = (p.size("M"), p.size("N"), p.size("K"));
    let words = inner.div_ceil(4);
    let signed = |v: f64| i64::from(v as u32 as i32);
    let byte = |words: &[f64], at: usize, k: usize| {
        i64::from((words[at + k / 4] as u32 >> (8 * (k % 4))) as u8 as i8)
    };
    for b in 0..p.size("B") {
        for m in 0..rows {
            for n in 0..columns {
                let at = (b * rows + m) * words;
                let other = (b % p.size("BW") * columns + n) * words;
                let sum: i64 = (0..inner)
                    .map(|k| {
                        (byte(&arrays[0], at, k) - signed(arrays[2][m]))
                            * (byte(&arrays[1], other, k) - signed(arrays[3][n]))
                    })
                    .sum();
                arrays[4][(b * rows + m) * columns + n] = f64::from(sum as i32 as u32);
            }
        }
    }
}

fn cases() -> Vec<Case> {
    let bytes = |seed, len| -> Vec<i8> {
        let values = case::random(seed, len);
        values
            .iter()
            .map(|x| (x * 71.0).clamp(-128.0, 127.0) as i8)
            .collect()
    };
    [
        (1, 1, 1, 1, 1),
        (1, 1, 4, 2, 3),
        (2, 1, 7, 37, 130),
        (3, 3, 5, 64, 31),
    ]
    .into_iter()
    .map(
        |(matrices, others, rows, columns, inner): (usize, usize, usize, usize, usize)| {
            let words = inner.div_ceil(4);
            let zeros = |seed, len| -> Vec<u32> {
                bytes(seed, len)
                    .into_iter()
                    .map(|z| i32::from(z) as u32)
                    .collect()
            };
            let a = pack(&bytes(1, matrices * rows * inner), inner);
            let w = pack(&bytes(2, others * columns * inner), inner);
            let y = vec![7; matrices * rows * columns];
            Case {
                params: params(matrices, others, [rows, columns, inner]),
                arrays: vec![
                    Some(HostArray::u32(&[matrices, rows, words], &a)),
                    Some(HostArray::u32(&[others, columns, words], &w)),
                    Some(HostArray::u32(&[rows], &zeros(3, rows))),
                    Some(HostArray::u32(&[columns], &zeros(4, columns))),
                    Some(HostArray::u32(&[matrices, rows, columns], &y)),
                ],
                bound: 0.0,
            }
        },
    )
    .collect()
}
