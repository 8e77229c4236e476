//! Attention over a KV cache: blocks of keys, one pass, softmax kept up to date
//! (arXiv:2205.14135, algorithm 1; the split over keys is that of "flash decoding").

use std::ops::Range;

use super::dot::decode_row;
use super::gemm::{Panel, Size, gemm, transpose};
use super::simd::{Level, Simd, Task, dispatch, lanes, lanes_mut, math};
use super::{CpuDispatch, parallel, scratch, threads};
use crate::DType;
use crate::kernels::attention_rules::Adjust;
use crate::kernels::pages::{PAGE, WORDS};

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

/// `y[t, h] = sum_j softmax_j(SCALE q[t, h] . k[j]) v[j]` over the keys that the rules let token t
/// see.
///
/// Bindings and params: those of [`attention`](crate::kernels::attention).
pub fn attention(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (q, k, v, mut y) = (d.f32(0), d.bytes(1), d.bytes(2), d.f32_mut(4));
    let pages = d.has(9).then(|| d.u32(9));
    let position = match pages {
        // Each run of tokens says where it begins.
        Some(_) => 0,
        None => d.u32(3)[0] as usize,
    };
    let (batch, heads, kv_heads) = (p.size("B"), p.size("H"), p.size("KVH"));
    let (size, v_size) = (p.size("D"), p.size("DV"));
    let sinks = d.has(8).then(|| d.f32(8));
    let rules = Adjust::new(d, position, 5);
    let call = Attention {
        batch,
        heads,
        kv_heads,
        group: p.size("GROUP"),
        first_head: p.size("HEAD0"),
        d: size,
        dv: v_size,
        scale: p.number("SCALE"),
        dtype: match (p.is("KV_F16"), p.is("KV_Q8_0")) {
            (true, _) => DType::F16,
            (_, true) => DType::Q8_0,
            _ => DType::F32,
        },
        tokens: p.size("T"),
        capacity: p.size("S"),
        heads_first: p.is("HEADS_FIRST"),
        tokens_first: p.is("TOKENS_FIRST"),
        rules: &rules,
        first: 0,
        pages: None,
        sinks: sinks.as_deref(),
        q: &q,
        k: &k,
        v: &v,
    };
    let y = &mut y[..batch * call.tokens * heads * v_size];
    match pages {
        Some(pages) => call.run_paged(Level::current(), &pages, y),
        None => call.run(Level::current(), y),
    }
}

/// Shapes and inputs of a call.
pub struct Attention<'a> {
    /// Sequences.
    pub batch: usize,
    /// Query heads.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Query heads per KV head in the whole model.
    pub group: usize,
    /// Place of the first query head in its group.
    pub first_head: usize,
    /// Head size of q and k.
    pub d: usize,
    /// Head size of v and y.
    pub dv: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Element type of the caches: f32, f16 or q8_0.
    pub dtype: DType,
    /// Tokens.
    pub tokens: usize,
    /// Rows of the caches.
    pub capacity: usize,
    /// q and y are (B, H, T, D).
    pub heads_first: bool,
    /// The caches are (B, S, KVH, D).
    pub tokens_first: bool,
    /// Which keys are seen, and what is done to scores.
    pub rules: &'a Adjust<'a>,
    /// Token t is token `first + t` to the rules.
    pub first: usize,
    /// Where each [`PAGE`] keys lie in the caches; `None`: one after the other.
    pub pages: Option<&'a [u32]>,
    /// (H,).
    pub sinks: Option<&'a [f32]>,
    /// (B, T, H, D).
    pub q: &'a [f32],
    /// (B, KVH, S, D).
    pub k: &'a [u8],
    /// (B, KVH, S, DV).
    pub v: &'a [u8],
}

