//! Megatron-LM's router, and its capacity of experts.

use super::router::{
    ASSIGNED, AUX, CAPACITY, CAPACITY_FACTOR, D_WEIGHT_AUX, DROPPED, EXPERTS, K, LOGITS, MEAN_PROB,
    ROOM, Routed, WEIGHT, X, balance, capacity, example, logits, not_a_number,
};
use super::{Call, Example, Input, Op, Output, Setting};
use crate::Result;
use crate::nn::{ExpertGroups, Queue, Router, RouterLoss, Score, Worth};

const BIAS: Input = Input::optional(
    "bias",
    "E",
    "added to the scores that select, to no probability",
);

const SETTINGS: &[Setting] = &[
    K,
    Setting::choice(
        "score",
        "softmax",
        &["softmax", "sigmoid"],
        "what a probability is made of",
    ),
    Setting::flag(
        "pre_softmax",
        false,
        "softmax over all experts, before the choice; always so for k = 1",
    ),
    Setting::float("scale", 1.0, "what probabilities are multiplied by"),
    Setting::int("groups", 1, "groups of neighbouring experts"),
    Setting::int("groups_kept", 1, "groups that a token's experts come from"),
    Setting::choice(
        "group_score",
        "two_largest",
        &["two_largest", "largest"],
        "what a group is chosen by: its scores' largest, or the sum of two",
    ),
    Setting::float("aux_coeff", 0.0, "of the balancing loss"),
    Setting::float("z_coeff", 0.0, "of the z-loss"),
    CAPACITY_FACTOR,
    CAPACITY,
    Setting::choice(
        "drop",
        "probs",
        &["probs", "position"],
        "whom a full expert keeps: the largest probabilities, or the first tokens",
    ),
];

pub static OPS: &[Op] = &[
    Op {
        name: "megatron_router",
        kinds: &[],
        systems: &["Megatron router"],
        summary: "top-k with softmax after or before the choice, or sigmoid, a bias that only selects, groups, \
                  capacity ceil(T k / E factor); aux = c E / k sum(n/T p), z = c mean(ln(sum(exp(logits)))^2)",
        inputs: &[X, WEIGHT, BIAS],
        settings: SETTINGS,
        outputs: &[
            LOGITS,
            EXPERTS,
            Output::new(
                "probs",
                "T k",
                "of the chosen experts, as they are before any is dropped",
            ),
            Output::new("positions", "T k", "places in the experts' queues"),
            Output::new("kept", "T k", "1 where the expert has room"),
            AUX,
            Output::new("z", "1", "z-loss"),
            ASSIGNED,
            DROPPED,
            MEAN_PROB,
            ROOM,
        ],
        bound: 1e-10,
        record: |c| {
            Box::pin(async move {
                let (routed, capacity) = megatron(c).await?;
                routed.room(c, capacity);
                routed.outputs(c);
                let shape = routed.experts.shape.clone();
                c.output("positions", &routed.positions.positions, &shape);
                c.output("kept", &routed.positions.kept, &shape);
                c.output("dropped", &routed.positions.dropped, &[routed.count()]);
                let losses = routed.losses(c)?;
                c.output("z", &losses.z, &[1]);
                routed.statistics(c, &losses).await
            })
        },
        examples: megatron_examples,
    },
    Op {
        name: "megatron_router_backward",
        kinds: &[],
        systems: &["Megatron router"],
        summary: "gradients of megatron_router's losses by the weight",
        inputs: &[X, WEIGHT, BIAS],
        settings: SETTINGS,
        outputs: &[D_WEIGHT_AUX, Output::new("d_weight_z", "E C", "of z")],
        bound: 1e-9,
        record: |c| {
            Box::pin(async move {
                let (routed, _) = megatron(c).await?;
                let [mut aux, mut z] = [routed.loss; 2];
                (aux.z, z.aux) = (0.0, 0.0);
                routed.backward(c, "d_weight_aux", aux)?;
                routed.backward(c, "d_weight_z", z)
            })
        },
        examples: megatron_examples,
    },
    Op {
        name: "expert_capacity",
        kinds: &[],
        systems: &["Megatron router"],
        summary: "which of a token's k experts have room: capacity ceil(T k / E factor), by the order of tokens \
                  and by the probability (Megatron-LM)",
        inputs: &[X, WEIGHT],
        settings: &[
            K,
            Setting::float("capacity_factor", 1.0, "1: an even load fills the experts"),
            CAPACITY,
        ],
        outputs: &[
            EXPERTS,
            Output::new(
                "dense_probs",
                "T E",
                "softmax over the chosen, 0 for other experts",
            ),
            Output::new(
                "kept_position",
                "T E",
                "1 for the first tokens of each expert",
            ),
            Output::new(
                "kept_probs",
                "T E",
                "1 for each expert's largest probabilities",
            ),
        ],
        bound: 1e-11,
        record: |c| Box::pin(expert_capacity(c)),
        examples: || {
            vec![
                example(23, 8, 32).set("capacity_factor", "1.25"),
                example(7, 5, 9).set("k", "1").set("capacity", "2"),
            ]
        },
    },
];

