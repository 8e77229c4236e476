//! Scores of attention as an array: products of queries and keys, scaled.
//! [`attention`](super::attention) needs no such array; this is for who wants to see them.
//!
//! Params: `B` sequences, `T` tokens, `H` heads, `KVH` KV heads, `D` head size, `S` keys, `SCALE`,
//! `HEADS_FIRST` (q is (B, H, T, D) instead of (B, T, H, D)), `TOKENS_FIRST` (k is (B, S, KVH, D)
//! instead of (B, KVH, S, D)).

use super::attention::Call;
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "attention_scores",
    bindings: &[
        Binding::new("q", Access::Read),
        Binding::new("k", Access::Read),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["T", "S"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Parameters of a call: shapes, layouts and scale; keys are f32.
pub fn params(call: &Call) -> Params {
    Params::new()
        .u32("B", call.batch as u32)
        .u32("T", call.tokens as u32)
        .u32("H", call.heads as u32)
        .u32("KVH", call.kv_heads as u32)
        .u32("D", call.head_size as u32)
        .u32("S", call.capacity as u32)
        .f32("SCALE", call.scale)
        .switch("HEADS_FIRST", call.heads_first)
        .switch("TOKENS_FIRST", call.tokens_first)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let elements = p.get("B") * p.get("H") * p.get("T") * p.get("S");
    vec![Variant::new("elements", fold(elements.div_ceil(64), limits)).set("WG", 64)]
}

/// Rows of q and k for row (b, h, t) of y and key `s`.
fn rows(p: &Params, row: usize, s: usize) -> (usize, usize) {
    let (heads, kv_heads, tokens) = (p.size("H"), p.size("KVH"), p.size("T"));
    let (b, h, t) = (row / tokens / heads, row / tokens % heads, row % tokens);
    let g = h / (heads / kv_heads);
    let q = match p.is("HEADS_FIRST") {
        true => row,
        false => (b * tokens + t) * heads + h,
    };
    let k = match p.is("TOKENS_FIRST") {
        true => (b * p.size("S") + s) * kv_heads + g,
        false => (b * kv_heads + g) * p.size("S") + s,
    };
    (q, k)
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (size, keys, scale) = (p.size("D"), p.size("S"), p.number("SCALE"));
    let (q, k, mut y) = (d.f32(0), d.f32(1), d.f32_mut(2));
    let (q, k) = (&*q, &*k);
    let all = p.size("B") * p.size("H") * p.size("T");
    cpu::for_each_row(&mut y, keys, all, |row, y| {
        for (s, y) in y.iter_mut().enumerate() {
            let (q_row, k_row) = rows(p, row, s);
            let pairs = q[q_row * size..][..size].iter().zip(&k[k_row * size..]);
            let sum: f64 = pairs.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            *y = scale * sum as f32;
        }
    });
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (size, keys) = (p.size("D"), p.size("S"));
    for i in 0..p.size("B") * p.size("H") * p.size("T") * keys {
        let (q, k) = rows(p, i / keys, i % keys);
        let dot: f64 = (0..size)
            .map(|c| arrays[0][q * size + c] * arrays[1][k * size + c])
            .sum();
        arrays[2][i] = f64::from(p.number("SCALE")) * dot;
    }
}

fn cases() -> Vec<Case> {
    let sizes = [
        (1, 1, (1, 1), 1, 1),
        (1, 7, (9, 3), 64, 67),
        (2, 5, (4, 2), 31, 19),
        (3, 33, (2, 1), 8, 5),
    ];
    let mut cases = Vec::new();
    for (batch, tokens, (heads, kv_heads), head_size, capacity) in sizes {
        for (heads_first, tokens_first) in [(false, false), (true, false), (false, true)] {
            let call = Call {
                batch,
                heads_first,
                tokens_first,
                ..Call::causal(tokens, heads, kv_heads, head_size, capacity)
            };
            let q = [batch * tokens * heads, head_size];
            let k = [batch * kv_heads * capacity, head_size];
            cases.push(Case {
                params: params(&call),
                arrays: vec![
                    Some(HostArray::random(1, &q)),
                    Some(HostArray::random(2, &k)),
                    Some(HostArray::zeros(&[batch, heads, tokens, capacity])),
                ],
                bound: 1e-11,
            });
        }
    }
    cases
}
