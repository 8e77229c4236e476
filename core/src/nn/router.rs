//! Routers of mixtures of experts.

use crate::kernels::expert_count;
use crate::kernels::router::{self, Call, MOST, MOST_EXPERTS, MOST_GROUPS};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

pub use crate::kernels::router::{Score, Worth};

/// Groups of experts, of which a token uses some (DeepSeek-V2, arXiv:2405.04434, section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertGroups {
    /// Groups of neighbouring experts, all of one size.
    pub count: usize,
    /// How many of them a token's experts come from.
    pub kept: usize,
    /// What they are chosen by.
    pub worth: Worth,
}

/// How [`Recording::route`] chooses experts and weighs them.
///
/// | model | score | normalize | bias | groups |
/// |---|---|---|---|---|
/// | Mixtral, Qwen3-MoE | `Softmax` | yes | | |
/// | Qwen2-MoE, OLMoE, Switch | `Softmax` | no | | |
/// | Granite-MoE, gpt-oss, Megatron-LM | `SoftmaxOfChosen` | no | | |
/// | Llama 4 | `Sigmoid` | no | | |
/// | DeepSeek-V2 | `Softmax` | no | | `Largest` |
/// | DeepSeek-V3 | `Sigmoid` | yes | yes | `TwoLargest` |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Router {
    /// What a probability is made of.
    pub score: Score,
    /// Experts of a token.
    pub k: usize,
    /// Divides the k probabilities by their sum (plus 1e-20).
    pub normalize: bool,
    /// What they are multiplied by then (`routed_scaling_factor`).
    pub scale: f32,
    /// `None`: every expert can be chosen.
    pub groups: Option<ExpertGroups>,
}

impl Default for Router {
    /// Mixtral's (arXiv:2401.04088): two experts by softmax, whose probabilities sum to 1.
    fn default() -> Self {
        Router {
            score: Score::Softmax,
            k: 2,
            normalize: true,
            scale: 1.0,
            groups: None,
        }
    }
}

impl Router {
    /// The kernel's call for `tokens` tokens.
    fn call(&self, tokens: usize, experts: usize, bias: bool) -> Result<Call> {
        let invalid = |what: String| Err(Error::Invalid(format!("router: {what}")));
        let groups = self.groups.unwrap_or(ExpertGroups {
            count: 1,
            kept: 1,
            worth: Worth::Largest,
        });
        let ExpertGroups { count, kept, worth } = groups;
        if experts == 0 || experts > MOST_EXPERTS {
            return invalid(format!("{experts} experts, expected 1 to {MOST_EXPERTS}"));
        }
        if count == 0 || count > MOST_GROUPS || !experts.is_multiple_of(count) {
            return invalid(format!(
                "{count} groups of {experts} experts; use 1 to {MOST_GROUPS} groups whose number divides the experts"
            ));
        }
        if kept == 0 || kept > count {
            return invalid(format!(
                "{kept} of {count} groups kept, expected 1 to {count}"
            ));
        }
        if worth == Worth::TwoLargest && count == experts && count > 1 {
            return invalid(format!(
                "{count} groups of one expert have no two largest; use the largest"
            ));
        }
        let most = MOST.min(experts / count * kept);
        if self.k == 0 || self.k > most {
            return invalid(format!(
                "k {} of {experts} experts, {kept} of {count} groups kept; use 1 to {most}",
                self.k
            ));
        }
        Ok(Call {
            tokens,
            experts,
            k: self.k,
            score: self.score,
            normalize: self.normalize,
            scale: self.scale,
            groups: count,
            groups_kept: kept,
            worth,
            bias,
        })
    }
}

impl Recording {
    /// Experts (u32) and probabilities of each token, `(T, k)` both, best first and of equal ones the lower
    /// number first, of router logits `(T, E)`. `bias` `(E,)` is added to the scores that select, and to no
    /// probability (arXiv:2408.15664).
    ///
    /// A token whose logits hold a NaN or infinity has the experts `u32::MAX` and NaN as probabilities.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there are too few experts or groups, or too many, or the bias has another
    /// length.
    pub fn route(
        &mut self,
        logits: &Tensor,
        bias: Option<&Tensor>,
        router: &Router,
    ) -> Result<(Tensor, Tensor)> {
        let (tokens, count) = (logits.rows(), logits.cols());
        if let Some(bias) = bias.filter(|b| b.len() != count) {
            return Err(Error::Invalid(format!(
                "router: bias {:?}, expected ({count},)",
                bias.shape
            )));
        }
        let call = router.call(tokens, count, bias.is_some())?;
        let experts = self.scratch(DType::U32, &[tokens, router.k])?;
        let probs = self.scratch(DType::F32, &[tokens, router.k])?;
        let bindings = vec![
            Some(logits.clone()),
            bias.cloned(),
            Some(experts.clone()),
            Some(probs.clone()),
        ];
        self.push(&router::KERNEL, router::params(&call), bindings)?;
        Ok((experts, probs))
    }

    /// `(E,)` u32: how often each of `count` experts is among `experts` `(T, k)` u32.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the size overflows.
    pub fn expert_count(&mut self, experts: &Tensor, count: usize) -> Result<Tensor> {
        let counts = self.scratch(DType::U32, &[count])?;
        let params = expert_count::params(experts.len(), count, 0, false);
        let bindings = vec![Some(experts.clone()), Some(counts.clone())];
        self.push(&expert_count::KERNEL, params, bindings)?;
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(router: Router, experts: usize) -> String {
        router.call(3, experts, false).unwrap_err().to_string()
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let of = |k| Router {
            k,
            ..Router::default()
        };
        let grouped = |k, count, kept, worth| Router {
            groups: Some(ExpertGroups { count, kept, worth }),
            ..of(k)
        };
        assert_eq!(
            told(of(9), 8),
            "router: k 9 of 8 experts, 1 of 1 groups kept; use 1 to 8"
        );
        assert!(told(of(0), 8).ends_with("use 1 to 8"));
        assert!(told(of(17), 64).ends_with("use 1 to 16"));
        assert_eq!(told(of(2), 513), "router: 513 experts, expected 1 to 512");
        assert_eq!(
            told(grouped(2, 3, 1, Worth::Largest), 8),
            "router: 3 groups of 8 experts; use 1 to 32 groups whose number divides the experts"
        );
        assert_eq!(
            told(grouped(2, 4, 5, Worth::Largest), 8),
            "router: 5 of 4 groups kept, expected 1 to 4"
        );
        assert!(told(grouped(5, 4, 2, Worth::Largest), 8).ends_with("use 1 to 4"));
        assert!(told(grouped(2, 8, 4, Worth::TwoLargest), 8).contains("no two largest"));
        assert!(grouped(4, 4, 2, Worth::TwoLargest).call(1, 8, true).is_ok());
    }
}
