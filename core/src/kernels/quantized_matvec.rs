//! Linear layer of an integer weight for few tokens, `y = x w^T (+ bias)` with elements
//! `min + scale q`, right for every number of them.
//!
//! Params: those of [`Size`], `GC` chunks of 32 elements with one min and scale, switches `INT8`
//! (otherwise 4 bits) and `BIAS`.
//!
//! Source: fastllm, gemv_int8 and gemv_int4; [`crate::weights::fastllm`] has the formats.

use super::linear::{Size, by_rows, product};
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, case};
use crate::DType;
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch, Level};
use crate::weights::fastllm::{CHUNK, decode};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "quantized_matvec",
    bindings: BINDINGS,
    uniforms: UNIFORMS,
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

pub(super) const BINDINGS: &[Binding] = &[
    Binding::new("x", Access::Read),
    Binding::new("quants", Access::Read),
    Binding::new("sides", Access::Read),
    Binding::optional("bias", Access::Read),
    Binding::new("y", Access::Write),
];

pub(super) const UNIFORMS: &[&str] = &["T", "N", "ROW0", "NY"];

/// Parameters of a call, for quantized_matmul and quantized_dot as well: `bits` is 8 or 4, `group`
/// the elements with one scale.
pub fn params(size: Size, bits: usize, group: usize, bias: bool) -> Params {
    (size.params().u32("GC", group.div_ceil(CHUNK) as u32))
        .bool("INT8", bits == 8)
        .bool("BIAS", bias)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    by_rows(p, limits, 4)
}

/// What the parameters say about the weight.
pub(super) struct Shape {
    pub bits: usize,
    pub inner: usize,
    pub chunks: usize,
    pub groups: usize,
    pub group: usize,
}

impl Shape {
    pub fn of(p: &Params) -> Self {
        let (inner, in_group) = (p.size("K"), p.size("GC"));
        let chunks = inner.div_ceil(CHUNK);
        Shape {
            bits: if p.is("INT8") { 8 } else { 4 },
            inner,
            chunks,
            groups: chunks.div_ceil(in_group),
            group: in_group * CHUNK,
        }
    }

    /// Bytes of a row of quants.
    pub fn row_bytes(&self) -> usize {
        self.chunks * CHUNK * self.bits / 8
    }
}

/// Calls `f(row, outputs)` for every row of the weight on all threads, and puts the outputs, one
/// for each token, into y with the bias.
pub(super) fn for_each_row(
    p: &Params,
    bias: Option<&[f32]>,
    y: &mut [f32],
    f: impl Fn(usize, &mut [f32]) + Sync,
) {
    let size = Size::of(p);
    let mut out = vec![0.0f32; size.rows * size.tokens];
    // About 64 KiB of weights decoded.
    let part = (16384 / size.inner).max(1);
    cpu::for_each_chunk(&mut out, part * size.tokens, |i, out| {
        for (n, out) in out.chunks_mut(size.tokens).enumerate() {
            f(i * part + n, out);
        }
    });
    for (t, y) in y.chunks_mut(size.columns).take(size.tokens).enumerate() {
        for n in 0..size.rows {
            let column = size.row0 + n;
            y[column] = out[n * size.tokens + t] + bias.map_or(0.0, |b| b[column]);
        }
    }
}

pub(super) fn cpu(d: &CpuDispatch<'_>) {
    let (p, shape) = (d.params, Shape::of(d.params));
    let (x, quants, sides, mut y) = (d.f32(0), d.bytes(1), d.read::<[f32; 2]>(2), d.f32_mut(4));
    let bias = d.has(3).then(|| d.f32(3));
    let (x, quants, sides) = (&*x, &*quants, &*sides);
    let (level, width) = (Level::current(), shape.row_bytes());
    for_each_row(p, bias.as_deref(), &mut y, |n, out| {
        let mut row = vec![0.0; shape.inner];
        let sides = &sides[n * shape.groups..][..shape.groups];
        decode(
            shape.bits,
            shape.group,
            &quants[n * width..][..width],
            sides,
            &mut row,
        );
        let row = bytemuck::cast_slice(&row);
        for (out, x) in out.iter_mut().zip(x.chunks(shape.inner)) {
            *out = cpu::dot(level, DType::F32, row, x);
        }
    });
}

