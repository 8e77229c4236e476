//! What training adds to routers: queues of limited length, losses and their gradients.

use super::Matrix;
use crate::kernels::expert_positions::{self, Given};
use crate::kernels::philox::Draw;
use crate::kernels::{expert_scatter, jitter, reduce_sum, router_loss, second_expert};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

pub use crate::kernels::second_expert::Second;

/// How choices queue for experts that take so many tokens each.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// Tokens that an expert takes.
    pub capacity: u32,
    /// u32, 0 where a choice is not made.
    pub chosen: Option<Tensor>,
    /// u32 `(E,)`: how many stand in each queue before these choices; with `true` only those for whom there
    /// was room do.
    pub ahead: Option<(Tensor, bool)>,
    /// Of the shape of the choices: the largest is served first, not the first token.
    pub priority: Option<Tensor>,
}

/// What [`Recording::expert_positions`] gives, u32 all.
#[derive(Clone, Debug)]
pub struct Positions {
    /// Place in the expert's queue, from 0; of the shape of the choices.
    pub positions: Tensor,
    /// 1 where the choice is made and the place is below the capacity.
    pub kept: Tensor,
    /// `(E,)`: choices of each expert.
    pub assigned: Tensor,
    /// `(E,)`: those of them for which there is no room.
    pub dropped: Tensor,
}

/// The two experts of each token under GShard, `(T,)` all.
#[derive(Clone, Debug)]
pub struct TwoExperts {
    /// u32, the best and the second best.
    pub experts: [Tensor; 2],
    /// Their probabilities, which sum to 1.
    pub gates: [Tensor; 2],
    /// u32, 1 where the token goes to its second expert too.
    pub second: Tensor,
}

/// Coefficients of a router's losses.
#[derive(Clone, Copy, Debug)]
pub struct RouterLoss {
    /// `aux = coefficient * sum_e assigned[e] * sum_t probs[t, e]`. With `c E / (k T^2)` it is c when tokens
    /// are balanced (Switch, GShard, Megatron-LM); Hugging Face's Mixtral leaves out the division by k.
    pub aux: f32,
    /// `z = coefficient * sum_t ln(sum_e exp logits[t, e])^2`; `c / T` makes a mean of it.
    pub z: f32,
    /// Probabilities are sigmoids divided by their sum, and not softmax.
    pub sigmoid: bool,
}

/// What [`Recording::router_loss`] gives.
#[derive(Clone, Debug)]
pub struct RouterLosses {
    /// `(T, E)`: probabilities of all experts.
    pub probs: Tensor,
    /// `(1,)`.
    pub aux: Tensor,
    /// `(1,)`.
    pub z: Tensor,
}

impl Recording {
    /// Places in the queues of `count` experts, of choices `experts` (u32, any shape, in the order of tokens).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a tensor of the queue has another length.
    pub fn expert_positions(
        &mut self,
        experts: &Tensor,
        count: usize,
        queue: &Queue,
    ) -> Result<Positions> {
        let ahead = queue.ahead.as_ref().map(|(ahead, _)| ahead);
        for (name, tensor, len) in [
            ("chosen", queue.chosen.as_ref(), experts.len()),
            ("ahead", ahead, count),
            ("priority", queue.priority.as_ref(), experts.len()),
        ] {
            if let Some(tensor) = tensor.filter(|t| t.len() != len) {
                return Err(Error::Invalid(format!(
                    "expert_positions: {name} {:?}, expected {len} elements",
                    tensor.shape
                )));
            }
        }
        let given = Given {
            chosen: queue.chosen.is_some(),
            ahead: queue.ahead.as_ref().map(|(_, kept)| *kept),
            priority: queue.priority.is_some(),
        };
        let params = expert_positions::params(experts.len(), count, queue.capacity, given);
        let made = Positions {
            positions: self.scratch(DType::U32, &experts.shape)?,
            kept: self.scratch(DType::U32, &experts.shape)?,
            assigned: self.scratch(DType::U32, &[count])?,
            dropped: self.scratch(DType::U32, &[count])?,
        };
        let bindings = vec![
            Some(experts.clone()),
            queue.chosen.clone(),
            ahead.cloned(),
            queue.priority.clone(),
            Some(made.positions.clone()),
            Some(made.kept.clone()),
            Some(made.assigned.clone()),
            Some(made.dropped.clone()),
        ];
        self.push(&expert_positions::KERNEL, params, bindings)?;
        Ok(made)
    }

    /// `(T, count)`: `values` `(T, k)` at the places of `experts` `(T, k)`, 0 elsewhere.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes differ.
    pub fn expert_scatter(
        &mut self,
        experts: &Tensor,
        values: &Tensor,
        count: usize,
    ) -> Result<Tensor> {
        if experts.shape != values.shape {
            return Err(Error::Invalid(format!(
                "expert_scatter: values {:?} of experts {:?}",
                values.shape, experts.shape
            )));
        }
        let y = self.scratch(values.dtype, &[experts.rows(), count])?;
        let params = expert_scatter::params(experts.rows(), count, experts.cols());
        let bindings = [experts, values, &y].map(|t| Some(t.clone()));
        self.push(&expert_scatter::KERNEL, params, bindings.into())?;
        Ok(y)
    }

