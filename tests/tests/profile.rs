//! What kernels take, told by the devices: every call is counted, in its stage, and measuring changes no answer.

use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Instant;

use shardlight::builtin::{TINY, TINY_MOE, TINY_MOE_NAME, TINY_NAME};
use shardlight::comm::{LocalComm, Mesh, Placement, World};
use shardlight::device::Device;
use shardlight::plan::PlanDevice;
use shardlight::profile::{Profile, Profiling, Stage};
use shardlight::session::{GenerateOptions, Generated, Session, SessionOptions};
use shardlight::shard::Split;
use shardlight::weights::{BytesSource, ModelFiles};
use shardlight_tests::devices;

const NEW: usize = 12;

fn clock() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

fn files(name: &str) -> ModelFiles {
    let bytes = match name {
        TINY_NAME => TINY,
        _ => TINY_MOE,
    };
    let source = Rc::new(BytesSource::new(name, bytes));
    pollster::block_on(ModelFiles::open(vec![source])).expect("the built-in models open")
}

fn session(name: &str, devices: &[Rc<dyn Device>], expert_cache: Option<u64>) -> Session {
    let tp = devices.len();
    let mesh = Mesh {
        tp,
        ..Mesh::default()
    };
    let ranks = devices.iter().enumerate().map(|(rank, device)| {
        let placement = Placement::new(mesh, rank, Split::even(tp), false).expect("a placement");
        (placement, Rc::clone(device))
    });
    let world = World::new(ranks.collect(), Rc::new(LocalComm)).expect("a world");
    let options = SessionOptions {
        prefill_chunk: 8,
        expert_cache,
        ..SessionOptions::default()
    };
    let quiet = &mut |_| ControlFlow::Continue(());
    pollster::block_on(Session::load(files(name), world, options, quiet))
        .unwrap_or_else(|e| panic!("{e}"))
}

fn answer(session: &mut Session, spans: Option<usize>) -> shardlight::Result<Generated> {
    let prompt = "Once upon a time there was a little girl who";
    let tokenizer = session.tokenizer().expect("it has a tokenizer");
    let prompt = tokenizer.encode(prompt, true, false).expect("it has ids");
    assert!(prompt.len() > 8, "more than one chunk");
    session.reset();
    let options = GenerateOptions {
        max_tokens: NEW,
        profile: spans.map(|spans| Profiling { clock, spans }),
        ..GenerateOptions::default()
    };
    let quiet = &mut |_: shardlight::session::Event<'_>| ControlFlow::Continue(());
    pollster::block_on(session.generate(&prompt, &options, quiet))
}

fn measured(session: &mut Session, spans: usize) -> Profile {
    let answered = |spans| answer(session, spans).unwrap_or_else(|e| panic!("{e}"));
    let mut answered = answered;
    let plain = answered(None);
    assert_eq!(plain.profile, None);
    let mut other = answered(Some(spans));
    let profile = other.profile.take();
    assert_eq!(other, plain, "measuring changes nothing");
    assert_eq!(answered(None), plain);
    profile.expect("a profile")
}

fn calls(profile: &Profile, stage: Stage, kernel: &str) -> u64 {
    let found = (profile.kernels.iter()).find(|k| k.stage == stage && k.kernel == kernel);
    found.map_or(0, |k| k.calls)
}

