//! Routers with experts of limited capacity and training tricks of their own: Switch and GShard.

use super::router::{
    ASSIGNED, AUX, AUX_COEFF, CAPACITY, CAPACITY_FACTOR, D_WEIGHT_AUX, DROPPED, FIRST_TOKEN,
    MEAN_PROB, ROOM, Routed, SEED, STREAM, WEIGHT, X, balance, capacity, draw, example, logits,
    not_a_number,
};
use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::Result;
use crate::nn::{Distribution, Queue, Router, RouterLoss, Score, Second, TwoExperts};

const TRAINING: Setting = Setting::flag("training", false, "");

const SWITCH_SETTINGS: &[Setting] = &[
    CAPACITY_FACTOR,
    CAPACITY,
    AUX_COEFF,
    TRAINING,
    Setting::float(
        "jitter",
        0.01,
        "in training x is multiplied by 1 - jitter to 1 + jitter",
    ),
    SEED,
    STREAM,
    FIRST_TOKEN,
];

/// What recorded files call the queue of [`KEPT_FIRST`].
const RECORDED: &str = "second choices of an expert queue after its kept first choices; \
                        position2 has no meaning where second is 0";
const KEPT_FIRST: &str = "kept";

const GSHARD_SETTINGS: &[Setting] = &[
    Setting::maybe_float(
        "capacity_factor",
        "when left out 1.25 in training, otherwise 2",
    ),
    CAPACITY,
    AUX_COEFF,
    TRAINING,
    Setting::choice(
        "second",
        "random",
        &["random", "all", "none", "threshold"],
        "tokens that go to their second expert; random: with probability min(1, gate2 / threshold)",
    ),
    Setting::float(
        "threshold",
        0.2,
        "of gate2, for the policies random and threshold",
    ),
    Setting::choice(
        "queue",
        KEPT_FIRST,
        &[KEPT_FIRST, "all", RECORDED],
        "which first choices stand before an expert's second choices; recorded files say kept in full",
    ),
    SEED,
    STREAM,
    FIRST_TOKEN,
];
const U: Input = Input::optional(
    "u",
    "T",
    "uniform numbers, for second = random; drawn when left out",
);

