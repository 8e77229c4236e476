//! Which experts of the next block tokens choose after those of a block.

/// As if an expert had been chosen this many times more often, and followed by none: a few cases prove little.
const DOUBT: u32 = 4;

/// Counts of what followed what.
#[derive(Default)]
pub(super) struct Followers {
    /// `(E, E')`.
    counts: Vec<u32>,
    /// `(E,)`: how often each was chosen.
    seen: Vec<u32>,
}

impl Followers {
    /// Counts what the same tokens chose of `counts` experts in this block and in the next, `ks` each.
    pub(super) fn note(
        &mut self,
        [count, next]: [usize; 2],
        [chosen, then]: [&[u32]; 2],
        [k, k_next]: [usize; 2],
    ) {
        self.counts.resize(count * next, 0);
        self.seen.resize(count, 0);
        for (chosen, then) in chosen.chunks(k).zip(then.chunks(k_next)) {
            for a in chosen.iter().map(|a| *a as usize).filter(|a| *a < count) {
                self.seen[a] = self.seen[a].saturating_add(1);
                for b in then.iter().map(|b| *b as usize).filter(|b| *b < next) {
                    let count = &mut self.counts[a * next + b];
                    *count = count.saturating_add(1);
                }
            }
        }
    }

    /// The next block's experts that followed one of these more than half of the time, the likeliest first.
    pub(super) fn likely(&self, chosen: &[u32]) -> Vec<usize> {
        let next = self.counts.len() / self.seen.len().max(1);
        let mut best = vec![0.0f64; next];
        for a in chosen.iter().map(|a| *a as usize) {
            let Some(seen) = self.seen.get(a) else {
                continue;
            };
            let seen = seen.saturating_add(DOUBT);
            for (best, count) in best.iter_mut().zip(&self.counts[a * next..]) {
                *best = best.max(f64::from(*count) / f64::from(seen));
            }
        }
        let mut likely: Vec<usize> = (0..next).filter(|b| best[*b] > 0.5).collect();
        likely.sort_by(|a, b| best[*b].total_cmp(&best[*a]));
        likely
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_more_than_half_of_the_time_is_likely() {
        let mut followers = Followers::default();
        assert!(followers.likely(&[0]).is_empty());
        // After 0 always 2, and 1 in three of four; a token that went nowhere counts nothing.
        for (i, then) in [[2, 1], [2, 1], [1, 2], [2, 0]]
            .iter()
            .cycle()
            .take(16)
            .enumerate()
        {
            assert_eq!(followers.likely(&[0]).contains(&2), i > 4, "{i}");
            followers.note([2, 3], [&[0, u32::MAX], then], [2, 2]);
        }
        assert_eq!(followers.likely(&[0]), [2, 1]);
        assert!(followers.likely(&[1, u32::MAX]).is_empty());
        followers.note([2, 3], [&[1; 50], &[0; 50]], [1, 1]);
        assert_eq!(followers.likely(&[1, 0]), [0, 2, 1]);
    }
}
