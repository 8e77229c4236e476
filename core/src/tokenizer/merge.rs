//! Merging of neighbouring symbols, the heart of BPE and of SentencePiece's BPE.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

/// No symbol, or a symbol without a token.
const NONE: u32 = u32::MAX;

/// Joins neighbouring symbols until no pair can be joined, cheapest pair first,
/// leftmost first among equals. O(n log n).
///
/// `ids` holds one token id per symbol ([`None`] never joins). `pair(left, right)`
/// gives the cost and the id of the joined token. Returns `(id, first, len)`
/// of each symbol left: how many of the `ids` it covers, and from which on.
pub(super) fn merge<C: Ord>(
    ids: &[Option<u32>],
    pair: impl Fn(&Symbol, &Symbol) -> Option<(C, u32)>,
) -> Vec<Symbol> {
    let n = ids.len();
    let mut symbols: Vec<Symbol> = (0..n)
        .map(|i| Symbol {
            id: ids[i],
            first: i,
            len: 1,
        })
        .collect();
    let mut prev: Vec<u32> = (0..n)
        .map(|i| if i == 0 { NONE } else { i as u32 - 1 })
        .collect();
    let mut next: Vec<u32> = (0..n)
        .map(|i| if i + 1 == n { NONE } else { i as u32 + 1 })
        .collect();
    let mut queue = BinaryHeap::new();
    let push = |queue: &mut BinaryHeap<_>, symbols: &[Symbol], left: u32, right: u32| {
        if left == NONE || right == NONE {
            return;
        }
        let (a, b) = (&symbols[left as usize], &symbols[right as usize]);
        if let Some((cost, id)) = pair(a, b) {
            queue.push(Reverse((cost, left, right, a.len, b.len, id)));
        }
    };
    for i in 1..n {
        push(&mut queue, &symbols, i as u32 - 1, i as u32);
    }
    while let Some(Reverse((_, left, right, left_len, right_len, id))) = queue.pop() {
        let (l, r) = (left as usize, right as usize);
        // Outdated: one of the two has been joined to another symbol since.
        if symbols[l].len != left_len || symbols[r].len != right_len {
            continue;
        }
        symbols[l].len += symbols[r].len;
        symbols[l].id = Some(id);
        symbols[r].len = 0;
        next[l] = next[r];
        if next[r] != NONE {
            prev[next[r] as usize] = left;
        }
        push(&mut queue, &symbols, prev[l], left);
        push(&mut queue, &symbols, left, next[l]);
    }
    symbols.retain(|s| s.len > 0);
    symbols
}

/// A run of initial symbols joined to one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    /// Its token, if it has one.
    pub id: Option<u32>,
    /// Index of the first initial symbol.
    pub first: usize,
    /// Number of initial symbols; 0 once joined to its left neighbour.
    pub len: usize,
}

/// A SentencePiece score as a cost: the highest score is joined first.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Score(f32);

impl Eq for Score {}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.total_cmp(&self.0)
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Merge rules by rank.
pub(super) type Merges = HashMap<(u32, u32), (u32, u32)>;

/// Byte-pair encoding of one word.
pub(super) fn bpe(ids: &[Option<u32>], merges: &Merges) -> Vec<Symbol> {
    merge(ids, |a, b| merges.get(&(a.id?, b.id?)).copied())
}

/// SentencePiece's BPE: any two neighbours whose text together is a token may be
/// joined, the one of highest score first. `starts` holds the byte where each
/// initial symbol starts, and the end of the text.
pub(super) fn spm(
    text: &str,
    starts: &[usize],
    longest: usize,
    lookup: impl Fn(&str) -> Option<u32>,
    scores: &[f32],
) -> Vec<Symbol> {
    let ids: Vec<_> = starts
        .windows(2)
        .map(|w| lookup(&text[w[0]..w[1]]))
        .collect();
    merge(&ids, |a, b| {
        let (start, end) = (starts[a.first], starts[b.first + b.len]);
        if end - start > longest {
            return None;
        }
        let id = lookup(&text[start..end])?;
        Some((Score(scores[id as usize]), id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_rank_is_joined_first_and_the_leftmost_among_equals() {
        // a=0 b=1 aa=2 ab=3: "aab" with "a a" before "a b" gives aa b, after it a ab.
        let ids = [Some(0), Some(0), Some(1)];
        let first = Merges::from([((0, 0), (0, 2)), ((0, 1), (1, 3))]);
        let second = Merges::from([((0, 0), (1, 2)), ((0, 1), (0, 3))]);
        let out = |m: &Merges| {
            bpe(&ids, m)
                .iter()
                .map(|s| s.id.unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(out(&first), [2, 1]);
        assert_eq!(out(&second), [0, 3]);
        let three = bpe(&[Some(0); 3], &first);
        assert_eq!((three[0].len, three[1].len), (2, 1));
    }

    #[test]
    fn a_long_run_is_not_quadratic() {
        // Doubling merges: a, aa, aaaa, ...; 2^17 symbols end as one.
        let merges: Merges = (0..17u32).map(|i| ((i, i), (i, i + 1))).collect();
        let out = bpe(&vec![Some(0); 1 << 17], &merges);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].id, Some(17));
    }
}
