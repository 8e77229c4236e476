//! GShard's two experts of a token, one by one, and whether the token goes to the second
//! (arXiv:2006.16668, algorithm 1).
//!
//! Params: `N` tokens, `POLICY` (see [`Second`]), `THRESHOLD`. Switch: `U`, for the policy that draws.

use super::expert_scatter::variants;
use super::{Access, Binding, Case, HostArray, Kernel, Params, case};
use crate::device::cpu::CpuDispatch;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "second_expert",
    bindings: &[
        Binding::new("experts", Access::Read),
        Binding::new("probs", Access::Read),
        Binding::optional("u", Access::Read),
        Binding::new("expert1", Access::Write),
        Binding::new("expert2", Access::Write),
        Binding::new("gate1", Access::Write),
        Binding::new("gate2", Access::Write),
        Binding::new("second", Access::Write),
    ],
    uniforms: &["N", "THRESHOLD"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Which tokens go to their second expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Second {
    /// With the probability `min(1, gate2 / threshold)`.
    Random,
    /// All.
    All,
    /// None.
    None,
    /// Those whose second gate is above the threshold.
    Threshold,
}

/// Parameters of a call.
pub fn params(tokens: usize, second: Second, threshold: f32) -> Params {
    let policy = match second {
        Second::Random => 0,
        Second::All => 1,
        Second::None => 2,
        Second::Threshold => 3,
    };
    Params::new()
        .u32("N", tokens as u32)
        .u32("POLICY", policy)
        .f32("THRESHOLD", threshold)
        .bool("U", second == Second::Random)
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let threshold = p.number("THRESHOLD");
    let u = d.has(2).then(|| d.f32(2));
    let (experts, probs) = (d.u32(0), d.f32(1));
    let [mut expert1, mut expert2] = [3, 4].map(|i| d.write::<u32>(i));
    let [mut gate1, mut gate2] = [5, 6].map(|i| d.f32_mut(i));
    let mut second = d.write::<u32>(7);
    for t in 0..p.size("N") {
        (expert1[t], expert2[t]) = (experts[2 * t], experts[2 * t + 1]);
        (gate1[t], gate2[t]) = (probs[2 * t], probs[2 * t + 1]);
        let goes = match (&u, p.get("POLICY")) {
            (Some(u), _) => u[t] * threshold < gate2[t],
            (None, 3) => gate2[t] > threshold,
            (None, policy) => policy == 1,
        };
        second[t] = u32::from(goes);
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let threshold = f64::from(p.number("THRESHOLD"));
    for t in 0..p.size("N") {
        for i in 0..2 {
            arrays[3 + i][t] = arrays[0][2 * t + i];
            arrays[5 + i][t] = arrays[1][2 * t + i];
        }
        let gate = arrays[6][t];
        let goes = match p.get("POLICY") {
            0 => arrays[2][t] < gate / threshold,
            1 => true,
            2 => false,
            _ => gate > threshold,
        };
        arrays[7][t] = f64::from(u8::from(goes));
    }
}

fn cases() -> Vec<Case> {
    let case_of = |tokens: usize, second: Second| {
        let uniform = |seed| {
            case::random(seed, tokens)
                .into_iter()
                .map(|x| (0.25 * x.abs()).min(0.5))
        };
        let probs: Vec<f32> = uniform(1).flat_map(|g| [1.0 - g, g]).collect();
        let u: Vec<f32> = uniform(2).map(|u| 2.0 * u).collect();
        let experts: Vec<u32> = (0..2 * tokens as u32).collect();
        let words = || Some(HostArray::u32(&[tokens], &vec![7; tokens]));
        Case {
            params: params(tokens, second, 0.2),
            arrays: vec![
                Some(HostArray::u32(&[tokens, 2], &experts)),
                Some(HostArray::f32(&[tokens, 2], &probs)),
                (second == Second::Random).then(|| HostArray::f32(&[tokens], &u)),
                words(),
                words(),
                Some(HostArray::zeros(&[tokens])),
                Some(HostArray::zeros(&[tokens])),
                words(),
            ],
            bound: 0.0,
        }
    };
    let policies = [Second::Random, Second::All, Second::None, Second::Threshold];
    let cases = policies
        .into_iter()
        .flat_map(|p| [1, 70].map(|tokens| case_of(tokens, p)));
    cases.collect()
}
