//! Rotary position embedding (arXiv:2104.09864, eq. 34), in place: turns pairs of channels by
//! angles that a table of (cos, sin) gives per absolute position.
//!
//! Params: `T` tokens, `H` heads, `D` head size, `ROT` channels that are turned (even, at most
//! `D`), `ADJACENT`: pairs are (2i, 2i + 1) instead of (i, i + ROT / 2).

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "rope",
    bindings: &[
        Binding::new("x", Access::Write),
        Binding::new("table", Access::Read),
        Binding::new("step", Access::Uniform),
    ],
    uniforms: &["T"],
    variants,
    cpu,
    reference,
    cases,
};

/// Parameters of a call.
pub fn params(tokens: usize, heads: usize, head_size: usize, rot: usize, adjacent: bool) -> Params {
    Params::new()
        .u32("T", tokens as u32)
        .u32("H", heads as u32)
        .u32("D", head_size as u32)
        .u32("ROT", rot as u32)
        .bool("ADJACENT", adjacent)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let pairs = p.get("T") * p.get("H") * (p.get("ROT") / 2);
    vec![Variant::new("pairs", fold(pairs.div_ceil(64), limits)).set("WG", 64)]
}

/// Channels of pair `i`.
fn pair(i: usize, rot: usize, adjacent: bool) -> (usize, usize) {
    if adjacent {
        (2 * i, 2 * i + 1)
    } else {
        (i, i + rot / 2)
    }
}

fn cpu(d: &CpuDispatch<'_>) {
    let (heads, head_size) = (d.params.size("H"), d.params.size("D"));
    let (rot, adjacent) = (d.params.size("ROT"), d.params.is("ADJACENT"));
    let (mut x, table, pos) = (d.f32_mut(0), d.f32(1), d.u32(2)[0] as usize);
    let table = &*table;
    cpu::for_each_row(&mut x, heads * head_size, d.params.size("T"), |t, x| {
        let turns = &table[(pos + t) * rot..][..rot];
        for head in x.chunks_exact_mut(head_size) {
            for (i, turn) in turns.chunks_exact(2).enumerate() {
                let (a, b) = pair(i, rot, adjacent);
                let (xa, xb) = (head[a], head[b]);
                head[a] = xa * turn[0] - xb * turn[1];
                head[b] = xb * turn[0] + xa * turn[1];
            }
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (heads, head_size) = (p.size("H"), p.size("D"));
    let (rot, adjacent) = (p.size("ROT"), p.is("ADJACENT"));
    let pos = arrays[2][0] as usize;
    for t in 0..p.size("T") {
        for h in 0..heads {
            for i in 0..rot / 2 {
                let (a, b) = pair(i, rot, adjacent);
                let row = (t * heads + h) * head_size;
                let (xa, xb) = (arrays[0][row + a], arrays[0][row + b]);
                let at = (pos + t) * rot + 2 * i;
                let (cos, sin) = (arrays[1][at], arrays[1][at + 1]);
                arrays[0][row + a] = xa * cos - xb * sin;
                arrays[0][row + b] = xb * cos + xa * sin;
            }
        }
    }
}

fn cases() -> Vec<Case> {
    let sizes = [
        (1, 1, 2, 2, 0),
        (1, 9, 64, 64, 200),
        (2, 3, 80, 32, 5),
        (7, 4, 64, 48, 63),
        (33, 2, 256, 256, 1),
    ];
    let mut cases = Vec::new();
    for (tokens, heads, head_size, rot, pos) in sizes {
        // Rows after the last position must not be needed, those before must be skipped.
        let rows = pos + tokens;
        let angle = |i: usize| (i / (rot / 2)) as f32 * 0.7 / (1.0 + (i % (rot / 2)) as f32);
        let table: Vec<f32> = (0..rows * rot / 2)
            .flat_map(|i| [angle(i).cos(), angle(i).sin()])
            .collect();
        for adjacent in [false, true] {
            cases.push(Case {
                params: params(tokens, heads, head_size, rot, adjacent),
                arrays: vec![
                    Some(HostArray::random(1, &[tokens, heads, head_size])),
                    Some(HostArray::f32(&[rows, rot], &table)),
                    Some(HostArray::step(pos)),
                ],
                bound: 1e-12,
            });
        }
    }
    cases
}
