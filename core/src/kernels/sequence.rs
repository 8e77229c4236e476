//! What lstm and gru share: where a sequence lies in memory, the order of its steps, variants.

use super::{Params, Variant, fold};
use crate::DType;
use crate::device::cpu::{self, Level};
use crate::device::{DeviceKind, Limits};

/// A batch of sequences and where their elements lie; all distances in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Times.
    pub times: usize,
    /// Entries of the batch.
    pub entries: usize,
    /// Hidden units.
    pub hidden: usize,
    /// In the gates, from one time to the next.
    pub gates_time: usize,
    /// In the gates, from one entry to the next.
    pub gates_entry: usize,
    /// In y, from one time to the next.
    pub y_time: usize,
    /// In y, from one entry to the next.
    pub y_entry: usize,
    /// In y, the first element.
    pub y_first: usize,
    /// In h and c, from one entry to the next.
    pub state_entry: usize,
    /// In h and c, the first element.
    pub state_first: usize,
    /// From the last time to the first?
    pub reverse: bool,
}

impl Sequence {
    /// One direction over gates `(entries, times, gates)` or, unless `batch_first`,
    /// `(times, entries, gates)`, and y of the same order.
    pub fn new(
        times: usize,
        entries: usize,
        hidden: usize,
        gates: usize,
        batch_first: bool,
    ) -> Self {
        let strides = |len: usize| {
            if batch_first {
                (len, times * len)
            } else {
                (entries * len, len)
            }
        };
        let ((gates_time, gates_entry), (y_time, y_entry)) = (strides(gates), strides(hidden));
        Sequence {
            times,
            entries,
            hidden,
            gates_time,
            gates_entry,
            y_time,
            y_entry,
            y_first: 0,
            state_entry: hidden,
            state_first: 0,
            reverse: false,
        }
    }

    pub(super) fn params(&self) -> Params {
        Params::new()
            .u32("T", self.times as u32)
            .u32("N", self.entries as u32)
            .u32("H", self.hidden as u32)
            .u32("GT", self.gates_time as u32)
            .u32("GN", self.gates_entry as u32)
            .u32("YT", self.y_time as u32)
            .u32("YN", self.y_entry as u32)
            .u32("Y0", self.y_first as u32)
            .u32("HN", self.state_entry as u32)
            .u32("H0", self.state_first as u32)
            .bool("REVERSE", self.reverse)
    }

    pub(super) fn of(p: &Params) -> Self {
        Sequence {
            times: p.size("T"),
            entries: p.size("N"),
            hidden: p.size("H"),
            gates_time: p.size("GT"),
            gates_entry: p.size("GN"),
            y_time: p.size("YT"),
            y_entry: p.size("YN"),
            y_first: p.size("Y0"),
            state_entry: p.size("HN"),
            state_first: p.size("H0"),
            reverse: p.is("REVERSE"),
        }
    }

    /// The time of step `s` of a sequence of `len` times.
    pub(super) fn time(&self, s: usize, len: usize) -> usize {
        if self.reverse && s < len {
            len - 1 - s
        } else {
            s
        }
    }

    /// Where the gates of entry `n` at time `t` begin.
    pub(super) fn gates(&self, n: usize, t: usize) -> usize {
        n * self.gates_entry + t * self.gates_time
    }

    /// Where h and c have entry `n`.
    pub(super) fn state(&self, n: usize) -> usize {
        self.state_first + n * self.state_entry
    }

    /// Where y has entry `n` at time `t`.
    pub(super) fn y(&self, n: usize, t: usize) -> usize {
        self.y_first + n * self.y_entry + t * self.y_time
    }
}

/// The uniforms that [`Sequence::params`] sets.
pub(super) const UNIFORMS: &[&str] = &["T", "N", "H", "GT", "GN", "YT", "YN", "Y0", "HN", "H0"];

pub(super) fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let (entries, hidden) = (p.get("N"), p.get("H"));
    let wg = hidden
        .next_power_of_two()
        .clamp(16, limits.max_workgroup_size.min(256));
    let workgroup = Variant::new("workgroup", fold(entries, limits)).set("WG", wg);
    let serial = Variant::new("serial", fold(entries, limits))
        .set("WG", 1)
        .flag("SERIAL");
    if limits.kind == DeviceKind::SoftwareGpu {
        vec![serial, workgroup]
    } else {
        vec![workgroup, serial]
    }
}

/// Row `row` of the square blocks `w` times `x`.
pub(super) fn dot(w: &[f32], row: usize, x: &[f32]) -> f32 {
    let row = &w[row * x.len()..][..x.len()];
    cpu::dot(Level::current(), DType::F32, bytemuck::cast_slice(row), x)
}

/// Calls `f(entry, unit, element)` for every element of `states`, on all threads where a step of
/// `rows` products a unit is worth it.
pub(super) fn for_each_unit<T: Send>(
    states: &mut [T],
    hidden: usize,
    rows: usize,
    f: impl Fn(usize, usize, &mut T) + Sync,
) {
    let part = |first: usize, states: &mut [T]| {
        for (i, state) in states.iter_mut().enumerate() {
            f((first + i) / hidden, (first + i) % hidden, state);
        }
    };
    // About 10 us of products.
    let units = (1 << 16) / (hidden * rows).max(1) + 1;
    if states.len() <= units {
        part(0, states);
    } else {
        cpu::for_each_chunk(states, units, |i, states| part(i * units, states));
    }
}

pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

pub(super) fn sigmoid64(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Sizes to test: times, entries, hidden units, entries first?, reverse?
pub(super) const SIZES: &[(usize, usize, usize, bool, bool)] = &[
    (1, 1, 1, false, false),
    (5, 1, 3, false, true),
    (11, 2, 20, true, false),
    (7, 3, 17, true, true),
    (4, 9, 33, false, false),
    (3, 2, 131, false, true),
    (2, 1, 300, true, false),
];
