//! The projections of self-attention and what lies between them and attention, for few tokens: [`super::matvec`] and
//! [`super::qkv_append`] in one call.
//!
//! Params: `K`, `T`, `W`, `BIAS`, `NORM` and `EPS` of [`super::matvec`]; `N` and `ROW0`, whole heads of the `H` of q, then
//! the `KVH` of k, then those of v; `D`, `S`, `KV_F16`, `ROPE`, `ROT` and `ADJACENT` of [`super::qkv_append`]. `D` and
//! `ROT` are multiples of 4; heads are not normalised, and the cache is not q8_0.

use std::ops::Range;

use super::linear::{inner_lengths, norm_case, normalised, product, rows_between};
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, kv_append, rope};
use crate::DType;
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "qkv_product",
    bindings: &[
        Binding::new("x", Access::Read),
        Binding::new("w", Access::Weight),
        Binding::optional("bias", Access::Read),
        Binding::optional("norm", Access::Read),
        Binding::optional("table", Access::Read),
        Binding::new("q", Access::Write),
        Binding::new("k_cache", Access::Write),
        Binding::new("v_cache", Access::Write),
        Binding::new("step", Access::Uniform),
    ],
    uniforms: &["T", "N", "ROW0", "S"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// The one call that does what one of matvec with the params `of` and one of qkv_append with those of `append` do; `None`
/// when there is none.
pub fn merged(of: &Params, append: &Params) -> Option<Params> {
    let (size, row0, rows) = (append.get("D"), of.get("ROW0"), of.get("N"));
    let fits = size.is_multiple_of(4)
        && append.get("ROT").is_multiple_of(4)
        && row0.is_multiple_of(size)
        && rows.is_multiple_of(size)
        && !append.is("NORM")
        && !append.is("KV_Q8_0")
        && !append.is("PAGED")
        && !of.is("EXPERTS")
        && !of.is("RESIDUAL")
        && !of.is("NORM");
    fits.then(|| {
        Params::new()
            .u32("K", of.get("K"))
            .u32("T", of.get("T"))
            .u32("N", rows)
            .u32("ROW0", row0)
            .dtype("W", of.format("W"))
            .switch("BIAS", of.is("BIAS"))
            .u32("H", append.get("H"))
            .u32("KVH", append.get("KVH"))
            .u32("D", size)
            .u32("S", append.get("S"))
            .u32("ROT", append.get("ROT"))
            .switch("ROPE", append.is("ROPE"))
            .switch("ADJACENT", append.is("ADJACENT"))
            .switch("KV_F16", append.is("KV_F16"))
    })
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let mut variants = rows_between(p, limits, [4, 4]);
    variants.iter_mut().for_each(|v| v.flags.push("QUADS"));
    variants
}

/// Heads of the call that are among those of `all`, counted from its first one.
fn held(p: &Params, all: Range<usize>) -> Range<usize> {
    let (first, count) = (p.size("ROW0") / p.size("D"), p.size("N") / p.size("D"));
    let within = |head: usize| head.clamp(all.start, all.end) - all.start;
    within(first)..within(first + count)
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (heads, kv_heads, size) = (p.size("H"), p.size("KVH"), p.size("D"));
    let (tokens, rows, row0) = (p.size("T"), p.size("N"), p.size("ROW0"));
    let (x, w) = (d.f32(0), d.bytes(1));
    let bias = d.has(2).then(|| d.f32(2));
    let call = cpu::Linear {
        k: p.size("K"),
        tokens,
        rows,
        row0: 0,
        ny: rows,
        x: &cpu::normalised(d, &x, 3),
        bias: bias.as_deref().map(|bias| &bias[row0..]),
        residual: None,
    };
    let mut products = vec![0.0; tokens * rows];
    cpu::product(&call, p.format("W"), &w, &mut products);
    let table = d.has(4).then(|| d.f32(4));
    let (rot, adjacent, pos) = (p.size("ROT"), p.is("ADJACENT"), d.u32(8)[0] as usize);
    let first = row0 / size;
    let head = |h: usize, t: usize, out: &mut [f32]| {
        out.copy_from_slice(&products[t * rows + (h - first) * size..][..size]);
        if let Some(table) = table.as_deref().filter(|_| h < heads + kv_heads) {
            let turns = &table[(pos + t) * rot..][..rot];
            rope::turn(&mut out[..rot], turns, adjacent);
        }
    };
    let mut q = d.f32_mut(5);
    for t in 0..tokens {
        for h in held(p, 0..heads) {
            head(h, t, &mut q[(t * heads + h) * size..][..size]);
        }
    }
    let rows: Vec<usize> = (pos..pos + tokens).collect();
    for (to, start) in [(6, heads), (7, heads + kv_heads)] {
        let held = held(p, start..start + kv_heads);
        kv_append::append(d, to, held, size, &rows, |g, t, row| {
            head(start + g, t, row)
        });
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (heads, kv_heads, size) = (p.size("H"), p.size("KVH"), p.size("D"));
    let (rot, capacity, row0) = (p.size("ROT"), p.size("S"), p.size("ROW0"));
    let pos = arrays[8][0] as usize;
    let x = normalised(p, &arrays[0], &arrays[3]);
    for t in 0..p.size("T") {
        for h in held(p, 0..heads + 2 * kv_heads) {
            let mut row: Vec<f64> = (h * size..(h + 1) * size)
                .map(|n| {
                    let sum = product(&arrays[1], n - row0, &x, t, p.size("K"));
                    sum + if p.is("BIAS") { arrays[2][n] } else { 0.0 }
                })
                .collect();
            if p.is("ROPE") && h < heads + kv_heads {
                for i in 0..rot / 2 {
                    let (a, b) = rope::pair(i, rot / 2, p.is("ADJACENT"));
                    let at = (pos + t) * rot + 2 * i;
                    let (cos, sin) = (arrays[4][at], arrays[4][at + 1]);
                    (row[a], row[b]) = (row[a] * cos - row[b] * sin, row[b] * cos + row[a] * sin);
                }
            }
            if h < heads {
                arrays[5][(t * heads + h) * size..][..size].copy_from_slice(&row);
            } else if pos + t < capacity {
                let (to, g) = match h < heads + kv_heads {
                    true => (6, h - heads),
                    false => (7, h - heads - kv_heads),
                };
                for i in 0..size {
                    let at = (g * capacity + pos + t) * size + i;
                    arrays[to][at] = kv_append::kept(p, &row, i);
                }
            }
        }
    }
}

/// What a test case is made of.
struct Sizes {
    tokens: usize,
    /// H, KVH, D.
    heads: [usize; 3],
    /// Heads that the weight's slice holds.
    held: Range<usize>,
    capacity: usize,
    pos: usize,
    rot: usize,
}

fn cases() -> Vec<Case> {
    let sizes = |tokens, heads, held, capacity, pos, rot| Sizes {
        tokens,
        heads,
        held,
        capacity,
        pos,
        rot,
    };
    let mut cases = Vec::new();
    for (i, &dtype) in DType::WEIGHTS.iter().enumerate() {
        let inner = inner_lengths(dtype)[i % 2];
        // All heads; some of q and k; the last of v; one token of three finds no room.
        let size = [
            sizes(1, [9, 3, 64], 0..15, 301, 200, 64),
            sizes(2, [4, 2, 32], 2..5, 9, 5, 16),
            sizes(1, [1, 2, 4], 4..5, 3, 0, 4),
            sizes(3, [2, 2, 20], 0..6, 7, 5, 12),
        ];
        for (j, size) in size.iter().enumerate() {
            let kv = [DType::F32, DType::F16][(i + j) % 2];
            let mut case = case(size, inner, dtype, kv, (i + j) % 3 == 0, i % 2 == 1);
            if j % 2 == 0 {
                case = norm_case(case, 3, inner);
            }
            cases.push(case);
        }
    }
    cases
}

fn case(s: &Sizes, inner: usize, dtype: DType, kv: DType, bias: bool, adjacent: bool) -> Case {
    let &Sizes {
        tokens,
        heads: [heads, kv_heads, size],
        capacity,
        pos,
        rot,
        ..
    } = s;
    let (all, rows) = (heads + 2 * kv_heads, s.held.len() * size);
    let angle = |i: usize| (i / (rot / 2)) as f32 * 0.7 / (1.0 + (i % (rot / 2)) as f32);
    let turns = pos + tokens;
    let table: Vec<f32> = (0..turns * rot / 2)
        .flat_map(|i| [angle(i).cos(), angle(i).sin()])
        .collect();
    let rope = inner % 3 != 1 || s.held.len() == all;
    let cache = |seed| HostArray::random_cache(seed, &[kv_heads, capacity, size], kv);
    let params = Params::new()
        .u32("K", inner as u32)
        .u32("T", tokens as u32)
        .u32("N", rows as u32)
        .u32("ROW0", (s.held.start * size) as u32)
        .dtype("W", dtype)
        .switch("BIAS", bias)
        .u32("H", heads as u32)
        .u32("KVH", kv_heads as u32)
        .u32("D", size as u32)
        .u32("S", capacity as u32)
        .u32("ROT", if rope { rot as u32 } else { 0 })
        .switch("ROPE", rope)
        .switch("ADJACENT", rope && adjacent)
        .switch("KV_F16", kv == DType::F16);
    Case {
        params,
        arrays: vec![
            Some(HostArray::random(1, &[tokens, inner])),
            Some(HostArray::weight(5, dtype, &[rows, inner])),
            bias.then(|| HostArray::random(3, &[all * size])),
            None,
            rope.then(|| HostArray::f32(&[turns, rot], &table)),
            Some(HostArray::random(4, &[tokens, heads, size])),
            Some(cache(6)),
            Some(cache(7)),
            Some(HostArray::step(pos)),
        ],
        bound: if kv == DType::F32 { 1e-10 } else { 1e-6 },
    }
}
