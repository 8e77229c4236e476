//! Tokens go to the ranks that hold their experts, and what these make of them comes back (all-to-all dispatch and combine of
//! GShard, arXiv:2006.16668, section 3.2; no expert has a capacity, as in Megatron-LM's `MoEAlltoAllTokenDispatcher`).

use std::rc::Rc;

use super::Experts;
use crate::comm::{Collective, CollectiveKind};
use crate::kernels::{Spread, exchange_combine, exchange_order, exchange_pack, exchange_unpack};
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

/// Tokens that came to this rank, and how to give back what becomes of them.
///
/// There is room for P rows: as many as all ranks have tokens, and some more where they have not as many.
pub struct Exchange {
    /// `(P, C)`; rows of nobody hold anything.
    pub x: Tensor,
    /// `(P, k)` u32: experts of each, `u32::MAX` for rows of nobody.
    pub ids: Tensor,
    /// `(P, k)`: their probabilities.
    pub probs: Tensor,
    /// `(R, R)` u32: how many rows each rank sent to each.
    pub counts: Tensor,
    /// `(R, t)`: where each of this rank's own tokens went.
    places: Tensor,
    /// `(t, k)` of this rank's own tokens.
    own_probs: Tensor,
    /// Rows that a rank can send to one.
    room: usize,
}

impl Recording {
    /// Sends each of this rank's tokens, x `(t, C)`, experts `ids` `(t, k)` u32 and `probs` `(t, k)`, to every
    /// tensor-parallel rank that holds one of its experts or a part of it. All ranks have `tokens` together.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit or the step does not split its tokens.
    pub fn dispatch_tokens(
        &mut self,
        x: &Tensor,
        ids: &Tensor,
        probs: &Tensor,
        tokens: usize,
        experts: &Experts,
    ) -> Result<Exchange> {
        let placement = Rc::clone(self.placement());
        let (ranks, me, ep) = (placement.tp.len(), placement.tp.me, placement.mesh.ep);
        let lens = placement.token_lens(tokens);
        let (own, channels, k) = (ids.rows(), x.cols(), ids.cols());
        if !placement.exchanges_tokens(tokens)
            || own != lens[me]
            || x.rows() != own
            || probs.len() != own * k
            || ids.dtype != DType::U32
            || experts.held().len() * ep != experts.count()
        {
            return Err(Error::Invalid(format!(
                "experts: x {:?}, {} ids {:?} and probabilities {:?} of {tokens} tokens cannot go to {ranks} ranks \
                 with {} of {} experts each",
                x.shape,
                ids.dtype,
                ids.shape,
                probs.shape,
                experts.held().len(),
                experts.count()
            )));
        }
        let spread = Spread {
            ranks,
            each: experts.held().len(),
            share: ranks / ep,
        };
        let counts = self.scratch(DType::U32, &[1, ranks])?;
        let places = self.scratch(DType::U32, &[ranks, own])?;
        let bindings = [ids, &counts, &places].map(|t| Some(t.clone()));
        let params = exchange_order::params(own, k, spread);
        self.push(&exchange_order::KERNEL, params, bindings.into())?;
        let counts = self.all_gather(&counts, 0, vec![1; ranks])?;

        let room = lens.into_iter().max().unwrap_or_default();
        let shape = [ranks, room, exchange_pack::width(channels, k)];
        let sent = self.scratch(DType::U32, &shape)?;
        let bindings = [x, ids, probs, &places, &sent].map(|t| Some(t.clone()));
        let params = exchange_pack::params(ranks, [own, channels, k], room);
        self.push(&exchange_pack::KERNEL, params, bindings.into())?;
        let came = self.all_to_all_counted(&sent, &counts, false)?;

        let rows = ranks * room;
        let x = self.scratch(DType::F32, &[rows, channels])?;
        let ids = self.scratch(DType::U32, &[rows, k])?;
        let came_probs = self.scratch(DType::F32, &[rows, k])?;
        let bindings = [&came, &counts, &x, &ids, &came_probs].map(|t| Some(t.clone()));
        let params = exchange_unpack::params(ranks, room, channels, k, me);
        self.push(&exchange_unpack::KERNEL, params, bindings.into())?;
        Ok(Exchange {
            x,
            ids,
            probs: came_probs,
            counts,
            places,
            own_probs: probs.clone(),
            room,
        })
    }

    /// What the ranks made of this rank's tokens, summed in their order: `y` `(P, O)` is what this one made of those that
    /// came. To the sum `(t, O)` are added the optional residual `(t, O)`, and what a shared expert gave `(t, O)`, times
    /// the sigmoid of its gate `(t,)` if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn return_tokens(
        &mut self,
        y: &Tensor,
        exchange: &Exchange,
        [residual, shared, gate]: [Option<&Tensor>; 3],
    ) -> Result<Tensor> {
        let ranks = self.placement().tp.len();
        let (own, k, channels) = (exchange.own_probs.rows(), exchange.probs.cols(), y.cols());
        let wrong = |t: Option<&Tensor>, len| t.is_some_and(|t| t.len() != len);
        if y.rows() != ranks * exchange.room
            || wrong(residual, own * channels)
            || wrong(shared, own * channels)
            || wrong(gate, own)
        {
            return Err(Error::Invalid(format!(
                "experts: y {:?} of {} rows of each of {ranks} ranks, and what is added is not ({own}, {channels})",
                y.shape, exchange.room
            )));
        }
        let rows = y.reshaped(&[ranks, exchange.room, channels]);
        let back = self.all_to_all_counted(&rows, &exchange.counts, true)?;
        let sum = self.scratch(DType::F32, &[own, channels])?;
        let params = exchange_combine::params(ranks, [own, channels, k], exchange.room)
            .switch("RESIDUAL", residual.is_some())
            .switch("SHARED", shared.is_some())
            .switch("GATE", gate.is_some());
        let given = [
            Some(&back),
            Some(&exchange.places),
            Some(&exchange.own_probs),
        ];
        let given = given
            .into_iter()
            .chain([residual, shared, gate, Some(&sum)]);
        let bindings = given.map(|t| t.cloned()).collect();
        self.push(&exchange_combine::KERNEL, params, bindings)?;
        Ok(sum)
    }

    fn all_to_all_counted(&mut self, x: &Tensor, counts: &Tensor, back: bool) -> Result<Tensor> {
        let y = self.scratch(x.dtype, &x.shape)?;
        self.communicate(Collective {
            kind: CollectiveKind::AllToAllCounted { back },
            group: Rc::clone(&self.placement().tp),
            input: Some(x.clone()),
            output: Some(y.clone()),
            counts: Some(counts.clone()),
        })?;
        Ok(y)
    }
}
