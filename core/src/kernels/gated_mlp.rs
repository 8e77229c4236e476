//! The first half of a gated MLP: `y = act(x gate^T) * (x up^T)` (arXiv:2002.05202, section 2).
//!
//! Params: those of [`Size`], the weights' types `GATE` and `UP`, the activation `ACT`.

use super::linear::{Size, by_rows, by_tiles, inner_lengths, product, x_and_y};
use super::{Access, Activation, Binding, Case, HostArray, Kernel, Params, Variant};
use crate::DType;
use crate::device::Limits;
use crate::device::cpu;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "gated_mlp",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("gate", Access::Weight),
        Binding::new("up", Access::Weight),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["T", "N", "ROW0", "NY"],
    variants,
    cpu: cpu::gated_mlp,
    reference,
    cases,
};

/// More tokens than this are worth tiles.
const FEW_TOKENS: u32 = 8;

/// Parameters of a call.
pub fn params(size: Size, gate: DType, up: DType, act: Activation) -> Params {
    (size.params().u32("ACT", act.number()))
        .dtype("GATE", gate)
        .dtype("UP", up)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    if p.get("T") <= FEW_TOKENS {
        by_rows(p, limits, 2)
    } else {
        by_tiles(p, limits, 2)
    }
}

/// The activation of a call; a number nobody has is the identity, as in the shader.
fn activation(p: &Params) -> Activation {
    Activation::from_number(p.get("ACT")).unwrap_or(Activation::Identity)
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (size, act) = (Size::of(p), activation(p));
    for t in 0..size.tokens {
        for n in 0..size.rows {
            let gate = product(&arrays[1], n, &arrays[0], t, size.inner);
            let up = product(&arrays[2], n, &arrays[0], t, size.inner);
            arrays[3][t * size.columns + size.row0 + n] = act.f64(gate) * up;
        }
    }
}

fn case(size: Size, gate: DType, up: DType, act: Activation) -> Case {
    let (x, y) = x_and_y(&size);
    let shape = [size.rows, size.inner];
    Case {
        params: params(size, gate, up, act),
        arrays: vec![
            Some(x),
            Some(HostArray::weight(5, gate, &shape)),
            Some(HostArray::weight(6, up, &shape)),
            Some(y),
        ],
        // Tiles of f16 round, see matmul; f32 variants are far below.
        bound: if size.tokens as u32 <= FEW_TOKENS {
            1e-10
        } else {
            1e-6
        },
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &dtype in DType::WEIGHTS {
        for (i, &inner) in inner_lengths(dtype).iter().step_by(2).enumerate() {
            let (tokens, rows) = [(1, 37), (19, 67), (5, 64)][i];
            let size = Size::new(tokens, rows, inner);
            cases.push(case(size, dtype, dtype, Activation::Silu));
        }
    }
    // Two types, as in files that keep some tensors at more bits; slices; more rows.
    let pairs = [
        (DType::Q4K, DType::Q6K, Activation::GeluTanh),
        (DType::Q5_0, DType::Q8_0, Activation::Gelu),
    ];
    for (gate, up, act) in pairs {
        cases.push(case(Size::new(1, 64, 768), gate, up, act));
        cases.push(case(Size::slice(2, 5..70, 71, 256), gate, up, act));
        cases.push(case(Size::slice(65, 31..64, 97, 256), gate, up, act));
    }
    for size in [Size::new(1, 4099, 32), Size::new(33, 31, 160)] {
        cases.push(case(size, DType::Q4_0, DType::Q4_0, Activation::Sigmoid));
    }
    cases
}
