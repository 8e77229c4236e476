//! Linear layer for few tokens: `y = x w^T (+ bias) (+ residual)`, right for every number of them.
//!
//! Params: those of [`Size`], the weight's type `W`, switches `BIAS` and `RESIDUAL`; with the switch
//! `EXPERTS` those of [`Pairs`], and `ROW0` is the place of the slice's first row in the bias. With
//! `NORM` and `EPS` x is RMS-normalised first.

use super::linear::{
    Pairs, Size, by_rows, expert_cases, inner_lengths, norm_case, normalised, product, rows_of,
    with_pairs, x_and_pairs, x_and_y,
};
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
    reference: super::definition(reference),
    cases: super::checks(cases),
};

pub(super) const BINDINGS: &[Binding] = &[
    Binding::new("x", Access::Read),
    Binding::new("w", Access::Weight),
    Binding::optional("bias", Access::Read),
    Binding::optional("residual", Access::Read),
    Binding::new("y", Access::Write),
    Binding::optional("pairs", Access::Read),
    Binding::optional("norm", Access::Read),
];

pub(super) const UNIFORMS: &[&str] = with_pairs!["T", "N", "ROW0", "NY"];

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
    let x = normalised(p, &arrays[0], &arrays[6]);
    for (t, of, first) in rows_of(p, &arrays[5]) {
        for n in 0..size.rows {
            let column = match p.is("EXPERTS") {
                true => n,
                false => size.row0 + n,
            };
            let i = t * size.columns + column;
            let mut value = product(&arrays[1], first + n, &x, of, size.inner);
            if p.is("BIAS") {
                value += arrays[2][size.row0 + first + n];
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
            None,
            None,
        ],
        bound,
    }
}

/// A case of rows of several experts: `before` rows of other slices are before the bound one in the bias.
pub(super) fn expert_case(
    [rows, inner, before]: [usize; 3],
    (pairs, ids): (Pairs, &[u32]),
    dtype: DType,
    bias: bool,
    bound: f64,
) -> Case {
    let size = Size {
        row0: before,
        ..Size::new(ids.len(), rows, inner)
    };
    let (x, words) = x_and_pairs(&size, &pairs, ids);
    let held = pairs.count * rows;
    Case {
        params: pairs.params(params(size, dtype, bias, false)),
        arrays: vec![
            Some(x),
            Some(HostArray::weight(5, dtype, &[held, inner])),
            bias.then(|| HostArray::random(3, &[before + held])),
            None,
            // Random, since pairs of experts elsewhere must stay.
            Some(HostArray::random(2, &[size.tokens, rows])),
            Some(words),
            None,
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
    for (i, (pairs, ids)) in expert_cases(&[1, 2, 3, 9]).iter().enumerate() {
        let dtype = DType::WEIGHTS[i % DType::WEIGHTS.len()];
        let size = [[1, 37, 64][i % 3], inner_lengths(dtype)[1], 5 * (i % 2)];
        cases.push(expert_case(size, (*pairs, ids), dtype, i % 2 == 1, BOUND));
    }
    for (i, &dtype) in DType::WEIGHTS.iter().enumerate() {
        let inner = inner_lengths(dtype)[i % 2 * (inner_lengths(dtype).len() - 1)];
        let (tokens, rows) = [(1, 37), (3, 131), (4, 64)][i % 3];
        let plain = case(
            Size::new(tokens, rows, inner),
            dtype,
            i % 3 == 1,
            i % 2 == 1,
            BOUND,
        );
        cases.push(norm_case(plain, 6, inner));
    }
    let (pairs, ids) = &expert_cases(&[5, 5, 5])[6];
    let wide = [4099, 32, 0];
    cases.push(expert_case(wide, (*pairs, ids), DType::Q4_0, false, BOUND));
    cases
}
