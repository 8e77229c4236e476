//! What matvec, matmul and gated_mlp share: variants of `rows.wgsl` and `tiles.wgsl`,
//! shapes of test cases.

use std::ops::Range;

use super::{Case, HostArray, Order, Params, Variant, expert_order, fold};
use crate::DType;
use crate::device::{DeviceKind, Limits};

/// Elements of a chunk of a weight's row.
const CHUNK: u32 = 32;

/// Sizes of a product.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Tokens.
    pub tokens: usize,
    /// Inner length.
    pub inner: usize,
    /// Rows of the weight's slice.
    pub rows: usize,
    /// First row of the slice, and so the first column written.
    pub row0: usize,
    /// Columns of y: rows of the whole weight.
    pub columns: usize,
}

impl Size {
    /// A whole weight of `rows` rows.
    pub fn new(tokens: usize, rows: usize, inner: usize) -> Self {
        Size {
            tokens,
            inner,
            rows,
            row0: 0,
            columns: rows,
        }
    }

    /// Rows `range` of a weight of `columns` rows.
    pub fn slice(tokens: usize, range: Range<usize>, columns: usize, inner: usize) -> Self {
        Size {
            tokens,
            inner,
            rows: range.len(),
            row0: range.start,
            columns,
        }
    }

    /// The size in a call's parameters.
    pub(super) fn of(p: &Params) -> Self {
        Size {
            tokens: p.size("T"),
            inner: p.size("K"),
            rows: p.size("N"),
            row0: p.size("ROW0"),
            columns: p.size("NY"),
        }
    }

    /// Parameters that say it.
    pub(super) fn params(&self) -> Params {
        Params::new()
            .u32("T", self.tokens as u32)
            .u32("K", self.inner as u32)
            .u32("N", self.rows as u32)
            .u32("ROW0", self.row0 as u32)
            .u32("NY", self.columns as u32)
    }
}

/// Uniforms of a call whose weights hold several experts: those of [`Pairs`].
macro_rules! with_pairs {
    ($($name:literal),*) => {
        &[$($name,)* "FIRST", "COUNT", "E", "TILES", "TT"]
    };
}
pub(super) use with_pairs;

/// Which rows of x and of a weight each row of y is made of, where rows of y are pairs of a token and
/// an expert: the switch `EXPERTS`.
///
/// A call's `T` is then the number of pairs, `N` the rows of one expert. The weight's slice holds
/// `count` experts from `first` on, one below the other; pairs of other experts stay what they were.
#[derive(Clone, Copy, Debug)]
pub struct Pairs {
    /// First expert of the slice.
    pub first: usize,
    /// Experts of the slice.
    pub count: usize,
    /// All experts among which pairs choose, wherever they are held.
    pub experts: usize,
    /// Consecutive pairs that share a row of x.
    pub share: usize,
    /// The order that is bound to `pairs`; without one those are the pairs' experts.
    pub order: Option<Order>,
}

impl Pairs {
    /// A call's parameters with these.
    pub fn params(&self, p: Params) -> Params {
        let (tiles, tile) = self.order.map_or((0, 0), |o| (o.tiles, o.tile));
        p.bool("EXPERTS", true)
            .u32("DIV", self.share as u32)
            .u32("FIRST", self.first as u32)
            .u32("COUNT", self.count as u32)
            .u32("E", self.experts as u32)
            .u32("TILES", tiles as u32)
            .u32("TT", tile as u32)
    }
}

/// A barrier-free variant: an invocation has `rows` rows (2 or 4), and four tokens where there are
/// more than one, in registers.
fn serial(name: &'static str, p: &Params, limits: &Limits, rows: u32) -> Variant {
    const WG: u32 = 8;
    let (t, tile) = (p.get("T"), p.get("TT"));
    let (many, blocks) = match p.is("EXPERTS") {
        true if tile > 0 => (true, p.get("TILES") * tile / 4),
        true => (false, t),
        false if t > 1 => (true, t.div_ceil(4)),
        false => (false, 1),
    };
    let groups = p.get("N").div_ceil(WG * rows) * blocks;
    Variant::new(name, fold(groups, limits))
        .set("WG", WG)
        .flag("SERIAL")
        .flag_if("R4", rows == 4)
        .flag_if("TB4", many)
        .flag_if("TILED", tile > 0)
        .flag_if("X4", p.get("K").is_multiple_of(4))
}

