//! Routers of mixtures of experts: which experts a token goes to, with what probability, and the
//! losses that balance them. Mixtral's, and what all share.
//!
//! A token whose logits hold a NaN is an error that names it. Numbers that a router draws have words of
//! their own in Philox's stream: token `t` of a batch whose first token is number `first_token` draws the words
//! `(first_token + t) n` to `(first_token + t) n + n - 1`, n numbers a token. They are the same on every device,
//! on every rank, and for a batch given whole or in parts.

use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::Result;
use crate::nn::{Draw, Linear, Matrix, Positions, Queue, Router, RouterLoss, RouterLosses};
use crate::tensor::Tensor;

pub(super) const X: Input = Input::new("x", "T C", "");
pub(super) const WEIGHT: Input = Input::new("weight", "E C", "the router's");
pub(super) const K: Setting = Setting::int("k", 2, "experts of a token");
pub(super) const AUX_COEFF: Setting = Setting::float("aux_coeff", 0.01, "of the balancing loss");
pub(super) const SEED: Setting = Setting::int("seed", 0, "key of the generator, Philox 4x32-10");
pub(super) const STREAM: Setting = Setting::int("stream", 0, "tells apart draws of one seed");
pub(super) const FIRST_TOKEN: Setting = Setting::int(
    "first_token",
    0,
    "number of the first token, for draws: where a part of a batch begins",
);
pub(super) const CAPACITY_FACTOR: Setting =
    Setting::maybe_float("capacity_factor", "when left out no expert is ever full");
pub(super) const CAPACITY: Setting = Setting::maybe_int(
    "capacity",
    "tokens that an expert takes; must be what the factor gives when both are set",
);
pub(super) const EXPERTS: Output = Output::new("experts", "T k", "best first");
pub(super) const PROBS: Output = Output::new("probs", "T k", "of the chosen experts");
pub(super) const LOGITS: Output = Output::new("logits", "T E", "x weight^T");
pub(super) const AUX: Output = Output::new("aux", "1", "balancing loss");
pub(super) const ASSIGNED: Output = Output::new("assigned", "E", "choices of each expert");
pub(super) const DROPPED: Output = Output::new("dropped", "E", "those for which it had no room");
pub(super) const ROOM: Output = Output::new(
    "capacity",
    "1",
    "tokens that an expert has room for; T where none is ever full",
);
pub(super) const MEAN_PROB: Output =
    Output::new("mean_prob", "E", "mean probability of each expert");
pub(super) const D_WEIGHT_AUX: Output = Output::new("d_weight_aux", "E C", "of aux");

pub static OPS: &[Op] = &[
    Op {
        name: "mixtral_router",
        kinds: &[],
        systems: &["Mixtral"],
        summary: "softmax over all experts, the k best, divided by their sum (arXiv:2401.04088); \
                  aux = c E sum(n/T p), n choices and p mean probability of each expert",
        inputs: &[X, WEIGHT],
        settings: MIXTRAL_SETTINGS,
        outputs: &[LOGITS, EXPERTS, PROBS, AUX, ASSIGNED, MEAN_PROB],
        bound: 1e-10,
        record: |c| {
            Box::pin(async move {
                let routed = mixtral(c).await?;
                routed.outputs(c);
                let losses = routed.losses(c)?;
                routed.statistics(c, &losses).await
            })
        },
        examples: mixtral_examples,
    },
    Op {
        name: "mixtral_router_backward",
        kinds: &[],
        systems: &["Mixtral"],
        summary: "gradient of mixtral_router's loss by the weight",
        inputs: &[X, WEIGHT],
        settings: MIXTRAL_SETTINGS,
        outputs: &[D_WEIGHT_AUX],
        bound: 1e-9,
        record: |c| {
            Box::pin(async move {
                let routed = mixtral(c).await?;
                routed.backward(c, "d_weight_aux", routed.loss)
            })
        },
        examples: mixtral_examples,
    },
];

const MIXTRAL_SETTINGS: &[Setting] = &[
    K,
    Setting::float(
        "aux_coeff",
        1.0,
        "of the balancing loss, which is k when all is even",
    ),
];

