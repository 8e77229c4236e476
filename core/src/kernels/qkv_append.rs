//! What lies between the projections of self-attention and attention itself: heads of q and k are
//! RMS-normalised (Qwen3, arXiv:2505.09388) and turned (arXiv:2104.09864, eq. 34) where a model does so, q is
//! written for [`super::attention`], keys and values go to the cache as [`super::kv_append`] has them.
//!
//! Params: `T` tokens, `H` query heads, `KVH` key/value heads, `D` head size (even; for q8_0 a multiple of 32),
//! `S` cache capacity, `KV_F16`, `KV_Q8_0`, `ROPE` with `ROT` channels that are turned and `ADJACENT` as
//! [`super::rope`] has them, `NORM` with `EPS`, `PAGED`: `pages` says positions and which rows are written.

use super::{
    Access, Binding, Case, HostArray, Kernel, Params, Variant, case, fold, kv_append, pages, rope,
};
use crate::DType;
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "qkv_append",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::optional("table", Access::Read),
        Binding::optional("q_weight", Access::Read),
        Binding::optional("k_weight", Access::Read),
        Binding::new("q", Access::Write),
        Binding::new("k_cache", Access::Write),
        Binding::new("v_cache", Access::Write),
        Binding::new("step", Access::Uniform),
        Binding::optional("pages", Access::Read),
    ],
    uniforms: &["T", "S"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// A call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call {
    /// T.
    pub tokens: usize,
    /// H: query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// D.
    pub head_size: usize,
    /// S: rows of the caches.
    pub capacity: usize,
    /// Element type of the caches: f32, f16 or q8_0.
    pub kv: DType,
    /// Channels of a head of q and k that are turned, and whether pairs are (2i, 2i + 1).
    pub rope: Option<(usize, bool)>,
    /// Epsilon of the norm of heads of q and k.
    pub norm: Option<f32>,
    /// Tokens have positions and rows of the caches that a buffer says ([`attention`](super::attention)).
    pub paged: bool,
}

/// Parameters of a call.
pub fn params(call: &Call) -> Params {
    let (rot, adjacent) = call.rope.unwrap_or_default();
    Params::new()
        .u32("T", call.tokens as u32)
        .u32("H", call.heads as u32)
        .u32("KVH", call.kv_heads as u32)
        .u32("D", call.head_size as u32)
        .u32("S", call.capacity as u32)
        .switch("KV_F16", call.kv == DType::F16)
        .switch("KV_Q8_0", call.kv == DType::Q8_0)
        .switch("ROPE", call.rope.is_some())
        .u32("ROT", rot as u32)
        .switch("ADJACENT", adjacent)
        .switch("NORM", call.norm.is_some())
        .f32("EPS", call.norm.unwrap_or_default())
        .switch("PAGED", call.paged)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let (name, part) = match p.is("KV_Q8_0") {
        true => ("chunks", 64),
        false => ("pairs", 2),
    };
    let rows = p.get("T") * (p.get("H") + 2 * p.get("KVH"));
    let parts = rows * p.get("D").div_ceil(part);
    vec![Variant::new(name, fold(parts.div_ceil(64), limits)).set("WG", 64)]
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (heads, kv_heads, size) = (p.size("H"), p.size("KVH"), p.size("D"));
    let (x, table) = (d.f32(0), d.has(1).then(|| d.f32(1)));
    let weights = [2, 3].map(|i| d.has(i).then(|| d.f32(i)));
    let weights = [0, 1].map(|i| weights[i].as_deref());
    let (x, table) = (&*x, table.as_deref());
    let (positions, rows) = (positions(d), kv_append::rows(d, 7, 8));
    let row = (heads + 2 * kv_heads) * size;
    let (rot, adjacent, eps) = (p.size("ROT"), p.is("ADJACENT"), p.number("EPS"));
    // Head `h` of token `t`, as the cache or the query has it.
    let head = |h: usize, t: usize, out: &mut [f32]| {
        out.copy_from_slice(&x[t * row + h * size..][..size]);
        if h >= heads + kv_heads {
            return;
        }
        if let Some(weight) = weights[usize::from(h >= heads)] {
            let mean = out.iter().map(|x| x * x).sum::<f32>() / size as f32;
            let scale = 1.0 / (mean + eps).sqrt();
            for (x, w) in out.iter_mut().zip(weight) {
                *x *= scale * w;
            }
        }
        if let Some(table) = table {
            let turns = &table[positions[t] * rot..][..rot];
            rope::turn(&mut out[..rot], turns, adjacent);
        }
    };
    let mut q = d.f32_mut(4);
    cpu::for_each_row(&mut q, heads * size, p.size("T"), |t, q| {
        for (h, q) in q.chunks_exact_mut(size).enumerate() {
            head(h, t, q);
        }
    });
    for (to, first) in [(5, heads), (6, heads + kv_heads)] {
        kv_append::append(d, to, 0..kv_heads, size, &rows, |g, t, row| {
            head(first + g, t, row)
        });
    }
}

