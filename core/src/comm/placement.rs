//! Which part of a model one rank holds.

use std::ops::Range;
use std::rc::Rc;

use super::{Axis, Group, Mesh};
use crate::shard::Split;
use crate::{Error, Result};

/// Rows of a vocabulary are split in units of this many where there are enough of them (Megatron-LM's
/// `make_vocab_size_divisible_by`).
const VOCAB_UNIT: usize = 128;

/// Channels of a hidden size are split in units of this many where there are enough: rows stay aligned
/// for vector loads.
const HIDDEN_UNIT: usize = 32;

/// One rank's place among the others, and how they share.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Sizes of the groups.
    pub mesh: Mesh,
    /// Its number in the world.
    pub rank: usize,
    /// Ranks that hold other parts of the same layers.
    pub tp: Rc<Group>,
    /// Ranks that hold other layers.
    pub pp: Rc<Group>,
    /// Shares of the tensor-parallel ranks.
    pub split: Split,
    /// Norms and residuals of T / R tokens per rank (arXiv:2205.05198).
    pub sequence_parallel: bool,
}

/// Attention heads of a rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub q: Range<usize>,
    /// Key/value heads that they read; some may be other ranks' too.
    pub kv: Range<usize>,
    /// Query heads to a key/value head, in the whole model.
    pub group: usize,
}

/// Experts of a rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpertShare {
    /// Which.
    pub experts: Range<usize>,
    /// Hidden channels of each.
    pub hidden: Range<usize>,
}

impl Heads {
    /// Place of the first query head within its group.
    pub fn first(&self) -> usize {
        self.q.start % self.group
    }
}

impl Placement {
    /// A rank that holds everything.
    pub fn alone() -> Self {
        Placement {
            mesh: Mesh::default(),
            rank: 0,
            tp: Rc::new(Group::alone(0)),
            pp: Rc::new(Group::alone(0)),
            split: Split::even(1),
            sequence_parallel: false,
        }
    }

    /// Rank `rank` of `mesh`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the mesh cannot be, or `split` is for another number of ranks.
    pub fn new(mesh: Mesh, rank: usize, split: Split, sequence_parallel: bool) -> Result<Self> {
        mesh.check()?;
        if split.ranks() != mesh.tp {
            return Err(Error::Invalid(format!(
                "{} shares given for {} tensor-parallel ranks",
                split.ranks(),
                mesh.tp
            )));
        }
        Ok(Placement {
            mesh,
            rank,
            tp: Rc::new(mesh.group(Axis::Tensor, rank)),
            pp: Rc::new(mesh.group(Axis::Pipeline, rank)),
            split,
            sequence_parallel,
        })
    }

    /// This rank's part of a dimension, in whole units, as `what` in messages.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there are fewer units than ranks.
    pub fn part(&self, what: &str, len: usize, unit: usize) -> Result<Range<usize>> {
        let part = self.split.range(self.tp.me, len, unit);
        part.map_err(|e| Error::Invalid(format!("{what}: {e}")))
    }

    /// This rank's part of a hidden size whose blocks of `block` elements are never cut.
    ///
    /// # Errors
    ///
    /// As [`Placement::part`].
    pub fn hidden(&self, what: &str, len: usize, block: usize) -> Result<Range<usize>> {
        let unit = lcm(block, HIDDEN_UNIT);
        let fits = len.is_multiple_of(unit) && len / unit >= self.tp.len();
        self.part(what, len, if fits { unit } else { block })
    }

    /// This rank's rows of a vocabulary.
    ///
    /// # Errors
    ///
    /// As [`Placement::part`].
    pub fn vocab(&self, len: usize) -> Result<Range<usize>> {
        Ok(self.vocab_parts(len)?.swap_remove(self.tp.me))
    }

    /// Every tensor-parallel rank's rows of a vocabulary.
    ///
    /// # Errors
    ///
    /// As [`Placement::part`].
    pub fn vocab_parts(&self, len: usize) -> Result<Vec<Range<usize>>> {
        // What is left of the last unit is padding that nobody stores (Megatron-LM pads V).
        let padded = len.next_multiple_of(VOCAB_UNIT);
        let (whole, unit) = match padded / VOCAB_UNIT >= self.tp.len() {
            true => (padded, VOCAB_UNIT),
            false => (len, 1),
        };
        (0..self.tp.len())
            .map(|rank| {
                let part = self.split.range(rank, whole, unit);
                let part = part.map_err(|e| Error::Invalid(format!("vocabulary: {e}")))?;
                Ok(part.start..part.end.min(len))
            })
            .collect()
    }

    /// This rank's heads. Ranks get whole key/value heads where these divide among them, else query
    /// heads, and key/value heads that several ranks read are held by each of them. `block` elements of
    /// the output projection's rows are never cut.
    ///
    /// # Errors
    ///
    /// As [`Placement::part`].
    pub fn heads(&self, heads: usize, kv: usize, head_size: usize, block: usize) -> Result<Heads> {
        self.heads_of(self.tp.me, heads, kv, head_size, block)
    }

    /// The heads of tensor-parallel rank `rank`.
    ///
    /// # Errors
    ///
    /// As [`Placement::part`].
    pub fn heads_of(
        &self,
        rank: usize,
        heads: usize,
        kv: usize,
        head_size: usize,
        block: usize,
    ) -> Result<Heads> {
        let group = heads / kv.max(1);
        let block = lcm(block, head_size) / head_size.max(1);
        let unit = match kv.is_multiple_of(self.tp.len()) && group.is_multiple_of(block) {
            true => group,
            false => block,
        };
        let q = self.split.range(rank, heads, unit);
        let q = q.map_err(|e| Error::Invalid(format!("attention heads: {e}")))?;
        Ok(Heads {
            kv: q.start / group..q.end.div_ceil(group),
            q,
            group,
        })
    }

