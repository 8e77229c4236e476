//! How likely a text is to the model.

use super::{LOGIT_ROWS, Session};
use crate::{Error, Result};

impl Session {
    /// Natural logarithms of the probabilities that the model gives to the tokens `first ..`, each after all those before
    /// it. Forgets the conversation.
    ///
    /// # Errors
    ///
    /// As [`Session::generate`]; [`Error::Invalid`] when `first` is 0, which nothing comes before, or beyond the last token.
    pub async fn log_likelihoods(&mut self, tokens: &[u32], first: usize) -> Result<Vec<f32>> {
        self.check_prompt(tokens)?;
        if first == 0 || first >= tokens.len() {
            return Err(Error::Invalid(format!(
                "likelihoods from token {first} on, of {}: expected 1 or more, and less than that",
                tokens.len()
            )));
        }
        self.recovering(async |session: &mut Session| {
            session.try_log_likelihoods(tokens, first).await
        })
        .await
    }

    async fn try_log_likelihoods(&mut self, tokens: &[u32], first: usize) -> Result<Vec<f32>> {
        let vocab = self.config().vocab_size;
        // The last token says nothing of those here; the one before `first` is where they begin.
        let (before, rest) = tokens[..tokens.len() - 1].split_at(first - 1);
        for chunk in before.chunks(self.ranks.chunk()) {
            self.ranks.prefill(chunk, self.past.len(), false).await?;
            self.past.extend_from_slice(chunk);
        }
        let mut found = Vec::with_capacity(rest.len());
        for chunk in rest.chunks(LOGIT_ROWS.min(self.ranks.chunk())) {
            let place = self.past.len();
            let logits = self.ranks.all_logits(chunk, place).await?;
            self.past.extend_from_slice(chunk);
            for (row, next) in logits.chunks_exact(vocab).zip(&tokens[place + 1..]) {
                let log = log_softmax(row, *next as usize);
                if !log.is_finite() {
                    return Err(Error::Numeric(format!(
                        "the logits before token {} are not numbers; try another device or an f32 cache",
                        place + 1 + found.len()
                    )));
                }
                found.push(log as f32);
            }
        }
        Ok(found)
    }
}

/// The logarithm of one of the probabilities.
fn log_softmax(logits: &[f32], which: usize) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = (logits.iter()).map(|l| f64::from(l - largest).exp()).sum();
    f64::from(logits[which] - largest) - sum.ln()
}
