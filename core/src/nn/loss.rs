//! Losses over classes, and their gradients.

use crate::kernels::{Axis, Params, cross_entropy, group_cross_entropy, label_weight, reduce_sum};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

/// What is made of the losses of all rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Nothing: one loss per row.
    None,
    /// Their sum.
    Sum,
    /// Their sum by the number of rows that are not ignored, or by the sum of the weights of those
    /// rows' classes. NaN when there are none.
    Mean,
}

/// Which loss.
#[derive(Clone, Debug)]
pub enum LossKind {
    /// Softmax cross-entropy of logits.
    CrossEntropy {
        /// Share of the target that is spread over all classes (arXiv:1512.00567).
        label_smoothing: f32,
        /// Weight of each class, `(C,)`; 1 without.
        class_weight: Option<Tensor>,
    },
    /// Minus the log-probability of the label; the input holds log-probabilities.
    NegativeLogLikelihood {
        /// Weight of each class, `(C,)`; 1 without.
        class_weight: Option<Tensor>,
    },
    /// Cross-entropy of the probability of the label's group of classes.
    GroupCrossEntropy {
        /// Group of each class, `(C,)` u32; a negative one is the background, group 0.
        groups: Tensor,
        /// Added to the group's probability where the gradient divides by it; 1e-5.
        eps: f32,
    },
}

/// A loss over the classes along an axis.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Which.
    pub kind: LossKind,
    /// The axis of classes; a negative number counts from the end.
    pub axis: i64,
    /// A label that gives loss and gradient 0.
    pub ignore_index: i32,
    /// What is made of the losses.
    pub reduction: Reduction,
}

/// One call.
struct Call<'a> {
    loss: &'a Loss,
    logits: &'a Tensor,
    labels: &'a Tensor,
    axis: Axis,
}

/// Tensors beside logits and labels.
#[derive(Default)]
struct Others<'a> {
    dy: Option<&'a Tensor>,
    total: Option<&'a Tensor>,
    loss: Option<&'a Tensor>,
    log_prob: Option<&'a Tensor>,
    d_logits: Option<&'a Tensor>,
}

impl<'a> Call<'a> {
    fn new(loss: &'a Loss, logits: &'a Tensor, labels: &'a Tensor) -> Result<Self> {
        let axis = Axis::of(&logits.shape, loss.axis)?;
        let mut shape = logits.shape.clone();
        shape.remove(crate::kernels::axis::resolve(&shape, loss.axis)?);
        if labels.shape != shape {
            return Err(Error::Invalid(format!(
                "labels have shape {:?}, expected {shape:?}: logits {:?} without axis {}",
                labels.shape, logits.shape, loss.axis
            )));
        }
        let (name, vector) = match &loss.kind {
            LossKind::GroupCrossEntropy { groups, .. } => ("groups", Some(groups)),
            LossKind::CrossEntropy { class_weight, .. }
            | LossKind::NegativeLogLikelihood { class_weight } => {
                ("class_weight", class_weight.as_ref())
            }
        };
        if let Some(vector) = vector.filter(|v| v.len() != axis.len) {
            return Err(Error::Invalid(format!(
                "{name} has shape {:?}, expected {} classes",
                vector.shape, axis.len
            )));
        }
        Ok(Call {
            loss,
            logits,
            labels,
            axis,
        })
    }

