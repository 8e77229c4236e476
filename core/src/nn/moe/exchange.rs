//! A block whose ranks have tokens of their own, and exchange them.

use super::Moe;
use crate::Result;
use crate::recording::Recording;
use crate::tensor::Tensor;

impl Recording {
    /// `residual + moe(x)`: x and residual `(t, C)` are this rank's part of `tokens` tokens.
    ///
    /// Shared experts are split like a dense block, so for them all tokens are gathered and sums scattered
    /// (Megatron-LM, `SharedExpertMLP`).
    pub(super) fn exchanged_moe(
        &mut self,
        x: &Tensor,
        residual: &Tensor,
        moe: &Moe,
        tokens: usize,
    ) -> Result<Tensor> {
        let logits = self.linear(x, &moe.logits)?;
        let (ids, probs) = self.route(&logits, moe.selection_bias.as_ref(), &moe.router)?;
        self.note_route(moe.layer, &ids);
        let came = self.dispatch_tokens(x, &ids, &probs, tokens, &moe.experts)?;
        let out = self.experts(&came.x, &came.ids, &moe.experts)?;
        let y = self.combine(&out, &came.probs, &came.ids, None, &moe.experts)?;
        let (mut shared, mut gate) = (None, None);
        if let Some(block) = &moe.shared {
            let all = self.gather_tokens(x, tokens)?;
            let h = self.gated_hidden(&all, &block.mlp)?;
            shared = Some(self.linear(&h, &block.mlp.down)?);
            if let Some(linear) = &block.gate {
                gate = Some(self.linear(x, linear)?);
            }
        }
        let added = [Some(residual), shared.as_ref(), gate.as_ref()];
        self.return_tokens(&y, &came, added)
    }
}
