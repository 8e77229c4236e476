//! Whole plans.

use std::ops::ControlFlow;
use std::rc::Rc;

use super::*;
use crate::DType;
use crate::comm::{LocalComm, Mesh, World};
use crate::device::Device;
use crate::session::{GenerateOptions, Session, SessionOptions};
use crate::shard::Split;

/// SmolLM2-135M's heads, fewer layers: nothing divides by 2.
const SMALL: Shape = Shape {
    name: "small",
    channels: 576,
    hidden: 1536,
    layers: 4,
    heads: [9, 3, 64],
    vocab: 49152,
    context: 2048,
    tied: false,
    experts: None,
};

/// Everything divides by 4.
const ROUND: Shape = Shape {
    name: "round",
    channels: 512,
    hidden: 1024,
    heads: [8, 4, 64],
    vocab: 1024,
    ..SMALL
};

fn layout(mesh: Mesh) -> Layout {
    Layout {
        mesh,
        split: Split::even(mesh.tp),
        sequence_parallel: false,
        near: Link::find("nvlink4").unwrap(),
        far: Link::find("ndr").unwrap(),
        ranks_per_host: 8,
        one_device: false,
    }
}

fn mesh(tp: usize, pp: usize, dp: usize) -> Mesh {
    Mesh {
        tp,
        pp,
        dp,
        ..Mesh::default()
    }
}

fn request(files: &ModelFiles, mesh: Mesh) -> Request<'_> {
    Request {
        files,
        experts: None,
        layout: layout(mesh),
        device: DeviceSpec::find("h100").unwrap(),
        peak: Peak::F32,
        context: 1024,
        prompt: 300,
        batch: 1,
        kv: KvDType::F16,
    }
}

fn planned(shape: &Shape, mesh: Mesh) -> Plan {
    let files = shape.files(DType::F16).unwrap();
    pollster::block_on(request(&files, mesh).plan()).unwrap()
}

#[test]
fn ranks_of_one_kind_hold_and_do_the_same() {
    let layouts = [
        (&SMALL, mesh(2, 1, 1), false),
        (&SMALL, mesh(3, 2, 1), true),
        (&SMALL, mesh(5, 1, 2), false),
        (&ROUND, mesh(4, 3, 1), false),
        (&ROUND, mesh(2, 4, 2), true),
    ];
    for (shape, mesh, sp) in layouts {
        let files = shape.files(DType::Q4_0).unwrap();
        let mut layout = layout(mesh);
        layout.sequence_parallel = sp;
        let (kinds, first) = layout.kinds(&files.config).unwrap();
        let sizes = Sizes {
            context: 64,
            kv: KvDType::F16,
            chunk: 16,
        };
        let work = |rank: usize| {
            let ranks = vec![layout.placement(rank).unwrap()];
            let dry = pollster::block_on(dry_run(&files, ranks, sizes, None)).unwrap();
            let sums = [&dry.decode, &dry.prefill].map(|recording| {
                let mut sum = Cost::default();
                let when = When {
                    position: 7,
                    sequences: 1,
                };
                for dispatch in recording.dispatches() {
                    sum += cost(dispatch, when);
                }
                (recording.items().len(), sum)
            });
            (dry.memory, dry.shards[0].held, sums)
        };
        for (rank, kind) in kinds.iter().enumerate() {
            assert_eq!(work(rank), work(first[*kind]), "rank {rank} of {mesh}");
        }
    }
    // Otherwise thousands of ranks would take thousands of recordings.
    let files = ROUND.files(DType::F16).unwrap();
    let (kinds, first) = layout(mesh(4, 4, 256)).kinds(&files.config).unwrap();
    assert_eq!((kinds.len(), first.len()), (4096, 6));
}