/// Variants for few tokens, best first; `most` rows an invocation at most.
pub(super) fn by_rows(p: &Params, limits: &Limits, most: u32) -> Vec<Variant> {
    rows_between(p, limits, [1, most])
}

/// The same with a least number of rows an invocation, too.
pub(super) fn rows_between(p: &Params, limits: &Limits, [least, most]: [u32; 2]) -> Vec<Variant> {
    let (n, t, chunks) = (p.get("N"), p.get("T"), p.get("K").div_ceil(CHUNK));
    // Each pair has rows of its own.
    let most_tokens = if p.is("EXPERTS") { 1 } else { 4 };
    let tb = t.next_power_of_two().min(most_tokens);
    let wg = limits.max_workgroup_size.min(128);
    // More rows an invocation read x less often; fewer keep more invocations busy.
    let r = match n {
        0..4096 => 1,
        4096..16384 => 2,
        _ => 4,
    };
    let r = r.min(if tb > 1 { 2 } else { most }).max(least);
    let groups = |rows: u32| fold(n.div_ceil(rows) * t.div_ceil(tb), limits);
    let variant = |name, rows| {
        Variant::new(name, groups(rows))
            .set("R", r)
            .set("TB", tb)
            .set("WG", wg)
            .flag_if("X4", p.get("K").is_multiple_of(4))
    };

    // Most lanes that are busy for most of the loop over chunks.
    let busy = |lanes: u32| chunks * 10 >= chunks.next_multiple_of(lanes) * 7;
    let lanes = [32, 16, 8].into_iter().find(|l| busy(*l)).unwrap_or(8);
    let workgroup = variant("workgroup", wg / lanes * r).set("LANES", lanes);
    let subgroup = limits.subgroup.map(|(least, _)| {
        let rows = wg / least.clamp(4, wg) * r;
        let mut v = variant("subgroup", rows).set("ROWS", rows).flag("SUBGROUP");
        v.subgroups = true;
        v
    });
    let serial = serial("serial", p, limits, most);
    if limits.kind == DeviceKind::SoftwareGpu {
        return [Some(serial), subgroup, Some(workgroup)]
            .into_iter()
            .flatten()
            .collect();
    }
    let mut variants = vec![workgroup, serial];
    if let (Some(v), Some((_, size))) = (subgroup, limits.subgroup) {
        variants.insert(if busy(size) { 0 } else { 1 }, v);
    }
    variants
}

/// Variants for many tokens, best first; `rows` by 4 sums an invocation.
pub(super) fn by_tiles(p: &Params, limits: &Limits, rows: u32) -> Vec<Variant> {
    let (n, t) = (p.get("N"), p.get("T"));
    // Tiles no wider than the tokens there are.
    let (tokens, tiles) = match p.get("TT") {
        0 => {
            let tokens = t.div_ceil(16).next_power_of_two().min(4);
            (tokens, t.div_ceil(16 * tokens))
        }
        tile => (tile / 16, p.get("TILES")),
    };
    let groups = n.div_ceil(16 * rows) * tiles;
    let tile = |name| {
        Variant::new(name, fold(groups, limits))
            .set("RN", rows)
            .set("RT", tokens)
            .flag("TILE")
            .flag_if("X4", p.get("K").is_multiple_of(4))
    };
    let half = limits.f16.then(|| {
        let mut v = tile("tile_f16").flag("F16");
        v.f16 = true;
        v
    });
    let (tile, register) = (tile("tile"), serial("register", p, limits, rows));
    // f16 is never first: it clamps activations beyond 65504.
    let order = if limits.kind == DeviceKind::SoftwareGpu {
        [Some(register), half, Some(tile)]
    } else {
        [Some(tile), half, Some(register)]
    };
    order.into_iter().flatten().collect()
}

/// The definition of a product: row `n` of `w` with token `t` of `x`, both of `inner` elements.
pub(super) fn product(w: &[f64], n: usize, x: &[f64], t: usize, inner: usize) -> f64 {
    let (w, x) = (&w[n * inner..][..inner], &x[t * inner..][..inner]);
    w.iter().zip(x).map(|(w, x)| w * x).sum()
}

