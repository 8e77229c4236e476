//! Which token comes next, of the logits that are on the devices.

use super::ranks::Ranks;
use super::{GenerateOptions, MOST_TOP_K, Session};
use crate::constraint::Matcher;
use crate::kernels::token_bitmask;
use crate::sampler::{Sampler, candidates};
use crate::{Error, Result};

/// How likely a token was.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Natural logarithm of the probability that the model gave the token that was chosen: before penalties,
    /// constraints and temperature.
    pub logprob: f32,
    /// The most likely tokens and their logarithms, in falling order.
    pub top: Vec<(u32, f32)>,
}

impl Logprobs {
    /// Of token `id` and the `most` likely ones, by log-softmax.
    fn of(logits: &[f32], id: u32, most: usize) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = (logits.iter()).map(|l| f64::from(l - largest).exp()).sum();
        let log = |logit: f32| (f64::from(logit - largest) - sum.ln()) as f32;
        let mut all = match most {
            0 => Vec::new(),
            _ => candidates(logits),
        };
        all.truncate(most);
        Logprobs {
            logprob: logits.get(id as usize).map_or(f32::NAN, |l| log(*l)),
            top: all.iter().map(|c| (c.id, log(c.logit))).collect(),
        }
    }
}

/// How an answer's tokens are chosen, and how far that is.
pub(super) struct Chooser {
    sampler: Sampler,
    matcher: Option<Box<dyn Matcher>>,
    /// Of the token that was chosen last.
    pub(super) logprobs: Option<Logprobs>,
    /// It is the likeliest one, which the device finds alone.
    pub(super) on_device: bool,
}

impl Chooser {
    pub(super) fn new(options: &GenerateOptions) -> Result<Self> {
        let sampling = &options.sampling;
        let plain = options.constraint.is_none() && options.logprobs.is_none();
        Ok(Chooser {
            sampler: Sampler::new(sampling.clone()),
            matcher: (options.constraint.as_ref())
                .map(|constraint| constraint.start())
                .transpose()?,
            logprobs: None,
            on_device: plain && sampling.is_greedy() && sampling.repeat_penalty == 1.0,
        })
    }

    /// Token `id` has been said. Gives whether nothing can come after it.
    pub(super) fn accept(&mut self, id: u32) -> Result<bool> {
        self.matcher
            .as_mut()
            .map_or(Ok(false), |matcher| matcher.accept(id))
    }
}

impl Session {
    /// The largest logit's token, found on the device.
    pub(super) async fn pick_greedy(&mut self) -> Result<u32> {
        self.ranks.argmax().await?;
        self.read_next().await
    }

    pub(super) async fn read_next(&self) -> Result<u32> {
        let id = self.ranks.read_next().await?;
        id.ok_or_else(|| {
            Error::Numeric(format!(
                "the model gave logits that are not numbers at position {}; try another device \
                 or an f32 cache",
                self.past.len()
            ))
        })
    }
}

impl Ranks {
    /// A token after `past`, of the last token's logits: penalty, constraint and top-k on the device, the rest here.
    pub(super) async fn pick(
        &mut self,
        chooser: &mut Chooser,
        options: &GenerateOptions,
        past: &[u32],
    ) -> Result<u32> {
        let sampling = &options.sampling;
        let vocab = self.config().vocab_size;
        let raw = match options.logprobs {
            Some(_) => self.logits().await?,
            None => Vec::new(),
        };
        if sampling.repeat_penalty != 1.0 && sampling.repeat_last_n > 0 {
            let from = past.len().saturating_sub(sampling.repeat_last_n);
            let mut ids = past[from..].to_vec();
            ids.sort_unstable();
            ids.dedup();
            self.penalise(&ids, sampling.repeat_penalty).await?;
        }
        if let Some(matcher) = &mut chooser.matcher {
            let mut mask = vec![0; token_bitmask::words(vocab)];
            matcher.mask(&mut mask)?;
            if mask.iter().all(|word| *word == 0) {
                return Err(Error::Invalid(
                    "no token of the model can continue an answer of this form".into(),
                ));
            }
            self.allow(&mask).await?;
        }
        let k = match sampling.top_k {
            _ if sampling.is_greedy() => 1,
            0 => vocab,
            k => k.min(vocab),
        };
        let mut found = if k <= MOST_TOP_K {
            self.top_k(k).await?
        } else {
            candidates(&self.logits().await?)
        };
        let id = chooser.sampler.choose(&mut found)?;
        chooser.logprobs = options.logprobs.map(|most| Logprobs::of(&raw, id, most));
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logprobs_are_the_log_softmax() {
        let logits = [1.0f32, 3.0, -2.0, f32::NEG_INFINITY, 3.0];
        let sum: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        let expected = |i: usize| (f64::from(logits[i]).exp() / sum).ln() as f32;
        let got = Logprobs::of(&logits, 0, 3);
        assert!((got.logprob - expected(0)).abs() < 1e-6);
        let ids: Vec<u32> = got.top.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [1, 4, 0]);
        for (id, log) in got.top {
            assert!((log - expected(id as usize)).abs() < 1e-6);
        }
        assert_eq!(Logprobs::of(&logits, 3, 0).logprob, f32::NEG_INFINITY);
    }
}