#[test]
fn a_plan_sends_what_a_world_counts() {
    for (tp, pp, sp) in [(2, 1, false), (3, 1, true), (3, 2, false), (2, 4, true)] {
        let files = SMALL.files(DType::Q8_0).unwrap();
        let mut request = request(&files, mesh(tp, pp, 1));
        request.layout.sequence_parallel = sp;
        request.prompt = 10;
        let plan = pollster::block_on(request.plan()).unwrap();
        let counted = |tokens: usize| {
            let device: Rc<dyn Device> = Rc::new(PlanDevice::new(&files, None));
            let ranks = (0..tp * pp)
                .map(|rank| (request.layout.placement(rank).unwrap(), Rc::clone(&device)));
            let world = World::new(ranks.collect(), Rc::new(LocalComm)).unwrap();
            let options = SessionOptions {
                context_length: Some(64),
                ..SessionOptions::default()
            };
            let quiet = &mut |_| ControlFlow::Continue(());
            let files = SMALL.files(DType::Q8_0).unwrap();
            let mut session =
                pollster::block_on(Session::load(files, world, options, quiet)).unwrap();
            let options = GenerateOptions {
                max_tokens: tokens,
                ..GenerateOptions::default()
            };
            let ignore = &mut |_: crate::session::Event<'_>| ControlFlow::Continue(());
            let end = pollster::block_on(session.generate(&[1; 10], &options, ignore)).unwrap();
            assert_eq!(end.tokens.len(), tokens);
            session.world().traffic()
        };
        let sending = |traffic: &crate::comm::Traffic| -> Vec<Sending> {
            let sending = |(name, sent): (&'static str, crate::comm::Sent)| Sending {
                name,
                calls: sent.calls,
                bytes: sent.bytes,
            };
            traffic.iter().map(sending).collect()
        };
        assert_eq!(
            sending(&counted(0)),
            plan.prefill.collectives,
            "tp {tp} pp {pp}"
        );
        let (two, three) = (sending(&counted(2)), sending(&counted(3)));
        let step: Vec<_> = (two.iter().zip(&three))
            .map(|(a, b)| Sending {
                name: a.name,
                calls: b.calls - a.calls,
                bytes: b.bytes - a.bytes,
            })
            .filter(|sent| sent.calls > 0)
            .collect();
        assert_eq!(step, plan.decode.collectives, "tp {tp} pp {pp}");
    }
}

#[test]
fn sums_over_ranks_follow_the_closed_forms() {
    let files = Shape::find("llama3-8b").unwrap().files(DType::F16).unwrap();
    let mut request = request(&files, mesh(8, 1, 1));
    (request.device.launch, request.device.submit) = (0.0, 0.0);
    let plan = pollster::block_on(request.plan()).unwrap();
    // Two all-reduces a layer and one of the embedding: 2 (R - 1) / R n from each of 8 ranks.
    let n = 4 * 4096;
    let sent = plan
        .decode
        .collectives
        .iter()
        .find(|s| s.name == "all_reduce");
    let sent = sent.unwrap();
    assert_eq!((sent.calls, sent.bytes), (8 * 65, 65 * 2 * 7 * n));
    // Two operations a weight but the embedding's, and attention to 301 keys of 32 heads of 128 in 32 layers.
    let weights = 8.030e9 - 128_256.0 * 4096.0;
    let attention = 4.0 * 301.0 * 32.0 * 128.0 * 32.0;
    let want = 2.0 * weights + attention;
    assert!(
        (plan.decode.flops / want - 1.0).abs() < 0.01,
        "{} {want}",
        plan.decode.flops
    );
    // A rank's eighth of the weights at 3350 GB/s, and nothing else that weighs.
    let least = 2.0 * weights / 8.0 / 3350e9;
    let seconds = plan.decode.seconds * plan.decode.compute;
    assert!(
        least < seconds && seconds < 2.0 * least,
        "{seconds} {least}"
    );
}

#[test]
fn memory_is_weights_cache_and_scratch() {
    let plan = planned(Shape::find("llama3-8b").unwrap(), Mesh::default());
    let memory = plan.kinds[0].memory;
    assert!(
        (memory.weights as f64 / 16.06e9 - 1.0).abs() < 1e-3,
        "{memory:?}"
    );
    // Keys and values of 8 heads of 128 in f16, 32 layers.
    assert_eq!(memory.cache, 2 * 8 * 128 * 2 * 32 * 1024);
    assert_eq!(plan.kinds[0].total, plan.memory);
    assert!(plan.fits);
    // What is said to fit does, and one token more does not.
    let files = Shape::find("llama3-8b").unwrap().files(DType::F16).unwrap();
    let mut request = request(&files, Mesh::default());
    request.device = DeviceSpec::find("l4").unwrap();
    let plan = pollster::block_on(request.plan()).unwrap();
    let (context, batch) = (plan.largest_context.unwrap(), plan.largest_batch.unwrap());
    for (context, batch, fits) in [
        (context, 1, true),
        (context + 1, 1, false),
        (1024, batch, true),
        (1024, batch + 1, false),
    ] {
        (request.context, request.batch) = (context, batch);
        let plan = pollster::block_on(request.plan()).unwrap();
        // A larger batch's scratch memory is that of a prompt's chunk at most.
        assert_eq!(
            plan.fits, fits,
            "context {context}, batch {batch}: {}",
            plan.memory
        );
    }
    assert!(!planned(Shape::find("llama3-405b").unwrap(), mesh(8, 1, 1)).fits);
}

