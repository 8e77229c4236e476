//! Routers of mixtures of experts: what they draw follows the probabilities that the papers give, is the
//! same for a batch given whole or in parts, and `docs/routers.md` shows all of them on one input.
//!
//! `SHARDLIGHT_BLESS=1 cargo test --workspace --test routers` writes that file anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use pollster::block_on;
use shardlight::device::Device;
use shardlight::device::cpu::CpuDevice;
use shardlight::kernels::case::chi_square;
use shardlight::ops::{self, Array, TensorFile};
use shardlight_tests::{data, devices};

type Outputs = BTreeMap<&'static str, Array>;

fn run(
    device: &dyn Device,
    op: &str,
    inputs: &[(&str, &Array)],
    settings: &[(&str, &str)],
) -> Outputs {
    let op = ops::find(op).expect("is an operator");
    let inputs = inputs.iter().map(|(n, a)| (n.to_string(), (*a).clone()));
    let settings = settings.iter().map(|(n, v)| (n.to_string(), v.to_string()));
    let ran = block_on(ops::run(device, op, inputs.collect(), &settings.collect()));
    ran.unwrap_or_else(|e| panic!("{e}")).outputs
}

fn ints(outputs: &Outputs, name: &str) -> Vec<i64> {
    outputs[name].to_i64().expect("holds whole numbers")
}

