//! Gumbel noise, `y = x - ln(-ln u)`, u uniform inside (0, 1): the argmax of y is a sample of
//! softmax(x) (arXiv:1611.01144).
//!
//! Params: `N` elements and those of [`Draw`]. Switch: `U`, u is given and not drawn; it is clamped
//! to the smallest normal number and the largest below 1.

use super::philox::{Draw, draw_uniforms, to_uniform};
use super::random::variants;
use super::{Access, Binding, Case, HostArray, Kernel, Params};
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "gumbel",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::optional("u", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: draw_uniforms!(),
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call; `given`: the noise is made from u.
pub fn params(len: usize, draw: Draw, given: bool) -> Params {
    draw.params(len).bool("U", given)
}

fn noise(u: f32) -> f64 {
    let u = u.clamp(f32::MIN_POSITIVE, 1.0 - f32::EPSILON / 2.0);
    -(-f64::from(u).ln()).ln()
}

fn cpu(d: &CpuDispatch<'_>) {
    let draw = Draw::from(d.params);
    let u = d.has(1).then(|| d.f32(1));
    let (x, u) = (d.f32(0), u.as_deref());
    let x = &*x;
    cpu::for_each_part(&mut d.f32_mut(2)[..d.params.size("N")], |start, y| {
        for (i, y) in y.iter_mut().enumerate() {
            let i = start + i;
            let u = match u {
                Some(u) => u[i],
                None => to_uniform(draw.word(draw.number(i))),
            };
            *y = (f64::from(x[i]) + noise(u)) as f32;
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let draw = Draw::from(p);
    let [x, given, y] = arrays else { return };
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        let u = match p.is("U") {
            true => given[i] as f32,
            false => to_uniform(draw.word(draw.number(i))),
        };
        *y = x + noise(u);
    }
}

fn cases() -> Vec<Case> {
    let part = Draw {
        first: 9,
        width: 5,
        stride: 11,
        ..Draw::new(0x1234_5678_9abc_def0, 1)
    };
    // Ends, and where the logarithm is near 0.
    let mut u: Vec<f32> = (0..1031).map(|i| (i as f32 + 0.5) / 1031.0).collect();
    u[..6].copy_from_slice(&[0.0, 1.0, 0.5, 0.99999994, 1e-30, 0.36787944]);
    [
        (1, Draw::new(1, 0), None),
        (1031, Draw::new(2, 5), None),
        (50, part, None),
        (1031, Draw::new(0, 0), Some(u)),
    ]
    .into_iter()
    .map(|(len, draw, u)| Case {
        params: params(len, draw, u.is_some()),
        arrays: vec![
            Some(HostArray::random(1, &[len])),
            u.map(|u| HostArray::f32(&[len], &u)),
            Some(HostArray::zeros(&[len])),
        ],
        bound: 1e-11,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chi-square test of 20,000 samples of 6 classes, on the definition.
    #[test]
    fn samples_follow_the_softmax() {
        let logits = [0.0f64, 1.0, -1.0, 2.0, 0.5, -2.5];
        let samples = 20_000;
        let x: Vec<f64> = logits.iter().copied().cycle().take(6 * samples).collect();
        let mut arrays = vec![x, Vec::new(), vec![0.0; 6 * samples]];
        reference(&params(6 * samples, Draw::new(3, 0), false), &mut arrays);
        let mut counts = [0.0; 6];
        for y in arrays[2].chunks(6) {
            let best = (0..6).max_by(|a, b| y[*a].total_cmp(&y[*b]));
            counts[best.expect("there are 6")] += 1.0;
        }
        let sum: f64 = logits.iter().map(|x| x.exp()).sum();
        let distance = super::super::case::chi_square(
            &counts,
            &logits.map(|x| samples as f64 * x.exp() / sum),
        );
        // 5 degrees of freedom: above 20.5 once in a thousand.
        assert!(distance < 20.5, "chi-square {distance}, {counts:?}");
    }
}
