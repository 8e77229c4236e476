//! From logits to a token.
//!
//! Order as in llama.cpp: repeat penalty, top-k, top-p, min-p, temperature, draw. Penalty and
//! top-k run on the device; this is what happens to the few candidates that are left.

use crate::{Error, Result};

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides logits; 0 means greedy.
    pub temperature: f32,
    /// Candidates kept; 0 means all.
    pub top_k: usize,
    /// Least total probability of the kept candidates; 1 means all.
    pub top_p: f32,
    /// Least probability relative to the most likely candidate; 0 means all.
    pub min_p: f32,
    /// Penalty on tokens seen lately; 1 means none.
    pub repeat_penalty: f32,
    /// How many of the last tokens are penalised.
    pub repeat_last_n: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy; the other fields hold llama.cpp's defaults for when a temperature is set.
    fn default() -> Self {
        Sampling {
            temperature: 0.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Always the most likely token?
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == 1
    }

    /// Refuses values that mean nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] naming the field, its value and its range.
    pub fn check(&self) -> Result<()> {
        let ranges = [
            ("temperature", self.temperature, 0.0, 100.0),
            ("top_p", self.top_p, 0.0, 1.0),
            ("min_p", self.min_p, 0.0, 1.0),
            ("repeat_penalty", self.repeat_penalty, 0.01, 100.0),
        ];
        for (name, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return Err(Error::Invalid(format!(
                    "{name} is {value}, expected {low} to {high}"
                )));
            }
        }
        Ok(())
    }
}

/// A token that could come next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Token.
    pub id: u32,
    /// Its logit.
    pub logit: f32,
}

/// Draws tokens: the same seed and logits give the same tokens everywhere.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    state: u64,
}

impl Sampler {
    /// A sampler at the start of its seed's draws.
    pub fn new(sampling: Sampling) -> Self {
        let state = sampling.seed;
        Sampler { sampling, state }
    }

    /// Chooses among `candidates`, which are sorted by falling logit.
    ///
    /// # Errors
    ///
    /// [`Error::Numeric`] when a logit is NaN or none is finite.
    pub fn choose(&mut self, candidates: &mut Vec<Candidate>) -> Result<u32> {
        let bad = candidates.iter().any(|c| c.logit.is_nan());
        let Some(best) = candidates.first().filter(|c| c.logit.is_finite() && !bad) else {
            return Err(Error::Numeric(
                "the model gave logits that are not numbers; try another device or an f32 cache"
                    .into(),
            ));
        };
        let (best_id, top) = (best.id, f64::from(best.logit));
        // What a constraint forbids is never drawn, not even by rounding.
        let possible = candidates.iter().position(|c| c.logit == f32::NEG_INFINITY);
        candidates.truncate(possible.unwrap_or(candidates.len()));
        let s = &self.sampling;
        if s.is_greedy() {
            return Ok(best_id);
        }
        if s.top_k > 0 {
            candidates.truncate(s.top_k);
        }
        let weight = |c: &Candidate| (f64::from(c.logit) - top).exp();
        if s.top_p < 1.0 {
            let total: f64 = candidates.iter().map(weight).sum();
            let mut sum = 0.0;
            let enough = candidates.iter().position(|c| {
                sum += weight(c);
                sum >= f64::from(s.top_p) * total
            });
            candidates.truncate(enough.map_or(candidates.len(), |i| i + 1));
        }
        if s.min_p > 0.0 {
            let kept = candidates
                .iter()
                .take_while(|c| weight(c) >= f64::from(s.min_p));
            let kept = kept.count().max(1);
            candidates.truncate(kept);
        }
        let temperature = f64::from(s.temperature);
        let weight = |c: &Candidate| ((f64::from(c.logit) - top) / temperature).exp();
        let total: f64 = candidates.iter().map(weight).sum();
        let mut left = self.draw() * total;
        for c in candidates.iter() {
            left -= weight(c);
            if left < 0.0 {
                return Ok(c.id);
            }
        }
        Ok(candidates.last().map_or(best_id, |c| c.id))
    }

    /// Uniform in `[0, 1)`; splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
    fn draw(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// All tokens of a vocabulary, sorted by falling logit, ties by smaller id; for sampling without
/// top-k.
pub fn candidates(logits: &[f32]) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = (logits.iter().zip(0..))
        .map(|(&logit, id)| Candidate { id, logit })
        .collect();
    sort(&mut all);
    all
}

/// Sorts by falling logit, ties by smaller id.
pub fn sort(candidates: &mut [Candidate]) {
    candidates.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling() -> Sampling {
        Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            ..Sampling::default()
        }
    }

    fn frequencies(sampling: Sampling, logits: &[f32], draws: usize) -> Vec<f64> {
        let mut sampler = Sampler::new(sampling);
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..draws {
            let id = sampler.choose(&mut candidates(logits)).unwrap();
            counts[id as usize] += 1.0 / draws as f64;
        }
        counts
    }

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [0.0f32, 1.0, 2.0, -1.0];
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        let got = frequencies(sampling(), &logits, 40_000);
        for (got, logit) in got.iter().zip(logits) {
            // Four standard deviations of 40,000 draws are at most 0.01.
            assert!((got - f64::from(logit).exp() / total).abs() < 0.01, "{got}");
        }
    }

    #[test]
    fn filters_keep_what_they_name() {
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.15f32.ln(), 0.05f32.ln()];
        let kept = |s: Sampling| {
            let got = frequencies(s, &logits, 2000);
            got.iter().filter(|f| **f > 0.0).count()
        };
        assert_eq!(kept(sampling()), 4);
        assert_eq!(
            kept(Sampling {
                top_k: 2,
                ..sampling()
            }),
            2
        );
        assert_eq!(
            kept(Sampling {
                top_p: 0.75,
                ..sampling()
            }),
            2
        );
        assert_eq!(
            kept(Sampling {
                min_p: 0.2,
                ..sampling()
            }),
            3
        );
        assert_eq!(
            kept(Sampling {
                min_p: 1.0,
                ..sampling()
            }),
            1
        );
        assert_eq!(
            kept(Sampling {
                temperature: 0.0,
                ..sampling()
            }),
            1
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens() {
        let logits = [0.1f32, 0.2, 0.3, 0.4];
        let run = |seed| {
            let mut sampler = Sampler::new(Sampling { seed, ..sampling() });
            let draw = |_| sampler.choose(&mut candidates(&logits)).unwrap();
            (0..32).map(draw).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn not_a_number_is_an_error() {
        let mut sampler = Sampler::new(sampling());
        for logits in [[f32::NAN, 1.0], [1.0, f32::NAN], [f32::NEG_INFINITY; 2]] {
            let e = sampler.choose(&mut candidates(&logits));
            assert!(matches!(e, Err(Error::Numeric(_))), "{logits:?}");
        }
    }

    #[test]
    fn absurd_values_are_refused_by_name() {
        let e = Sampling {
            top_p: f32::NAN,
            ..sampling()
        }
        .check()
        .unwrap_err();
        assert_eq!(e.to_string(), "top_p is NaN, expected 0 to 1");
    }
}
