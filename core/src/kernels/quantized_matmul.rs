//! Linear layer of an integer weight for many tokens: as
//! [`quantized_matvec`](super::quantized_matvec), in tiles.

use super::linear::{Size, by_tiles};
use super::quantized_matvec::{self, BINDINGS, UNIFORMS, case};
use super::{Case, Kernel, Params, Variant};
use crate::device::Limits;

pub use super::quantized_matvec::params;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "quantized_matmul",
    bindings: BINDINGS,
    uniforms: UNIFORMS,
    variants,
    cpu: quantized_matvec::cpu,
    reference: super::definition(quantized_matvec::reference),
    cases: super::checks(cases),
};

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    by_tiles(p, limits, 4)
}

fn cases() -> Vec<Case> {
    // Tiles of f16 round weights and activations to 11 bits.
    const BOUND: f64 = 2e-7;
    let mut cases = Vec::new();
    for bits in [8, 4] {
        cases.push(case(Size::new(9, 67, 576), bits, 576, true, BOUND));
        cases.push(case(Size::new(67, 13, 100), bits, 100, false, BOUND));
        cases.push(case(Size::new(33, 129, 256), bits, 128, false, BOUND));
        cases.push(case(Size::slice(19, 13..80, 97, 96), bits, 32, true, BOUND));
    }
    cases
}
