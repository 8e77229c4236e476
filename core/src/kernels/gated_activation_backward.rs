//! Gradient of [`gated_activation`](super::gated_activation):
//! `d_gate = dy value act'(gate)`, `d_value = dy act(gate)`, packed as x is.
//!
//! Params: those of `gated_activation`.

use super::activation::act;
use super::gated_activation::{UNIFORMS, inputs, places, variants};
use super::{Access, Binding, Case, HostArray, Kernel, Params};
use crate::device::cpu::{self, CpuDispatch};

pub use super::gated_activation::params;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "gated_activation_backward",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("dy", Access::Read),
        Binding::new("dx", Access::Write),
    ],
    uniforms: UNIFORMS,
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (rows, len, step) = (p.size("T"), p.size("M"), p.size("STEP"));
    let (first_gate, first_value) = (p.size("GATE"), p.size("VALUE"));
    let (act, alpha) = (act(p), p.number("ALPHA"));
    let (x, dy, mut dx) = (d.f32(0), d.f32(1), d.f32_mut(2));
    let (x, dy) = (&*x, &*dy);
    cpu::for_each_row(&mut dx, 2 * len, rows, |t, dx| {
        let x = &x[2 * len * t..][..2 * len];
        for (m, dy) in dy[len * t..][..len].iter().enumerate() {
            let (gate, value) = (first_gate + step * m, first_value + step * m);
            dx[gate] = dy * x[value] * act.derivative_f32(x[gate], alpha);
            dx[value] = dy * act.f32_alpha(x[gate], alpha);
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let [x, dy, dx] = arrays else { return };
    let alpha = f64::from(p.number("ALPHA"));
    for (dy, (gate, value)) in dy.iter().zip(places(p)) {
        dx[gate] = dy * x[value] * act(p).derivative_f64(x[gate], alpha);
        dx[value] = dy * act(p).f64_alpha(x[gate], alpha);
    }
}

fn cases() -> Vec<Case> {
    let case = |(params, x, dy): (Params, HostArray, HostArray)| {
        let dx = HostArray::random(3, &x.shape);
        Case {
            params,
            arrays: vec![Some(x), Some(dy), Some(dx)],
            bound: 1e-11,
        }
    };
    inputs().into_iter().map(case).collect()
}
