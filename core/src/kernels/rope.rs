//! Rotary position embedding (arXiv:2104.09864, eq. 34), in place: turns pairs of channels by
//! angles that a table of (cos, sin) gives per absolute position.
//!
//! Params: `B` sequences, `T` tokens, `H` heads, `D` head size, `ROT` channels that are turned
//! (even, at most `D`), `ADJACENT`: pairs are (2i, 2i + 1) instead of (i, i + ROT / 2),
//! `HEADS_FIRST`: x is (B, H, T, D) instead of (B, T, H, D), `POSITIONS`: the buffer is there,
//! `EVERY`: of how many of its numbers one is a position, `TWO_D`: each half of the `ROT` channels is turned on its own, by its own positions
//! (arXiv:2103.10360).

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
        Binding::optional("positions", Access::Read),
    ],
    uniforms: &["T"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// B: sequences.
    pub batch: usize,
    /// T: tokens of each.
    pub tokens: usize,
    /// H: heads.
    pub heads: usize,
    /// D: size of a head.
    pub head_size: usize,
    /// Channels of a head that are turned.
    pub rot: usize,
    /// Pairs are (2i, 2i + 1).
    pub adjacent: bool,
    /// x is (B, H, T, D).
    pub heads_first: bool,
    /// A buffer gives each token's position.
    pub positions: bool,
    /// Each half of the channels has positions of its own; needs `positions`.
    pub two_d: bool,
    /// One of so many numbers of `positions` is a position.
    pub every: usize,
}

/// Parameters of a call.
pub fn params(call: &Call) -> Params {
    Params::new()
        .u32("B", call.batch as u32)
        .u32("T", call.tokens as u32)
        .u32("H", call.heads as u32)
        .u32("D", call.head_size as u32)
        .u32("ROT", call.rot as u32)
        .switch("ADJACENT", call.adjacent)
        .switch("HEADS_FIRST", call.heads_first)
        .switch("POSITIONS", call.positions)
        .switch("TWO_D", call.two_d)
        .u32("EVERY", call.every as u32)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let pairs = p.get("B") * p.get("T") * p.get("H") * (p.get("ROT") / 2);
    vec![Variant::new("pairs", fold(pairs.div_ceil(64), limits)).set("WG", 64)]
}

/// Parts of a head that are turned on their own, and the pairs of each.
fn parts(p: &Params) -> (usize, usize) {
    let parts = if p.is("TWO_D") { 2 } else { 1 };
    (parts, p.size("ROT") / 2 / parts)
}

/// Turns the pairs of `channels` by `turns`, (cos, sin) of each.
pub(super) fn turn(channels: &mut [f32], turns: &[f32], adjacent: bool) {
    let pairs = channels.len() / 2;
    for (i, turn) in turns.chunks_exact(2).enumerate() {
        let (a, b) = pair(i, pairs, adjacent);
        let (xa, xb) = (channels[a], channels[b]);
        channels[a] = xa * turn[0] - xb * turn[1];
        channels[b] = xb * turn[0] + xa * turn[1];
    }
}

/// Channels of pair `i` of `pairs`.
pub(super) fn pair(i: usize, pairs: usize, adjacent: bool) -> (usize, usize) {
    if adjacent {
        (2 * i, 2 * i + 1)
    } else {
        (i, i + pairs)
    }
}