impl Attention<'_> {
    /// Keys that token `t` of sequence `b` sees.
    fn seen(&self, b: usize, t: usize) -> Range<usize> {
        self.rules.keys(b, self.first + t)
    }

    /// Computes all outputs where tokens have positions and sequences of their own, which `pages` say as
    /// [`pages`](crate::kernels::pages) has them. Tokens that follow each other in a sequence go together.
    fn run_paged(&self, level: Level, pages: &[u32], y: &mut [f32]) {
        let place = |t: usize| (pages[WORDS * t] as usize, pages[WORDS * t + 2] as usize);
        let width = self.heads * self.dv;
        let (mut rest, mut runs) = (y, Vec::new());
        let mut begin = 0;
        while begin < self.tokens {
            let (position, list) = place(begin);
            let follow = |n: &usize| place(begin + n) == (position + n, list);
            let most = self.tokens - begin;
            let n = (1..most).find(|n| !follow(n)).unwrap_or(most);
            let (y, behind) = std::mem::take(&mut rest).split_at_mut(n * width);
            let call = Attention {
                tokens: n,
                first: position,
                pages: Some(&pages[list..]),
                q: &self.q[begin * self.heads * self.d..],
                ..*self
            };
            runs.push((call, y));
            (rest, begin) = (behind, begin + n);
        }
        parallel::for_each(runs, |_, (call, y)| call.run(level, y));
    }

    /// Computes all outputs.
    pub fn run(&self, level: Level, y: &mut [f32]) {
        let block = (ROWS / self.group).max(1).min(self.tokens);
        let blocks = self.tokens.div_ceil(block);
        let heads = self.batch * self.kv_heads;
        // Keys that any token sees, from a whole block of them on.
        let keys = (0..self.batch)
            .flat_map(|b| [self.seen(b, 0), self.seen(b, self.tokens - 1)])
            .reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
        let keys = keys.unwrap_or(0..0);
        let keys = keys.start / KEYS * KEYS..keys.end.max(1);
        let products = keys.len() * self.tokens * self.group * heads * self.d.max(self.dv);
        let small = products < SMALL;
        let wanted = (2 * threads()).div_ceil(heads * blocks);
        let splits = if small {
            1
        } else {
            wanted.clamp(1, keys.len().div_ceil(SPLIT_KEYS))
        };
        let split = keys.len().div_ceil(splits).next_multiple_of(KEYS);
        let splits = keys.len().div_ceil(split);

        // Part (g, b, c): its rows' outputs, then their maxima, then their sums.
        let rows = block * self.group;
        let (padded, padded_v) = (self.d.next_multiple_of(16), self.dv.next_multiple_of(16));
        let part_len = rows * (padded_v + 2);
        scratch::with(heads * blocks * splits * part_len, |partial| {
            let part = |i: usize, out: &mut [f32]| {
                let (g, b, c) = (i / splits / blocks, i / splits % blocks, i % splits);
                let tokens = b * block..((b + 1) * block).min(self.tokens);
                let sequence = g / self.kv_heads;
                let first = self.seen(sequence, tokens.start).start / KEYS * KEYS;
                let end = self.seen(sequence, tokens.end - 1).end;
                let split = keys.start + c * split..keys.start + (c + 1) * split;
                let range = split.start.max(first)..split.end.min(end);
                let memory = rows * (padded + KEYS) + KEYS * (2 * padded + padded_v);
                scratch::with(memory, |memory| {
                    let task = Part {
                        level,
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
            let combine = |i: usize, y: &mut [f32]| {
                for (j, y) in y.chunks_mut(self.dv).enumerate() {
                    let (g, t, head) = self.place(i * self.group + j);
                    let first = (g * blocks + t / block) * splits;
                    let held = self.heads_of(g);
                    let row = t % block * held.len() + head - held.start;
                    let parts = partial[first * part_len..].chunks(part_len).take(splits);
                    let sink = self.sinks.map(|s| s[head]);
                    combine(parts, row, rows, padded_v, sink, y);
                }
            };
            let width = self.group * self.dv;
            if small || self.tokens == 1 {
                for (i, y) in y.chunks_mut(width).enumerate() {
                    combine(i, y);
                }
            } else {
                parallel::for_each_chunk(y, width, combine);
            }
        });
    }

    /// Query heads that read KV head `g` of all sequences.
    fn heads_of(&self, g: usize) -> Range<usize> {
        let first = g % self.kv_heads * self.group;
        let end = (first + self.group - self.first_head).min(self.heads);
        first.saturating_sub(self.first_head)..end
    }

    /// KV head of all sequences, token, and head of row `i` of q and y.
    fn place(&self, i: usize) -> (usize, usize, usize) {
        let (tokens, heads) = (self.tokens, self.heads);
        let (b, t, h) = if self.heads_first {
            (i / tokens / heads, i % tokens, i / tokens % heads)
        } else {
            (i / heads / tokens, i / heads % tokens, i % heads)
        };
        let g = (h + self.first_head) / self.group;
        (b * self.kv_heads + g, t, h)
    }

    /// Row of q and y of token `t` and head `h` of sequence `b`.
    fn row(&self, b: usize, t: usize, h: usize) -> usize {
        if self.heads_first {
            (b * self.heads + h) * self.tokens + t
        } else {
            (b * self.tokens + t) * self.heads + h
        }
    }

    /// Row of the caches of key `s` of KV head `g` of all sequences.
    fn key(&self, g: usize, s: usize) -> usize {
        let s = match self.pages {
            Some(pages) => pages[s / PAGE] as usize * PAGE + s % PAGE,
            None => s,
        };
        if self.tokens_first {
            (g / self.kv_heads * self.capacity + s) * self.kv_heads + g % self.kv_heads
        } else {
            g * self.capacity + s
        }
    }
}

/// One row's output from its parts, each weighted by its share of the softmax.
fn combine<'a>(
    parts: impl Iterator<Item = &'a [f32]> + Clone,
    row: usize,
    rows: usize,
    padded: usize,
    sink: Option<f32>,
    y: &mut [f32],
) {
    let max_and_sum = |part: &[f32]| (part[rows * padded + row], part[rows * (padded + 1) + row]);
    // NaN where any part is NaN, so that it is seen in the output.
    let max = parts.clone().map(|p| max_and_sum(p).0);
    let lowest = sink.unwrap_or(f32::NEG_INFINITY);
    let max = max.fold(lowest, |a, b| if a > b { a } else { b });
    y.fill(0.0);
    let mut total = sink.map_or(0.0, |sink| (sink - max).exp());
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
    // A row that saw no key stays zero.
    if total != 0.0 {
        y.iter_mut().for_each(|y| *y /= total);
    }
}

/// Some tokens' queries of one KV head against some keys.
struct Part<'a> {
    level: Level,
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
        let (d, width) = (call.d, call.d.next_multiple_of(16));
        let heads = call.heads_of(self.g);
        let group = heads.len();
        let v_width = call.dv.next_multiple_of(16);
        let (out, rest) = self.out.split_at_mut(self.rows * v_width);
        let (max, sum) = rest.split_at_mut(self.rows);
        out.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        let rows = self.tokens.len() * group;
        let (q, rest) = self.memory.split_at_mut(self.rows * width);
        let (scores, rest) = rest.split_at_mut(self.rows * KEYS);
        let (keys, rest) = rest.split_at_mut(KEYS * width);
        let (keys_t, values) = rest.split_at_mut(KEYS * width);
        let sequence = self.g / call.kv_heads;
        for r in 0..rows {
            let (t, head) = (self.tokens.start + r / group, heads.start + r % group);
            let row = call.row(sequence, t, head);
            let from = &call.q[row * d..][..d];
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
            fetch(self.level, call, call.k, self.g, first..first + n, d, keys);
            fetch(
                self.level,
                call,
                call.v,
                self.g,
                first..first + n,
                call.dv,
                values,
            );
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
                let t = self.tokens.start + r / group;
                let seen = call.seen(sequence, t);
                let seen = seen.start.max(first).min(first + n)..seen.end.clamp(first, first + n);
                let scores = &mut scores[r * KEYS..][..KEYS];
                let out = &mut out[r * v_width..][..v_width];
                let seen = seen.start - first..seen.end.max(seen.start) - first;
                if call.rules.is_needed() {
                    let head = heads.start + r % group;
                    let from = first + seen.start;
                    call.rules.row(
                        [sequence, head, call.first + t],
                        from,
                        &mut scores[seen.clone()],
                    );
                }
                soften(s, scores, seen, &mut max[r], &mut sum[r], out);
            }
            let size = Size {
                m: rows,
                n: v_width,
                k: n,
            };
            let p = Panel {
                data: scores,
                stride: KEYS,
            };
            let v = Panel {
                data: values,
                stride: v_width,
            };
            gemm(s, size, p, v, out, v_width, true);
        }
    }
}

