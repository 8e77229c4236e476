//! The first half of a gated MLP: `y = act(x gate^T) * (x up^T)` (arXiv:2002.05202, section 2).
//!
//! Gate and up may be parts of one packed weight, bound twice.
//!
//! Params: those of [`Size`], the weights' types `GATE` and `UP`, the activation `ACT`, the switch
//! `BIAS`; where the rows begin in the weights and biases: `GATE0`, `UP0`, `GATE_BIAS0`,
//! `UP_BIAS0`; with the switch `EXPERTS` those of [`Pairs`], or with `NORM` `EPS`: x is RMS-normalised. With the switch `CLAMP` it is
//! `act(min(gate, LIMIT)) * (clamp(up, -LIMIT, LIMIT) + 1)` (gpt-oss; transformers, `GptOssExperts`).

use super::linear::{
    Pairs, Size, by_rows, by_tiles, expert_cases, inner_lengths, norm_case, normalised, product,
    rows_of, with_pairs, x_and_pairs, x_and_y,
};
use super::{Access, Activation, Binding, Case, HostArray, Kernel, Order, Params, Variant};
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
        Binding::optional("gate_bias", Access::Read),
        Binding::optional("up_bias", Access::Read),
        Binding::new("y", Access::Write),
        Binding::optional("pairs", Access::Read),
        Binding::optional("norm", Access::Read),
    ],
    uniforms: with_pairs![
        "T",
        "N",
        "ROW0",
        "NY",
        "GATE0",
        "UP0",
        "GATE_BIAS0",
        "UP_BIAS0"
    ],
    variants,
    cpu: cpu::gated_mlp,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// More tokens than this are worth tiles.
const FEW_TOKENS: u32 = 8;

/// Where a call's rows begin.
#[derive(Clone, Copy, Debug, Default)]
pub struct First {
    /// In the bound slice of the gate's weight.
    pub gate: usize,
    /// In the bound slice of the other weight.
    pub up: usize,
    /// In the two biases, if there are any.
    pub bias: Option<(usize, usize)>,
}

/// Parameters of a call.
pub fn params(size: Size, first: First, gate: DType, up: DType, act: Activation) -> Params {
    let (gate_bias, up_bias) = first.bias.unwrap_or_default();
    (size.params().u32("ACT", act.number()))
        .dtype("GATE", gate)
        .dtype("UP", up)
        .u32("GATE0", first.gate as u32)
        .u32("UP0", first.up as u32)
        .bool("BIAS", first.bias.is_some())
        .u32("GATE_BIAS0", gate_bias as u32)
        .u32("UP_BIAS0", up_bias as u32)
}