/// Sequence and token of row `row` of x.
fn place(p: &Params, row: usize) -> (usize, usize) {
    let (tokens, heads) = (p.size("T"), p.size("H"));
    let t = if p.is("HEADS_FIRST") {
        row % tokens
    } else {
        row / heads % tokens
    };
    (row / heads / tokens, t)
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (head_size, adjacent) = (p.size("D"), p.is("ADJACENT"));
    let (batch, tokens, (parts, pairs)) = (p.size("B"), p.size("T"), parts(p));
    let (mut x, table, pos) = (d.f32_mut(0), d.f32(1), d.u32(2)[0] as usize);
    let (positions, every) = (d.has(3).then(|| d.u32(3)), p.size("EVERY"));
    let (table, positions) = (&*table, positions.as_deref());
    // Heads that lie together share a loop's start.
    let group = match p.is("HEADS_FIRST") {
        true => tokens,
        false => p.size("H"),
    };
    let rows = batch * tokens * p.size("H");
    cpu::for_each_row(&mut x, group * head_size, rows / group, |i, x| {
        for (j, head) in x.chunks_exact_mut(head_size).enumerate() {
            let (b, t) = place(p, i * group + j);
            for part in 0..parts {
                let s = match positions {
                    Some(positions) => {
                        positions[every * ((part * batch + b) * tokens + t)] as usize
                    }
                    None => pos + t,
                };
                let turns = &table[s * 2 * pairs..][..2 * pairs];
                let channels = &mut head[part * 2 * pairs..][..2 * pairs];
                turn(channels, turns, adjacent);
            }
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (batch, tokens, heads) = (p.size("B"), p.size("T"), p.size("H"));
    let (parts, pairs) = parts(p);
    for row in 0..batch * tokens * heads {
        let (b, t) = place(p, row);
        for part in 0..parts {
            let s = match p.is("POSITIONS") {
                true => arrays[3][p.size("EVERY") * ((part * batch + b) * tokens + t)],
                false => arrays[2][0] + t as f64,
            };
            for i in 0..pairs {
                let (a, b) = pair(i, pairs, p.is("ADJACENT"));
                let start = row * p.size("D") + part * 2 * pairs;
                let (xa, xb) = (arrays[0][start + a], arrays[0][start + b]);
                let at = (s as usize * pairs + i) * 2;
                let (cos, sin) = (arrays[1][at], arrays[1][at + 1]);
                arrays[0][start + a] = xa * cos - xb * sin;
                arrays[0][start + b] = xb * cos + xa * sin;
            }
        }
    }
}

fn cases() -> Vec<Case> {
    let plain = |tokens, heads, head_size, rot| Call {
        batch: 1,
        tokens,
        heads,
        head_size,
        rot,
        adjacent: false,
        heads_first: false,
        positions: false,
        two_d: false,
        every: 1,
    };
    let sizes = [
        (1, 1, 2, 2, 0),
        (1, 9, 64, 64, 200),
        (2, 3, 80, 32, 5),
        (7, 4, 64, 48, 63),
        (33, 2, 256, 256, 1),
    ];
    let mut cases = Vec::new();
    for (tokens, heads, head_size, rot, pos) in sizes {
        for adjacent in [false, true] {
            let call = Call {
                adjacent,
                ..plain(tokens, heads, head_size, rot)
            };
            cases.push(case(pos, call));
            let call = Call {
                batch: 2,
                heads_first: adjacent,
                positions: true,
                ..call
            };
            cases.push(case(pos, call));
            cases.push(case(pos, Call { every: 4, ..call }));
            if rot % 4 == 0 {
                cases.push(case(
                    pos,
                    Call {
                        two_d: true,
                        ..call
                    },
                ));
            }
        }
    }
    cases.push(case(
        3,
        Call {
            batch: 3,
            heads_first: true,
            ..plain(5, 3, 8, 4)
        },
    ));
    cases
}

fn case(pos: usize, call: Call) -> Case {
    let Call {
        batch,
        tokens,
        heads,
        head_size,
        ..
    } = call;
    let parts = if call.two_d { 2 } else { 1 };
    let pairs = call.rot / 2 / parts;
    // Rows after the last position must not be needed, those before must be skipped.
    let rows = pos + tokens;
    let angle = |i: usize| (i / pairs) as f32 * 0.7 / (1.0 + (i % pairs) as f32);
    let table: Vec<f32> = (0..rows * pairs)
        .flat_map(|i| [angle(i).cos(), angle(i).sin()])
        .collect();
    let positions: Vec<u32> = (0..parts * batch * tokens * call.every)
        .map(|i| (i * 7 % rows) as u32)
        .collect();
    let x_shape = match call.heads_first {
        true => [batch, heads, tokens, head_size],
        false => [batch, tokens, heads, head_size],
    };
    Case {
        params: params(&call),
        arrays: vec![
            Some(HostArray::random(1, &x_shape)),
            Some(HostArray::f32(&[rows, 2 * pairs], &table)),
            Some(HostArray::step(pos)),
            (call.positions)
                .then(|| HostArray::u32(&[parts, batch, tokens, call.every], &positions)),
        ],
        bound: 1e-12,
    }
}
