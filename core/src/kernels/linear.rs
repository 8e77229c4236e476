//! What matvec, matmul and gated_mlp share: variants of `rows.wgsl` and `tiles.wgsl`,
//! shapes of test cases.

use std::ops::Range;

use super::{HostArray, Params, Variant, fold};
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

/// A barrier-free variant: an invocation has `rows` rows (2 or 4), and four tokens where there are
/// more than one, in registers.
fn serial(name: &'static str, p: &Params, limits: &Limits, rows: u32) -> Variant {
    const WG: u32 = 8;
    let many = p.get("T") > 1;
    let tokens = if many { 4 } else { 1 };
    let groups = p.get("N").div_ceil(WG * rows) * p.get("T").div_ceil(tokens);
    Variant::new(name, fold(groups, limits))
        .set("WG", WG)
        .flag("SERIAL")
        .flag_if("R4", rows == 4)
        .flag_if("TB4", many)
        .flag_if("X4", p.get("K").is_multiple_of(4))
}

/// Variants for few tokens, best first; `most` rows an invocation at most.
pub(super) fn by_rows(p: &Params, limits: &Limits, most: u32) -> Vec<Variant> {
    let (n, t, chunks) = (p.get("N"), p.get("T"), p.get("K").div_ceil(CHUNK));
    let tb = t.next_power_of_two().min(4);
    let wg = limits.max_workgroup_size.min(128);
    // More rows an invocation read x less often; fewer keep more invocations busy.
    let r = match n {
        0..4096 => 1,
        4096..16384 => 2,
        _ => 4,
    };
    let r = r.min(if tb > 1 { 2 } else { most });
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
    let tokens = t.div_ceil(16).next_power_of_two().min(4);
    let groups = n.div_ceil(16 * rows) * t.div_ceil(16 * tokens);
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

/// A case's x and the y that is there before: random, since columns outside the slice must stay.
pub(super) fn x_and_y(size: &Size) -> (HostArray, HostArray) {
    (
        HostArray::random(1, &[size.tokens, size.inner]),
        HostArray::random(2, &[size.tokens, size.columns]),
    )
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
