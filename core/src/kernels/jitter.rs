//! Jitter of a router's input in training: `y = x (1 - EPS + 2 EPS u)`, u uniform inside (0, 1)
//! (arXiv:2101.03961, appendix F).
//!
//! Params: `N` elements, those of [`Draw`], `EPS`.

use super::philox::{Draw, draw_uniforms, to_uniform};
use super::random::variants;
use super::{Access, Binding, Case, HostArray, Kernel, Params};
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "jitter",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: draw_uniforms!("EPS"),
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call.
pub fn params(len: usize, draw: Draw, eps: f32) -> Params {
    draw.params(len).f32("EPS", eps)
}

fn cpu(d: &CpuDispatch<'_>) {
    let (draw, eps) = (Draw::from(d.params), d.params.number("EPS"));
    let x = d.f32(0);
    let x = &*x;
    cpu::for_each_part(&mut d.f32_mut(1)[..d.params.size("N")], |start, y| {
        for (i, y) in y.iter_mut().enumerate() {
            let u = to_uniform(draw.word(draw.number(start + i)));
            *y = x[start + i] * (1.0 + eps * (2.0 * u - 1.0));
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (draw, eps) = (Draw::from(p), f64::from(p.number("EPS")));
    let [x, y] = arrays else { return };
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        let u = f64::from(to_uniform(draw.word(draw.number(i))));
        *y = x * (1.0 - eps + 2.0 * eps * u);
    }
}

fn cases() -> Vec<Case> {
    let part = Draw {
        first: 9,
        width: 5,
        stride: 11,
        ..Draw::new(0x1234_5678_9abc_def0, 1)
    };
    [(1, Draw::new(1, 0)), (1031, Draw::new(2, 5)), (50, part)]
        .into_iter()
        .map(|(len, draw)| Case {
            params: params(len, draw, 0.25),
            arrays: vec![
                Some(HostArray::random(1, &[len])),
                Some(HostArray::zeros(&[len])),
            ],
            bound: 1e-12,
        })
        .collect()
}
