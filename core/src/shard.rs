//! Which part of a split dimension belongs to which rank.

use std::ops::Range;

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
        let units = len / unit.max(1);
        if unit == 0 || !len.is_multiple_of(unit) || units < self.world_size {
            return Err(Error::Invalid(format!(
                "cannot split {len} elements into {} shards of whole units of {unit}; use a world size of at most {units}{}",
                self.world_size,
                if unit > 0 && len.is_multiple_of(unit) {
                    ""
                } else {
                    " and another unit"
                },
            )));
        }
        let (each, more) = (units / self.world_size, units % self.world_size);
        let first = self.rank * each + self.rank.min(more);
        let held = each + usize::from(self.rank < more);
        Ok(first * unit..(first + held) * unit)
    }
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
