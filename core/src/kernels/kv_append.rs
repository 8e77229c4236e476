//! Appends the keys and values of T tokens to the KV cache, from position `step.pos` on.
//!
//! Caches are (B, KVH, S, D) and (B, KVH, S, DV), in f32, f16 or q8_0. f16 elements are held to
//! +-65504, so that an outlier does not become infinite. Rows of q8_0 are as weights have them: in
//! the file's layout on the CPU, [planar](crate::weights::planar) on GPUs. Rows past `S` are
//! dropped.
//!
//! Params: `B` sequences, `T` tokens, `KVH` KV heads, `D` and `DV` head sizes (even; for q8_0
//! multiples of 32), `S` cache capacity, `KV_F16`, `KV_Q8_0`, `HEADS_FIRST` (k and v are
//! (B, KVH, T, D) instead of (B, T, KVH, D)), `PAGED`: `pages` says which rows are written.

use std::ops::Range;

use half::f16;

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, case, fold, pages};
use crate::DType;
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};
use crate::weights::dequant::quantize;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "kv_append",
    bindings: &[
        Binding::new("k", Access::Read),
        Binding::new("v", Access::Read),
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
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// B: sequences.
    pub batch: usize,
    /// T: tokens of each.
    pub tokens: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// D: size of a head of k.
    pub head_size: usize,
    /// DV: size of a head of v.
    pub v_head_size: usize,
    /// S: rows of the caches.
    pub capacity: usize,
    /// Element type of the caches: f32, f16 or q8_0.
    pub kv: DType,
    /// k and v are (B, KVH, T, D) instead of (B, T, KVH, D).
    pub heads_first: bool,
    /// Rows of the caches are those that a buffer says ([`attention`](super::attention)).
    pub paged: bool,
}

/// Parameters of a call.
pub fn params(call: &Call) -> Params {
    Params::new()
        .u32("B", call.batch as u32)
        .u32("T", call.tokens as u32)
        .u32("KVH", call.kv_heads as u32)
        .u32("D", call.head_size as u32)
        .u32("DV", call.v_head_size as u32)
        .u32("S", call.capacity as u32)
        .switch("KV_F16", call.kv == DType::F16)
        .switch("KV_Q8_0", call.kv == DType::Q8_0)
        .switch("HEADS_FIRST", call.heads_first)
        .switch("PAGED", call.paged)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let (name, part) = if p.is("KV_Q8_0") {
        ("chunks", 64)
    } else {
        ("pairs", 2)
    };
    let rows = p.get("B") * p.get("T") * p.get("KVH");
    let parts = rows * p.get("D").max(p.get("DV")).div_ceil(part);
    vec![Variant::new(name, fold(parts.div_ceil(64), limits)).set("WG", 64)]
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (kv_heads, tokens) = (p.size("KVH"), p.size("T"));
    let rows = rows(d, 4, 5);
    let (heads, heads_first) = (p.size("B") * kv_heads, p.is("HEADS_FIRST"));
    for (from, to, size) in [(0, 2, p.size("D")), (1, 3, p.size("DV"))] {
        let from = d.f32(from);
        let from = &*from;
        append(d, to, 0..heads, size, &rows, |g, t, row| {
            let at = match heads_first {
                true => g * tokens + t,
                false => (g / kv_heads * tokens + t) * kv_heads + g % kv_heads,
            };
            row.copy_from_slice(&from[at * size..][..size]);
        });
    }
}

/// Row of the caches for each of `T` tokens, by the bindings `step` and `pages`.
pub(super) fn rows(d: &CpuDispatch<'_>, step: usize, pages: usize) -> Vec<usize> {
    let tokens = 0..d.params.size("T");
    if d.params.is("PAGED") {
        let pages = d.u32(pages);
        return tokens
            .map(|t| pages[pages::WORDS * t + 1] as usize)
            .collect();
    }
    let pos = d.u32(step)[0] as usize;
    tokens.map(|t| pos + t).collect()
}

/// Writes rows of `size` elements to the cache `to` of these heads, `rows[t]` for token t: `fill` gives that of a
/// head and a token. Of the params, `S` and the cache's type are read.
pub(super) fn append(
    d: &CpuDispatch<'_>,
    to: usize,
    heads: Range<usize>,
    size: usize,
    rows: &[usize],
    fill: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    if d.params.is("KV_Q8_0") {
        let row = size / 32 * DType::Q8_0.block_bytes();
        store(
            d,
            &mut d.write::<u8>(to),
            (heads, size, row),
            rows,
            fill,
            |from, to| {
                to.copy_from_slice(&quantize(DType::Q8_0, from));
            },
        );
    } else if d.params.is("KV_F16") {
        store(
            d,
            &mut d.write::<u16>(to),
            (heads, size, size),
            rows,
            fill,
            |from, to| {
                for (to, v) in to.iter_mut().zip(from) {
                    *to = f16::from_f32(v.clamp(-65504.0, 65504.0)).to_bits();
                }
            },
        );
    } else {
        store(
            d,
            &mut d.write::<f32>(to),
            (heads, size, size),
            rows,
            fill,
            |from, to| {
                to.copy_from_slice(from);
            },
        );
    }
}

