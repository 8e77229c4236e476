//! One vector for a text, to be compared with those of others.

use std::str::FromStr;

use super::Session;
use crate::{Error, Result};

/// Which of the tokens' vectors become the text's (Sentence-BERT, arXiv:1908.10084, section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all.
    #[default]
    Mean,
    /// The first one's, `[CLS]` in BERT. A causal model's says nothing of the rest.
    Cls,
    /// The last one's, which in a causal model has seen all.
    Last,
}

impl FromStr for Pooling {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "mean" => Ok(Pooling::Mean),
            "cls" => Ok(Pooling::Cls),
            "last" => Ok(Pooling::Last),
            _ => Err(Error::Unsupported {
                what: format!("pooling {text:?}"),
                supported: "mean, cls, last".into(),
            }),
        }
    }
}

impl Session {
    /// A vector `(C,)` for `tokens`: their hidden states behind the last norm, pooled, and with `normalize` scaled to
    /// length 1. Forgets the conversation.
    ///
    /// # Errors
    ///
    /// As [`Session::generate`].
    pub async fn embed(
        &mut self,
        tokens: &[u32],
        pooling: Pooling,
        normalize: bool,
    ) -> Result<Vec<f32>> {
        self.check_prompt(tokens)?;
        self.recovering(async |session: &mut Session| {
            let channels = session.config().hidden_size;
            let mut sum = vec![0.0_f64; channels];
            let mut done = 0;
            for chunk in tokens.chunks(session.ranks.chunk()) {
                let rows = session.ranks.hidden(chunk, done).await?;
                for (i, row) in (done..).zip(rows.chunks_exact(channels)) {
                    let counts = match pooling {
                        Pooling::Mean => true,
                        Pooling::Cls => i == 0,
                        Pooling::Last => i + 1 == tokens.len(),
                    };
                    if counts {
                        let pairs = sum.iter_mut().zip(row);
                        pairs.for_each(|(sum, x)| *sum += f64::from(*x));
                    }
                }
                done += chunk.len();
            }
            let scale = match (normalize, pooling) {
                (true, _) => sum.iter().map(|x| x * x).sum::<f64>().sqrt(),
                (false, Pooling::Mean) => tokens.len() as f64,
                (false, _) => 1.0,
            };
            if !scale.is_finite() {
                return Err(Error::Numeric("the hidden states are not numbers".into()));
            }
            // Of nothing but zeros there is no direction.
            let scale = if scale > 0.0 { scale } else { 1.0 };
            Ok(sum.iter().map(|x| (x / scale) as f32).collect())
        })
        .await
    }
}