fn mixtral_examples() -> Vec<Example> {
    vec![
        example(23, 8, 32),
        example(3, 5, 7).set("k", "4").set("aux_coeff", "0.02"),
    ]
}

/// Inputs of these sizes; small ones, so that no softmax is nearly one-hot.
pub(super) fn example(tokens: usize, experts: usize, channels: usize) -> Example {
    let small = |seed, rows: usize, scale: f32| {
        let values = crate::kernels::case::random(seed, rows * channels);
        let values: Vec<f32> = values.iter().map(|x| scale * x.clamp(-2.5, 2.5)).collect();
        Array::f32(&[rows, channels], &values)
    };
    Example::new()
        .input("x", small(7, tokens, 1.0))
        .input("weight", small(8, experts, 0.25))
}

/// Tokens and where they go.
pub(super) struct Routed {
    pub x: Tensor,
    pub logits: Tensor,
    pub experts: Tensor,
    pub probs: Tensor,
    pub positions: Positions,
    pub loss: RouterLoss,
}

/// x `(T, C)` and router logits `(T, E)`, x first changed by `jitter` where there is one.
pub(super) async fn logits(
    c: &mut Call<'_>,
    jitter: Option<(f32, Draw)>,
) -> Result<(Tensor, Tensor)> {
    let mut x = c.tensor("x").await?;
    if let Some((eps, draw)) = jitter {
        x = c.r.jitter(&x, eps, draw)?;
    }
    let linear = Linear::new(c.weight("weight").await?);
    let logits = c.r.linear(&x, &linear)?;
    Ok((x, logits))
}

/// The words of a call that draws `each` numbers for each token.
pub(super) fn draw(c: &Call<'_>, each: usize) -> Result<Draw> {
    let [first, stream] = ["first_token", "stream"].map(|s| c.settings.size(s));
    let first = first?.checked_mul(each).and_then(|f| u32::try_from(f).ok());
    let first = first.ok_or_else(|| {
        let first = c.settings.int("first_token");
        c.error(format_args!(
            "first_token {first} with {each} numbers a token needs over 2^32 random words; use another stream"
        ))
    })?;
    Ok(Draw {
        first,
        ..Draw::new(c.settings.int("seed") as u64, stream? as u32)
    })
}

/// The capacity that was set, or `computed`; they must agree when there are both.
pub(super) fn capacity(c: &Call<'_>, computed: Option<f64>) -> Result<u32> {
    let set = c.settings.maybe_int("capacity");
    let word = |v: f64| (0.0..=f64::from(u32::MAX)).contains(&v).then_some(v as u32);
    match (set.map(|s| s as f64), computed) {
        (Some(set), Some(computed)) if set != computed => Err(c.error(format_args!(
            "capacity {set}, but the factor gives {computed}; leave one of them out"
        ))),
        (None, None) => Ok(u32::MAX),
        (Some(v), _) | (None, Some(v)) => {
            word(v).ok_or_else(|| c.error(format_args!("capacity {v}, expected 0 to {}", u32::MAX)))
        }
    }
}

/// Coefficient of the balancing loss: `coeff` when tokens are spread evenly over `choices` experts each.
pub(super) fn balance(c: &Call<'_>, tokens: usize, count: usize, choices: usize) -> f32 {
    let coeff = c.settings.float("aux_coeff");
    (coeff * count as f64 / (choices as f64 * (tokens as f64).powi(2))) as f32
}

async fn mixtral(c: &mut Call<'_>) -> Result<Routed> {
    let router = Router {
        k: c.settings.size("k")?,
        ..Router::default()
    };
    let (x, logits) = logits(c, None).await?;
    let (experts, probs) = c.r.route(&logits, None, &router).map_err(|e| c.error(e))?;
    let count = logits.cols();
    let queue = Queue {
        capacity: u32::MAX,
        ..Queue::default()
    };
    Ok(Routed {
        positions: c.r.expert_positions(&experts, count, &queue)?,
        loss: RouterLoss {
            aux: balance(c, logits.rows(), count, 1),
            z: 0.0,
            sigmoid: false,
        },
        x,
        logits,
        experts,
        probs,
    })
}

