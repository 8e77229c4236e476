//! Process groups: which ranks share a tensor, a sequence, a pipeline, a batch, a set of experts.

use crate::{Error, Result};

/// One way in which ranks share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Axis {
    /// Parts of each tensor (arXiv:1909.08053).
    Tensor,
    /// Parts of the context.
    Context,
    /// Different sequences, the same weights.
    Data,
    /// Different layers.
    Pipeline,
    /// Different experts of a mixture (arXiv:2006.16668).
    Expert,
    /// Different sequences, the same experts.
    ExpertData,
}

impl Axis {
    /// Every axis.
    pub const ALL: [Axis; 6] = [
        Axis::Tensor,
        Axis::Context,
        Axis::Data,
        Axis::Pipeline,
        Axis::Expert,
        Axis::ExpertData,
    ];

    /// Megatron-LM's name.
    pub fn name(self) -> &'static str {
        match self {
            Axis::Tensor => "tp",
            Axis::Context => "cp",
            Axis::Data => "dp",
            Axis::Pipeline => "pp",
            Axis::Expert => "ep",
            Axis::ExpertData => "edp",
        }
    }
}

/// Ranks that communicate, and who of them one is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// World ranks, in the order of the group.
    pub ranks: Vec<usize>,
    /// This rank's place among them.
    pub me: usize,
}

impl Group {
    /// A rank alone.
    pub fn alone(rank: usize) -> Self {
        Group {
            ranks: vec![rank],
            me: 0,
        }
    }

    /// Number of ranks.
    pub fn len(&self) -> usize {
        self.ranks.len()
    }

    /// A group has at least one rank.
    pub fn is_empty(&self) -> bool {
        self.ranks.is_empty()
    }

    /// True when there is nobody to communicate with.
    pub fn is_alone(&self) -> bool {
        self.ranks.len() == 1
    }
}

/// Where a rank stands on each axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coordinate {
    /// On [`Axis::Tensor`].
    pub tp: usize,
    /// On [`Axis::Context`].
    pub cp: usize,
    /// On [`Axis::Data`].
    pub dp: usize,
    /// On [`Axis::Pipeline`]: the stage.
    pub pp: usize,
}

/// Sizes of the process groups. Ranks are numbered in Megatron-LM's order `tp-cp-ep-dp-pp`: tensor-parallel
/// ranks are neighbours, pipeline stages are furthest apart.
///
/// Experts are spread over ranks that are tensor-, context- or data-parallel elsewhere, so `ep` divides
/// `tp cp dp` and is no factor of the world size (Megatron-LM, `parallel_state.py`, with one expert
/// tensor-parallel rank).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mesh {
    /// Tensor-parallel ranks.
    pub tp: usize,
    /// Context-parallel ranks.
    pub cp: usize,
    /// Data-parallel replicas.
    pub dp: usize,
    /// Pipeline stages.
    pub pp: usize,
    /// Expert-parallel ranks.
    pub ep: usize,
}

impl Default for Mesh {
    fn default() -> Self {
        Mesh {
            tp: 1,
            cp: 1,
            dp: 1,
            pp: 1,
            ep: 1,
        }
    }
}

impl Mesh {
    /// So many tensor-parallel ranks, nothing else.
    pub fn tensor(tp: usize) -> Self {
        Mesh {
            tp,
            ..Mesh::default()
        }
    }

    /// Checks the sizes.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when one is 0, their product overflows, or `ep` does not divide `tp cp dp`.
    pub fn check(&self) -> Result<()> {
        for (size, name) in [
            (self.tp, "tp"),
            (self.cp, "cp"),
            (self.dp, "dp"),
            (self.pp, "pp"),
            (self.ep, "ep"),
        ] {
            if size == 0 {
                return Err(Error::Invalid(format!("{name} is 0, expected at least 1")));
            }
        }
        let product = [self.cp, self.dp, self.pp]
            .iter()
            .try_fold(self.tp, |a, b| a.checked_mul(*b));
        if product.is_none_or(|ranks| ranks > 1 << 24) {
            return Err(Error::Invalid(format!("{self}: more than 2^24 ranks")));
        }
        let stage = self.tp * self.cp * self.dp;
        if !stage.is_multiple_of(self.ep) {
            return Err(Error::Invalid(format!(
                "ep {} does not divide the {stage} ranks of a stage (tp {} x cp {} x dp {})",
                self.ep, self.tp, self.cp, self.dp
            )));
        }
        Ok(())
    }

