//! A gated unit on packed input, `y = act(gate) * value`, gate and value being parts of one row
//! (arXiv:2002.05202, section 2).
//!
//! Params: `T` rows, `M` elements of a row of y, the activation `ACT` and its `ALPHA`; where in a
//! row of x gate and value begin and how far apart elements are: `GATE`, `VALUE`, `STEP`.

use super::activation::act;
use super::{Access, Activation, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "gated_activation",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: UNIFORMS,
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

pub(super) const UNIFORMS: &[&str] = &["T", "M", "GATE", "VALUE", "STEP"];

/// How gate and value share one tensor. Never guessed: both halves orders are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// `[value; gate]`: flash-attn's GatedMlp, PyTorch's glu.
    ValueGate,
    /// `[gate; value]`: Megatron-LM, fastllm's swiglu.
    GateValue,
    /// Gate at even places, value at odd ones: fastllm's cross layout. Of activations only.
    Cross,
}

impl Packing {
    /// Every packing.
    pub const ALL: &'static [Packing] = &[Packing::ValueGate, Packing::GateValue, Packing::Cross];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Packing::ValueGate => "value_gate",
            Packing::GateValue => "gate_value",
            Packing::Cross => "cross",
        }
    }

    /// The packing of this name.
    pub fn from_name(name: &str) -> Option<Packing> {
        Self::ALL.iter().copied().find(|p| p.name() == name)
    }

    /// First place of the gate, first place of the value, and the step, in a row of `2 len`.
    pub const fn places(self, len: usize) -> (usize, usize, usize) {
        match self {
            Packing::ValueGate => (len, 0, 1),
            Packing::GateValue => (0, len, 1),
            Packing::Cross => (0, 1, 2),
        }
    }
}

/// Parameters of a call: `rows` rows of `2 len` to rows of `len`.
pub fn params(rows: usize, len: usize, packing: Packing, act: Activation, alpha: f32) -> Params {
    let (gate, value, step) = packing.places(len);
    (Params::new().u32("T", rows as u32))
        .u32("M", len as u32)
        .u32("GATE", gate as u32)
        .u32("VALUE", value as u32)
        .u32("STEP", step as u32)
        .u32("ACT", act.number())
        .f32("ALPHA", alpha)
}

/// Elements of an invocation.
const EACH: u32 = 4;

pub(super) fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let groups = (p.get("T") * p.get("M")).div_ceil(64 * EACH);
    let variant = Variant::new("elements", fold(groups, limits));
    vec![variant.set("WG", 64).set("EACH", EACH)]
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (rows, len, step) = (p.size("T"), p.size("M"), p.size("STEP"));
    let (act, alpha) = (act(p), p.number("ALPHA"));
    let (x, mut y) = (d.f32(0), d.f32_mut(1));
    let x = &*x;
    cpu::for_each_row(&mut y, len, rows, |t, y| {
        let x = &x[2 * len * t..][..2 * len];
        let gate = x[p.size("GATE")..].iter().step_by(step);
        let value = x[p.size("VALUE")..].iter().step_by(step);
        for ((y, gate), value) in y.iter_mut().zip(gate).zip(value) {
            *y = act.f32_alpha(*gate, alpha) * value;
        }
    });
}

/// For element (t, m): where in x its gate and its value are.
pub(super) fn places(p: &Params) -> impl Iterator<Item = (usize, usize)> + '_ {
    let (len, step) = (p.size("M"), p.size("STEP"));
    (0..p.size("T") * len).map(move |i| {
        let at = i / len * 2 * len + step * (i % len);
        (at + p.size("GATE"), at + p.size("VALUE"))
    })
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let [x, y] = arrays else { return };
    let alpha = f64::from(p.number("ALPHA"));
    for (y, (gate, value)) in y.iter_mut().zip(places(p)) {
        *y = act(p).f64_alpha(x[gate], alpha) * x[value];
    }
}

/// Parameters, x, and an array of y's shape for each case.
pub(super) fn inputs() -> Vec<(Params, HostArray, HostArray)> {
    let mut inputs = Vec::new();
    let mut add = |rows: usize, len: usize, packing, act: Activation, alpha| {
        inputs.push((
            params(rows, len, packing, act, alpha),
            HostArray::random(1, &[rows, 2 * len]),
            HostArray::random(2, &[rows, len]),
        ));
    };
    for act in Activation::ALL {
        add(3, 67, Packing::ValueGate, *act, act.alpha());
    }
    for packing in Packing::ALL {
        for (rows, len) in [(1, 1), (1, 255), (4, 64), (7, 257), (131, 67)] {
            add(rows, len, *packing, Activation::Silu, 1.0);
        }
    }
    add(5, 33, Packing::GateValue, Activation::Silu, 1.702);
    inputs
}

fn cases() -> Vec<Case> {
    let case = |(params, x, y)| Case {
        params,
        arrays: vec![Some(x), Some(y)],
        bound: 1e-11,
    };
    inputs().into_iter().map(case).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packings_say_which_part_is_the_gate() {
        // relu(1) 10 against relu(10) 1 would be equal; an activation of a negative is not.
        let run = |packing, x: &[f64]| {
            let mut arrays = vec![x.to_vec(), vec![0.0; 2]];
            reference(&params(1, 2, packing, Activation::Relu, 1.0), &mut arrays);
            arrays.swap_remove(1)
        };
        let x = [-1.0, 2.0, 3.0, 5.0];
        assert_eq!(run(Packing::ValueGate, &x), [-3.0, 10.0]);
        assert_eq!(run(Packing::GateValue, &x), [0.0, 10.0]);
        assert_eq!(run(Packing::Cross, &x), [0.0, 15.0]);
        for packing in Packing::ALL {
            assert_eq!(Packing::from_name(packing.name()), Some(*packing));
        }
    }
}
