//! The `TOP` largest elements and their indices, in falling order; ties by smaller index. NaNs
//! come before everything, with their own bits, so that the host sees them.
//!
//! Params: `C` elements, `TOP` (at most [`MOST`] and at most `C`).

use super::argmax::order;
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, case};
use crate::device::cpu::CpuDispatch;
use crate::device::{DeviceKind, Limits};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "top_k",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("values", Access::Write),
        Binding::new("ids", Access::Write),
    ],
    uniforms: &["C", "TOP"],
    variants,
    cpu,
    reference,
    cases,
};

/// The largest `TOP`.
pub const MOST: usize = 128;

/// Parameters of a call; `top` is held to [`MOST`] and to `columns`.
pub fn params(columns: usize, top: usize) -> Params {
    Params::new()
        .u32("C", columns as u32)
        .u32("TOP", top.min(MOST).min(columns) as u32)
}

fn variants(_: &Params, limits: &Limits) -> Vec<Variant> {
    let variant = |name, size| Variant::new(name, [1, 1, 1]).set("WG", size);
    let workgroup = variant("workgroup", limits.max_workgroup_size.min(256));
    let narrow = variant("narrow", 8);
    if limits.kind == DeviceKind::SoftwareGpu {
        vec![narrow, workgroup]
    } else {
        vec![workgroup, narrow]
    }
}

fn cpu(d: &CpuDispatch<'_>) {
    let (columns, top) = (d.params.size("C"), d.params.size("TOP"));
    let (x, mut values, mut ids) = (d.f32(0), d.f32_mut(1), d.write::<u32>(2));
    // One number to sort by: the order, inverted, then the index.
    let mut keys: Vec<u64> = x[..columns]
        .iter()
        .enumerate()
        .map(|(c, x)| u64::from(!order(*x)) << 32 | c as u64)
        .collect();
    if top < keys.len() {
        keys.select_nth_unstable(top);
        keys.truncate(top);
    }
    keys.sort_unstable();
    for (i, key) in keys.into_iter().enumerate() {
        ids[i] = key as u32;
        values[i] = x[ids[i] as usize];
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let x = arrays[0][..p.size("C")].to_vec();
    let mut ids: Vec<usize> = (0..x.len()).collect();
    let falls = |a: f64, b: f64| b.is_nan().cmp(&a.is_nan()).then(b.total_cmp(&a));
    // A stable sort keeps ties in the order of their indices; adding 0 makes -0 equal 0.
    ids.sort_by(|a, b| match (x[*a].is_nan(), x[*b].is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        _ => falls(x[*a] + 0.0, x[*b] + 0.0),
    });
    for i in 0..p.size("TOP") {
        arrays[1][i] = x[ids[i]];
        arrays[2][i] = ids[i] as f64;
    }
}

fn cases() -> Vec<Case> {
    let sizes = [
        (1, 1),
        (7, 7),
        (128, 128),
        (300, 1),
        (1031, 40),
        (49152, 128),
    ];
    let mut cases: Vec<Case> = sizes
        .into_iter()
        .map(|(columns, top)| case_of(&case::random(1, columns), top))
        .collect();
    // Ties around the last place, everywhere, and between zeros of both signs.
    let steps: Vec<f32> = (0..1000).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
    cases.push(case_of(&steps, 100));
    cases.push(case_of(&[2.5; 70_000], 64));
    let zeros: Vec<f32> = (0..50).map(|i| [0.0, -0.0, -1.0][i % 3]).collect();
    cases.push(case_of(&zeros, 20));
    let mut special = case::random(5, 500);
    special[3] = f32::INFINITY;
    special[80] = f32::NAN;
    special[81] = f32::NEG_INFINITY;
    special[499] = -f32::NAN;
    cases.push(case_of(&special, 10));
    let mut masked = vec![f32::NEG_INFINITY; 300];
    masked[200] = -1.0;
    cases.push(case_of(&masked, 30));
    cases
}

fn case_of(x: &[f32], top: usize) -> Case {
    Case {
        params: params(x.len(), top),
        arrays: vec![
            Some(HostArray::f32(&[x.len()], x)),
            Some(HostArray::zeros(&[top])),
            Some(HostArray::u32(&[top], &vec![0; top])),
        ],
        bound: 0.0,
    }
}
