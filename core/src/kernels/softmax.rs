//! Softmax along an axis, `y = exp(z - max z) / sum exp(z - max z)`, `z = x / temperature`, or its
//! logarithm.
//!
//! An element of -inf, or one where the mask is not 0, is masked: it gives 0, or -inf with the
//! logarithm; so does every element of a row that is masked wholly.
//!
//! Params: `T` rows, `C` elements along the axis, `INNER` (see [`Axis`]), `MASKED` elements of the
//! mask, repeated along x; `TEMPERATURE`. Switches: `MASK`, `LOG`.

use super::axis::row_variants;
use super::{Access, Axis, Binding, Case, HostArray, Kernel, Params, case};
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "softmax",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::optional("mask", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["T", "C", "INNER", "MASKED", "TEMPERATURE"],
    variants: row_variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call without mask; `log` gives the logarithm.
pub fn params(axis: Axis, temperature: f32, log: bool) -> Params {
    axis.params()
        .f32("TEMPERATURE", temperature)
        .bool("LOG", log)
}

/// Adds a mask of `len` elements.
pub fn masked(params: Params, len: usize) -> Params {
    params.u32("MASKED", len as u32).bool("MASK", true)
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (axis, temperature, log) = (Axis::from(p), p.number("TEMPERATURE"), p.is("LOG"));
    let mask = d.has(1).then(|| d.u32(1));
    let (x, mask) = (d.f32(0), mask.as_deref());
    let (x, count) = (&*x, p.size("MASKED"));
    let block = axis.len * axis.inner;
    cpu::for_each_row(&mut d.f32_mut(2), block, axis.outer, |outer, y| {
        y.copy_from_slice(&x[outer * block..][..block]);
        if let Some(mask) = mask {
            for (i, y) in y.iter_mut().enumerate() {
                if mask[(outer * block + i) % count] != 0 {
                    *y = f32::NEG_INFINITY;
                }
            }
        }
        for inner in 0..axis.inner {
            let row = || (inner..block).step_by(axis.inner);
            let largest = row().fold(f32::NEG_INFINITY, |a, i| a.max(y[i]));
            if largest == f32::NEG_INFINITY {
                let nothing = if log { largest } else { 0.0 };
                row().for_each(|i| y[i] = nothing);
                continue;
            }
            let mut sum = 0.0;
            for i in row() {
                y[i] = (y[i] - largest) / temperature;
                let weight = y[i].exp();
                sum += f64::from(weight);
                if !log {
                    y[i] = weight;
                }
            }
            let (scale, level) = ((1.0 / sum) as f32, sum.ln() as f32);
            for i in row() {
                y[i] = if log { y[i] - level } else { y[i] * scale };
            }
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let axis = Axis::from(p);
    let lowest = f64::NEG_INFINITY;
    for t in 0..axis.rows() {
        let at: Vec<usize> = (0..axis.len).map(|c| axis.at(t, c)).collect();
        let value = |i: &usize| match p.is("MASK") && arrays[1][i % p.size("MASKED")] != 0.0 {
            true => lowest,
            false => arrays[0][*i] / f64::from(p.number("TEMPERATURE")),
        };
        let z: Vec<f64> = at.iter().map(value).collect();
        let largest = z.iter().fold(lowest, |a, b| a.max(*b));
        let weight = |z: f64| {
            if z == lowest {
                0.0
            } else {
                (z - largest).exp()
            }
        };
        let sum: f64 = z.iter().map(|z| weight(*z)).sum();
        for (i, z) in at.into_iter().zip(z) {
            arrays[2][i] = match (p.is("LOG"), z == lowest) {
                (true, true) => lowest,
                (true, false) => z - largest - sum.ln(),
                (false, true) => 0.0,
                (false, false) => weight(z) / sum,
            };
        }
    }
}

fn cases() -> Vec<Case> {
    let axis = |outer, len, inner| Axis { outer, len, inner };
    let axes = [
        axis(1, 1, 1),
        axis(1, 1031, 1),
        axis(2, 255, 1),
        axis(7, 256, 1),
        axis(16, 257, 1),
        axis(33, 3, 1),
        axis(1, 5, 7),
        axis(3, 40, 33),
        axis(2, 3, 2500),
    ];
    let mut cases = Vec::new();
    for (i, axis) in axes.into_iter().enumerate() {
        let x = case::random(i as u64, axis.elements());
        cases.push(case_of(axis, &x, None, 1.0, false));
        cases.push(case_of(axis, &x, None, 0.7, true));
        // Row 0 is masked wholly where the mask has more than a row.
        let period = axis.len * axis.inner * if axis.outer % 3 == 0 { 3 } else { 1 };
        let masked = |i: usize| i % 3 == 1 || (i < axis.len && axis.outer % 3 == 0);
        let mask: Vec<u32> = (0..period).map(|i| u32::from(masked(i))).collect();
        cases.push(case_of(axis, &x, Some(&mask), 2.5, i % 2 == 0));
    }
    // Row 1 is masked wholly, the others in part.
    let mut masked = case::random(2, 9 * 300);
    for (i, x) in masked.iter_mut().enumerate() {
        if i / 300 == 1 || i % 3 == 0 {
            *x = f32::NEG_INFINITY;
        }
    }
    cases.push(case_of(axis(9, 300, 1), &masked, None, 1.0, false));
    cases.push(case_of(axis(9, 300, 1), &masked, None, 1.0, true));
    let large: Vec<f32> = case::random(3, 5 * 64).iter().map(|x| x * 1e4).collect();
    cases.push(case_of(axis(5, 64, 1), &large, None, 1.0, false));
    cases.push(case_of(axis(5, 64, 1), &large, None, 1.0, true));
    cases
}

fn case_of(axis: Axis, x: &[f32], mask: Option<&[u32]>, temperature: f32, log: bool) -> Case {
    let shape = [axis.outer, axis.len, axis.inner];
    let params = params(axis, temperature, log);
    Case {
        params: match mask {
            Some(mask) => masked(params, mask.len()),
            None => params,
        },
        arrays: vec![
            Some(HostArray::f32(&shape, x)),
            mask.map(|m| HostArray::u32(&[m.len()], m)),
            Some(HostArray::random(9, &shape)),
        ],
        bound: 1e-10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_all_masked_gives_zeros() {
        let lowest = f64::NEG_INFINITY;
        let mut arrays = vec![vec![lowest, lowest, 0.0, lowest], Vec::new(), vec![7.0; 4]];
        reference(&params(Axis::last(2, 2), 1.0, false), &mut arrays);
        assert_eq!(arrays[2], [0.0, 0.0, 1.0, 0.0]);
        reference(&params(Axis::last(2, 2), 1.0, true), &mut arrays);
        assert_eq!(arrays[2], [lowest, lowest, 0.0, lowest]);
    }
}
