//! Causal attention over a KV cache: blocks of keys, one pass, softmax kept up to date
//! (arXiv:2205.14135, algorithm 1; the split over keys is that of "flash decoding").

use std::ops::Range;

use super::dot::decode;
use super::gemm::{Panel, Size, gemm, transpose};
use super::simd::{Level, Simd, Task, dispatch, lanes, lanes_mut, math};
use super::{CpuDispatch, parallel, scratch, threads};
use crate::DType;

/// Keys that are looked at together.
const KEYS: usize = 64;

/// Query rows of a part; enough to make decoding and transposing a block of keys cheap.
const ROWS: usize = 48;

/// Up to this many query rows scores are dot products; beyond, keys are transposed.
const FEW_ROWS: usize = 8;

/// Fewest keys for which a part is split off.
const SPLIT_KEYS: usize = 128;

/// Multiplications below which everything stays on one thread: about 5 µs.
const SMALL: usize = 1 << 17;

/// `y[t, h] = sum_j softmax_j(SCALE q[t, h] . k[j]) v[j]` over cache rows `0 ..= pos + t` of KV
/// head `h / (H / KVH)`.
///
/// Bindings: q (T, H, D), k cache and v cache (KVH, S, D), step, y (T, H, D). Params: `H`, `KVH`,
/// `D`, `SCALE`, `KV_F16`, `T`, `S`.
pub fn attention(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (q, k, v, mut y) = (d.f32(0), d.bytes(1), d.bytes(2), d.f32_mut(4));
    let position = d.u32(3)[0] as usize;
    let (heads, kv_heads, size) = (p.size("H"), p.size("KVH"), p.size("D"));
    let call = Attention {
        kv_heads,
        group: heads / kv_heads,
        d: size,
        padded: size.next_multiple_of(16),
        scale: p.number("SCALE"),
        dtype: if p.is("KV_F16") {
            DType::F16
        } else {
            DType::F32
        },
        tokens: p.size("T"),
        capacity: p.size("S"),
        position,
        q: &q,
        k: &k,
        v: &v,
    };
    call.run(Level::current(), &mut y[..call.tokens * heads * size]);
}

/// Shapes and inputs of a call.
pub struct Attention<'a> {
    /// KV heads.
    pub kv_heads: usize,
    /// Query heads per KV head.
    pub group: usize,
    /// Head size.
    pub d: usize,
    /// Head size as a multiple of 16.
    pub padded: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Element type of the caches, f16 or f32.
    pub dtype: DType,
    /// Tokens.
    pub tokens: usize,
    /// Rows of the caches.
    pub capacity: usize,
    /// Position of the first token.
    pub position: usize,
    /// (T, H, D).
    pub q: &'a [f32],
    /// (KVH, S, D).
    pub k: &'a [u8],
    /// (KVH, S, D).
    pub v: &'a [u8],
}