/// Phi by Simpson's rule.
fn phi(x: f64) -> f64 {
    let density = |z: f64| (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
    let (steps, step) = (1000, x / 1000.0);
    let weight = |i: usize| match i {
        0 | 1000 => 1.0,
        i if i % 2 == 1 => 4.0,
        _ => 2.0,
    };
    let sum: f64 = (0..=steps)
        .map(|i| weight(i) * density(i as f64 * step))
        .sum();
    0.5 + sum * step / 3.0
}

#[test]
fn gshard_goes_to_second_experts_as_often_as_it_should() {
    // Token t has level t % 4; the gates of a level are 1 - g and g.
    let gates = [0.02f64, 0.08, 0.15, 0.45];
    let each = 5000;
    let x: Vec<f32> = (0..4 * each)
        .flat_map(|t| (0..4).map(move |c| f32::from(u8::from(t % 4 == c))))
        .collect();
    let logit = |g: f64| (g / (1.0 - g)).ln() as f32;
    let weight: Vec<f32> = [[0.0; 4], gates.map(logit), [-50.0; 4]].concat();
    let (x, weight) = (Array::f32(&[4 * each, 4], &x), Array::f32(&[3, 4], &weight));
    for seed in ["0", "1", "12345678901"] {
        let inputs = [("x", &x), ("weight", &weight)];
        let outputs = run(
            &CpuDevice::new(),
            "gshard_router",
            &inputs,
            &[("seed", seed)],
        );
        let (mut counts, mut expected) = (Vec::new(), Vec::new());
        let second = ints(&outputs, "second");
        for (level, gate) in gates.into_iter().enumerate() {
            let goes: i64 = second.iter().skip(level).step_by(4).sum();
            let p = (gate / 0.2).min(1.0);
            if p == 1.0 {
                assert_eq!(
                    goes as usize, each,
                    "a gate above the threshold always goes"
                );
                continue;
            }
            counts.extend([goes as f64, each as f64 - goes as f64]);
            expected.extend([p * each as f64, (1.0 - p) * each as f64]);
        }
        let distance = chi_square(&counts, &expected);
        // 3 degrees of freedom: above 16.3 once in a thousand.
        assert!(
            distance < 16.3,
            "seed {seed}: chi-square {distance}, {counts:?}"
        );
    }
}

#[test]
fn noisy_top_k_chooses_as_often_as_its_noise_says() {
    // Two experts, whose noise has the deviations that softplus of 0 and of 1 give.
    let levels = [0.0f32, 0.5, -1.5];
    let (each, count) = (5000, levels.len());
    let deviations = [0.0f64, 1.0].map(|raw| (1.0 + raw.exp()).ln() + 0.01);
    let noise = deviations[0].hypot(deviations[1]);
    // The last channel is always 1, for what the noise is made of.
    let x = (0..count * each).flat_map(|t| {
        let level = (0..count).map(move |c| f32::from(u8::from(t % count == c)));
        level.chain([1.0])
    });
    let x = Array::f32(&[count * each, count + 1], &x.collect::<Vec<f32>>());
    let weight = [levels[0], levels[1], levels[2], 0.0, 0.0, 0.0, 0.0, 0.0];
    let weight = Array::f32(&[2, 4], &weight);
    let noise_weight = Array::f32(&[2, 4], &[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    for seed in ["0", "1", "12345678901"] {
        let inputs = [
            ("x", &x),
            ("weight", &weight),
            ("noise_weight", &noise_weight),
        ];
        let settings = [("seed", seed), ("k", "1")];
        let outputs = run(&CpuDevice::new(), "noisy_top_k_router", &inputs, &settings);
        let (mut counts, mut expected) = (Vec::new(), Vec::new());
        let experts = ints(&outputs, "experts");
        for (level, logit) in levels.into_iter().enumerate() {
            let firsts = experts
                .iter()
                .skip(level)
                .step_by(count)
                .filter(|e| **e == 0);
            let (firsts, p) = (firsts.count() as f64, phi(f64::from(logit) / noise));
            counts.extend([firsts, each as f64 - firsts]);
            expected.extend([p * each as f64, (1.0 - p) * each as f64]);
        }
        let distance = chi_square(&counts, &expected);
        // 3 degrees of freedom: above 16.3 once in a thousand.
        assert!(
            distance < 16.3,
            "seed {seed}: chi-square {distance}, {counts:?}"
        );
    }
}

/// x, the router's weight and another of its shape, as recorded.
fn recorded() -> [Array; 3] {
    let name = "noisy_top_k.safetensors";
    let bytes = fs::read(data().join("routers").join(name)).expect("is readable");
    let file = TensorFile::read(name, &bytes).expect("is a file of tensors");
    ["x", "weight", "noise_weight"].map(|n| file.tensors[n].clone())
}

#[test]
fn draws_are_the_same_for_a_batch_given_whole_or_in_parts() {
    let [x, weight, noise_weight] = recorded();
    let (tokens, channels) = (x.shape[0], x.shape[1]);
    let values = x.to_f32();
    let part = |from: usize, to: usize| {
        Array::f32(
            &[to - from, channels],
            &values[from * channels..to * channels],
        )
    };
    for device in devices() {
        for (op, name, more) in [
            ("gshard_router", "second", ("threshold", "0.9")),
            ("switch_router", "probs", ("training", "true")),
            ("noisy_top_k_router", "gates", ("k", "3")),
        ] {
            let call = |from: usize, to: usize| {
                let (x, first) = (part(from, to), from.to_string());
                let mut inputs = vec![("x", &x), ("weight", &weight)];
                if op == "noisy_top_k_router" {
                    inputs.push(("noise_weight", &noise_weight));
                }
                let settings = [("seed", "7"), ("first_token", &first[..]), more];
                run(&*device, op, &inputs, &settings)[name].to_f32()
            };
            let whole = call(0, tokens);
            let parts = [call(0, 9), call(9, 10), call(10, tokens)].concat();
            // Products of a few tokens and of many may be summed in another order.
            let nmse = ops::nmse(&parts, &whole);
            assert!(
                nmse < 1e-11,
                "{op} {name} on {}: NMSE {nmse:.1e}",
                device.info()
            );
            let other = run(
                &*device,
                op,
                &match op {
                    "noisy_top_k_router" => vec![
                        ("x", &x),
                        ("weight", &weight),
                        ("noise_weight", &noise_weight),
                    ],
                    _ => vec![("x", &x), ("weight", &weight)],
                },
                &[("seed", "8"), more],
            );
            assert_ne!(other[name].to_f32(), whole, "{op} draws nothing");
        }
    }
}

type Settings = &'static [(&'static str, &'static str)];

/// A row of the document: name, operator, settings.
const ROUTERS: &[(&str, &str, Settings)] = &[
    ("Mixtral", "mixtral_router", &[]),
    (
        "Megatron-LM, softmax after",
        "megatron_router",
        &[("aux_coeff", "0.01"), ("z_coeff", "0.001")],
    ),
    (
        "Megatron-LM, softmax before",
        "megatron_router",
        &[
            ("pre_softmax", "true"),
            ("aux_coeff", "0.01"),
            ("z_coeff", "0.001"),
        ],
    ),
    (
        "Megatron-LM, capacity 1.0, drop by `probs`",
        "megatron_router",
        &[
            ("capacity_factor", "1.0"),
            ("aux_coeff", "0.01"),
            ("z_coeff", "0.001"),
        ],
    ),
    (
        "Megatron-LM, capacity 1.0, drop by `position`",
        "megatron_router",
        &[
            ("capacity_factor", "1.0"),
            ("drop", "position"),
            ("aux_coeff", "0.01"),
            ("z_coeff", "0.001"),
        ],
    ),
    (
        "DeepSeek-V2 (groups by their largest)",
        "megatron_router",
        &[
            ("pre_softmax", "true"),
            ("groups", "4"),
            ("groups_kept", "2"),
            ("group_score", "largest"),
        ],
    ),
    (
        "DeepSeek-V3 (sigmoid, groups by their two largest)",
        "megatron_router",
        &[
            ("score", "sigmoid"),
            ("groups", "4"),
            ("groups_kept", "2"),
            ("scale", "2.5"),
        ],
    ),
    (
        "Switch, capacity 1.25",
        "switch_router",
        &[("capacity_factor", "1.25")],
    ),
    (
        "GShard, capacity 1.25",
        "gshard_router",
        &[("capacity_factor", "1.25")],
    ),
    (
        "GShard, every second expert",
        "gshard_router",
        &[("capacity_factor", "1.25"), ("second", "all")],
    ),
    (
        "noisy top-k, without noise",
        "noisy_top_k_router",
        &[("noisy", "false")],
    ),
    ("noisy top-k", "noisy_top_k_router", &[]),
];

/// Experts of one token with their probabilities, choices of each expert, how many are dropped, losses.
fn row(outputs: &Outputs) -> [String; 4] {
    const TOKEN: usize = 17;
    let at = |name: &str, place: usize| outputs.get(name).map(|a| a.to_f32()[place]);
    let shown = |expert: f32, prob: f32, kept: Option<f32>| match kept {
        Some(0.0) => format!("{expert} ({prob:.3}) full"),
        _ => format!("{expert} ({prob:.3})"),
    };
    let mut chosen = Vec::new();
    let mut assigned = [0; 8];
    if outputs.contains_key("expert1") {
        for [expert, gate, kept, made] in [
            ["expert1", "gate1", "kept1", ""],
            ["expert2", "gate2", "kept2", "second"],
        ] {
            if at(made, TOKEN) == Some(0.0) {
                continue;
            }
            let of = |name| at(name, TOKEN).expect("is given");
            chosen.push(shown(of(expert), of(gate), at(kept, TOKEN)));
        }
        for name in ["assigned", "assigned2"] {
            for (sum, n) in assigned.iter_mut().zip(ints(outputs, name)) {
                *sum += n;
            }
        }
    } else {
        let (experts, probs) = (ints(outputs, "experts"), outputs["probs"].to_f32());
        let k = experts.len() / 23;
        for place in TOKEN * k..(TOKEN + 1) * k {
            chosen.push(shown(
                experts[place] as f32,
                probs[place],
                at("kept", place),
            ));
        }
        for expert in experts {
            assigned[expert as usize] += 1;
        }
    }
    let dropped = ["dropped", "dropped2"]
        .iter()
        .filter_map(|name| outputs.get(name));
    let dropped: i64 = dropped.filter_map(Array::to_i64).flatten().sum();
    let losses = ["aux", "z", "loss"].iter().filter_map(|name| {
        let value = at(name, 0)?;
        (value != 0.0).then(|| format!("{name} {value:.4}"))
    });
    [
        chosen.join(", "),
        assigned
            .iter()
            .map(i64::to_string)
            .collect::<Vec<_>>()
            .join(" "),
        dropped.to_string(),
        losses.collect::<Vec<_>>().join(", "),
    ]
}

#[test]
fn the_documents_table_is_what_routers_give() {
    let [x, weight, noise_weight] = recorded();
    let mut text = String::from(
        "# Routers of mixtures of experts\n\n\
         Every router on one input: 23 tokens, 8 experts, the recorded `x` and `weight` of\n\
         `tests/data/routers/noisy_top_k.safetensors`, k = 2 (Switch 1), seed 0. The experts and probabilities are those of\n\
         token 17, full where the expert has no room left for it; the loads are choices of experts 0 to 7 before any is\n\
         dropped. Settings that are not named are the operators' own: `shardlight op --list` has them. `cargo test --workspace --test routers` keeps the table current.\n\n\
         | router | operator and settings | experts of a token | load of each expert | dropped | losses |\n\
         |---|---|---|---|---:|---|\n",
    );
    let device = CpuDevice::new();
    for (name, op, settings) in ROUTERS {
        let mut inputs = vec![("x", &x), ("weight", &weight)];
        if *op == "noisy_top_k_router" {
            inputs.push(("noise_weight", &noise_weight));
        }
        let [chosen, load, dropped, losses] = row(&run(&device, op, &inputs, settings));
        let settings: Vec<String> = settings.iter().map(|(n, v)| format!(" {n}={v}")).collect();
        let settings = settings.concat();
        let _ = writeln!(
            text,
            "| {name} | `{op}{settings}` | {chosen} | {load} | {dropped} | {losses} |"
        );
    }
    let path = data().join("../../docs/routers.md");
    if std::env::var_os("SHARDLIGHT_BLESS").is_some() {
        fs::write(&path, &text).expect("docs/routers.md can be written");
    }
    let committed = fs::read_to_string(&path).expect("docs/routers.md is there");
    assert_eq!(
        committed, text,
        "docs/routers.md is old; SHARDLIGHT_BLESS=1 writes it anew"
    );
}
