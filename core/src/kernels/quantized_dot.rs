//! Linear layer of an integer weight with quantised activations: products of 32 elements are
//! summed as integers, by DP4A where the device has it.
//!
//! Params: those of [`quantized_matvec`](super::quantized_matvec).
//!
//! Source: fastllm, `linear.cpp`.

use super::linear::Size;
use super::quantized_matvec::{self, Shape, for_each_row, row, weight};
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, case, fold};
use crate::device::cpu::CpuDispatch;
use crate::device::{DeviceKind, Limits};
use crate::kernels::quantize_activations::quantize;
use crate::weights::fastllm::CHUNK;

pub use super::quantized_matvec::params;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "quantized_dot",
    bindings: &[
        Binding::new("q", Access::Read),
        Binding::new("q_sides", Access::Read),
        Binding::new("quants", Access::Read),
        Binding::new("sides", Access::Read),
        Binding::optional("bias", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: quantized_matvec::UNIFORMS,
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    const WG: u32 = 64;
    const LANES: u32 = 16;
    let outputs = p.get("N") * p.get("T");
    let workgroup = |name| {
        let groups = fold(outputs.div_ceil(WG / LANES), limits);
        Variant::new(name, groups).set("WG", WG).set("LANES", LANES)
    };
    let serial = |name| {
        let groups = fold(outputs.div_ceil(8), limits);
        Variant::new(name, groups).set("WG", 8).flag("SERIAL")
    };
    let software = limits.kind == DeviceKind::SoftwareGpu;
    let order = |a: Variant, b: Variant| if software { [b, a] } else { [a, b] };
    let plain = order(workgroup("workgroup"), serial("serial"));
    if !limits.packed_dot {
        return plain.into();
    }
    let dot4 = order(workgroup("dot4"), serial("dot4_serial"));
    dot4.map(|v| v.flag("DOT4"))
        .into_iter()
        .chain(plain)
        .collect()
}

fn cpu(d: &CpuDispatch<'_>) {
    let (p, shape) = (d.params, Shape::of(d.params));
    let (q, q_sides) = (d.read::<[u8; CHUNK]>(0), d.read::<[f32; 2]>(1));
    let (quants, sides, mut y) = (d.bytes(2), d.read::<[f32; 2]>(3), d.f32_mut(5));
    let bias = d.has(4).then(|| d.f32(4));
    let (q, q_sides, quants, sides) = (&*q, &*q_sides, &*quants, &*sides);
    let (width, chunks) = (shape.row_bytes(), shape.chunks);
    for_each_row(p, bias.as_deref(), &mut y, |n, out| {
        let bytes = &quants[n * width..][..width];
        let mut row = vec![0i16; chunks * CHUNK];
        if shape.bits == 8 {
            row.iter_mut()
                .zip(bytes)
                .for_each(|(w, b)| *w = i16::from(*b));
        } else {
            for (eight, word) in row.chunks_mut(8).zip(bytes.chunks(4)) {
                for (e, w) in eight.iter_mut().enumerate() {
                    *w = i16::from(word[e % 4] >> (e / 4 * 4) & 15);
                }
            }
        }
        for (t, out) in out.iter_mut().enumerate() {
            let mut sum = 0.0f64;
            for (c, w) in row.chunks(CHUNK).enumerate() {
                let [min, scale] = sides[n * shape.groups + c * CHUNK / shape.group];
                let [s, s_sum] = q_sides[t * chunks + c];
                let products = w.iter().zip(&q[t * chunks + c]);
                let dot: i32 = products
                    .map(|(w, q)| i32::from(*w) * i32::from(*q as i8))
                    .sum();
                sum += f64::from(scale * s) * f64::from(dot) + f64::from(min * s_sum);
            }
            *out = sum as f32;
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (size, shape) = (Size::of(p), Shape::of(p));
    for n in 0..size.rows {
        let w = row(&shape, &arrays[2], &arrays[3], n);
        for t in 0..size.tokens {
            let mut value = 0.0;
            for (k, w) in w.iter().enumerate() {
                let chunk = t * shape.chunks + k / CHUNK;
                let word = arrays[0][8 * chunk + k % CHUNK / 4] as u32;
                let q = (word >> (8 * (k % 4))) as u8 as i8;
                value += w * arrays[1][2 * chunk] * f64::from(q);
            }
            let column = size.row0 + n;
            if p.is("BIAS") {
                value += arrays[4][column];
            }
            arrays[5][t * size.columns + column] = value;
        }
    }
}

fn cases() -> Vec<Case> {
    let case_of = |size: Size, bits: usize, group: usize, bias: bool| {
        let chunks = size.inner.div_ceil(CHUNK);
        let (mut words, mut sides) = (Vec::new(), Vec::new());
        for x in case::random(1, size.tokens * size.inner).chunks(size.inner) {
            for x in x.chunks(CHUNK) {
                let (q, scale) = quantize(x);
                words.extend(q.chunks(4).map(|four| {
                    four.iter()
                        .rev()
                        .fold(0u32, |w, q| w << 8 | u32::from(*q as u8))
                }));
                let sum: i32 = q.iter().map(|q| i32::from(*q)).sum();
                sides.extend([scale, scale * sum as f32]);
            }
        }
        let [quants, w_sides] = weight(&size, bits, group);
        Case {
            params: params(size, bits, group, bias),
            arrays: vec![
                Some(HostArray::u32(&[size.tokens, chunks, 8], &words)),
                Some(HostArray::f32(&[size.tokens, chunks, 2], &sides)),
                Some(quants),
                Some(w_sides),
                bias.then(|| HostArray::random(3, &[size.columns])),
                Some(HostArray::random(2, &[size.tokens, size.columns])),
            ],
            bound: 1e-10,
        }
    };
    let mut cases = Vec::new();
    for bits in [8, 4] {
        cases.push(case_of(Size::new(1, 1, 1), bits, 1, false));
        cases.push(case_of(Size::new(2, 37, 576), bits, 576, true));
        cases.push(case_of(Size::new(1, 131, 100), bits, 100, false));
        cases.push(case_of(Size::new(9, 17, 1056), bits, 128, true));
        cases.push(case_of(Size::slice(3, 13..80, 97, 288), bits, 32, true));
    }
    cases
}