/// `row`: elements of a row of the cache.
fn store<E: Send>(
    d: &CpuDispatch<'_>,
    cache: &mut [E],
    (heads, size, row): (Range<usize>, usize, usize),
    rows: &[usize],
    fill: impl Fn(usize, usize, &mut [f32]) + Sync,
    pack: impl Fn(&[f32], &mut [E]) + Sync,
) {
    let capacity = d.params.size("S");
    let one_head = |g: usize, head: &mut [E]| {
        let mut from = vec![0.0; size];
        for (t, at) in rows.iter().enumerate().filter(|(_, at)| **at < capacity) {
            fill(g, t, &mut from);
            pack(&from, &mut head[at * row..][..row]);
        }
    };
    let len = capacity * row;
    let first = heads.start;
    let heads = &mut cache[first * len..heads.end * len];
    if rows.len() * size < 2048 {
        let heads = heads.chunks_mut(len).enumerate();
        heads.for_each(|(g, head)| one_head(first + g, head));
    } else {
        cpu::for_each_chunk(heads, len, |g, head| one_head(first + g, head));
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (kv_heads, tokens, capacity) = (p.size("KVH"), p.size("T"), p.size("S"));
    for (from, to, size) in [(0, 2, p.size("D")), (1, 3, p.size("DV"))] {
        for row in 0..p.size("B") * tokens * kv_heads {
            let (b, t, g) = if p.is("HEADS_FIRST") {
                (
                    row / tokens / kv_heads,
                    row % tokens,
                    row / tokens % kv_heads,
                )
            } else {
                (
                    row / kv_heads / tokens,
                    row / kv_heads % tokens,
                    row % kv_heads,
                )
            };
            let (_, s) = pages::place(p, [&arrays[4], &arrays[5]], t);
            if s >= capacity {
                continue;
            }
            let to_row = ((b * kv_heads + g) * capacity + s) * size;
            for i in 0..size {
                let value = kept(p, &arrays[from][row * size..][..size], i);
                arrays[to][to_row + i] = value;
            }
        }
    }
}

/// The definition of what a cache keeps of element `i` of a row.
pub(super) fn kept(p: &Params, row: &[f64], i: usize) -> f64 {
    if p.is("KV_Q8_0") {
        let chunk = &row[i / 32 * 32..][..32];
        let largest = chunk.iter().fold(0.0, |a: f64, x| a.max(x.abs()));
        let d = f16::from_f64(largest / 127.0).to_f64();
        d * (row[i] / d).round().clamp(-127.0, 127.0)
    } else {
        let limit = if p.is("KV_F16") { 65504.0 } else { f64::MAX };
        row[i].clamp(-limit, limit)
    }
}

fn cases() -> Vec<Case> {
    // B, T, KVH, (D, DV), S, pos
    let sizes = [
        (1, 1, 1, (2, 2), 1, 0),
        (1, 1, 3, (64, 64), 301, 200),
        (1, 2, 1, (32, 32), 9, 5),
        (1, 7, 2, (80, 80), 71, 63),
        (1, 33, 3, (256, 256), 35, 1),
        // Two of five tokens find room.
        (1, 5, 2, (64, 64), 7, 5),
        (3, 4, 2, (8, 10), 6, 1),
        (2, 3, 3, (96, 32), 5, 2),
    ];
    let mut cases = Vec::new();
    for (batch, tokens, kv_heads, (head_size, v_head_size), capacity, pos) in sizes {
        for kv in [DType::F32, DType::F16, DType::Q8_0] {
            if kv == DType::Q8_0 && !(head_size % 32 == 0 && v_head_size % 32 == 0) {
                continue;
            }
            for heads_first in [false, true] {
                let call = Call {
                    batch,
                    tokens,
                    kv_heads,
                    head_size,
                    v_head_size,
                    capacity,
                    kv,
                    heads_first,
                    paged: false,
                };
                cases.push(one_case(pos, &call));
                if batch == 1 {
                    let (capacity, paged) = (20 * pages::PAGE, true);
                    cases.push(one_case(
                        pos,
                        &Call {
                            capacity,
                            paged,
                            ..call
                        },
                    ));
                }
            }
        }
    }
    cases
}

fn one_case(pos: usize, call: &Call) -> Case {
    let Call {
        batch,
        tokens,
        kv_heads,
        ..
    } = *call;
    let (head_size, v_head_size) = (call.head_size, call.v_head_size);
    let mut k = case::random(1, batch * tokens * kv_heads * head_size);
    // Beyond what f16 holds.
    k[0] = -70000.0;
    let cache = |seed, size| {
        HostArray::random_cache(seed, &[batch, kv_heads, call.capacity, size], call.kv)
    };
    Case {
        params: params(call),
        arrays: vec![
            Some(HostArray::f32(&[batch, tokens, kv_heads, head_size], &k)),
            Some(HostArray::random(
                2,
                &[batch, tokens, kv_heads, v_head_size],
            )),
            Some(cache(3, head_size)),
            Some(cache(4, v_head_size)),
            Some(HostArray::step(pos)),
            call.paged.then(|| {
                let positions: Vec<usize> = (pos..pos + tokens).rev().collect();
                pages::case(&positions, 1, call.capacity)
            }),
        ],
        bound: if call.kv == DType::F32 { 0.0 } else { 1e-6 },
    }
}
