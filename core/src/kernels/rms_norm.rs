//! RMSNorm, `y = x / sqrt(mean(x^2) + eps) * weight` (arXiv:1910.07467, eq. 4).
//!
//! Params: `T` rows, `C` channels, `EPS`, `FIRST` row of x to read.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::cpu::{self, CpuDispatch};
use crate::device::{DeviceKind, Limits};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "rms_norm",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("weight", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["T", "FIRST"],
    variants,
    cpu,
    reference,
    cases,
};

/// Parameters of a call.
pub fn params(tokens: usize, channels: usize, eps: f32, first: usize) -> Params {
    Params::new()
        .u32("T", tokens as u32)
        .u32("C", channels as u32)
        .f32("EPS", eps)
        .u32("FIRST", first as u32)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let rows = p.get("T");
    let workgroup =
        Variant::new("workgroup", fold(rows, limits)).set("WG", limits.max_workgroup_size.min(256));
    let serial = Variant::new("serial", fold(rows.div_ceil(8), limits))
        .set("WG", 8)
        .flag("SERIAL");
    if limits.kind == DeviceKind::SoftwareGpu {
        vec![serial, workgroup]
    } else {
        vec![workgroup, serial]
    }
}

fn cpu(d: &CpuDispatch<'_>) {
    let (channels, eps, first) = (
        d.params.size("C"),
        d.params.number("EPS"),
        d.params.size("FIRST"),
    );
    let (x, weight, mut y) = (d.f32(0), d.f32(1), d.f32_mut(2));
    let (x, weight) = (&*x, &*weight);
    cpu::for_each_row(&mut y, channels, d.params.size("T"), |t, y| {
        let x = &x[(first + t) * channels..][..channels];
        // f64: as exact as the recorded references, and not what costs time here.
        let sum: f64 = x.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        let scale = (1.0 / (sum / channels as f64 + f64::from(eps)).sqrt()) as f32;
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            *y = x * scale * w;
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (tokens, channels, first) = (p.size("T"), p.size("C"), p.size("FIRST"));
    let eps = f64::from(p.number("EPS"));
    for t in 0..tokens {
        let mut sum = 0.0;
        for c in 0..channels {
            sum += arrays[0][(first + t) * channels + c].powi(2);
        }
        let scale = 1.0 / (sum / channels as f64 + eps).sqrt();
        for c in 0..channels {
            arrays[2][t * channels + c] =
                arrays[0][(first + t) * channels + c] * scale * arrays[1][c];
        }
    }
}

fn cases() -> Vec<Case> {
    let sizes = [
        (1, 1, 0),
        (1, 576, 0),
        (2, 255, 1),
        (3, 256, 0),
        (5, 257, 2),
        (9, 1031, 0),
    ];
    sizes
        .into_iter()
        .map(|(tokens, channels, first)| Case {
            params: params(tokens, channels, 1e-5, first),
            arrays: vec![
                Some(HostArray::random(1, &[first + tokens, channels])),
                Some(HostArray::random(2, &[channels])),
                Some(HostArray::zeros(&[tokens, channels])),
            ],
            bound: 1e-10,
        })
        .collect()
}