#[test]
fn every_call_is_counted_and_lies_within_its_stage() {
    for device in devices() {
        let at = device.info().to_string();
        let mut session = session(TINY_NAME, &[Rc::clone(&device)], None);
        let layers = session.config().num_hidden_layers as u64;
        let profile = measured(&mut session, usize::MAX);
        let [prefill, decode] = profile.stages[..] else {
            panic!("{at}: {:?}", profile.stages);
        };
        assert_eq!(
            (prefill.stage, decode.stage),
            (Stage::Prefill, Stage::Decode)
        );
        assert_eq!((prefill.steps, prefill.tokens), (2, 10), "{at}");
        // The first token comes out of the prefill: choosing it is a step that computes none.
        assert_eq!((decode.steps, decode.tokens), (NEW as u64, NEW as u64 - 1));
        assert_eq!(
            calls(&profile, Stage::Prefill, "attention"),
            2 * layers,
            "{at}"
        );
        assert_eq!(
            calls(&profile, Stage::Decode, "attention"),
            (NEW as u64 - 1) * layers
        );
        assert_eq!(calls(&profile, Stage::Decode, "argmax"), NEW as u64, "{at}");

        let sum = |stage| {
            let kernels = profile.kernels.iter().filter(|k| k.stage == stage);
            kernels.map(|k| k.seconds).sum::<f64>()
        };
        for stage in [prefill, decode] {
            let kernels = sum(stage.stage);
            println!(
                "{at}, {}: kernels {:.0} us of {:.0} us",
                stage.stage.name(),
                kernels * 1e6,
                stage.seconds * 1e6
            );
            assert!(
                0.0 < kernels && kernels <= stage.seconds,
                "{at}: {kernels} s of {stage:?}"
            );
        }
        assert_eq!(profile.left_out, 0);
        let all: u64 = profile.kernels.iter().map(|k| k.calls).sum();
        assert_eq!(profile.spans.len() as u64, all, "{at}");
        assert_eq!(profile.lanes, [at.clone(), "host".into()]);
        let mut last = 0.0;
        for span in &profile.spans {
            assert!(
                span.begin >= last && span.seconds >= 0.0 && span.lane == 0,
                "{at}: {span:?}"
            );
            assert!(span.shapes.contains('['), "{at}: {span:?}");
            last = span.begin;
        }

        // A timeline has an event for each call, and names for the lanes and what they belong to.
        let events = profile.trace()["traceEvents"]
            .as_array()
            .expect("events")
            .len();
        assert_eq!(events as u64, all + 3, "{at}");
        let some = measured(&mut session, 10);
        assert_eq!((some.spans.len(), some.left_out), (10, all - 10), "{at}");
        assert_eq!(
            some.summary()["kernels"].as_array().map(Vec::len),
            Some(profile.kernels.len())
        );
    }
}

#[test]
fn ranks_on_two_devices_tell_what_they_say_to_each_other() {
    let devices = devices();
    let [cpu, gpu] = &devices[..] else { return };
    let ranks = [Rc::clone(gpu), Rc::clone(cpu)];
    let mut session = session(TINY_NAME, &ranks, None);
    let profile = measured(&mut session, usize::MAX);
    assert_eq!(profile.lanes.len(), 3);
    for lane in 0..2 {
        assert!(
            profile
                .spans
                .iter()
                .any(|s| s.lane == lane && s.name == "attention")
        );
    }
    assert!(calls(&profile, Stage::Decode, "communication") > 0);
    let sent = profile.spans.iter().filter(|s| s.name == "communication");
    assert!(sent.clone().all(|s| s.lane == 2) && sent.clone().any(|s| s.cost.bytes > 0));
}

#[test]
fn paging_of_experts_is_told() {
    for device in devices() {
        let mut session = session(TINY_MOE_NAME, &[device], Some(200_000));
        let profile = measured(&mut session, 0);
        assert!(
            calls(&profile, Stage::Prefill, "paging") > 0,
            "{:?}",
            profile.kernels
        );
        assert!(profile.spans.is_empty());
    }
}

#[test]
fn a_device_that_cannot_be_measured_says_so_and_answers_the_next_time() {
    let cpu: Rc<dyn Device> = Rc::clone(&devices()[0]);
    let plan: Rc<dyn Device> = Rc::new(PlanDevice::new(&files(TINY_NAME), None));
    let error = plan.measure(Some(clock)).expect_err("it has no time");
    assert!(error.to_string().ends_with("cannot be measured"), "{error}");
    // One of two: the other one is not left measuring.
    let world = World::new(
        [cpu, plan]
            .map(|device| (Placement::alone(), device))
            .into(),
        Rc::new(LocalComm),
    )
    .expect("a world");
    assert!(world.measure(Some(clock)).is_err());
    world.measure(None).expect("nothing to measure");
}