    /// GShard's decision for each token (arXiv:2006.16668), of what [`Recording::route`] gives for two experts
    /// whose probabilities sum to 1. `u` `(T,)`: uniform numbers inside (0, 1), for [`Second::Random`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there are not two experts or no fitting u, or the threshold is not above 0.
    pub fn second_expert(
        &mut self,
        (experts, probs): (&Tensor, &Tensor),
        second: Second,
        threshold: f32,
        u: Option<&Tensor>,
    ) -> Result<TwoExperts> {
        let tokens = experts.rows();
        let u = u.filter(|_| second == Second::Random);
        let fits = experts.cols() == 2 && probs.shape == experts.shape;
        if !fits
            || u.is_some() != (second == Second::Random)
            || u.is_some_and(|u| u.len() != tokens)
        {
            return Err(Error::Invalid(format!(
                "second_expert: experts {:?}, probs {:?}, u {:?}; expected ({tokens}, 2) twice and ({tokens},)",
                experts.shape,
                probs.shape,
                u.map(|u| &u.shape)
            )));
        }
        if threshold.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
            return Err(Error::Invalid(format!(
                "second_expert: threshold is {threshold}, expected a number above 0"
            )));
        }
        let mut made = |dtype| self.scratch(dtype, &[tokens]);
        let two = TwoExperts {
            experts: [made(DType::U32)?, made(DType::U32)?],
            gates: [made(DType::F32)?, made(DType::F32)?],
            second: made(DType::U32)?,
        };
        let bindings = vec![
            Some(experts.clone()),
            Some(probs.clone()),
            u.cloned(),
            Some(two.experts[0].clone()),
            Some(two.experts[1].clone()),
            Some(two.gates[0].clone()),
            Some(two.gates[1].clone()),
            Some(two.second.clone()),
        ];
        let params = second_expert::params(tokens, second, threshold);
        self.push(&second_expert::KERNEL, params, bindings)?;
        Ok(two)
    }

    /// `x` with each element multiplied by a number drawn from `1 - eps` to `1 + eps` (arXiv:2101.03961).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the size overflows.
    pub fn jitter(&mut self, x: &Tensor, eps: f32, draw: Draw) -> Result<Tensor> {
        let y = self.scratch(DType::F32, &x.shape)?;
        let bindings = [x, &y].map(|t| Some(t.clone()));
        self.push(
            &jitter::KERNEL,
            jitter::params(x.len(), draw, eps),
            bindings.into(),
        )?;
        Ok(y)
    }

    /// Losses of a router with these logits `(T, E)`, whose experts were `assigned` (u32, `(E,)`) so often.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn router_loss(
        &mut self,
        logits: &Tensor,
        assigned: &Tensor,
        loss: &RouterLoss,
    ) -> Result<RouterLosses> {
        let (tokens, count) = (logits.rows(), logits.cols());
        let probs = self.scratch(DType::F32, &[tokens, count])?;
        let parts = [
            self.scratch(DType::F32, &[tokens])?,
            self.scratch(DType::F32, &[tokens])?,
        ];
        let bindings = vec![
            Some(logits.clone()),
            Some(assigned.clone()),
            Some(probs.clone()),
            Some(parts[0].clone()),
            Some(parts[1].clone()),
            None,
        ];
        self.push(&router_loss::KERNEL, loss_params(logits, loss), bindings)?;
        let mut sum = |x: &Tensor| {
            let y = self.scratch(DType::F32, &[1])?;
            let bindings = vec![Some(x.clone()), None, Some(y.clone())];
            self.push(
                &reduce_sum::KERNEL,
                reduce_sum::params(tokens, false),
                bindings,
            )?;
            Result::Ok(y)
        };
        let [aux, z] = [sum(&parts[0])?, sum(&parts[1])?];
        Ok(RouterLosses { probs, aux, z })
    }

    /// The gradient of `aux + z` of [`Recording::router_loss`] by the logits; `assigned` is a constant.
    ///
    /// # Errors
    ///
    /// As [`Recording::router_loss`].
    pub fn router_loss_backward(
        &mut self,
        logits: &Tensor,
        assigned: &Tensor,
        loss: &RouterLoss,
    ) -> Result<Tensor> {
        let d_logits = self.scratch(DType::F32, &[logits.rows(), logits.cols()])?;
        let params = router_loss::backward(loss_params(logits, loss));
        let mut bindings = vec![None; 6];
        bindings[0] = Some(logits.clone());
        bindings[1] = Some(assigned.clone());
        bindings[5] = Some(d_logits.clone());
        self.push(&router_loss::KERNEL, params, bindings)?;
        Ok(d_logits)
    }

    /// Gradient by a router's weight `(E, C)` of that by its logits `(T, E)`; `x` `(T, C)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes do not fit.
    pub fn router_weight_backward(&mut self, d_logits: &Tensor, x: &Tensor) -> Result<Tensor> {
        let d_logits = Matrix::flat(d_logits).transposed();
        self.gemm(1.0, &d_logits, &Matrix::flat(x), None)
    }
}

fn loss_params(logits: &Tensor, loss: &RouterLoss) -> crate::kernels::Params {
    let coefficients = [loss.aux, loss.z];
    router_loss::params(logits.rows(), logits.cols(), coefficients, loss.sigmoid)
}