fn megatron_examples() -> Vec<Example> {
    let plain = || {
        example(23, 8, 32)
            .set("aux_coeff", "0.5")
            .set("z_coeff", "0.25")
    };
    vec![
        plain(),
        plain()
            .set("k", "1")
            .set("pre_softmax", "true")
            .set("drop", "position")
            .set("capacity_factor", "1"),
        plain()
            .random("bias", &[8])
            .set("score", "sigmoid")
            .set("groups", "4")
            .set("groups_kept", "2")
            .set("scale", "2.5")
            .set("capacity_factor", "1.25"),
        plain()
            .set("groups", "2")
            .set("group_score", "largest")
            .set("capacity", "3"),
    ]
}

/// Megatron-LM's capacity, `ceil(T k / E factor)`.
fn megatron_capacity(c: &Call<'_>, tokens: usize, k: usize, count: usize) -> Result<u32> {
    let factor = c.settings.maybe_float("capacity_factor");
    let even = (tokens * k) as f64 / count as f64;
    capacity(c, factor.map(|f| (even * f).ceil()))
}

/// Where tokens go, and the capacity.
async fn megatron(c: &mut Call<'_>) -> Result<(Routed, u32)> {
    let k = c.settings.size("k")?;
    let sigmoid = c.settings.choice("score") == "sigmoid";
    let groups = ExpertGroups {
        count: c.settings.size("groups")?,
        kept: c.settings.size("groups_kept")?,
        worth: match c.settings.choice("group_score") {
            "largest" => Worth::Largest,
            _ => Worth::TwoLargest,
        },
    };
    let router = Router {
        score: match c.settings.flag("pre_softmax") || k == 1 {
            _ if sigmoid => Score::Sigmoid,
            true => Score::Softmax,
            false => Score::SoftmaxOfChosen,
        },
        k,
        normalize: sigmoid && k > 1,
        scale: c.settings.float("scale") as f32,
        groups: (groups.count != 1).then_some(groups),
    };
    let bias = c.optional("bias").await?;
    let (x, logits) = logits(c, None).await?;
    let routed = c.r.route(&logits, bias.as_ref(), &router);
    let (experts, probs) = routed.map_err(|e| c.error(e))?;
    let (tokens, count) = (logits.rows(), logits.cols());
    let capacity = megatron_capacity(c, tokens, k, count)?;
    // Where nobody is dropped, queues are in the order of tokens.
    let by_probs = capacity != u32::MAX && c.settings.choice("drop") == "probs";
    let queue = Queue {
        capacity,
        priority: by_probs.then(|| probs.clone()),
        ..Queue::default()
    };
    let routed = Routed {
        positions: c.r.expert_positions(&experts, count, &queue)?,
        loss: RouterLoss {
            aux: balance(c, tokens, count, k),
            z: (c.settings.float("z_coeff") / tokens as f64) as f32,
            sigmoid,
        },
        x,
        logits,
        experts,
        probs,
    };
    Ok((routed, capacity))
}

async fn expert_capacity(c: &mut Call<'_>) -> Result<()> {
    let k = c.settings.size("k")?;
    let (_, logits) = logits(c, None).await?;
    let router = Router {
        score: Score::SoftmaxOfChosen,
        k,
        normalize: false,
        ..Router::default()
    };
    let (experts, probs) = c.r.route(&logits, None, &router).map_err(|e| c.error(e))?;
    let (tokens, count) = (logits.rows(), logits.cols());
    let capacity = match c.settings.is_set("capacity_factor") {
        false if c.settings.is_set("capacity") => capacity(c, None)?,
        _ => megatron_capacity(c, tokens, k, count)?,
    };
    let all = [tokens, count];
    c.output("experts", &experts, &experts.shape);
    c.check("experts", not_a_number);
    let dense = c.r.expert_scatter(&experts, &probs, count)?;
    c.output("dense_probs", &dense, &all);
    for (name, priority) in [("kept_position", None), ("kept_probs", Some(probs))] {
        let queue = Queue {
            capacity,
            priority,
            ..Queue::default()
        };
        let kept = c.r.expert_positions(&experts, count, &queue)?.kept;
        let kept = c.r.expert_scatter(&experts, &kept, count)?;
        c.output(name, &kept, &all);
    }
    Ok(())
}
