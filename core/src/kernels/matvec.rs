//! Linear layer for few tokens: `y = x w^T (+ bias) (+ residual)`, right for every number of them.
//!
//! Params: those of [`Size`], the weight's type `W`, switches `BIAS` and `RESIDUAL`.

use super::linear::{Size, by_rows, inner_lengths, product, x_and_y};
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant};
use crate::DType;
use crate::device::Limits;
use crate::device::cpu;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "matvec",
    bindings: BINDINGS,
    uniforms: UNIFORMS,
    variants,
    cpu: cpu::linear,
    reference,
    cases,
};

pub(super) const BINDINGS: &[Binding] = &[
    Binding::new("x", Access::Read),
    Binding::new("w", Access::Weight),
    Binding::optional("bias", Access::Read),
    Binding::optional("residual", Access::Read),
    Binding::new("y", Access::Write),
];

pub(super) const UNIFORMS: &[&str] = &["T", "N", "ROW0", "NY"];

/// Parameters of a call, for matmul as well.
pub fn params(size: Size, dtype: DType, bias: bool, residual: bool) -> Params {
    (size.params().dtype("W", dtype))
        .bool("BIAS", bias)
        .bool("RESIDUAL", residual)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    by_rows(p, limits, 4)
}

pub(super) fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let size = Size::of(p);
    for t in 0..size.tokens {
        for n in 0..size.rows {
            let column = size.row0 + n;
            let i = t * size.columns + column;
            let mut value = product(&arrays[1], n, &arrays[0], t, size.inner);
            if p.is("BIAS") {
                value += arrays[2][column];
            }
            if p.is("RESIDUAL") {
                value += arrays[3][i];
            }
            arrays[4][i] = value;
        }
    }
}

pub(super) fn case(size: Size, dtype: DType, bias: bool, residual: bool, bound: f64) -> Case {
    let (x, y) = x_and_y(&size);
    let bias_array = HostArray::random(3, &[size.columns]);
    let residual_array = HostArray::random(4, &[size.tokens, size.columns]);
    Case {
        params: params(size, dtype, bias, residual),
        arrays: vec![
            Some(x),
            Some(HostArray::weight(5, dtype, &[size.rows, size.inner])),
            bias.then_some(bias_array),
            residual.then_some(residual_array),
            Some(y),
        ],
        bound,
    }
}

fn cases() -> Vec<Case> {
    const BOUND: f64 = 1e-10;
    let mut cases = Vec::new();
    for &dtype in DType::WEIGHTS {
        for (i, &inner) in inner_lengths(dtype).iter().enumerate() {
            let (tokens, rows) = [(1, 1), (2, 37), (1, 131), (5, 64), (3, 17)][i];
            let size = Size::new(tokens, rows, inner);
            cases.push(case(size, dtype, i == 1, i == 2, BOUND));
        }
    }
    // Enough rows for two and four an invocation; a slice in the middle of y.
    let sizes = [
        Size::new(1, 4099, 64),
        Size::new(4, 4099, 32),
        Size::new(1, 16411, 32),
        Size::new(8, 128, 576),
        Size::slice(1, 13..80, 97, 288),
        Size::slice(3, 1..32, 33, 288),
    ];
    for (i, size) in sizes.into_iter().enumerate() {
        cases.push(case(size, DType::Q8_0, i >= 4, i >= 3, BOUND));
        cases.push(case(size, DType::Q4_1, i == 5, i == 5, BOUND));
    }
    cases
}
