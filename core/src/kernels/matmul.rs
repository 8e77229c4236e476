//! Linear layer for many tokens: as [`matvec`](super::matvec), in tiles. With `EXPERTS` it takes an
//! [`Order`] of the pairs.

use super::linear::{Size, by_tiles, expert_cases, inner_lengths};
use super::matvec::{self, BINDINGS, UNIFORMS, case, expert_case};
use super::{Case, Kernel, Order, Params, Variant};
use crate::DType;
use crate::device::Limits;
use crate::device::cpu;

pub use super::matvec::params;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "matmul",
    bindings: BINDINGS,
    uniforms: UNIFORMS,
    variants,
    cpu: cpu::linear,
    reference: super::definition(matvec::reference),
    cases: super::checks(cases),
};

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    by_tiles(p, limits, 4)
}

/// Tiles of f16 round weights and activations to 11 bits: 2 * 4^-11 / 12 = 4e-8 on average.
const BOUND: f64 = 2e-7;

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &dtype in DType::WEIGHTS {
        for (i, &inner) in inner_lengths(dtype).iter().step_by(2).enumerate() {
            let (tokens, rows) = [(13, 67), (67, 13), (17, 129)][i];
            let size = Size::new(tokens, rows, inner);
            cases.push(case(size, dtype, i == 1, i == 2, BOUND));
        }
    }
    // Below, on and off the edges of tiles of 16, 32 and 64.
    for (tokens, rows) in [
        (1, 1),
        (15, 63),
        (16, 64),
        (32, 64),
        (33, 1),
        (64, 65),
        (65, 127),
    ] {
        let size = Size::new(tokens, rows, 288);
        cases.push(case(size, DType::Q8_0, false, false, BOUND));
    }
    for dtype in [DType::Q4K, DType::Q6K, DType::F16, DType::BF16] {
        cases.push(case(Size::new(35, 70, 768), dtype, false, true, BOUND));
    }
    for size in [
        Size::slice(19, 13..80, 97, 96),
        Size::slice(129, 1..32, 33, 96),
    ] {
        for dtype in [DType::Q4_0, DType::F16, DType::BF16] {
            cases.push(case(size, dtype, true, true, BOUND));
        }
    }
    for (i, (mut pairs, ids)) in expert_cases(&[7, 33, 64, 131]).into_iter().enumerate() {
        pairs.order = Some(Order::new(ids.len(), pairs.experts));
        let dtype = DType::WEIGHTS[i % DType::WEIGHTS.len()];
        let size = [[1, 67, 64][i % 3], inner_lengths(dtype)[1], 5 * (i % 2)];
        cases.push(expert_case(size, (pairs, &ids), dtype, i % 2 == 1, BOUND));
    }
    cases
}