    /// This rank's part of `count` experts of `hidden` channels whose blocks of `block` elements are never cut, as
    /// `what` in messages. Of the tensor-parallel ranks, each of `ep` groups of neighbours has consecutive
    /// experts, and the ranks of a group share the hidden channels of each.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when `ep` does not divide the experts or the ranks, else as [`Placement::part`].
    pub fn experts(
        &self,
        what: &str,
        count: usize,
        hidden: usize,
        block: usize,
    ) -> Result<ExpertShare> {
        let (ep, ranks) = (self.mesh.ep, self.tp.len());
        if ep == 1 {
            return Ok(ExpertShare {
                experts: 0..count,
                hidden: self.hidden(what, hidden, block)?,
            });
        }
        if !count.is_multiple_of(ep) || !ranks.is_multiple_of(ep) {
            return Err(Error::Invalid(format!(
                "{what}: ep {ep} must divide {count} experts and {ranks} tensor-parallel ranks"
            )));
        }
        let (own, each) = (ranks / ep, count / ep);
        let group = self.tp.me / own;
        let unit = lcm(block, HIDDEN_UNIT);
        let fits = hidden.is_multiple_of(unit) && hidden / unit >= own;
        let unit = if fits { unit } else { block };
        let channels = Split::even(own).range(self.tp.me % own, hidden, unit);
        Ok(ExpertShare {
            experts: group * each..(group + 1) * each,
            hidden: channels.map_err(|e| Error::Invalid(format!("{what}: {e}")))?,
        })
    }

    /// This rank's layers.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there are fewer layers than stages.
    pub fn layers(&self, layers: usize) -> Result<Range<usize>> {
        let part = Split::even(self.pp.len()).range(self.pp.me, layers, 1);
        part.map_err(|e| Error::Invalid(format!("layers: {e}")))
    }

    /// Does it embed tokens?
    pub fn is_first_stage(&self) -> bool {
        self.pp.me == 0
    }

    /// Does it compute logits?
    pub fn is_last_stage(&self) -> bool {
        self.pp.me + 1 == self.pp.len()
    }

    /// Is a step of so many tokens sequence-parallel? One with fewer tokens than ranks is not: then norms
    /// and residuals are computed by all.
    pub fn splits_tokens(&self, tokens: usize) -> bool {
        self.sequence_parallel && !self.tp.is_alone() && tokens >= self.tp.len()
    }

    /// Does a step of so many tokens send each to the ranks that hold its experts? Where every rank has all tokens there is
    /// nothing to send.
    pub fn exchanges_tokens(&self, tokens: usize) -> bool {
        self.mesh.ep > 1 && self.splits_tokens(tokens)
    }

    /// Tokens of each tensor-parallel rank in a sequence-parallel step.
    pub fn token_lens(&self, tokens: usize) -> Vec<usize> {
        let ranks = self.tp.len();
        (0..ranks)
            .map(|r| tokens / ranks + usize::from(r < tokens % ranks))
            .collect()
    }
}

fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a.max(1), b.max(1));
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a.max(1) / x * b.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placements(tp: usize) -> Vec<Placement> {
        (0..tp)
            .map(|rank| Placement::new(Mesh::tensor(tp), rank, Split::even(tp), false).unwrap())
            .collect()
    }

    fn heads(tp: usize, block: usize) -> Vec<(Range<usize>, Range<usize>)> {
        // SmolLM2-135M: 9 heads of 64, 3 key/value heads.
        let of = |p: &Placement| p.heads(9, 3, 64, block).unwrap();
        placements(tp).iter().map(of).map(|h| (h.q, h.kv)).collect()
    }

    #[test]
    fn heads_that_do_not_divide_share_key_value_heads() {
        assert_eq!(heads(3, 32), [(0..3, 0..1), (3..6, 1..2), (6..9, 2..3)]);
        assert_eq!(heads(2, 32), [(0..5, 0..2), (5..9, 1..3)]);
        assert_eq!(
            heads(4, 32),
            [(0..3, 0..1), (3..5, 1..2), (5..7, 1..3), (7..9, 2..3)]
        );
        assert_eq!(heads(9, 32).len(), 9);
    }

    #[test]
    fn blocks_of_the_output_projection_are_not_cut() {
        // 128 elements are two heads of 64; nine heads are no whole number of them.
        let q: Vec<_> = placements(3)
            .iter()
            .map(|p| p.heads(8, 4, 64, 128).unwrap().q)
            .collect();
        assert_eq!(q, [0..4, 4..6, 6..8]);
        let told = placements(5)[0].heads(8, 4, 64, 128).unwrap_err();
        assert!(told.to_string().starts_with("attention heads: "), "{told}");
    }

    #[test]
    fn a_vocabulary_is_split_in_units_of_128_rows() {
        let parts = placements(5)[0].vocab_parts(49152).unwrap();
        assert_eq!(parts[0], 0..77 * 128);
        assert_eq!(parts[4], 308 * 128..49152);
        let padded = placements(3)[0].vocab_parts(1000).unwrap();
        assert_eq!(padded, [0..384, 384..768, 768..1000]);
        let small = placements(7)[0].vocab_parts(300).unwrap();
        assert_eq!(small[0], 0..43);
    }

    #[test]
    fn a_hidden_size_is_split_at_blocks() {
        let part = |tp, len, block| placements(tp)[0].hidden("f", len, block);
        assert_eq!(part(5, 1536, 32).unwrap(), 0..320);
        assert_eq!(part(4, 1536, 256).unwrap(), 0..512);
        assert_eq!(part(7, 64, 1).unwrap(), 0..10);
        assert!(part(7, 1536, 256).is_err());
    }
}