pub static OPS: &[Op] = &[
    Op {
        name: "switch_router",
        kinds: &[],
        systems: &["Switch top-1"],
        summary: "the best expert, weighed by its softmax probability; capacity floor(T factor / E), by the order \
                  of tokens (arXiv:2101.03961); aux = c E sum(n/T p)",
        inputs: &[X, WEIGHT],
        settings: SWITCH_SETTINGS,
        outputs: &[
            Output::new("experts", "T", ""),
            Output::new("probs", "T", "softmax over all experts"),
            Output::new("position", "T", "place in the expert's queue"),
            Output::new(
                "kept",
                "T",
                "1 where the expert has room; other tokens pass by",
            ),
            AUX,
            ASSIGNED,
            DROPPED,
            MEAN_PROB,
            ROOM,
        ],
        bound: 1e-10,
        record: |c| {
            Box::pin(async move {
                let (routed, capacity) = switch(c).await?;
                routed.room(c, capacity);
                let tokens = [routed.logits.rows()];
                c.output("experts", &routed.experts, &tokens);
                c.output("probs", &routed.probs, &tokens);
                c.output("position", &routed.positions.positions, &tokens);
                c.output("kept", &routed.positions.kept, &tokens);
                c.output("dropped", &routed.positions.dropped, &[routed.count()]);
                c.check("experts", not_a_number);
                let losses = routed.losses(c)?;
                routed.statistics(c, &losses).await
            })
        },
        examples: switch_examples,
    },
    Op {
        name: "switch_router_backward",
        kinds: &[],
        systems: &["Switch top-1"],
        summary: "gradient of switch_router's loss by the weight",
        inputs: &[X, WEIGHT],
        settings: SWITCH_SETTINGS,
        outputs: &[D_WEIGHT_AUX],
        bound: 1e-9,
        record: |c| {
            Box::pin(async move {
                let (routed, _) = switch(c).await?;
                routed.backward(c, "d_weight_aux", routed.loss)
            })
        },
        examples: switch_examples,
    },
    Op {
        name: "gshard_router",
        kinds: &[],
        systems: &["GShard top-2"],
        summary: "the two best of softmax, divided by their sum; capacity max(min(T, floor(T factor / E)), 4), first \
                  choices first (arXiv:2006.16668, algorithm 1); aux = c E sum(n/T p), n first choices",
        inputs: &[X, WEIGHT, U],
        settings: GSHARD_SETTINGS,
        outputs: &[
            Output::new("expert1", "T", "the best"),
            Output::new("expert2", "T", "the second best"),
            Output::new("gate1", "T", ""),
            Output::new("gate2", "T", ""),
            Output::new("second", "T", "1 where the token goes to its second expert"),
            Output::new("position1", "T", "place in the expert's queue"),
            Output::new(
                "position2",
                "T",
                "the same; of no meaning where second is 0",
            ),
            Output::new("kept1", "T", "1 where the expert has room"),
            Output::new("kept2", "T", ""),
            AUX,
            Output::new("assigned", "E", "first choices of each expert"),
            DROPPED,
            Output::new("assigned2", "E", "second choices of each expert"),
            Output::new("dropped2", "E", "those for which it had no room"),
            MEAN_PROB,
            ROOM,
        ],
        bound: 1e-10,
        record: |c| Box::pin(gshard_outputs(c)),
        examples: gshard_examples,
    },
    Op {
        name: "gshard_router_backward",
        kinds: &[],
        systems: &["GShard top-2"],
        summary: "gradient of gshard_router's loss by the weight",
        inputs: &[X, WEIGHT, U],
        settings: GSHARD_SETTINGS,
        outputs: &[D_WEIGHT_AUX],
        bound: 1e-9,
        record: |c| {
            Box::pin(async move {
                let (routed, _, _) = gshard(c).await?;
                routed.backward(c, "d_weight_aux", routed.loss)
            })
        },
        examples: gshard_examples,
    },
];

fn switch_examples() -> Vec<Example> {
    vec![
        example(23, 8, 32)
            .set("capacity_factor", "1.25")
            .set("aux_coeff", "0.5"),
        example(7, 3, 6)
            .set("training", "true")
            .set("jitter", "0.25")
            .set("seed", "3")
            .set("stream", "1")
            .set("first_token", "5")
            .set("capacity", "2"),
    ]
}

fn gshard_examples() -> Vec<Example> {
    let u: Vec<f32> = (0..23).map(|i| (i as f32 * 0.37) % 1.0).collect();
    vec![
        example(23, 8, 32)
            .input("u", Array::f32(&[23], &u))
            .set("training", "true"),
        example(23, 8, 32)
            .set("seed", "3")
            .set("stream", "1")
            .set("first_token", "5"),
        example(9, 4, 5)
            .set("second", "all")
            .set("capacity", "2")
            .set("queue", "all"),
        example(9, 4, 5)
            .set("second", "none")
            .set("capacity_factor", "1")
            .set("aux_coeff", "0.5"),
        example(9, 4, 5)
            .set("second", "threshold")
            .set("threshold", "0.3"),
    ]
}

/// Where tokens go, and the capacity.
async fn switch(c: &mut Call<'_>) -> Result<(Routed, u32)> {
    let eps = c.settings.float("jitter") as f32;
    let jitter = match c.settings.flag("training") {
        true => Some((eps, draw(c, c.axis("C"))?)),
        false => None,
    };
    let (x, logits) = logits(c, jitter).await?;
    let router = Router {
        score: Score::Softmax,
        k: 1,
        normalize: false,
        ..Router::default()
    };
    let (experts, probs) = c.r.route(&logits, None, &router).map_err(|e| c.error(e))?;
    let (tokens, count) = (logits.rows(), logits.cols());
    let factor = c.settings.maybe_float("capacity_factor");
    let even = |factor: f64| (tokens as f64 * factor / count as f64).floor();
    let queue = Queue {
        capacity: capacity(c, factor.map(even))?,
        ..Queue::default()
    };
    let routed = Routed {
        positions: c.r.expert_positions(&experts, count, &queue)?,
        loss: RouterLoss {
            aux: balance(c, tokens, count, 1),
            z: 0.0,
            sigmoid: false,
        },
        x,
        logits,
        experts,
        probs,
    };
    Ok((routed, queue.capacity))
}

