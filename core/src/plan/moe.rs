//! Mixtures of experts in plans.
//!
//! The runtime has no exchange of tokens between replicas, so there is no recording to take: a dense model of one
//! expert's hidden size is recorded, and each feed-forward block becomes a router, the experts of the rank and the collectives
//! between them. Tokens are spread over the experts evenly, as is expected of a trained router; a rank with any
//! work has at least one expert that works. The split is Megatron-LM's: an expert belongs to one of `ep` ranks,
//! which are tensor-parallel ranks and data-parallel replicas elsewhere; with `ep` 1 every expert is split like a
//! dense block.

use std::rc::Rc;

use super::dry::Dry;
use super::layout::Layout;
use crate::comm::{Axis, Collective, CollectiveKind, Group, Placement};
use crate::device::Buffer;
use crate::models::ModelConfig;
use crate::nn::{Activation, GatedMlp, Linear, Softmax};
use crate::recording::{Dispatch, Item, Recording};
use crate::tensor::Tensor;
use crate::weights::{Slice, Weight};
use crate::{DType, Error, Result};

/// Experts of each layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// E.
    pub count: usize,
    /// k: experts that a token goes to.
    pub active: usize,
}

/// One rank's part of the experts.
pub struct Share {
    experts: Experts,
    /// Experts of this rank.
    held: usize,
    /// F of those.
    hidden: usize,
    /// C.
    channels: usize,
    dtype: DType,
    /// Replicas whose tokens meet here, and who of them this rank is.
    group: Rc<Group>,
    /// `ep`.
    ranks: usize,
}

impl Layout {
    /// Ranks of different replicas that exchange tokens with this one: those of its expert-parallel group that
    /// hold the same parts of all else.
    pub fn exchange(&self, rank: usize) -> Group {
        let group = self.mesh.group(Axis::Expert, rank);
        let tp = |rank: &usize| self.mesh.coordinate(*rank).tp;
        let ranks: Vec<usize> = (group.ranks.into_iter())
            .filter(|other| tp(other) == tp(&rank))
            .collect();
        let me = ranks.iter().position(|other| *other == rank);
        Group {
            me: me.unwrap_or(0),
            ranks,
        }
    }

    /// Checks that the experts can be spread over the ranks.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] naming the sizes.
    pub fn check_experts(&self, experts: Option<Experts>) -> Result<()> {
        let (ep, tp) = (self.mesh.ep, self.mesh.tp);
        match experts {
            None if ep > 1 => Err(Error::Invalid(format!(
                "ep {ep} for a model without experts; leave it out"
            ))),
            Some(_) if self.one_device => Err(Error::Invalid(
                "experts on one device cannot be planned; leave one_device out".into(),
            )),
            Some(experts)
                if ep > 1 && !(ep.is_multiple_of(tp) && experts.count.is_multiple_of(ep)) =>
            {
                Err(Error::Invalid(format!(
                    "ep {ep} with tp {tp} and {} experts; it must be a multiple of tp and divide the experts",
                    experts.count
                )))
            }
            _ => Ok(()),
        }
    }
}

impl Share {
    /// The part of a rank whose dense block has `hidden` channels; `dtype` is the experts' element type.
    pub fn new(
        layout: &Layout,
        rank: usize,
        experts: Experts,
        config: &ModelConfig,
        hidden: usize,
        dtype: DType,
    ) -> Self {
        let ep = layout.mesh.ep;
        Share {
            experts,
            held: experts.count / ep,
            hidden: if ep > 1 {
                config.intermediate_size
            } else {
                hidden
            },
            channels: config.hidden_size,
            dtype,
            group: Rc::new(layout.exchange(rank)),
            ranks: ep,
        }
    }

