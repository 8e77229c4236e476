//! Which part of a split dimension belongs to which rank.

use std::ops::Range;
use std::rc::Rc;

use crate::{Error, Result};

/// One rank's part of what `world_size` ranks share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub rank: usize,
    /// Number of ranks.
    pub world_size: usize,
}

impl Shard {
    /// Every rank's shard.
    pub fn all(world_size: usize) -> impl Iterator<Item = Shard> {
        (0..world_size).map(move |rank| Shard { rank, world_size })
    }

    /// Elements of a dimension of length `len` that belong to this rank.
    ///
    /// `unit` elements are never cut: heads, blocks of a quantised type, `multiple_of` of a hidden
    /// size. Where the units do not divide, the first ranks hold one more.
    ///
    /// ```
    /// use shardlight::shard::Shard;
    /// let ranges: Vec<_> = Shard::all(3).map(|s| s.range(11008, 128).unwrap()).collect();
    /// assert_eq!(ranges, [0..3712, 3712..7424, 7424..11008]); // 29, 29, 28 units
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when `len` is not whole units, or there are fewer than ranks.
    ///
    /// Split rules: Megatron-LM, arXiv:1909.08053, section 3; uneven ones: flash-attn,
    /// `ColumnParallelLinear`.
    pub fn range(&self, len: usize, unit: usize) -> Result<Range<usize>> {
        Split::even(self.world_size).range(self.rank, len, unit)
    }
}

/// Shares of a dimension that ranks have: equal ones, or by the speed of their devices.
#[derive(Clone, Debug, PartialEq)]
pub struct Split(Shares);

#[derive(Clone, Debug, PartialEq)]
enum Shares {
    Even(usize),
    /// They sum to 1.
    Of(Rc<[f64]>),
}

impl Split {
    /// Equal shares.
    pub fn even(ranks: usize) -> Self {
        Split(Shares::Even(ranks.max(1)))
    }

    /// These shares, in proportion.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a share that is not a positive number, and for none at all.
    pub fn new(shares: &[f64]) -> Result<Self> {
        if let Some(share) = shares.iter().find(|s| !(s.is_normal() && **s > 0.0)) {
            return Err(Error::Invalid(format!(
                "share {share} is not a number above 0"
            )));
        }
        let sum: f64 = shares.iter().sum();
        if !sum.is_normal() {
            return Err(Error::Invalid(format!("shares {shares:?} have no sum")));
        }
        Ok(Split(Shares::Of(shares.iter().map(|s| s / sum).collect())))
    }

    /// Number of ranks.
    pub fn ranks(&self) -> usize {
        match &self.0 {
            Shares::Even(ranks) => *ranks,
            Shares::Of(shares) => shares.len(),
        }
    }

    /// A rank's share of 1.
    pub fn share(&self, rank: usize) -> f64 {
        match &self.0 {
            Shares::Even(ranks) => 1.0 / *ranks as f64,
            Shares::Of(shares) => shares[rank],
        }
    }

    /// Elements of a dimension of length `len` that belong to `rank`, in whole units of `unit`; at least
    /// one unit each. What is left over after rounding down goes to the largest fractions (Hamilton's
    /// method), the first ranks first.
    ///
    /// # Errors
    ///
    /// As [`Shard::range`].
    pub fn range(&self, rank: usize, len: usize, unit: usize) -> Result<Range<usize>> {
        let ranks = self.ranks();
        let units = len / unit.max(1);
        if unit == 0 || !len.is_multiple_of(unit) || units < ranks {
            return Err(Error::Invalid(format!(
                "cannot split {len} elements into {ranks} shards of whole units of {unit}; use a world size of at most {units}{}",
                if unit > 0 && len.is_multiple_of(unit) {
                    ""
                } else {
                    " and another unit"
                },
            )));
        }
        let held = match &self.0 {
            Shares::Even(_) => {
                let (each, more) = (units / ranks, units % ranks);
                let first = rank * each + rank.min(more);
                first..first + each + usize::from(rank < more)
            }
            Shares::Of(shares) => {
                let held = apportion(shares, units);
                let first: usize = held[..rank].iter().sum();
                first..first + held[rank]
            }
        };
        Ok(held.start * unit..held.end * unit)
    }
}

/// Units of each share; everyone has one before anyone has two.
fn apportion(shares: &[f64], units: usize) -> Vec<usize> {
    let free = units - shares.len();
    let exact: Vec<f64> = shares.iter().map(|s| s * units as f64 - 1.0).collect();
    let sum: f64 = exact.iter().filter(|e| **e > 0.0).sum();
    let exact = exact.iter().map(|e| match sum > 0.0 {
        true => e.max(0.0) / sum * free as f64,
        false => free as f64 / shares.len() as f64,
    });
    let exact: Vec<f64> = exact.collect();
    let mut held: Vec<usize> = exact.iter().map(|e| 1 + *e as usize).collect();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|a, b| exact[*b].fract().total_cmp(&exact[*a].fract()));
    let left = units.saturating_sub(held.iter().sum());
    for rank in order.into_iter().cycle().take(left) {
        held[rank] += 1;
    }
    held
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shards_cover_a_dimension_in_order_and_differ_by_one_unit(
            units in 1usize..500, unit in 1usize..300, world_size in 1usize..20,
        ) {
            let len = units * unit;
            let ranges: Vec<_> = Shard::all(world_size).map(|s| s.range(len, unit)).collect();
            if units < world_size {
                prop_assert!(ranges.iter().all(Result::is_err));
                return Ok(());
            }
            let mut end = 0;
            for range in ranges {
                let range = range.unwrap();
                prop_assert_eq!(range.start, end);
                let held = range.len() / unit;
                prop_assert!(held == units / world_size || held == units / world_size + 1);
                end = range.end;
            }
            prop_assert_eq!(end, len);
        }
    }

    proptest! {
        #[test]
        fn uneven_shares_cover_a_dimension_and_leave_nobody_out(
            shares in proptest::collection::vec(0.001f64..1.0, 1..9), more in 0usize..400,
        ) {
            let split = Split::new(&shares).unwrap();
            let units = shares.len() + more;
            let mut end = 0;
            for rank in 0..shares.len() {
                let range = split.range(rank, units, 1).unwrap();
                prop_assert_eq!(range.start, end);
                prop_assert!(!range.is_empty());
                end = range.end;
            }
            prop_assert_eq!(end, units);
        }
    }

    #[test]
    fn shares_are_proportional() {
        let split = Split::new(&[0.7, 0.3]).unwrap();
        assert_eq!(split.range(0, 1536, 32).unwrap(), 0..34 * 32);
        assert_eq!(split.range(1, 1536, 32).unwrap(), 34 * 32..1536);
        let equal = Split::new(&[2.0; 4]).unwrap();
        for rank in 0..4 {
            assert_eq!(
                equal.range(rank, 13, 1).unwrap(),
                Split::even(4).range(rank, 13, 1).unwrap()
            );
        }
        for bad in [&[][..], &[1.0, 0.0], &[-1.0], &[f64::NAN], &[f64::INFINITY]] {
            assert!(Split::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_split_that_cannot_be_is_told_with_its_numbers() {
        let shard = Shard {
            rank: 0,
            world_size: 3,
        };
        let told = shard.range(512, 256).unwrap_err().to_string();
        assert_eq!(
            told,
            "cannot split 512 elements into 3 shards of whole units of 256; use a world size of at most 2"
        );
        assert!(shard.range(100, 0).is_err() && shard.range(100, 48).is_err());
    }
}