impl Attention<'_> {
    /// Computes all outputs.
    pub fn run(&self, level: Level, y: &mut [f32]) {
        let block = (ROWS / self.group).max(1).min(self.tokens);
        let blocks = self.tokens.div_ceil(block);
        let keys = (self.position + self.tokens).min(self.capacity);
        let small = keys * self.tokens * self.group * self.kv_heads * self.d < SMALL;
        let wanted = (2 * threads()).div_ceil(self.kv_heads * blocks);
        let splits = if small {
            1
        } else {
            wanted.clamp(1, keys.div_ceil(SPLIT_KEYS))
        };
        let split = keys.div_ceil(splits).next_multiple_of(KEYS);
        let splits = keys.div_ceil(split);

        // Part (g, b, c): its rows' outputs, then their maxima, then their sums.
        let rows = block * self.group;
        let part_len = rows * (self.padded + 2);
        scratch::with(self.kv_heads * blocks * splits * part_len, |partial| {
            let part = |i: usize, out: &mut [f32]| {
                let (g, b, c) = (i / splits / blocks, i / splits % blocks, i % splits);
                let tokens = b * block..((b + 1) * block).min(self.tokens);
                let end = ((c + 1) * split).min(self.position + tokens.end).min(keys);
                let range = c * split..end;
                let memory = rows * (self.padded + KEYS) + 3 * KEYS * self.padded;
                scratch::with(memory, |memory| {
                    let task = Part {
                        call: self,
                        g,
                        tokens,
                        keys: range,
                        out,
                        rows,
                        memory,
                    };
                    dispatch(level, task);
                });
            };
            if small {
                for (i, out) in partial.chunks_mut(part_len).enumerate() {
                    part(i, out);
                }
            } else {
                parallel::for_each(partial.chunks_mut(part_len).collect(), part);
            }
            let partial = &*partial;
            let width = self.group * self.d;
            let combine = |i: usize, y: &mut [f32]| {
                let (t, g) = (i / self.kv_heads, i % self.kv_heads);
                let first = (g * blocks + t / block) * splits;
                for (h, y) in y.chunks_mut(self.d).enumerate() {
                    let row = t % block * self.group + h;
                    let parts = partial[first * part_len..].chunks(part_len).take(splits);
                    combine(parts, row, rows, self.padded, y);
                }
            };
            if small || self.tokens == 1 {
                for (i, y) in y.chunks_mut(width).enumerate() {
                    combine(i, y);
                }
            } else {
                parallel::for_each_chunk(y, width, combine);
            }
        });
    }
}

/// One row's output from its parts, each weighted by its share of the softmax.
fn combine<'a>(
    parts: impl Iterator<Item = &'a [f32]> + Clone,
    row: usize,
    rows: usize,
    padded: usize,
    y: &mut [f32],
) {
    let max_and_sum = |part: &[f32]| (part[rows * padded + row], part[rows * (padded + 1) + row]);
    // NaN where any part is NaN, so that it is seen in the output.
    let max = parts.clone().map(|p| max_and_sum(p).0);
    let max = max.fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b });
    y.fill(0.0);
    let mut total = 0.0;
    for part in parts {
        let (m, l) = max_and_sum(part);
        if l == 0.0 {
            continue;
        }
        let weight = (m - max).exp();
        total += weight * l;
        for (y, o) in y.iter_mut().zip(&part[row * padded..]) {
            *y += weight * o;
        }
    }
    for y in y {
        *y /= total;
    }
}

/// Some tokens' queries of one KV head against some keys.
struct Part<'a> {
    call: &'a Attention<'a>,
    g: usize,
    tokens: Range<usize>,
    keys: Range<usize>,
    out: &'a mut [f32],
    /// Rows for which `out` has room.
    rows: usize,
    memory: &'a mut [f32],
}

impl Task for Part<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let call = self.call;
        let (d, width, group) = (call.d, call.padded, call.group);
        let (out, rest) = self.out.split_at_mut(self.rows * width);
        let (max, sum) = rest.split_at_mut(self.rows);
        out.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        let rows = self.tokens.len() * group;
        let (q, rest) = self.memory.split_at_mut(self.rows * width);
        let (scores, rest) = rest.split_at_mut(self.rows * KEYS);
        let (keys, rest) = rest.split_at_mut(KEYS * width);
        let (keys_t, values) = rest.split_at_mut(KEYS * width);
        for r in 0..rows {
            let (t, h) = (self.tokens.start + r / group, self.g * group + r % group);
            let from = &call.q[(t * call.kv_heads * group + h) * d..][..d];
            let to = &mut q[r * width..][..width];
            for (to, from) in to.iter_mut().zip(from) {
                *to = from * call.scale;
            }
            to[d..].fill(0.0);
        }
        let q = Panel {
            data: q,
            stride: width,
        };
        for first in self.keys.clone().step_by(KEYS) {
            let n = (self.keys.end - first).min(KEYS);
            fetch(s, call, call.k, self.g, first, n, keys);
            fetch(s, call, call.v, self.g, first, n, values);
            let k = Panel {
                data: keys,
                stride: width,
            };
            if rows <= FEW_ROWS {
                dots(s, rows, n, q, k, scores);
            } else {
                transpose(s, k, n, d, keys_t, KEYS);
                let k_t = Panel {
                    data: keys_t,
                    stride: KEYS,
                };
                let size = Size {
                    m: rows,
                    n: n.next_multiple_of(16),
                    k: d,
                };
                gemm(s, size, q, k_t, scores, KEYS, false);
            }
            for r in 0..rows {
                let last = call.position + self.tokens.start + r / group;
                let seen = (last + 1).saturating_sub(first).min(n);
                let scores = &mut scores[r * KEYS..][..KEYS];
                let out = &mut out[r * width..][..width];
                soften(s, scores, seen, &mut max[r], &mut sum[r], out);
            }
            let size = Size {
                m: rows,
                n: width,
                k: n,
            };
            let p = Panel {
                data: scores,
                stride: KEYS,
            };
            let v = Panel {
                data: values,
                stride: width,
            };
            gemm(s, size, p, v, out, width, true);
        }
    }
}

