//! How often routers chose each expert.

use crate::comm::Placement;
use crate::device::{Buffer, Device, Purpose};
use crate::expert_cache::ExpertCacheUse;
use crate::models::{ModelConfig, Share};
use crate::tensor::Tensor;
use crate::{DType, Result};

/// How often routers chose each expert, of all tokens computed since the model was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpertStatistics {
    /// The layers with experts that ranks of this process have, in order.
    pub layers: Vec<usize>,
    /// E.
    pub experts: usize,
    /// `(layers, E)`: pairs of a token and an expert of its. Each row's sum is k for each token.
    pub counts: Vec<u64>,
    /// Tokens that were computed; those found in the cache of keys and values are not computed again.
    pub tokens: u64,
    /// What the cache of experts has done, if there is one.
    pub cache: Option<ExpertCacheUse>,
}

impl ExpertStatistics {
    /// Nothing counted, for layers that ranks count; `None` for a model without experts.
    pub(super) fn new(config: &ModelConfig, layers: impl Iterator<Item = usize>) -> Option<Self> {
        let experts = config.moe.as_ref()?.num_experts;
        let mut layers: Vec<usize> = layers.collect();
        layers.sort_unstable();
        layers.dedup();
        Some(ExpertStatistics {
            counts: vec![0; layers.len() * experts],
            layers,
            experts,
            ..ExpertStatistics::default()
        })
    }

    fn add(&mut self, layer: usize, expert: usize, pairs: u32) {
        if let Ok(place) = self.layers.binary_search(&layer) {
            self.counts[place * self.experts + expert] += u64::from(pairs);
        }
    }
}

/// What the routers of one rank have counted on its device.
pub(super) struct RouteCounts {
    buffer: Buffer,
    /// Of the model.
    layers: usize,
    /// Layers that this rank counts.
    pub own: Vec<usize>,
    experts: usize,
    /// What was read last: counts wrap around, their differences do not.
    last: Vec<u32>,
}

impl RouteCounts {
    /// Those of a rank with this share; `None` where it has no experts, or another rank always routes the same tokens.
    pub async fn new(
        device: &dyn Device,
        config: &ModelConfig,
        placement: &Placement,
        share: &Share,
    ) -> Result<Option<Self>> {
        let own = share.layers.clone();
        let own: Vec<usize> = own.filter(|i| config.experts(*i).is_some()).collect();
        let Some(moe) = config.moe.as_ref().filter(|_| !own.is_empty()) else {
            return Ok(None);
        };
        if placement.tp.me > 0 && !placement.exchanges_tokens(usize::MAX) {
            return Ok(None);
        }
        let (layers, experts) = (config.num_hidden_layers, moe.num_experts);
        let bytes = 4 * (layers * experts) as u64;
        Ok(Some(RouteCounts {
            buffer: device
                .alloc(bytes, Purpose::Activations, "chosen experts")
                .await?,
            layers,
            own,
            experts,
            last: vec![0; layers * experts],
        }))
    }

    /// `(layers, E)` u32, of all layers of the model.
    pub fn tensor(&self) -> Tensor {
        let shape = [self.layers, self.experts];
        Tensor::of(self.buffer.clone(), DType::U32, &shape)
    }

    /// Adds what has been counted since the last call.
    pub async fn read(&mut self, device: &dyn Device, into: &mut ExpertStatistics) -> Result<()> {
        let bytes = 4 * self.last.len() as u64;
        let bytes = device.read(&self.buffer, 0, bytes).await?;
        let counts: Vec<u32> = bytemuck::allocation::pod_collect_to_vec(&bytes);
        for (i, (now, last)) in counts.iter().zip(&self.last).enumerate() {
            into.add(i / self.experts, i % self.experts, now.wrapping_sub(*last));
        }
        self.last = counts;
        Ok(())
    }
}