/// Rows `keys` of KV head `g`, each `d` long, as f32, padded with zeros to whole vectors.
fn fetch(
    level: Level,
    call: &Attention<'_>,
    cache: &[u8],
    g: usize,
    keys: Range<usize>,
    d: usize,
    to: &mut [f32],
) {
    let width = d.next_multiple_of(16);
    let row_bytes = d / call.dtype.block_len() * call.dtype.block_bytes();
    if d == width && !call.tokens_first {
        let together = match call.pages {
            Some(_) => PAGE,
            None => keys.len(),
        };
        // A block of keys begins with a page.
        for (first, to) in (keys.clone().step_by(together)).zip(to.chunks_mut(together * width)) {
            let n = together.min(keys.end - first);
            let from = &cache[call.key(g, first) * row_bytes..][..n * row_bytes];
            decode_row(level, call.dtype, from, &mut to[..n * width]);
        }
        return;
    }
    for (key, to) in keys.zip(to.chunks_exact_mut(width)) {
        let from = &cache[call.key(g, key) * row_bytes..][..row_bytes];
        decode_row(level, call.dtype, from, &mut to[..d]);
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

/// Turns the scores in `seen` into e^(score - max) and the rest into zeros; maximum, sum and output
/// so far follow.
#[inline(always)]
fn soften<S: Simd>(
    s: S,
    scores: &mut [f32],
    seen: Range<usize>,
    max: &mut f32,
    sum: &mut f32,
    out: &mut [f32],
) {
    if seen.is_empty() {
        scores.fill(0.0);
        return;
    }
    scores[..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end..].fill(f32::NEG_INFINITY);
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
