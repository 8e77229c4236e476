//! Which token comes next, of the logits that are on the devices.

use super::recovery::Answering;
use super::{MOST_TOP_K, Session};
use crate::kernels::token_bitmask;
use crate::sampler::candidates;
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

    /// Penalty, constraint and top-k on the device, the rest here.
    pub(super) async fn pick(&mut self, answer: &mut Answering<'_>) -> Result<u32> {
        let options = answer.options;
        let sampling = &options.sampling;
        let vocab = self.config().vocab_size;
        let raw = match options.logprobs {
            Some(_) => self.ranks.logits().await?,
            None => Vec::new(),
        };
        if sampling.repeat_penalty != 1.0 && sampling.repeat_last_n > 0 {
            let from = self.past.len().saturating_sub(sampling.repeat_last_n);
            let mut ids = self.past[from..].to_vec();
            ids.sort_unstable();
            ids.dedup();
            self.ranks.penalise(&ids, sampling.repeat_penalty).await?;
        }
        if let Some(matcher) = &mut answer.matcher {
            let mut mask = vec![0; token_bitmask::words(vocab)];
            matcher.mask(&mut mask)?;
            if mask.iter().all(|word| *word == 0) {
                return Err(Error::Invalid(
                    "no token of the model can continue an answer of this form".into(),
                ));
            }
            self.ranks.allow(&mask).await?;
        }
        let k = match sampling.top_k {
            _ if sampling.is_greedy() => 1,
            0 => vocab,
            k => k.min(vocab),
        };
        let mut found = if k <= MOST_TOP_K {
            self.ranks.top_k(k).await?
        } else {
            candidates(&self.ranks.logits().await?)
        };
        let id = answer.sampler.choose(&mut found)?;
        answer.logprobs = options.logprobs.map(|most| Logprobs::of(&raw, id, most));
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