    /// Checks that there are as many ranks as the mesh has places.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with both numbers.
    pub fn check_ranks(&self, ranks: usize) -> Result<()> {
        self.check()?;
        if ranks == self.world_size() {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "{self} is a layout of {} ranks, there are {ranks}",
            self.world_size()
        )))
    }

    /// Number of ranks.
    pub fn world_size(&self) -> usize {
        self.tp * self.cp * self.dp * self.pp
    }

    /// Where a rank stands.
    pub fn coordinate(&self, rank: usize) -> Coordinate {
        Coordinate {
            tp: rank % self.tp,
            cp: rank / self.tp % self.cp,
            dp: rank / (self.tp * self.cp) % self.dp,
            pp: rank / (self.tp * self.cp * self.dp),
        }
    }

    /// Size and distance of neighbours on an axis.
    fn stride(&self, axis: Axis) -> (usize, usize) {
        let stage = self.tp * self.cp * self.dp;
        match axis {
            Axis::Tensor => (self.tp, 1),
            Axis::Context => (self.cp, self.tp),
            Axis::Data => (self.dp, self.tp * self.cp),
            Axis::Pipeline => (self.pp, stage),
            Axis::Expert => (self.ep, 1),
            Axis::ExpertData => (stage / self.ep, self.ep),
        }
    }

    /// The group of `rank` on `axis`.
    pub fn group(&self, axis: Axis, rank: usize) -> Group {
        let (size, stride) = self.stride(axis);
        let me = rank / stride % size;
        let first = rank - me * stride;
        Group {
            ranks: (0..size).map(|i| first + i * stride).collect(),
            me,
        }
    }

    /// Every group on `axis`, by its first rank.
    pub fn groups(&self, axis: Axis) -> Vec<Vec<usize>> {
        (0..self.world_size())
            .map(|rank| self.group(axis, rank))
            .filter(|group| group.me == 0)
            .map(|group| group.ranks)
            .collect()
    }
}

impl std::fmt::Display for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sizes = [
            ("tp", self.tp),
            ("cp", self.cp),
            ("ep", self.ep),
            ("dp", self.dp),
            ("pp", self.pp),
        ];
        let mut first = true;
        for (name, size) in sizes.into_iter().filter(|(_, size)| *size != 1) {
            write!(f, "{}{name} {size}", if first { "" } else { " x " })?;
            first = false;
        }
        if first { f.write_str("tp 1") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Megatron-LM, `parallel_state.py`: the example in `initialize_model_parallel`.
    #[test]
    fn sixteen_ranks_are_grouped_as_megatron_does() {
        let mesh = Mesh {
            tp: 2,
            dp: 2,
            pp: 4,
            ..Mesh::default()
        };
        assert_eq!(mesh.world_size(), 16);
        let tensor: Vec<_> = (0..8).map(|i| vec![2 * i, 2 * i + 1]).collect();
        assert_eq!(mesh.groups(Axis::Tensor), tensor);
        let data = [
            [0, 2],
            [1, 3],
            [4, 6],
            [5, 7],
            [8, 10],
            [9, 11],
            [12, 14],
            [13, 15],
        ];
        assert_eq!(mesh.groups(Axis::Data), data);
        let pipeline = [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]];
        assert_eq!(mesh.groups(Axis::Pipeline), pipeline);
    }

    #[test]
    fn experts_are_spread_over_the_ranks_of_a_stage() {
        let mesh = Mesh {
            tp: 2,
            dp: 4,
            pp: 2,
            ep: 4,
            ..Mesh::default()
        };
        assert_eq!(
            mesh.groups(Axis::Expert),
            [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
        );
        assert_eq!(mesh.groups(Axis::ExpertData)[..2], [[0, 4], [1, 5]]);
    }

    #[test]
    fn every_rank_is_in_one_group_of_an_axis_at_its_coordinate() {
        let mesh = Mesh {
            tp: 3,
            cp: 2,
            dp: 4,
            pp: 5,
            ep: 6,
        };
        for axis in Axis::ALL {
            let mut all: Vec<usize> = mesh.groups(axis).concat();
            all.sort_unstable();
            assert!(all.iter().copied().eq(0..mesh.world_size()), "{axis:?}");
        }
        for rank in 0..mesh.world_size() {
            let at = mesh.coordinate(rank);
            assert_eq!(mesh.group(Axis::Tensor, rank).me, at.tp);
            assert_eq!(mesh.group(Axis::Context, rank).me, at.cp);
            assert_eq!(mesh.group(Axis::Data, rank).me, at.dp);
            assert_eq!(mesh.group(Axis::Pipeline, rank).me, at.pp);
        }
    }

    #[test]
    fn a_mesh_that_cannot_be_says_why() {
        let text = |mesh: Mesh, ranks| mesh.check_ranks(ranks).unwrap_err().to_string();
        let two = Mesh {
            tp: 3,
            pp: 2,
            ..Mesh::default()
        };
        assert_eq!(
            text(two, 4),
            "tp 3 x pp 2 is a layout of 6 ranks, there are 4"
        );
        assert_eq!(
            text(Mesh { dp: 0, ..two }, 1),
            "dp is 0, expected at least 1"
        );
        assert_eq!(
            text(Mesh { ep: 2, ..two }, 6),
            "ep 2 does not divide the 3 ranks of a stage (tp 3 x cp 1 x dp 1)"
        );
        assert!(text(Mesh::tensor(usize::MAX), 1).contains("more than 2^24"));
    }
}
