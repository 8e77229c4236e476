//! Mixture-of-experts blocks of models: a router, its experts, and shared experts that every token goes through.

mod exchange;

use std::ops::Range;

use super::{Activation, Experts, GatedMlp, Linear, Router};
use crate::expert_cache::StoredBlock;
use crate::models::MoeConfig;
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::{ExpertMatrix, Loader, Part};
use crate::{DType, Error, Result};

/// A block: `sum_i p_i expert_i(x) + shared(x)`, with the experts and the p that the router gives each token.
pub struct Moe {
    /// `(E, C)`, the same on every rank.
    logits: Linear,
    /// `(E,)`: added for the choice only (DeepSeek-V3, arXiv:2412.19437, section 2.1.2).
    selection_bias: Option<Tensor>,
    router: Router,
    experts: Experts,
    shared: Option<Shared>,
    /// Hidden channels of each expert that this rank holds.
    held: Range<usize>,
    /// Number of the layer in the model.
    layer: usize,
}

struct Shared {
    mlp: GatedMlp,
    /// `(1, C)`: its sigmoid weighs the shared expert (Qwen2-MoE).
    gate: Option<Linear>,
}

impl Moe {
    /// Loads this rank's part of the block `blk.{layer}`: `ffn_gate_inp`, the experts, and `ffn_*_shexp` if there are
    /// shared ones. What the block gives is multiplied by `scale`.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::weight`]; [`Error::Unsupported`] for a scale beside shared experts.
    pub async fn load(
        loader: &mut Loader<'_>,
        layer: usize,
        channels: usize,
        config: &MoeConfig,
        activation: Activation,
        scale: f32,
    ) -> Result<Self> {
        let name = &format!("blk.{layer}");
        let (count, hidden) = (config.num_experts, config.intermediate_size);
        let logits = Linear::load(loader, &format!("{name}.ffn_gate_inp"), count, channels).await?;
        let bias = format!("{name}.exp_probs_b.bias");
        let selection_bias = loader.optional_vector(&bias, count, 0..count).await?;

        let sizes = [count, hidden, channels];
        let [gate, up, down] =
            ["gate", "up", "down"].map(|which| ExpertMatrix::new(name, which, sizes));
        let block = down.block_len(loader.files())?;
        let share = loader.placement().experts(name, count, hidden, block)?;
        let rows = Part {
            rows: share.hidden.clone(),
            cols: 0..channels,
        };
        let cols = Part {
            rows: 0..channels,
            cols: share.hidden.clone(),
        };
        let held = share.experts.clone();
        // Ranks sum up: one has the biases.
        let biased = share.hidden.start == 0;
        let mut experts = match loader.expert_cache().cloned() {
            Some(cache) => {
                let files = loader.files();
                let stored = |matrix: &ExpertMatrix, part: &Part, biased: bool| {
                    let bias = match biased {
                        true => matrix.stored_bias(files, part.rows.clone())?,
                        false => None,
                    };
                    Ok::<_, Error>((matrix.stored(files, part)?, bias))
                };
                let matrices = vec![
                    stored(&gate, &rows, true)?,
                    stored(&up, &rows, true)?,
                    stored(&down, &cols, biased)?,
                ];
                let block = StoredBlock {
                    count,
                    held,
                    k: config.router.k,
                    matrices,
                };
                loader.leave(block.file_bytes());
                Experts::paged(cache.register(block), activation)
            }
            None => {
                let gate = Linear::load_experts(loader, &gate, held.clone(), &rows).await?;
                let up = Linear::load_experts(loader, &up, held.clone(), &rows).await?;
                let mut down = Linear::load_experts(loader, &down, held.clone(), &cols).await?;
                if !biased {
                    down = down.without_bias();
                }
                Experts::new(count, held, Some(gate), [up, down], activation)?
            }
        };
        if let Some(limit) = config.swiglu_limit {
            experts = experts.with_limit(limit)?;
        }

        let mut shared = None;
        if config.shared_intermediate_size > 0 {
            if scale != 1.0 {
                return Err(Error::Unsupported {
                    what: format!("{name}: shared experts and a factor of {scale}"),
                    supported: "one of the two".into(),
                });
            }
            let size = config.shared_intermediate_size;
            let names = ["ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"];
            let names = names.map(|part| format!("{name}.{part}"));
            let mlp = GatedMlp::load_named(loader, &names, channels, size, activation).await?;
            let gate = format!("{name}.ffn_gate_inp_shexp");
            let gate = match loader.files().has(&format!("{gate}.weight")) {
                true => Some(Linear::load(loader, &gate, 1, channels).await?),
                false => None,
            };
            shared = Some(Shared { mlp, gate });
        }
        let router = Router {
            scale: config.router.scale * scale,
            ..config.router
        };
        Ok(Moe {
            logits,
            selection_bias,
            router,
            experts,
            shared,
            held: share.hidden,
            layer,
        })
    }

    /// Hidden channels of each expert that this rank holds.
    pub fn held(&self) -> &Range<usize> {
        &self.held
    }
}

impl Recording {
    /// `residual + moe(x)` of `tokens` tokens; x and residual are this rank's in a sequence-parallel step.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn moe(
        &mut self,
        x: &Tensor,
        residual: &Tensor,
        moe: &Moe,
        tokens: usize,
    ) -> Result<Tensor> {
        if self.placement().exchanges_tokens(tokens) {
            return self.exchanged_moe(x, residual, moe, tokens);
        }
        let x = &self.gather_tokens(x, tokens)?;
        let logits = self.linear(x, &moe.logits)?;
        let (ids, probs) = self.route(&logits, moe.selection_bias.as_ref(), &moe.router)?;
        self.note_route(moe.layer, &ids);
        let out = self.experts(x, &ids, &moe.experts)?;
        let (splits, me) = {
            let placement = self.placement();
            (placement.splits_tokens(x.rows()), placement.tp.me)
        };
        // The first rank adds it, so that the sum has it once.
        let added = Some(residual).filter(|_| !splits && me == 0);
        let routed = [&out, &probs, &ids];
        let y = match &moe.shared {
            None => self.combine(&out, &probs, &ids, added, &moe.experts)?,
            Some(shared) => {
                let h = self.gated_hidden(x, &shared.mlp)?;
                let own = self.scratch(DType::F32, &[x.rows(), shared.mlp.down.outputs()])?;
                self.product(&h, &shared.mlp.down, None, &own)?;
                let gate = match &shared.gate {
                    Some(gate) => Some(self.linear(x, gate)?),
                    None => None,
                };
                self.combine_shared(routed, added, &own, gate.as_ref(), &moe.experts)?
            }
        };
        let y = self.sum_tokens(&y)?;
        match splits {
            true => self.add(&y, residual),
            false => Ok(y),
        }
    }
}
