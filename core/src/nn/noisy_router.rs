//! Noisy top-k routing (arXiv:1701.06538).

use super::{Router, Score};
use crate::kernels::{load_loss, noisy_load, noisy_logits, noisy_top_k_backward};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

/// Noisy top-k routing (arXiv:1701.06538) of a batch.
#[derive(Clone, Debug)]
pub struct NoisyTopK {
    clean: Tensor,
    raw: Tensor,
    noisy: Tensor,
    /// The k + 1 best, for the gradient.
    best: Tensor,
    k: usize,
    /// u32 `(T, k)`, best first.
    pub experts: Tensor,
    /// `(T, k)`: softmax over the kept.
    pub probs: Tensor,
    /// `(T, E)`: the same, 0 for other experts.
    pub gates: Tensor,
    /// `(E,)`: sum of the gates over tokens.
    pub importance: Tensor,
    /// `(E,)`: sum over tokens of the probability that the expert is among the k best.
    pub load: Tensor,
}

/// The loss of noisy top-k routing, and its gradients.
#[derive(Clone, Debug)]
pub struct LoadLoss {
    /// `(1,)`.
    pub loss: Tensor,
    /// `(E,)`.
    pub d_importance: Tensor,
    /// `(E,)`.
    pub d_load: Tensor,
}

impl Recording {
    /// Noisy top-k routing: `k` experts of each token by `clean + noise (softplus(raw) + 0.01)`, all `(T, E)`.
    ///
    /// # Errors
    ///
    /// As [`Recording::route`]; [`Error::Invalid`] when the shapes differ.
    pub fn noisy_top_k(
        &mut self,
        clean: &Tensor,
        raw: &Tensor,
        noise: &Tensor,
        k: usize,
    ) -> Result<NoisyTopK> {
        if clean.shape != raw.shape || clean.len() != noise.len() {
            return Err(Error::Invalid(format!(
                "noisy_top_k: logits {:?}, of the noise {:?}, noise {:?}; expected one shape",
                clean.shape, raw.shape, noise.shape
            )));
        }
        let (tokens, count) = (clean.rows(), clean.cols());
        let noisy = self.scratch(DType::F32, &clean.shape)?;
        let bindings = [clean, raw, noise, &noisy].map(|t| Some(t.clone()));
        let params = noisy_logits::params(clean.len());
        self.push(&noisy_logits::KERNEL, params, bindings.into())?;
        let router = Router {
            score: Score::SoftmaxOfChosen,
            k,
            normalize: false,
            ..Router::default()
        };
        let (experts, probs) = self.route(&noisy, None, &router)?;
        let best = match k < count {
            true => self.top_k_along(&noisy, -1, k + 1, false)?.1,
            false => experts.clone(),
        };
        let gates = self.expert_scatter(&experts, &probs, count)?;
        let loads = self.scratch(DType::F32, &clean.shape)?;
        let bindings = [clean, raw, &noisy, &best, &loads].map(|t| Some(t.clone()));
        let params = noisy_load::params(tokens, count, k);
        self.push(&noisy_load::KERNEL, params, bindings.into())?;
        Ok(NoisyTopK {
            importance: self.column_sum(&gates)?,
            load: self.column_sum(&loads)?,
            clean: clean.clone(),
            raw: raw.clone(),
            noisy,
            best,
            k,
            experts,
            probs,
            gates,
        })
    }

    /// `coeff (cv2(importance) + cv2(load))`, cv2 the squared coefficient of variation; `unbiased`: the
    /// variance is divided by E - 1.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a binding does not fit.
    pub fn load_loss(
        &mut self,
        routed: &NoisyTopK,
        coeff: f32,
        unbiased: bool,
    ) -> Result<LoadLoss> {
        let count = routed.load.len();
        let made = LoadLoss {
            loss: self.scratch(DType::F32, &[1])?,
            d_importance: self.scratch(DType::F32, &[count])?,
            d_load: self.scratch(DType::F32, &[count])?,
        };
        let bindings = [
            &routed.importance,
            &routed.load,
            &made.loss,
            &made.d_importance,
            &made.d_load,
        ];
        let bindings = bindings.map(|t| Some(t.clone())).into();
        let params = load_loss::params(count, coeff, unbiased);
        self.push(&load_loss::KERNEL, params, bindings)?;
        Ok(made)
    }

    /// `(1,)`: cv2(x), the squared coefficient of variation of x `(E,)`, as [`Recording::load_loss`] takes it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the size overflows.
    pub fn variation(&mut self, x: &Tensor, unbiased: bool) -> Result<Tensor> {
        let cv2 = self.scratch(DType::F32, &[1])?;
        let gradients = [
            self.scratch(DType::F32, &[x.len()])?,
            self.scratch(DType::F32, &[x.len()])?,
        ];
        let bindings = [x, x, &cv2, &gradients[0], &gradients[1]].map(|t| Some(t.clone()));
        // Half of it twice.
        let params = load_loss::params(x.len(), 0.5, unbiased);
        self.push(&load_loss::KERNEL, params, bindings.into())?;
        Ok(cv2)
    }

    /// Gradients of [`Recording::load_loss`] by the clean logits, and by those of the noise.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a binding does not fit.
    pub fn noisy_top_k_backward(
        &mut self,
        routed: &NoisyTopK,
        loss: &LoadLoss,
    ) -> Result<[Tensor; 2]> {
        let shape = &routed.clean.shape;
        let made = [
            self.scratch(DType::F32, shape)?,
            self.scratch(DType::F32, shape)?,
        ];
        let bindings = [
            &routed.clean,
            &routed.raw,
            &routed.noisy,
            &routed.best,
            &loss.d_importance,
            &loss.d_load,
            &made[0],
            &made[1],
        ];
        let bindings = bindings.map(|t| Some(t.clone())).into();
        let params =
            noisy_top_k_backward::params(routed.clean.rows(), routed.clean.cols(), routed.k);
        self.push(&noisy_top_k_backward::KERNEL, params, bindings)?;
        Ok(made)
    }
}
