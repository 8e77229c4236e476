//! Hierarchical mixtures of experts: each expert is a mixture itself.

use super::{Experts, Linear, Router};
use crate::kernels::expert_nest;
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

/// `sum_e p_e sum_i q_ei expert_ei(x)`: a router chooses mixtures, and each of these its experts (arXiv:1701.06538,
/// appendix B).
pub struct NestedMoe {
    /// `(E, C)`.
    logits: Linear,
    /// `(E I, C)`: the inner routers', one below the other.
    inner_logits: Linear,
    routers: [Router; 2],
    /// E I of them, those of an outer expert together.
    experts: Experts,
    outer: usize,
}

impl NestedMoe {
    /// Mixtures chosen by `logits` `(E, C)` and `routers[0]`, of experts chosen by `inner_logits` `(E I, C)` and
    /// `routers[1]`; `experts` are all of them, those of a mixture together.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes do not fit.
    pub fn new(
        logits: Linear,
        inner_logits: Linear,
        routers: [Router; 2],
        experts: Experts,
    ) -> Result<Self> {
        let outer = logits.outputs();
        if experts.held().len() != experts.count()
            || inner_logits.outputs() != experts.count()
            || !experts.count().is_multiple_of(outer)
            || inner_logits.inputs() != logits.inputs()
        {
            return Err(Error::Invalid(format!(
                "nested experts: {} of {} experts, {} inner logits and {outer} mixtures",
                experts.held().len(),
                experts.count(),
                inner_logits.outputs()
            )));
        }
        Ok(NestedMoe {
            logits,
            inner_logits,
            routers,
            experts,
            outer,
        })
    }
}

impl Recording {
    /// The block's `(T, C)`, and of each token the experts `(T, k k')` u32, numbered through all mixtures, and
    /// their probabilities; x is `(T, C)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn nested_moe(&mut self, x: &Tensor, moe: &NestedMoe) -> Result<[Tensor; 3]> {
        let [router, inner] = &moe.routers;
        let logits = self.linear(x, &moe.logits)?;
        let (outer_ids, outer_probs) = self.route(&logits, None, router)?;
        let logits = self.by_id(x, &outer_ids, &moe.inner_logits, moe.outer)?;
        let (inner_ids, inner_probs) = self.route(&logits, None, inner)?;

        let (tokens, count) = (x.rows(), moe.experts.count() / moe.outer);
        let shape = [tokens, router.k * inner.k];
        let ids = self.scratch(DType::U32, &shape)?;
        let probs = self.scratch(DType::F32, &shape)?;
        let given = [
            &outer_ids,
            &outer_probs,
            &inner_ids,
            &inner_probs,
            &ids,
            &probs,
        ];
        let params = expert_nest::params(tokens, [router.k, inner.k], count);
        let bindings = given.map(|t| Some(t.clone()));
        self.push(&expert_nest::KERNEL, params, bindings.into())?;

        let out = self.experts(x, &ids, &moe.experts)?;
        let y = self.combine(&out, &probs, &ids, None, &moe.experts)?;
        Ok([y, ids, probs])
    }
}