    /// Puts the experts into a rank's dry run.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn add(
        &self,
        dry: &mut Dry,
        batch: Option<&mut Recording>,
        placement: &Placement,
    ) -> Result<()> {
        let steps = [Some(&mut dry.decode), Some(&mut dry.prefill), batch];
        for recording in steps.into_iter().flatten() {
            *recording = self.expand(recording, placement)?;
        }
        let scratch = |r: &Recording| r.plan_scratch().buffers.iter().sum::<u64>();
        dry.memory.activations = scratch(&dry.decode) + scratch(&dry.prefill);
        for shard in &mut dry.shards {
            // The dense block's weights, in the shares of tensor parallelism, and what is there instead.
            let dense = self.block_bytes(shard.share.hidden.len());
            let router = 4 * (self.channels * self.experts.count) as u64;
            let experts = self.held as u64 * self.block_bytes(self.hidden) + router;
            let layers = shard.share.layers.len() as u64;
            for bytes in [&mut shard.held.bytes, &mut dry.memory.weights] {
                *bytes = (*bytes + layers * experts).saturating_sub(layers * dense);
            }
            shard.held.replicated += layers * router;
        }
        Ok(())
    }

    /// Bytes of a block of so many hidden channels.
    fn block_bytes(&self, hidden: usize) -> u64 {
        let elements = 3 * self.channels * hidden;
        self.dtype.bytes(elements).unwrap_or(0) as u64
    }

    /// The recording with experts in place of its feed-forward blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn expand(&self, dense: &Recording, placement: &Placement) -> Result<Recording> {
        let mut r = Recording::of(Rc::new(placement.clone()));
        for bytes in dense.scratch_sizes() {
            r.scratch_bytes(*bytes);
        }
        let kernel = |item: &Item| match item {
            Item::Dispatch(d) => d.kernel.name,
            _ => "",
        };
        let items = dense.items();
        let mut at = 0;
        while at < items.len() {
            let Item::Dispatch(gated) = &items[at] else {
                r.push_item(items[at].clone());
                at += 1;
                continue;
            };
            if gated.kernel.name != "gated_mlp" {
                r.push_item(items[at].clone());
                at += 1;
                continue;
            }
            // Slices of gate and up, then of down.
            let rest = &items[at..];
            let gates = rest.iter().take_while(|i| kernel(i) == "gated_mlp").count();
            let downs = rest[gates..].iter();
            let downs = downs
                .take_while(|i| ["matvec", "matmul"].contains(&kernel(i)))
                .count();
            let Some(Item::Dispatch(down)) = rest[gates..].first() else {
                return Err(Error::Invalid(
                    "a feed-forward block has no last product".into(),
                ));
            };
            self.block(&mut r, gated, down)?;
            at += gates + downs;
        }
        Ok(r)
    }

    /// A router, the experts and what moves between ranks.
    fn block(&self, r: &mut Recording, gated: &Dispatch, down: &Dispatch) -> Result<()> {
        let of = |dispatch: &Dispatch, binding: usize| {
            let tensor = dispatch.bindings.get(binding).cloned().flatten();
            tensor.ok_or_else(|| Error::Invalid("a feed-forward block has no tensor".into()))
        };
        let (x, y) = (of(gated, 0)?, of(down, 4)?);
        let Experts { count, active } = self.experts;
        let tokens = x.rows();
        let scores = r.linear(&x, &self.linear(DType::F32, count, self.channels))?;
        let scores = r.softmax(&scores, &Softmax::default())?;
        r.top_k_along(&scores, -1, active, false)?;

        let replicas = self.group.len();
        // Rows to each rank of the group, and those that come to this rank's experts in all.
        let each = (tokens * active).div_ceil(self.ranks);
        if replicas > 1 {
            self.exchange(r, each)?;
        }
        let rows = tokens * replicas * active;
        let working = (rows * self.held).div_ceil(count).clamp(1, self.held);
        let per_expert = rows.div_ceil(count).max(1);
        let expert = GatedMlp::new(
            self.linear(self.dtype, self.hidden, self.channels),
            self.linear(self.dtype, self.hidden, self.channels),
            self.linear(self.dtype, self.channels, self.hidden),
            Activation::Silu,
        )?;
        for _ in 0..working {
            let given = r.scratch(DType::F32, &[per_expert, self.channels])?;
            r.gated_mlp(&given, &expert)?;
        }
        if replicas > 1 {
            self.exchange(r, each)?;
        }
        // The weighted sum of k experts and what goes on from there.
        for _ in 0..active {
            let part = r.scratch(DType::F32, &y.shape)?;
            r.add(&part, &y)?;
        }
        Ok(())
    }

    /// Gives and gets `each` rows from each replica.
    fn exchange(&self, r: &mut Recording, each: usize) -> Result<()> {
        let replicas = self.group.len();
        let rows = [each * replicas, self.channels];
        let (input, output) = (r.scratch(DType::F32, &rows)?, r.scratch(DType::F32, &rows)?);
        r.communicate(Collective {
            kind: CollectiveKind::AllToAll {
                sends: vec![each; replicas],
                receives: vec![each; replicas],
            },
            group: Rc::clone(&self.group),
            input: Some(input),
            output: Some(output),
            counts: None,
        })
    }

    /// A layer whose weight has no memory.
    fn linear(&self, dtype: DType, rows: usize, cols: usize) -> Linear {
        let tensor = Tensor::of(Buffer::new((), 0), dtype, &[rows, cols]);
        let slices = vec![Slice {
            first: 0,
            rows,
            tensor,
        }];
        Linear::new(Weight { rows, cols, slices })
    }
}