    fn class_weight(&self) -> Option<&'a Tensor> {
        match &self.loss.kind {
            LossKind::CrossEntropy { class_weight, .. }
            | LossKind::NegativeLogLikelihood { class_weight } => class_weight.as_ref(),
            LossKind::GroupCrossEntropy { .. } => None,
        }
    }

    /// What the mean is divided by, if it is wanted.
    fn total(&self, r: &mut Recording) -> Result<Option<Tensor>> {
        if self.loss.reduction != Reduction::Mean {
            return Ok(None);
        }
        let total = r.scratch(DType::F32, &[1])?;
        let (weight, rows) = (self.class_weight(), self.axis.rows());
        let ignore = self.loss.ignore_index;
        let params = label_weight::params(rows, self.axis.len, ignore, weight.is_some());
        let bindings = [Some(self.labels), weight, Some(&total)];
        let bindings = bindings.map(Option::<&Tensor>::cloned);
        r.push(&label_weight::KERNEL, params, bindings.into())?;
        Ok(Some(total))
    }

    /// Pushes the kernel of all rows.
    fn rows(&self, r: &mut Recording, others: Others<'_>) -> Result<()> {
        let Others {
            dy,
            total,
            loss,
            log_prob,
            d_logits,
        } = others;
        let switches = |params: Params| {
            params
                .bool("DY", dy.is_some())
                .bool("DY_ONE", dy.is_some_and(|dy| dy.len() == 1))
                .bool("TOTAL", total.is_some())
                .bool("LOSS", loss.is_some())
                .bool("D_LOGITS", d_logits.is_some())
        };
        let (axis, ignore) = (self.axis, self.loss.ignore_index);
        let ends = [dy, total, loss];
        let call = |smoothing, nll| {
            let weight = self.class_weight();
            let params = switches(cross_entropy::params(axis, ignore, smoothing, nll))
                .bool("CLASS_WEIGHT", weight.is_some())
                .bool("LOG_PROB", log_prob.is_some());
            let first = [Some(self.logits), Some(self.labels), weight];
            let bindings = first.into_iter().chain(ends).chain([log_prob, d_logits]);
            (params, bindings.map(Option::<&Tensor>::cloned).collect())
        };
        match &self.loss.kind {
            LossKind::CrossEntropy {
                label_smoothing, ..
            } => {
                let (params, bindings) = call(*label_smoothing, false);
                r.push(&cross_entropy::KERNEL, params, bindings)
            }
            LossKind::NegativeLogLikelihood { .. } => {
                let (params, bindings) = call(0.0, true);
                r.push(&cross_entropy::KERNEL, params, bindings)
            }
            LossKind::GroupCrossEntropy { groups, eps } => {
                let params = switches(group_cross_entropy::params(axis, ignore, *eps));
                let first = [Some(self.logits), Some(self.labels), Some(groups)];
                let bindings = first.into_iter().chain(ends).chain([d_logits]);
                let bindings = bindings.map(Option::<&Tensor>::cloned).collect();
                r.push(&group_cross_entropy::KERNEL, params, bindings)
            }
        }
    }
}

impl Recording {
    /// The loss of `logits` given `labels` (u32, of the shape of the logits without the axis of
    /// classes): of that shape, or `(1,)` when it is reduced. A label that is neither a class nor
    /// `ignore_index` gives NaN.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn loss(&mut self, logits: &Tensor, labels: &Tensor, loss: &Loss) -> Result<Tensor> {
        Ok(self.loss_and_log_prob(logits, labels, loss, false)?.0)
    }

    /// The loss and, if `wanted`, the logits' log-probabilities, which GroupSoftmax does not give.
    ///
    /// # Errors
    ///
    /// As [`Recording::loss`].
    pub fn loss_and_log_prob(
        &mut self,
        logits: &Tensor,
        labels: &Tensor,
        loss: &Loss,
        wanted: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let call = Call::new(loss, logits, labels)?;
        let rows = self.scratch(DType::F32, &labels.shape)?;
        let wanted = wanted && !matches!(loss.kind, LossKind::GroupCrossEntropy { .. });
        let log_prob = match wanted {
            true => Some(self.scratch(DType::F32, &logits.shape)?),
            false => None,
        };
        let others = Others {
            loss: Some(&rows),
            log_prob: log_prob.as_ref(),
            ..Others::default()
        };
        call.rows(self, others)?;
        if loss.reduction == Reduction::None {
            return Ok((rows, log_prob));
        }
        let total = call.total(self)?;
        let reduced = self.scratch(DType::F32, &[1])?;
        let params = reduce_sum::params(rows.len(), total.is_some());
        let bindings = vec![Some(rows), total, Some(reduced.clone())];
        self.push(&reduce_sum::KERNEL, params, bindings)?;
        Ok((reduced, log_prob))
    }

    /// Gradient of [`Recording::loss`] by the logits; `dy` is that by the loss, of the loss' shape,
    /// and all ones when left out.
    ///
    /// # Errors
    ///
    /// As [`Recording::loss`].
    pub fn loss_backward(
        &mut self,
        logits: &Tensor,
        labels: &Tensor,
        loss: &Loss,
        dy: Option<&Tensor>,
    ) -> Result<Tensor> {
        let call = Call::new(loss, logits, labels)?;
        let expected = match loss.reduction {
            Reduction::None => labels.len(),
            _ => 1,
        };
        if let Some(dy) = dy.filter(|dy| dy.len() != expected) {
            return Err(Error::Invalid(format!(
                "dy has shape {:?}, expected {expected} elements as the loss has",
                dy.shape
            )));
        }
        let total = call.total(self)?;
        let d_logits = self.scratch(DType::F32, &logits.shape)?;
        let others = Others {
            dy,
            total: total.as_ref(),
            d_logits: Some(&d_logits),
            ..Others::default()
        };
        call.rows(self, others)?;
        Ok(d_logits)
    }
}