#[test]
fn replicas_add_tokens_and_stages_take_turns() {
    let (one, two) = (
        planned(&ROUND, mesh(2, 1, 1)),
        planned(&ROUND, mesh(2, 1, 2)),
    );
    assert_eq!(one.decode.seconds, two.decode.seconds);
    assert_eq!(
        2.0 * one.decode.tokens_per_second,
        two.decode.tokens_per_second
    );
    assert_eq!(2.0 * one.decode.flops, two.decode.flops);
    // One token goes through stages one after the other; a prompt's micro-batches overlap.
    let staged = planned(Shape::find("llama2-7b").unwrap(), mesh(1, 4, 1));
    assert!(
        staged.decode.speedup < 1.0 && staged.decode.waiting > 0.7,
        "{:?}",
        staged.decode
    );
    assert!(staged.prefill.speedup > 1.5, "{:?}", staged.prefill);
}

#[test]
fn one_device_does_the_work_of_all_ranks() {
    let files = Shape::find("llama2-7b").unwrap().files(DType::F16).unwrap();
    let mut request = request(&files, Mesh::tensor(3));
    request.layout.one_device = true;
    let plan = pollster::block_on(request.plan()).unwrap();
    assert_eq!(plan.devices, 1);
    // The same products in more dispatches.
    let slower = plan.decode.seconds / plan.decode.alone;
    assert!(1.0 < slower && slower < 1.6, "{slower}");
    assert!(plan.memory > plan.kinds.iter().map(|k| k.memory.weights).sum());
    request.batch = 2;
    assert!(pollster::block_on(request.plan()).is_err());
}

#[test]
fn a_batch_shares_the_weights_and_not_the_caches() {
    let files = Shape::find("llama2-7b").unwrap().files(DType::F16).unwrap();
    let mut request = request(&files, Mesh::tensor(4));
    let one = pollster::block_on(request.plan()).unwrap();
    request.batch = 8;
    let eight = pollster::block_on(request.plan()).unwrap();
    assert_eq!(eight.kinds[0].memory.cache, 8 * one.kinds[0].memory.cache);
    let gain = eight.decode.tokens_per_second / one.decode.tokens_per_second;
    assert!(3.0 < gain && gain < 8.0, "{gain}");
}

