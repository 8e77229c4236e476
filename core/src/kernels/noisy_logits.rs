//! Router logits with noise: `y = clean + noise * (softplus(raw) + 0.01)` (arXiv:1701.06538, eq. 4).
//!
//! Params: `N` elements.

use super::expert_scatter::variants;
use super::{Access, Binding, Case, HostArray, Kernel, Params};
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "noisy_logits",
    bindings: &[
        Binding::new("clean", Access::Read),
        Binding::new("raw", Access::Read),
        Binding::new("noise", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["N"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call.
pub fn params(len: usize) -> Params {
    Params::new().u32("N", len as u32)
}

/// Standard deviation of the noise.
pub(super) fn deviation(raw: f64) -> f64 {
    raw.max(0.0) + (-raw.abs()).exp().ln_1p() + 0.01
}

fn cpu(d: &CpuDispatch<'_>) {
    let (clean, raw, noise) = (d.f32(0), d.f32(1), d.f32(2));
    let (clean, raw, noise) = (&*clean, &*raw, &*noise);
    cpu::for_each_part(&mut d.f32_mut(3)[..d.params.size("N")], |start, y| {
        for (i, y) in y.iter_mut().enumerate() {
            let i = start + i;
            *y = clean[i] + noise[i] * deviation(f64::from(raw[i])) as f32;
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let [clean, raw, noise, y] = arrays else {
        return;
    };
    for (i, y) in y.iter_mut().enumerate().take(p.size("N")) {
        *y = clean[i] + noise[i] * deviation(raw[i]);
    }
}

fn cases() -> Vec<Case> {
    let case_of = |len: usize| Case {
        params: params(len),
        arrays: vec![
            Some(HostArray::random(1, &[len])),
            Some(HostArray::scaled(2, &[len], 4.0)),
            Some(HostArray::random(3, &[len])),
            Some(HostArray::zeros(&[len])),
        ],
        bound: 1e-11,
    };
    vec![case_of(1), case_of(1031)]
}