/// The same call with gate and up held within `limit`.
pub fn clamped(p: Params, limit: Option<f32>) -> Params {
    match limit {
        Some(limit) => p.bool("CLAMP", true).f32("LIMIT", limit),
        None => p,
    }
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let few = match p.is("EXPERTS") {
        true => p.get("TT") == 0,
        false if p.is("NORM") => true,
        false => p.get("T") <= FEW_TOKENS,
    };
    if few {
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
    let x = normalised(p, &arrays[0], &arrays[7]);
    for (t, of, own) in rows_of(p, &arrays[6]) {
        for n in 0..size.rows {
            let sum = |i: usize, first: &str, bias: &str| {
                let row = p.size(first) + own + n;
                let sum = product(&arrays[i], row, &x, of, size.inner);
                let bias = (p.is("BIAS")).then(|| arrays[i + 2][p.size(bias) + own + n]);
                sum + bias.unwrap_or(0.0)
            };
            let mut gate = sum(1, "GATE0", "GATE_BIAS0");
            let mut up = sum(2, "UP0", "UP_BIAS0");
            if p.is("CLAMP") {
                let limit = f64::from(p.number("LIMIT"));
                gate = gate.min(limit);
                up = up.clamp(-limit, limit) + 1.0;
            }
            arrays[5][t * size.columns + size.row0 + n] = act.f64(gate) * up;
        }
    }
}

fn case(size: Size, first: First, gate: DType, up: DType, act: Activation) -> Case {
    let (x, y) = x_and_y(&size);
    let weight =
        |seed, dtype, first| HostArray::weight(seed, dtype, &[first + size.rows, size.inner]);
    let bias = |seed, first| HostArray::random(seed, &[first + size.rows]);
    Case {
        params: params(size, first, gate, up, act),
        arrays: vec![
            Some(x),
            Some(weight(5, gate, first.gate)),
            Some(weight(6, up, first.up)),
            first.bias.map(|(gate, _)| bias(7, gate)),
            first.bias.map(|(_, up)| bias(8, up)),
            Some(y),
            None,
            None,
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
    let whole = First::default();
    for &dtype in DType::WEIGHTS {
        for (i, &inner) in inner_lengths(dtype).iter().step_by(2).enumerate() {
            let (tokens, rows) = [(1, 37), (19, 67), (5, 64)][i];
            let size = Size::new(tokens, rows, inner);
            cases.push(case(size, whole, dtype, dtype, Activation::Silu));
        }
    }
    // Two types, as in files that keep some tensors at more bits; slices; more rows.
    let pairs = [
        (DType::Q4K, DType::Q6K, Activation::GeluTanh),
        (DType::Q5_0, DType::Q8_0, Activation::Gelu),
    ];
    for (gate, up, act) in pairs {
        cases.push(case(Size::new(1, 64, 768), whole, gate, up, act));
        cases.push(case(Size::slice(2, 5..70, 71, 256), whole, gate, up, act));
        cases.push(case(Size::slice(65, 31..64, 97, 256), whole, gate, up, act));
    }
    for size in [Size::new(1, 4099, 32), Size::new(33, 31, 160)] {
        let (dtype, act) = (DType::Q4_0, Activation::Sigmoid);
        cases.push(case(size, whole, dtype, dtype, act));
    }
    // Halves of packed weights and biases; rows in the middle.
    let f32 = DType::F32;
    for (gate, up, bias, tokens) in [
        (0, 37, true, 1),
        (37, 0, true, 15),
        (37, 0, false, 3),
        (3, 41, true, 3),
    ] {
        let bias = bias.then_some((up, gate));
        let first = First { gate, up, bias };
        let size = Size::new(tokens, 37, 33);
        cases.push(case(size, first, f32, f32, Activation::Relu));
    }
    let first = First {
        gate: 3,
        up: 41,
        bias: Some((5, 0)),
    };
    let size = Size::slice(19, 13..50, 97, 96);
    cases.push(case(
        size,
        first,
        DType::Q8_0,
        DType::Q4_0,
        Activation::Silu,
    ));
    // Many tokens; a clamp in some of them.
    let formats = [
        DType::Q4_0,
        DType::Q4_1,
        DType::Q8_0,
        DType::Q4K,
        DType::Q6K,
        DType::F16,
        DType::BF16,
    ];
    for (i, dtype) in formats.into_iter().enumerate() {
        let first = First {
            gate: [0, 40, 3][i % 3],
            up: [40, 0, 45][i % 3],
            bias: (i % 2 == 1).then_some((0, 2)),
        };
        let act = [Activation::Silu, Activation::GeluTanh][i % 2];
        let inner = inner_lengths(dtype).iter().find(|inner| **inner >= 100);
        let size = Size::slice(
            [33, 70][i / 3 % 2],
            2..42,
            43,
            inner.copied().unwrap_or(256),
        );
        let mut case = case(size, first, dtype, dtype, act);
        case.params = clamped(case.params, (i == 4).then_some(7.0));
        cases.push(case);
    }
    for (i, tokens) in [3, 19].into_iter().enumerate() {
        let bias = (i == 0).then_some((0, 0));
        let first = First { bias, ..whole };
        let mut case = case(
            Size::new(tokens, 37, 64),
            first,
            f32,
            f32,
            Activation::QuickGelu,
        );
        case.params = clamped(case.params, Some([7.0, 0.5][i]));
        cases.push(case);
    }
    for (i, &dtype) in DType::WEIGHTS.iter().enumerate() {
        let inner = inner_lengths(dtype)[i % 2];
        let size = Size::new([1, 3, 4][i % 3], [37, 64, 131][i % 3], inner);
        let plain = case(size, whole, dtype, dtype, Activation::Silu);
        cases.push(norm_case(plain, 7, inner));
    }
    for tiles in [false, true] {
        let tokens = if tiles {
            [7, 33, 64, 131]
        } else {
            [1, 2, 3, 9]
        };
        for (i, (mut pairs, ids)) in expert_cases(&tokens).into_iter().enumerate() {
            pairs.order = tiles.then(|| Order::new(ids.len(), pairs.experts));
            cases.push(expert_case(i, pairs, &ids));
        }
    }
    cases
}

fn expert_case(i: usize, pairs: Pairs, ids: &[u32]) -> Case {
    let gate = DType::WEIGHTS[i % DType::WEIGHTS.len()];
    // Two types where their rows can be as long.
    let up = match (i % 3, gate.block_len()) {
        (0, 1) => DType::F16,
        (0, 32) => DType::Q8_0,
        _ => gate,
    };
    let size = Size::new(ids.len(), [1, 37, 64][i % 3], inner_lengths(gate)[1]);
    let (x, words) = x_and_pairs(&size, &pairs, ids);
    let first = First {
        gate: 3 * (i % 2),
        up: 0,
        bias: (i % 2 == 1).then_some((2, 0)),
    };
    let held = pairs.count * size.rows;
    let weight =
        |seed, dtype, first: usize| HostArray::weight(seed, dtype, &[first + held, size.inner]);
    let bias = |seed, first: usize| HostArray::random(seed, &[first + held]);
    let limit = (i % 4 == 1).then_some(7.0);
    Case {
        params: clamped(
            pairs.params(params(size, first, gate, up, Activation::Silu)),
            limit,
        ),
        arrays: vec![
            Some(x),
            Some(weight(5, gate, first.gate)),
            Some(weight(6, up, first.up)),
            first.bias.map(|(gate, _)| bias(7, gate)),
            first.bias.map(|(_, up)| bias(8, up)),
            Some(HostArray::random(2, &[size.tokens, size.columns])),
            Some(words),
            None,
        ],
        // What is cut off is missing from the norm, not from the rounding of long sums.
        bound: match (pairs.order, limit) {
            (None, _) => 1e-10,
            (Some(_), None) => 1e-6,
            (Some(_), Some(_)) => 1e-5,
        },
    }
}