/// Of each token.
fn positions(d: &CpuDispatch<'_>) -> Vec<usize> {
    let tokens = 0..d.params.size("T");
    if d.params.is("PAGED") {
        let pages = d.u32(8);
        return tokens.map(|t| pages[pages::WORDS * t] as usize).collect();
    }
    let pos = d.u32(7)[0] as usize;
    tokens.map(|t| pos + t).collect()
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (heads, kv_heads, size) = (p.size("H"), p.size("KVH"), p.size("D"));
    let (rot, capacity) = (p.size("ROT"), p.size("S"));
    let all = heads + 2 * kv_heads;
    for t in 0..p.size("T") {
        let (pos, to_row) = pages::place(p, [&arrays[7], &arrays[8]], t);
        for h in 0..all {
            let mut row = arrays[0][(t * all + h) * size..][..size].to_vec();
            if p.is("NORM") && h < heads + kv_heads {
                let weight = &arrays[if h < heads { 2 } else { 3 }];
                let mean = row.iter().map(|x| x * x).sum::<f64>() / size as f64;
                let scale = 1.0 / (mean + f64::from(p.number("EPS"))).sqrt();
                row = row.iter().zip(weight).map(|(x, w)| x * scale * w).collect();
            }
            if p.is("ROPE") && h < heads + kv_heads {
                for i in 0..rot / 2 {
                    let (a, b) = rope::pair(i, rot / 2, p.is("ADJACENT"));
                    let at = pos * rot + 2 * i;
                    let (cos, sin) = (arrays[1][at], arrays[1][at + 1]);
                    (row[a], row[b]) = (row[a] * cos - row[b] * sin, row[b] * cos + row[a] * sin);
                }
            }
            if h < heads {
                arrays[4][(t * heads + h) * size..][..size].copy_from_slice(&row);
            } else if to_row < capacity {
                let (to, g) = match h < heads + kv_heads {
                    true => (5, h - heads),
                    false => (6, h - heads - kv_heads),
                };
                for i in 0..size {
                    let at = (g * capacity + to_row) * size + i;
                    arrays[to][at] = kv_append::kept(p, &row, i);
                }
            }
        }
    }
}

fn cases() -> Vec<Case> {
    // T, (H, KVH, D), S, pos, ROT
    let sizes = [
        (1, (1, 1, 2), 1, 0, 2),
        (1, (9, 3, 64), 301, 200, 64),
        (2, (4, 1, 32), 9, 5, 16),
        (7, (2, 2, 80), 71, 63, 32),
        (33, (3, 3, 96), 35, 1, 96),
        // Two of five tokens find room.
        (5, (2, 2, 64), 7, 5, 48),
    ];
    let mut cases = Vec::new();
    for (i, (tokens, (heads, kv_heads, head_size), capacity, pos, rot)) in
        sizes.into_iter().enumerate()
    {
        for kv in [DType::F32, DType::F16, DType::Q8_0] {
            if kv == DType::Q8_0 && head_size % 32 != 0 {
                continue;
            }
            let call = Call {
                tokens,
                heads,
                kv_heads,
                head_size,
                capacity,
                kv,
                rope: Some((rot, i % 2 == 1)),
                norm: None,
                paged: false,
            };
            cases.push(case(pos, call));
            cases.push(case(
                pos,
                Call {
                    rope: (i != 2).then_some((rot, i % 2 == 0)),
                    norm: Some(1e-6),
                    ..call
                },
            ));
            cases.push(case(pos, Call { rope: None, ..call }));
            cases.push(case(
                pos,
                Call {
                    capacity: 20 * pages::PAGE,
                    paged: true,
                    ..call
                },
            ));
        }
    }
    cases
}

fn case(pos: usize, call: Call) -> Case {
    let (heads, size) = (call.heads + 2 * call.kv_heads, call.head_size);
    let rot = call.rope.map_or(0, |(rot, _)| rot);
    let angle = |i: usize| (i / (rot / 2)) as f32 * 0.7 / (1.0 + (i % (rot / 2)) as f32);
    let rows = pos + call.tokens;
    let table: Vec<f32> = (0..rows * rot / 2)
        .flat_map(|i| [angle(i).cos(), angle(i).sin()])
        .collect();
    let mut x = case::random(1, call.tokens * heads * size);
    if call.norm.is_none() {
        // A value beyond what f16 holds.
        let last = x.len() - 1;
        x[last] = -70000.0;
    }
    let weight = |seed| (call.norm.is_some()).then(|| HostArray::random(seed, &[size]));
    let cache =
        |seed| HostArray::random_cache(seed, &[call.kv_heads, call.capacity, size], call.kv);
    Case {
        params: params(&call),
        arrays: vec![
            Some(HostArray::f32(&[call.tokens, heads * size], &x)),
            (rot > 0).then(|| HostArray::f32(&[rows, rot], &table)),
            weight(2),
            weight(3),
            Some(HostArray::random(4, &[call.tokens, call.heads, size])),
            Some(cache(5)),
            Some(cache(6)),
            Some(HostArray::step(pos)),
            call.paged.then(|| {
                let positions: Vec<usize> = (pos..pos + call.tokens).rev().collect();
                pages::case(&positions, 1, call.capacity)
            }),
        ],
        bound: if call.kv == DType::F32 { 1e-11 } else { 1e-6 },
    }
}