/// Quant `k` of row `n`, from words of four bytes.
pub(super) fn quant(shape: &Shape, words: &[f64], n: usize, k: usize) -> f64 {
    let byte = |at: usize| (words[at / 4] as u32) >> (8 * (at % 4)) & 255;
    let row = n * shape.row_bytes();
    f64::from(if shape.bits == 8 {
        byte(row + k)
    } else {
        byte(row + k / 8 * 4 + k % 4) >> (k % 8 / 4 * 4) & 15
    })
}

/// Row `n` of the weight.
pub(super) fn row(shape: &Shape, quants: &[f64], sides: &[f64], n: usize) -> Vec<f64> {
    (0..shape.inner)
        .map(|k| {
            let side = 2 * (n * shape.groups + k / shape.group);
            sides[side] + sides[side + 1] * quant(shape, quants, n, k)
        })
        .collect()
}

pub(super) fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (size, shape) = (Size::of(p), Shape::of(p));
    for n in 0..size.rows {
        let w = row(&shape, &arrays[1], &arrays[2], n);
        for t in 0..size.tokens {
            let column = size.row0 + n;
            let mut value = product(&w, 0, &arrays[0], t, size.inner);
            if p.is("BIAS") {
                value += arrays[3][column];
            }
            arrays[4][t * size.columns + column] = value;
        }
    }
}

/// Random quants and sides: zero points near the middle, scales of many sizes.
pub(super) fn weight(size: &Size, bits: usize, group: usize) -> [HostArray; 2] {
    let shape = Shape::of(&params(*size, bits, group, false));
    let words = size.rows * shape.row_bytes() / 4;
    let noise = case::random(5, 2 * words);
    // The upper half of a product by an odd number has all bit patterns.
    let half = |x: f32| (x * 65_521.0).to_bits().wrapping_mul(0x9E37_79B9) >> 16;
    let quants: Vec<u32> = noise
        .chunks(2)
        .map(|p| half(p[0]) << 16 | half(p[1]))
        .collect();
    let middle = if bits == 8 { 128.0 } else { 8.0 };
    let sides: Vec<f32> = (case::random(6, size.rows * shape.groups).iter())
        .flat_map(|s| [-middle * s * 0.05, 0.05 * s])
        .collect();
    [
        HostArray::u32(&[size.rows, shape.row_bytes() / 4], &quants),
        HostArray::f32(&[size.rows, shape.groups, 2], &sides),
    ]
}

pub(super) fn case(size: Size, bits: usize, group: usize, bias: bool, bound: f64) -> Case {
    let [quants, sides] = weight(&size, bits, group);
    Case {
        params: params(size, bits, group, bias),
        arrays: vec![
            Some(HostArray::random(1, &[size.tokens, size.inner])),
            Some(quants),
            Some(sides),
            bias.then(|| HostArray::random(3, &[size.columns])),
            Some(HostArray::random(2, &[size.tokens, size.columns])),
        ],
        bound,
    }
}

fn cases() -> Vec<Case> {
    const BOUND: f64 = 1e-10;
    let mut cases = Vec::new();
    for bits in [8, 4] {
        cases.push(case(Size::new(1, 1, 1), bits, 1, false, BOUND));
        cases.push(case(Size::new(2, 37, 576), bits, 576, true, BOUND));
        cases.push(case(Size::new(1, 131, 100), bits, 100, false, BOUND));
        cases.push(case(Size::new(5, 64, 256), bits, 128, false, BOUND));
        cases.push(case(Size::new(3, 17, 1056), bits, 128, true, BOUND));
        cases.push(case(Size::new(8, 19, 160), bits, 32, false, BOUND));
        cases.push(case(Size::slice(3, 13..80, 97, 288), bits, 32, true, BOUND));
    }
    cases
}