/// Rows `first..first + n` of KV head `g` as f32, padded with zeros to whole vectors.
#[inline(always)]
fn fetch<S: Simd>(
    s: S,
    call: &Attention<'_>,
    cache: &[u8],
    g: usize,
    first: usize,
    n: usize,
    to: &mut [f32],
) {
    let (d, width) = (call.d, call.padded);
    let row_bytes = d * call.dtype.block_bytes();
    let from = &cache[(g * call.capacity + first) * row_bytes..][..n * row_bytes];
    if d == width {
        return decode(s, call.dtype, from, &mut to[..n * width]);
    }
    for (from, to) in from.chunks_exact(row_bytes).zip(to.chunks_exact_mut(width)) {
        decode(s, call.dtype, from, &mut to[..d]);
        to[d..].fill(0.0);
    }
}

/// `scores[r, j] = q[r] . k[j]`, 16 keys at a time.
#[inline(always)]
fn dots<S: Simd>(s: S, rows: usize, n: usize, q: Panel<'_>, k: Panel<'_>, scores: &mut [f32]) {
    for j in (0..n).step_by(16) {
        for r in 0..rows {
            let q = &q.data[r * q.stride..][..q.stride];
            let mut acc = [s.splat(0.0); 16];
            for at in (0..q.len()).step_by(16) {
                let qv = s.load(lanes(q, at));
                for (i, acc) in acc.iter_mut().enumerate() {
                    let kv = s.load(lanes(k.data, (j + i) * k.stride + at));
                    *acc = s.fma(qv, kv, *acc);
                }
            }
            s.store(s.sums(acc), lanes_mut(scores, r * KEYS + j));
        }
    }
}

/// Turns the first `seen` scores into e^(score - max) and the rest into zeros; maximum, sum and
/// output so far follow.
#[inline(always)]
fn soften<S: Simd>(
    s: S,
    scores: &mut [f32],
    seen: usize,
    max: &mut f32,
    sum: &mut f32,
    out: &mut [f32],
) {
    if seen == 0 {
        scores.fill(0.0);
        return;
    }
    scores[seen..].fill(f32::NEG_INFINITY);
    let mut top = s.splat(*max);
    for i in (0..KEYS).step_by(16) {
        top = s.max(top, s.load(lanes(scores, i)));
    }
    let top = s.max_lane(top);
    if top == f32::NEG_INFINITY {
        scores.fill(0.0);
        return;
    }
    if top != *max {
        // The first block's factor is e^-inf = 0, and there is nothing to scale.
        let factor = (*max - top).exp();
        *sum *= factor;
        for i in (0..out.len()).step_by(16) {
            let scaled = s.mul(s.load(lanes(out, i)), s.splat(factor));
            s.store(scaled, lanes_mut(out, i));
        }
        *max = top;
    }
    let (top, mut total) = (s.splat(top), s.splat(0.0));
    for i in (0..KEYS).step_by(16) {
        let p = math::exp(s, s.sub(s.load(lanes(scores, i)), top));
        total = s.add(total, p);
        s.store(p, lanes_mut(scores, i));
    }
    *sum += s.sum(total);
}