/// The rows of x, with the switch `NORM` RMS-normalised with the weight `norm` (arXiv:1910.07467, eq. 4).
pub(super) fn normalised(p: &Params, x: &[f64], norm: &[f64]) -> Vec<f64> {
    let mut x = x.to_vec();
    if p.is("NORM") {
        for row in x.chunks_exact_mut(norm.len()) {
            let squares: f64 = row.iter().map(|x| x * x).sum();
            let scale = 1.0 / (squares / norm.len() as f64 + f64::from(p.number("EPS"))).sqrt();
            row.iter_mut().zip(norm).for_each(|(x, w)| *x *= scale * w);
        }
    }
    x
}

/// A call whose x is RMS-normalised first.
pub fn with_norm(p: Params, eps: f32) -> Params {
    p.bool("NORM", true).f32("EPS", eps)
}

/// The same case with a norm, whose weight is binding `norm`.
pub(super) fn norm_case(mut case: Case, norm: usize, inner: usize) -> Case {
    // Large enough to matter.
    case.params = with_norm(case.params, 0.25);
    case.arrays[norm] = Some(HostArray::random(9, &[inner]));
    case
}

/// A case's x and the y that is there before: random, since columns outside the slice must stay.
pub(super) fn x_and_y(size: &Size) -> (HostArray, HostArray) {
    (
        HostArray::random(1, &[size.tokens, size.inner]),
        HostArray::random(2, &[size.tokens, size.columns]),
    )
}

/// What a product of each row of y is made of: rows of y, of x, and the place of the expert's first row
/// in the weight's slice. `pairs`: the binding, empty without `EXPERTS`.
pub(super) fn rows_of(p: &Params, pairs: &[f64]) -> Vec<(usize, usize, usize)> {
    if !p.is("EXPERTS") {
        return (0..p.size("T")).map(|t| (t, t, 0)).collect();
    }
    let chosen = expert_order::chosen(p, |i| pairs[i] as u32);
    let row = |(pair, own)| (pair, pair / p.size("DIV"), own * p.size("N"));
    chosen.into_iter().map(row).collect()
}

/// A case's x and pairs: the experts of `of`, of which some are elsewhere, by token or in order.
pub(super) fn x_and_pairs(size: &Size, pairs: &Pairs, ids: &[u32]) -> (HostArray, HostArray) {
    let x = HostArray::random(1, &[size.tokens.div_ceil(pairs.share), size.inner]);
    let words = match pairs.order {
        // A layer's order holds all its experts, whichever slice is bound.
        Some(order) => expert_order::ordered(order, ids, 0, pairs.experts),
        None => HostArray::u32(&[ids.len()], ids),
    };
    (x, words)
}

/// Experts of `tokens * k` pairs to test with, and of which a slice is bound: (first, count, experts, k,
/// ids).
pub(super) fn expert_cases(tokens: &[usize]) -> Vec<(Pairs, Vec<u32>)> {
    let mut cases = Vec::new();
    for (i, &tokens) in tokens.iter().enumerate() {
        let (experts, k): (usize, usize) = [(1, 1), (3, 2), (8, 3), (8, 2)][i % 4];
        let pairs = tokens * k;
        // All experts; one in the middle; all pairs with one expert.
        for (first, count, all_one) in [
            (0, experts, false),
            (experts / 2, experts.div_ceil(4), false),
            (0, experts, true),
        ] {
            let ids = match all_one {
                true => vec![experts as u32 - 1; pairs],
                false => expert_order::random_experts(tokens as u64, pairs, experts),
            };
            let pairs = Pairs {
                first,
                count,
                experts,
                share: if all_one { 1 } else { k },
                order: None,
            };
            cases.push((pairs, ids));
        }
    }
    cases
}

/// Inner lengths to test for a type: odd numbers of blocks, more chunks than lanes, and for
/// floats lengths that are not whole chunks.
pub(super) fn inner_lengths(dtype: DType) -> &'static [usize] {
    match dtype.block_len() {
        1 => &[1, 7, 33, 100, 1056],
        32 => &[32, 160, 1056],
        _ => &[256, 2304],
    }
}
