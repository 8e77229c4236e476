//! Dropout (Srivastava et al., JMLR 15, 2014): each element is 0 with probability p, else divided by
//! 1 - p. The mask is the same on every device and however the tensor is split; the gradient is the
//! same call on the gradient of the result.
//!
//! Params: `N` elements, those of [`Draw`], `THRESHOLD` (p in units of 2^-24), `SCALE`. Switch:
//! `MASK`, write which elements were kept.

use super::philox::{Draw, draw_uniforms};
use super::random::variants;
use super::{Access, Binding, Case, HostArray, Kernel, Params};
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "dropout",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("y", Access::Write),
        Binding::optional("mask", Access::Write),
    ],
    uniforms: draw_uniforms!("THRESHOLD", "SCALE"),
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call; `p` is from 0 to 1, and 1 drops everything.
pub fn params(len: usize, draw: Draw, p: f32, mask: bool) -> Params {
    let kept = 1.0 - f64::from(p);
    let scale = if kept > 0.0 { 1.0 / kept } else { 0.0 };
    draw.params(len)
        .u32(
            "THRESHOLD",
            (f64::from(p) * f64::from(1 << 24)).round() as u32,
        )
        .f32("SCALE", scale as f32)
        .bool("MASK", mask)
}

fn keeps(draw: &Draw, threshold: u32, i: usize) -> bool {
    draw.word(draw.number(i)) >> 8 >= threshold
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (draw, len) = (Draw::from(p), p.size("N"));
    let (threshold, scale) = (p.get("THRESHOLD"), p.number("SCALE"));
    let x = d.f32(0);
    let x = &*x;
    cpu::for_each_part(&mut d.f32_mut(1)[..len], |start, y| {
        for (i, y) in y.iter_mut().enumerate() {
            let kept = keeps(&draw, threshold, start + i);
            *y = if kept { x[start + i] * scale } else { 0.0 };
        }
    });
    if d.has(2) {
        cpu::for_each_part(&mut d.write::<u32>(2)[..len], |start, mask| {
            for (i, mask) in mask.iter_mut().enumerate() {
                *mask = u32::from(keeps(&draw, threshold, start + i));
            }
        });
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let draw = Draw::from(p);
    let [x, y, mask] = arrays else { return };
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        let kept = keeps(&draw, p.get("THRESHOLD"), i);
        *y = match kept {
            true => x * f64::from(p.number("SCALE")),
            false => 0.0,
        };
        if p.is("MASK") {
            mask[i] = f64::from(u8::from(kept));
        }
    }
}

fn cases() -> Vec<Case> {
    let part = Draw {
        first: 2,
        width: 3,
        stride: 8,
        ..Draw::new(5, 9)
    };
    [
        (1, Draw::new(0, 0), 0.0, true),
        (1031, Draw::new(1 << 40, 0), 0.1, true),
        (1031, Draw::new(3, 2), 0.75, false),
        (64, Draw::new(3, 2), 1.0, true),
        (31, part, 0.5, true),
    ]
    .into_iter()
    .map(|(len, draw, p, mask)| Case {
        params: params(len, draw, p, mask),
        arrays: vec![
            Some(HostArray::random(1, &[len])),
            Some(HostArray::random(2, &[len])),
            mask.then(|| HostArray::u32(&[len], &vec![7; len])),
        ],
        bound: 1e-13,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_dropped_as_p_says() {
        let (len, p) = (100_000, 0.3);
        let call = params(len, Draw::new(11, 0), p, true);
        let draw = Draw::from(&call);
        let kept = (0..len).filter(|i| keeps(&draw, call.get("THRESHOLD"), *i));
        // Four standard deviations of a binomial distribution.
        let far = 4.0 * (len as f64 * 0.3 * 0.7).sqrt();
        assert!((kept.count() as f64 - 70_000.0).abs() < far);
    }
}