/// First choices, both choices, and the capacity.
async fn gshard(c: &mut Call<'_>) -> Result<(Routed, TwoExperts, u32)> {
    let (x, logits) = logits(c, None).await?;
    let both = c.r.route(&logits, None, &Router::default());
    let (experts, probs) = both.map_err(|e| c.error(e))?;
    let (tokens, count) = (logits.rows(), logits.cols());
    let second = match c.settings.choice("second") {
        "all" => Second::All,
        "none" => Second::None,
        "threshold" => Second::Threshold,
        _ => Second::Random,
    };
    let u = match c.optional("u").await? {
        None if second == Second::Random => {
            let all = Distribution::Uniform {
                low: 0.0,
                high: 1.0,
            };
            Some(c.r.random(&[tokens], draw(c, 1)?, all)?)
        }
        u => u,
    };
    let threshold = c.settings.float("threshold") as f32;
    let two =
        c.r.second_expert((&experts, &probs), second, threshold, u.as_ref());
    let two = two.map_err(|e| c.error(e))?;
    let factor = c.settings.maybe_float("capacity_factor");
    let factor = match (factor, c.settings.flag("training")) {
        (None, _) if c.settings.is_set("capacity") => None,
        (None, true) => Some(1.25),
        (None, false) => Some(2.0),
        (factor, _) => factor,
    };
    let tokens_wide = tokens as f64;
    let even = |factor: f64| {
        (tokens_wide * factor / count as f64)
            .floor()
            .min(tokens_wide)
            .max(4.0)
    };
    let queue = Queue {
        capacity: capacity(c, factor.map(even))?,
        ..Queue::default()
    };
    let routed = Routed {
        positions: c.r.expert_positions(&two.experts[0], count, &queue)?,
        loss: RouterLoss {
            aux: balance(c, tokens, count, 1),
            z: 0.0,
            sigmoid: false,
        },
        x,
        logits,
        experts,
        probs,
    };
    Ok((routed, two, queue.capacity))
}

async fn gshard_outputs(c: &mut Call<'_>) -> Result<()> {
    let (routed, two, capacity) = gshard(c).await?;
    routed.room(c, capacity);
    let (tokens, count) = ([routed.logits.rows()], [routed.count()]);
    let first = &routed.positions;
    let queue = Queue {
        capacity,
        chosen: Some(two.second.clone()),
        ahead: Some((first.assigned.clone(), c.settings.choice("queue") != "all")),
        priority: None,
    };
    let second = c.r.expert_positions(&two.experts[1], count[0], &queue)?;
    for (name, tensor, shape) in [
        ("expert1", &two.experts[0], &tokens),
        ("expert2", &two.experts[1], &tokens),
        ("gate1", &two.gates[0], &tokens),
        ("gate2", &two.gates[1], &tokens),
        ("second", &two.second, &tokens),
        ("position1", &first.positions, &tokens),
        ("position2", &second.positions, &tokens),
        ("kept1", &first.kept, &tokens),
        ("kept2", &second.kept, &tokens),
        ("dropped", &first.dropped, &count),
        ("assigned2", &second.assigned, &count),
        ("dropped2", &second.dropped, &count),
    ] {
        c.output(name, tensor, shape);
    }
    c.check("expert1", not_a_number);
    let losses = routed.losses(c)?;
    routed.statistics(c, &losses).await
}
