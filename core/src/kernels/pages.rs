//! Tokens of several sequences in one step (arXiv:2309.06180): keys and values lie in pages of [`PAGE`] rows of the
//! caches, in any order; a list of them for each sequence says where.
//!
//! The binding `pages` of [`attention`](super::attention), [`qkv_append`](super::qkv_append) and
//! [`kv_append`](super::kv_append) has [`WORDS`] words for each of `T` tokens, then the lists: a token's position in its
//! sequence, the row of the caches for its own key, and where in `pages` its sequence's list begins.

use super::{HostArray, Params};

/// Rows of a page.
pub const PAGE: usize = 16;

/// Words of a token: position, row, list, and one that is not used.
pub const WORDS: usize = 4;

/// The definition of a token's position and of the row for its key, by the arrays `step` and `pages`.
pub(super) fn place(p: &Params, [step, pages]: [&[f64]; 2], t: usize) -> (usize, usize) {
    match p.is("PAGED") {
        true => (pages[WORDS * t] as usize, pages[WORDS * t + 1] as usize),
        false => (step[0] as usize + t, step[0] as usize + t),
    }
}

/// The definition of the row of key `s` of token `t`.
pub(super) fn key_row(p: &Params, pages: &[f64], t: usize, s: usize) -> usize {
    match p.is("PAGED") {
        true => pages[pages[WORDS * t + 2] as usize + s / PAGE] as usize * PAGE + s % PAGE,
        false => s,
    }
}

/// Pages of a test case: token t is at `positions[t]` of sequence `t % sequences`, whose pages are scattered
/// over caches of `capacity` rows.
pub(super) fn case(positions: &[usize], sequences: usize, capacity: usize) -> HostArray {
    let (all, each) = (capacity / PAGE, lists(positions));
    assert!(all >= each * sequences && !all.is_multiple_of(7));
    let page = |sequence: usize, i: usize| (7 * (i * sequences + sequence) + 3) % all;
    let mut words = Vec::new();
    for (t, at) in positions.iter().enumerate() {
        let sequence = t % sequences;
        let row = page(sequence, at / PAGE) * PAGE + at % PAGE;
        let list = positions.len() * WORDS + sequence * each;
        words.extend([*at, row, list, 0].map(|x| x as u32));
    }
    for sequence in 0..sequences {
        words.extend((0..each).map(|i| page(sequence, i) as u32));
    }
    HostArray::u32(&[words.len()], &words)
}

/// Pages of each sequence of such a case.
fn lists(positions: &[usize]) -> usize {
    positions.iter().max().map_or(1, |last| last / PAGE + 1)
}
