//! What ranks tell each other. Every one of these is nothing when there is one rank.

use std::rc::Rc;

use crate::comm::{Collective, CollectiveKind, Group, Reduce};
use crate::kernels::copy;
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

impl Recording {
    /// The sum of all tensor-parallel ranks' `x`, of its shape.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn all_reduce(&mut self, x: &Tensor) -> Result<Tensor> {
        self.all_reduce_by(x, Reduce::Sum)
    }

    /// The reduction of all tensor-parallel ranks' `x`, of its shape.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn all_reduce_by(&mut self, x: &Tensor, how: Reduce) -> Result<Tensor> {
        let group = Rc::clone(&self.placement().tp);
        if group.is_alone() {
            return Ok(x.clone());
        }
        let y = self.scratch(x.dtype, &x.shape)?;
        self.communicate(Collective {
            kind: CollectiveKind::AllReduce(how),
            group,
            input: Some(x.clone()),
            output: Some(y.clone()),
            counts: None,
        })?;
        Ok(y)
    }

    /// All tensor-parallel ranks' `x` joined along `axis`; `lens` are the lengths of their parts.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn all_gather(&mut self, x: &Tensor, axis: usize, lens: Vec<usize>) -> Result<Tensor> {
        let mut shape = x.shape.clone();
        if let Some(len) = shape.get_mut(axis) {
            *len = lens.iter().sum();
        }
        let y = self.scratch(x.dtype, &shape)?;
        self.all_gather_into(x, axis, lens, &y)?;
        Ok(y)
    }

    /// The same into a given tensor.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn all_gather_into(
        &mut self,
        x: &Tensor,
        axis: usize,
        lens: Vec<usize>,
        y: &Tensor,
    ) -> Result<()> {
        self.communicate(Collective {
            kind: CollectiveKind::AllGather { axis, lens },
            group: Rc::clone(&self.placement().tp),
            input: Some(x.clone()),
            output: Some(y.clone()),
            counts: None,
        })
    }

    /// The sum of all tensor-parallel ranks' `x` `(T, C)`: all of it, or this rank's tokens in a
    /// sequence-parallel step.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub(super) fn sum_tokens(&mut self, x: &Tensor) -> Result<Tensor> {
        let placement = Rc::clone(self.placement());
        if !placement.splits_tokens(x.rows()) {
            return self.all_reduce(x);
        }
        let lens = placement.token_lens(x.rows());
        let y = self.scratch(x.dtype, &[lens[placement.tp.me], x.cols()])?;
        self.communicate(Collective {
            kind: CollectiveKind::ReduceScatter {
                reduce: Reduce::Sum,
                lens,
            },
            group: Rc::clone(&placement.tp),
            input: Some(x.clone()),
            output: Some(y.clone()),
            counts: None,
        })?;
        Ok(y)
    }

    /// All `tokens` rows of `x`, of which each rank of a sequence-parallel step has its own.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn gather_tokens(&mut self, x: &Tensor, tokens: usize) -> Result<Tensor> {
        let placement = Rc::clone(self.placement());
        if !placement.splits_tokens(tokens) {
            return Ok(x.clone());
        }
        self.all_gather(x, 0, placement.token_lens(tokens))
    }

    /// This rank's rows of `x` `(T, C)` in a sequence-parallel step, all of them in another: what
    /// [`Recording::gather_tokens`] undoes.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn own_tokens(&mut self, x: &Tensor) -> Result<Tensor> {
        let placement = Rc::clone(self.placement());
        if !placement.splits_tokens(x.rows()) {
            return Ok(x.clone());
        }
        let lens = placement.token_lens(x.rows());
        let first = lens[..placement.tp.me].iter().sum();
        self.rows(x, first, lens[placement.tp.me])
    }

    /// `len` rows of `x` `(T, C)` from `first` on.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there are fewer.
    pub fn rows(&mut self, x: &Tensor, first: usize, len: usize) -> Result<Tensor> {
        self.slice(x, 1, x.rows(), first, len)
    }

    /// `len` columns of `x` `(T, C)` from `first` on.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there are fewer.
    pub fn columns(&mut self, x: &Tensor, first: usize, len: usize) -> Result<Tensor> {
        let mut y = self.slice(x, x.rows(), x.cols(), first, len)?;
        y.shape = vec![x.rows(), len];
        Ok(y)
    }

    fn slice(
        &mut self,
        x: &Tensor,
        outer: usize,
        axis: usize,
        first: usize,
        len: usize,
    ) -> Result<Tensor> {
        if first + len > axis {
            return Err(Error::Invalid(format!(
                "slice: {first} + {len} of {axis} rows or columns of x {:?}",
                x.shape
            )));
        }
        let inner = x.len() / (outer * axis).max(1);
        let shape = match outer {
            1 => [len, inner],
            _ => [outer, len],
        };
        let y = self.scratch(x.dtype, &shape)?;
        let params = copy::params(outer, inner, (axis, first), (len, 0), len);
        let bindings = [x, &y].map(|t| Some(t.clone()));
        self.push(&copy::KERNEL, params, bindings.into())?;
        Ok(y)
    }

    /// Matrices `(T, C)` beside each other: `(T, sum of C)`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when their rows differ or there are none.
    pub fn concat_columns(&mut self, parts: &[Tensor]) -> Result<Tensor> {
        let rows = parts.first().map_or(0, Tensor::rows);
        if parts.is_empty() || parts.iter().any(|x| x.rows() != rows) {
            let shapes: Vec<_> = parts.iter().map(|x| &x.shape).collect();
            return Err(Error::Invalid(format!(
                "concat: {shapes:?} have not the same number of rows"
            )));
        }
        let all = parts.iter().map(Tensor::cols).sum();
        let y = self.scratch(parts[0].dtype, &[rows, all])?;
        let mut first = 0;
        for x in parts {
            let len = x.cols();
            let params = copy::params(rows, 1, (len, 0), (all, first), len);
            let bindings = [x, &y].map(|t| Some(t.clone()));
            self.push(&copy::KERNEL, params, bindings.into())?;
            first += len;
        }
        Ok(y)
    }

    /// What rank `root` of `group` has of `x`, into it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn broadcast(&mut self, x: &Tensor, group: &Rc<Group>, root: usize) -> Result<()> {
        if group.is_alone() {
            return Ok(());
        }
        self.communicate(Collective {
            kind: CollectiveKind::Broadcast { root },
            group: Rc::clone(group),
            input: (group.me == root).then(|| x.clone()),
            output: Some(x.clone()),
            counts: None,
        })
    }

    /// The residual stream `(T, C)` of `tokens` tokens that the stage before this one sends.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] on the first stage.
    pub fn receive_hidden(&mut self, tokens: usize, channels: usize) -> Result<Tensor> {
        let placement = Rc::clone(self.placement());
        let rows = match placement.splits_tokens(tokens) {
            true => placement.token_lens(tokens)[placement.tp.me],
            false => tokens,
        };
        let x = self.scratch(DType::F32, &[rows, channels])?;
        self.communicate(Collective {
            kind: CollectiveKind::Receive {
                from: placement.pp.me.wrapping_sub(1),
            },
            group: Rc::clone(&placement.pp),
            input: None,
            output: Some(x.clone()),
            counts: None,
        })?;
        Ok(x)
    }

    /// Sends the residual stream to the next stage.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] on the last stage.
    pub fn send_hidden(&mut self, x: &Tensor) -> Result<()> {
        let group = Rc::clone(&self.placement().pp);
        self.communicate(Collective {
            kind: CollectiveKind::Send { to: group.me + 1 },
            group,
            input: Some(x.clone()),
            output: None,
            counts: None,
        })
    }
}
