//! Which ranks of a layout are alike, so that thousands of them need few recordings.

use std::collections::{BTreeMap, HashMap};

use super::links::Link;
use super::simulate::{Members, Ranks};
use crate::comm::{Axis, Group, Mesh, Placement};
use crate::models::ModelConfig;
use crate::shard::Split;
use crate::{Error, Result};

/// How ranks are arranged and joined.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Sizes of the groups.
    pub mesh: Mesh,
    /// Shares of the tensor-parallel ranks.
    pub split: Split,
    /// Sequence parallelism.
    pub sequence_parallel: bool,
    /// Joins ranks of one host.
    pub near: Link,
    /// Joins hosts.
    pub far: Link,
    /// Ranks of one host.
    pub ranks_per_host: usize,
    /// Are all ranks simulated on one device?
    pub one_device: bool,
}

impl Layout {
    /// One rank that holds everything.
    pub fn alone(&self) -> Self {
        Layout {
            mesh: Mesh::default(),
            split: Split::even(1),
            sequence_parallel: false,
            one_device: false,
            ..self.clone()
        }
    }

    /// A rank's place.
    ///
    /// # Errors
    ///
    /// As [`Placement::new`].
    pub fn placement(&self, rank: usize) -> Result<Placement> {
        Placement::new(self.mesh, rank, self.split.clone(), self.sequence_parallel)
    }

    /// The kind of each rank, and a rank of each kind. Ranks of one kind do the same with parts of the same
    /// sizes.
    ///
    /// # Errors
    ///
    /// As [`Placement::layers`], and [`Error::Invalid`] for a mesh that cannot be.
    pub fn kinds(&self, config: &ModelConfig) -> Result<(Vec<usize>, Vec<usize>)> {
        self.mesh.check()?;
        let alike = self.alike(config);
        let mut stages = Vec::with_capacity(self.mesh.pp);
        for pp in 0..self.mesh.pp {
            let layers = Split::even(self.mesh.pp).range(pp, config.num_hidden_layers, 1);
            let layers = layers.map_err(|e| Error::Invalid(format!("layers: {e}")))?;
            stages.push((layers.len(), pp == 0, pp + 1 == self.mesh.pp));
        }
        let mut found = HashMap::new();
        let mut first = Vec::new();
        let kinds = (0..self.mesh.world_size()).map(|rank| {
            let at = self.mesh.coordinate(rank);
            // The first adds what is added once: residuals, biases.
            let key = (stages[at.pp], if alike { at.tp.min(1) } else { at.tp });
            *found.entry(key).or_insert_with(|| {
                first.push(rank);
                first.len() - 1
            })
        });
        let kinds = kinds.collect();
        Ok((kinds, first))
    }

    /// Have all tensor-parallel ranks parts of one size?
    fn alike(&self, config: &ModelConfig) -> bool {
        let tp = self.mesh.tp;
        // Blocks of 256 elements are the largest, and the unit of a vocabulary is 128 rows.
        let divides = |n: usize, unit: usize| n.is_multiple_of(tp * unit);
        self.split == Split::even(tp)
            && !self.sequence_parallel
            && divides(config.num_key_value_heads, 1)
            && divides(config.intermediate_size, 256)
            && divides(config.vocab_size, 128)
    }

    /// The groups of a rank, in the order that [`group_of`] counts them.
    pub fn groups(&self, rank: usize) -> [Group; 3] {
        let on = |axis| self.mesh.group(axis, rank);
        [on(Axis::Tensor), on(Axis::Pipeline), self.exchange(rank)]
    }

    /// The ranks with these programs, for the simulation.
    pub fn ranks(&self, program: Vec<usize>) -> Ranks {
        let mut members = Vec::new();
        // Number of the group that a rank is the first of.
        let mut numbers = [const { BTreeMap::new() }; 3];
        let host = |rank: &usize| rank / self.ranks_per_host.max(1);
        let groups = (0..program.len()).map(|rank| {
            let groups = self.groups(rank).into_iter().zip(&mut numbers);
            let numbered = groups.map(|(group, numbers)| {
                let number = *numbers.entry(group.ranks[0]).or_insert_with(|| {
                    let first = host(&group.ranks[0]);
                    let one_host = group.ranks.iter().all(|rank| host(rank) == first);
                    members.push(Members {
                        link: if one_host { self.near } else { self.far },
                        ranks: group.ranks,
                    });
                    members.len() - 1
                });
                (number, group.me)
            });
            numbered.collect()
        });
        let groups = groups.collect();
        Ranks {
            program,
            groups,
            members,
        }
    }
}

/// Place of a collective's group among a rank's [groups](Layout::groups).
pub fn group_of(placement: &Placement, group: &Group) -> usize {
    match &group.ranks {
        ranks if *ranks == placement.tp.ranks => 0,
        ranks if *ranks == placement.pp.ranks => 1,
        _ => 2,
    }
}