impl Routed {
    /// E.
    pub fn count(&self) -> usize {
        self.logits.cols()
    }

    /// Gives logits, experts and probs.
    pub fn outputs(&self, c: &mut Call<'_>) {
        c.output("logits", &self.logits, &self.logits.shape);
        c.output("experts", &self.experts, &self.experts.shape);
        c.output("probs", &self.probs, &self.probs.shape);
        c.check("experts", not_a_number);
    }

    pub fn losses(&self, c: &mut Call<'_>) -> Result<RouterLosses> {
        c.r.router_loss(&self.logits, &self.positions.assigned, &self.loss)
    }

    /// Gives aux, assigned and mean_prob.
    pub async fn statistics(&self, c: &mut Call<'_>, losses: &RouterLosses) -> Result<()> {
        let (tokens, count) = (self.logits.rows(), self.count());
        let ones = c.floats("ones", &[1, tokens], &vec![1.0; tokens]).await?;
        let (ones, probs) = (Matrix::of(&ones), Matrix::of(&losses.probs));
        let mean = c.r.gemm(1.0 / tokens as f32, &ones, &probs, None)?;
        c.output("mean_prob", &mean, &[count]);
        c.output("assigned", &self.positions.assigned, &[count]);
        c.output("aux", &losses.aux, &[1]);
        Ok(())
    }

    /// Gives the capacity.
    pub fn room(&self, c: &mut Call<'_>, capacity: u32) {
        // No token goes to an expert twice.
        let room = (capacity as usize).min(self.logits.rows());
        c.output_array("capacity", Array::f32(&[1], &[room as f32]));
    }

    /// Gives the gradient of a loss by the weight.
    pub fn backward(&self, c: &mut Call<'_>, name: &'static str, loss: RouterLoss) -> Result<()> {
        let assigned = &self.positions.assigned;
        let d_logits = c.r.router_loss_backward(&self.logits, assigned, &loss)?;
        let d_weight = c.r.router_weight_backward(&d_logits, &self.x)?;
        c.output(name, &d_weight, &d_weight.shape);
        Ok(())
    }
}

/// Names the first token whose logits hold a NaN.
pub(super) fn not_a_number(experts: &Array) -> Option<String> {
    let k = experts.len() / experts.shape[0];
    let experts = experts.to_i64()?;
    let token = experts.iter().position(|e| *e < 0)? / k;
    Some(format!(
        "the router logits of token {token} hold a NaN or infinity; look at x and the weight there"
    ))
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::super::{find, run};
    use super::*;
    use crate::device::cpu::CpuDevice;

    #[test]
    fn a_token_with_a_nan_is_named_by_every_router() {
        for (name, seed) in [
            ("mixtral_router", 0),
            ("megatron_router", 0),
            ("expert_capacity", 0),
            ("switch_router", 0),
            ("gshard_router", 0),
            ("noisy_top_k_router", 1),
        ] {
            let example = match seed {
                0 => example(4, 5, 7),
                _ => example(4, 5, 7).random("noise_weight", &[5, 7]),
            };
            let (mut inputs, settings) = example.call();
            let mut x = inputs["x"].to_f32();
            x[2 * 7 + 3] = f32::NAN;
            inputs.insert("x".into(), Array::f32(&[4, 7], &x));
            let told = block_on(run(
                &CpuDevice::new(),
                find(name).unwrap(),
                inputs,
                &settings,
            ));
            assert_eq!(
                told.unwrap_err().to_string(),
                format!(
                    "{name}: the router logits of token 2 hold a NaN or infinity; look at x and the weight there"
                )
            );
        }
    }

    #[test]
    fn a_capacity_that_is_not_the_factors_is_told() {
        let (inputs, mut settings) = example(23, 8, 32).call();
        settings.insert("capacity".into(), "7".into());
        settings.insert("capacity_factor".into(), "1.0".into());
        let op = find("expert_capacity").unwrap();
        let told = block_on(run(&CpuDevice::new(), op, inputs, &settings)).unwrap_err();
        assert_eq!(
            told.to_string(),
            "expert_capacity: capacity 7, but the factor gives 6; leave one of them out"
        );
    }
}