#[test]
fn what_cannot_be_is_one_line() {
    let files = ROUND.files(DType::F16).unwrap();
    let told = |change: &dyn Fn(&mut Request<'_>)| {
        let mut request = request(&files, Mesh::default());
        change(&mut request);
        pollster::block_on(request.plan()).unwrap_err().to_string()
    };
    let tp = |tp| told(&|r: &mut Request<'_>| r.layout = layout(Mesh::tensor(tp)));
    assert!(tp(16).contains("cannot split"), "{}", tp(16));
    assert!(tp(0).contains("tp is 0"));
    let stages = told(&|r| r.layout = layout(mesh(1, 5, 1)));
    assert!(stages.starts_with("layers: cannot split 4"), "{stages}");
    assert!(told(&|r| r.context = 4096).contains("allows 1 to 2048"));
    assert!(told(&|r| r.prompt = 1024).contains("room for a token more"));
    assert!(told(&|r| r.layout.split = Split::even(3)).contains("3 shares given for 1"));
}

#[test]
fn a_sweep_marks_what_no_other_layout_beats() {
    let files = ROUND.files(DType::F16).unwrap();
    let request = request(&files, Mesh::default());
    let found = pollster::block_on(sweep(&request, 16)).unwrap();
    assert_eq!(found.len(), layouts(16).len());
    let best = |c: &&Candidate| c.best;
    assert!(found.iter().any(|c| c.best) && found.iter().any(|c| c.plan.is_err()));
    let fastest = found
        .iter()
        .filter_map(|c| Some((c, c.plan.as_ref().ok()?)));
    let fastest = fastest.min_by(|a, b| a.1.decode.seconds.total_cmp(&b.1.decode.seconds));
    let fastest = fastest.unwrap().1.decode.seconds;
    let seconds = |c: &Candidate| c.plan.as_ref().unwrap().decode.seconds;
    assert!(found.iter().filter(best).any(|c| seconds(c) == fastest));
}

#[test]
fn a_traced_step_is_the_planned_one() {
    let files = SMALL.files(DType::F16).unwrap();
    let request = request(&files, mesh(3, 2, 1));
    let timeline = pollster::block_on(request.timeline()).unwrap();
    let plan = pollster::block_on(request.plan()).unwrap();
    let want = plan.decode.seconds - request.device.submit;
    assert!((timeline.seconds() - want).abs() < 1e-9);
    for rank in 0..6 {
        let of = timeline.events.iter().filter(|e| e.rank == rank);
        let sum: f64 = of.map(|e| e.seconds).sum();
        assert!((sum - timeline.lanes[rank].end).abs() < 1e-9, "rank {rank}");
    }
}

#[test]
fn experts_are_spread_and_tokens_exchanged() {
    let shape = Shape::find("mixtral-8x7b").unwrap();
    let files = shape.files(DType::F16).unwrap();
    let plan = |mesh: Mesh, batch: usize| {
        let mut request = request(&files, mesh);
        (request.experts, request.batch) = (shape.experts, batch);
        pollster::block_on(request.plan())
    };
    // 46.7e9 parameters on one rank; a token takes two of eight experts.
    let one = plan(Mesh::default(), 1).unwrap();
    let weights = one.kinds[0].memory.weights as f64;
    assert!((weights / (2.0 * 46.703e9) - 1.0).abs() < 0.01, "{weights}");
    assert!(
        (one.decode.flops / (2.0 * 12.75e9) - 1.0).abs() < 0.02,
        "{}",
        one.decode.flops
    );
    // One expert on each of 8 replicas: every rank sends two rows of 4096 channels to each of 7 others, twice
    // a layer; eight tokens at once give each of 8 experts two.
    let mesh = Mesh {
        dp: 8,
        ep: 8,
        ..Mesh::default()
    };
    let eight = plan(mesh, 8).unwrap();
    let sent = &eight.decode.collectives[0];
    let calls = 8 * 32 * 2;
    assert_eq!((sent.name, sent.calls), ("all_to_all", calls));
    assert_eq!(sent.bytes, calls * 7 * 2 * 4096 * 4);
    // Eight replicas of all else.
    let held: u64 = eight
        .kinds
        .iter()
        .map(|k| k.ranks as u64 * k.memory.weights)
        .sum();
    let others = one.kinds[0].memory.weights - 8 * 32 * 3 * 4096 * 14336 * 2;
    assert_eq!(held, one.kinds[0].memory.weights + 7 * others);
    // Experts on tensor-parallel ranks need no exchange: all of them have the tokens.
    let tp = plan(
        Mesh {
            ep: 8,
            ..Mesh::tensor(8)
        },
        1,
    )
    .unwrap();
    assert!(tp.decode.collectives.iter().all(|s| s.name != "all_to_all"));
    assert!(tp.decode.seconds < one.decode.seconds);
    let split = plan(Mesh::tensor(8), 1).unwrap();
    assert_eq!(split.kinds[0].hidden, 14336 / 8);
    for (mesh, text) in [
        (
            Mesh {
                ep: 2,
                ..Mesh::tensor(4)
            },
            "multiple of tp",
        ),
        (
            Mesh {
                dp: 16,
                ep: 16,
                ..Mesh::default()
            },
            "divide the experts",
        ),
    ] {
        let told = plan(mesh, 1).unwrap_err().to_string();
        assert!(told.contains(text), "{told}");
    }
}
