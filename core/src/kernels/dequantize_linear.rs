//! Numbers from integers, `y = (x - zero) scale`, with one scale, one for each element of an axis,
//! or one for each block of it.
//!
//! Params: x is `(A, C, B)`; element (a, c, b) has the scale number `a GA + c / BLOCK GC + b GB`;
//! switch `ZERO`.
//!
//! Source: ONNX, `DequantizeLinear`.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "dequantize_linear",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("scale", Access::Read),
        Binding::optional("zero", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["A", "C", "B", "BLOCK", "GA", "GC", "GB"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Which elements share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// All of them.
    Tensor,
    /// Those with the same place on the axis.
    Axis,
    /// So many neighbours along the axis.
    Block(usize),
}

/// Parameters of a call: x is `(outer, axis, inner)`.
pub fn params([outer, axis, inner]: [usize; 3], granularity: Granularity, zero: bool) -> Params {
    let (block, strides) = match granularity {
        Granularity::Tensor => (1, [0, 0, 0]),
        Granularity::Axis => (1, [0, 1, 0]),
        Granularity::Block(len) => (len, [axis.div_ceil(len) * inner, inner, 1]),
    };
    (Params::new().u32("A", outer as u32).u32("C", axis as u32))
        .u32("B", inner as u32)
        .u32("BLOCK", block as u32)
        .u32("GA", strides[0] as u32)
        .u32("GC", strides[1] as u32)
        .u32("GB", strides[2] as u32)
        .bool("ZERO", zero)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let elements = p.get("A") * p.get("C") * p.get("B");
    vec![Variant::new("elements", fold(elements.div_ceil(64), limits)).set("WG", 64)]
}

/// Number of the scale of element `i`.
fn scale_of(p: &Params, i: usize) -> usize {
    let (axis, inner) = (p.size("C"), p.size("B"));
    let (a, c, b) = (i / inner / axis, i / inner % axis, i % inner);
    a * p.size("GA") + c / p.size("BLOCK") * p.size("GC") + b * p.size("GB")
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (x, scale, mut y) = (d.f32(0), d.f32(1), d.f32_mut(3));
    let zero = d.has(2).then(|| d.f32(2));
    let (x, scale, zero) = (&*x, &*scale, zero.as_deref());
    let len = p.size("A") * p.size("C") * p.size("B");
    cpu::for_each_part(&mut y[..len], |start, y| {
        for (i, y) in y.iter_mut().enumerate() {
            let g = scale_of(p, start + i);
            *y = (x[start + i] - zero.map_or(0.0, |z| z[g])) * scale[g];
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    for i in 0..arrays[3].len() {
        let g = scale_of(p, i);
        let zero = if p.is("ZERO") { arrays[2][g] } else { 0.0 };
        arrays[3][i] = (arrays[0][i] - zero) * arrays[1][g];
    }
}

fn cases() -> Vec<Case> {
    [
        ([1, 1, 1], Granularity::Tensor, 1, true),
        ([3, 5, 7], Granularity::Tensor, 1, false),
        ([3, 5, 7], Granularity::Axis, 5, true),
        ([2, 7, 5], Granularity::Block(3), 2 * 3 * 5, true),
        ([1, 128, 33], Granularity::Block(32), 4 * 33, false),
    ]
    .into_iter()
    .map(|(shape, granularity, scales, zero)| {
        let x: Vec<f32> = (0..shape.iter().product())
            .map(|i| (i * 37 % 251) as f32)
            .collect();
        let zeros: Vec<f32> = (0..scales).map(|i| (i * 11 % 256) as f32).collect();
        Case {
            params: params(shape, granularity, zero),
            arrays: vec![
                Some(HostArray::f32(&shape, &x)),
                Some(HostArray::random(2, &[scales])),
                zero.then(|| HostArray::f32(&[scales], &zeros)),
                Some(HostArray::zeros(&shape)),
            ],
            bound: 1e-13,
        }
    })
    .collect()
}
