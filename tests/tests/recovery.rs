//! Devices that are lost: answers go on as they would have, and what was allocated is given back.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::rc::Rc;

use shardlight::builtin::{TINY, TINY_MOE, TINY_MOE_NAME, TINY_NAME};
use shardlight::comm::{LocalComm, Mesh, Placement, World};
use shardlight::device::{Device, DeviceKind};
use shardlight::kv_cache::KvDType;
use shardlight::plan::{Sizes, dry_run};
use shardlight::sampler::Sampling;
use shardlight::session::{Event, GenerateOptions, Phase, Session, SessionOptions};
use shardlight::shard::Split;
use shardlight::weights::source::{LocalFuture, check_range};
use shardlight::weights::{BytesSource, ModelFiles, WeightSource};
use shardlight::{Error, Result};
use shardlight_tests::devices;

const PROMPT: &str = "Once upon a time there was a little girl who";

fn gpus() -> Vec<Rc<dyn Device>> {
    let all = devices().into_iter();
    all.filter(|d| d.info().kind.is_gpu()).collect()
}

fn files(name: &str) -> ModelFiles {
    let bytes = match name {
        TINY_NAME => TINY,
        TINY_MOE_NAME => TINY_MOE,
        other => panic!("no model {other}"),
    };
    let source = Rc::new(BytesSource::new(name, bytes));
    pollster::block_on(ModelFiles::open(vec![source])).expect("the built-in models open")
}

fn options() -> SessionOptions {
    SessionOptions {
        context_length: Some(128),
        prefill_chunk: 4,
        ..SessionOptions::default()
    }
}

fn load(files: ModelFiles, world: World, options: SessionOptions) -> Session {
    let quiet = &mut |_| ControlFlow::Continue(());
    pollster::block_on(Session::load(files, world, options, quiet))
        .unwrap_or_else(|e| panic!("{e}"))
}

/// Tensor-parallel ranks on these devices, in turn.
fn parallel(tp: usize, devices: &[Rc<dyn Device>]) -> World {
    let mesh = Mesh {
        tp,
        ..Mesh::default()
    };
    let ranks = (0..tp).map(|rank| {
        let placement = Placement::new(mesh, rank, Split::even(tp), false).expect("a placement");
        (placement, Rc::clone(&devices[rank % devices.len()]))
    });
    World::new(ranks.collect(), Rc::new(LocalComm)).expect("a world")
}

fn greedy() -> GenerateOptions {
    GenerateOptions {
        max_tokens: 20,
        ..GenerateOptions::default()
    }
}

fn drawn() -> GenerateOptions {
    GenerateOptions {
        max_tokens: 20,
        sampling: Sampling {
            temperature: 1.0,
            top_k: 40,
            repeat_penalty: 1.2,
            seed: 7,
            ..Sampling::default()
        },
        // Held back each time that a word begins with it.
        stop: vec![" theremin".into()],
        ..GenerateOptions::default()
    }
}

/// When a device is destroyed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// Before the first token is computed.
    Before,
    /// After so many tokens of the prompt.
    Prefill(usize),
    /// When so many tokens of the answer have come.
    Decode(usize),
    /// When half of the weights have been loaded again.
    Reload,
    /// When so many tokens have been computed again.
    Replay(usize),
}

/// What an answer was, and what was told meanwhile.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    tokens: Vec<u32>,
    text: String,
    /// Texts of the tokens, one after the other.
    streamed: String,
    lost: usize,
    recovered: usize,
}

fn ask(
    session: &mut Session,
    options: &GenerateOptions,
    device: &dyn Device,
    faults: &[When],
) -> Result<Heard> {
    let tokens = session.tokenizer().expect("a tokenizer");
    let tokens = tokens.encode(PROMPT, true, true).expect("encodes");
    let mut faults = faults.to_vec();
    let mut heard = Heard::default();
    let mut count = 0;
    if faults.first() == Some(&When::Before) {
        device.destroy();
        faults.remove(0);
    }
    let answer = pollster::block_on(session.generate(&tokens, options, &mut |event| {
        let due = match (event, faults.first()) {
            (Event::Prefill { done, .. }, Some(When::Prefill(at))) => done >= *at,
            (Event::Replay { done, .. }, Some(When::Replay(at))) => done >= *at,
            (Event::Reload(p), Some(When::Reload)) => {
                p.phase == Phase::Upload && p.done > p.total / 2
            }
            (Event::Token { text, .. }, fault) => {
                heard.streamed.push_str(text);
                count += 1;
                matches!(fault, Some(When::Decode(at)) if count == *at)
            }
            (Event::DeviceLost { reason }, _) => {
                assert!(reason.contains("was lost"), "{reason}");
                heard.lost += 1;
                false
            }
            (Event::Recovered, _) => {
                heard.recovered += 1;
                false
            }
            _ => false,
        };
        if due {
            device.destroy();
            faults.remove(0);
        }
        ControlFlow::Continue(())
    }))?;
    assert_eq!(faults, [], "not all of them happened");
    (heard.tokens, heard.text) = (answer.tokens, answer.text);
    Ok(heard)
}

#[test]
fn an_answer_goes_on_as_it_would_have() {
    let faults: &[&[When]] = &[
        &[When::Before],
        &[When::Prefill(4)],
        &[When::Decode(1)],
        &[When::Decode(7)],
        &[When::Decode(7), When::Decode(12)],
        &[When::Prefill(8), When::Decode(3)],
        &[When::Decode(7), When::Reload],
        &[When::Decode(7), When::Replay(6), When::Replay(13)],
    ];
    let mut shown = 0;
    for options in [greedy(), drawn()] {
        for device in gpus() {
            let mut session = load(
                files(TINY_NAME),
                World::single(Rc::clone(&device)),
                self::options(),
            );
            let whole = ask(&mut session, &options, device.as_ref(), &[]).expect("answers");
            assert_eq!(whole.tokens.len(), 20);
            assert_eq!((whole.lost, whole.recovered), (0, 0));
            let memory = session.memory()[0].used;
            for faults in faults {
                session.reset();
                let got = ask(&mut session, &options, device.as_ref(), faults);
                let got = got.unwrap_or_else(|e| panic!("{faults:?}: {e}"));
                assert_eq!(got.tokens, whole.tokens, "{faults:?}");
                assert_eq!(got.text, whole.text, "{faults:?}");
                assert_eq!(got.streamed, whole.streamed, "{faults:?}");
                let later = faults[1..].iter().filter(|f| matches!(f, When::Decode(_)));
                let want = (faults.len(), 1 + later.count());
                assert_eq!((got.lost, got.recovered), want, "{faults:?}");
                let now = session.memory()[0].used;
                assert_eq!((now.weights, now.kv), (memory.weights, memory.kv));
                assert!(now.total <= memory.total, "{now:?}, before {memory:?}");
                shown += 1;
            }
            // A conversation goes on, too: the prompt is in the new cache.
            let again = ask(&mut session, &options, device.as_ref(), &[]).expect("answers");
            assert_eq!(again.tokens, whole.tokens);
            session.destroy();
            assert!(device.ledger().used().is_empty());
        }
    }
    println!("recovery: {shown} answers went on after a loss");
}

#[test]
fn ranks_experts_and_logits_come_back() {
    for gpu in gpus() {
        let cpu = Rc::clone(&devices()[0]);
        let moe = |cache| SessionOptions {
            expert_cache: cache,
            expert_statistics: true,
            ..options()
        };
        let cases = [
            (
                "two ranks of a device",
                TINY_NAME,
                parallel(2, &[Rc::clone(&gpu)]),
                options(),
            ),
            (
                "two devices",
                TINY_NAME,
                parallel(2, &[Rc::clone(&gpu), cpu]),
                options(),
            ),
            (
                "experts",
                TINY_MOE_NAME,
                World::single(Rc::clone(&gpu)),
                moe(None),
            ),
            (
                "expert cache",
                TINY_MOE_NAME,
                World::single(Rc::clone(&gpu)),
                moe(Some(1 << 20)),
            ),
        ];
        for (at, model, world, options) in cases {
            let mut session = load(files(model), world, options);
            let whole = ask(&mut session, &greedy(), gpu.as_ref(), &[]).expect("answers");
            session.reset();
            let got = ask(&mut session, &greedy(), gpu.as_ref(), &[When::Decode(7)]);
            let got = got.unwrap_or_else(|e| panic!("{at}: {e}"));
            assert_eq!(got.text, whole.text, "{at}");
            assert_eq!((got.lost, got.recovered), (1, 1), "{at}");

            for all in [false, true] {
                let tokens = &whole.tokens[..9];
                let want = pollster::block_on(session.logits(tokens, all)).expect("logits");
                gpu.destroy();
                let got = pollster::block_on(session.logits(tokens, all)).expect("logits again");
                assert_eq!(got, want, "{at}, all {all}");
            }
            drop(session);
            assert!(
                gpu.ledger().used().total == 0,
                "{at}: {:?}",
                gpu.ledger().used()
            );
        }
    }
}

#[test]
fn a_device_that_is_lost_again_and_again_is_an_error_and_the_next_call_works() {
    for device in gpus() {
        let world = World::single(Rc::clone(&device));
        let mut session = load(files(TINY_NAME), world, options());
        let whole = ask(&mut session, &greedy(), device.as_ref(), &[]).expect("answers");
        session.reset();
        let faults = [3, 5, 7, 9].map(When::Decode);
        let told = ask(&mut session, &greedy(), device.as_ref(), &faults);
        let told = told.expect_err("four are too many");
        assert!(matches!(told, Error::DeviceLost { .. }), "{told}");
        let again = ask(&mut session, &greedy(), device.as_ref(), &[]).expect("answers");
        assert_eq!(again.text, whole.text);
    }
}

#[test]
fn an_answer_can_be_cancelled_while_the_device_comes_back() {
    for device in gpus() {
        let world = World::single(Rc::clone(&device));
        let mut session = load(files(TINY_NAME), world, options());
        let whole = ask(&mut session, &greedy(), device.as_ref(), &[]).expect("answers");
        let tokens = session.tokenizer().expect("a tokenizer");
        let tokens = tokens.encode(PROMPT, true, true).expect("encodes");
        let asked = greedy();
        for stage in 0..3 {
            session.reset();
            let mut count = 0;
            let mut on_event = |event: Event<'_>| {
                match (event, stage) {
                    (Event::Token { .. }, _) => count += 1,
                    (Event::DeviceLost { .. }, 0) => return ControlFlow::Break(()),
                    (Event::Reload(_), 1) => return ControlFlow::Break(()),
                    (Event::Replay { .. }, 2) => return ControlFlow::Break(()),
                    _ => {}
                }
                if count == 7 {
                    count += 1;
                    device.destroy();
                }
                ControlFlow::Continue(())
            };
            let answer = session.generate(&tokens, &asked, &mut on_event);
            let answer = pollster::block_on(answer).expect("what there is");
            assert_eq!(answer.stop.name(), "cancelled", "stage {stage}");
            assert_eq!(answer.tokens, whole.tokens[..7], "stage {stage}");
            let again = ask(&mut session, &greedy(), device.as_ref(), &[]).expect("answers");
            assert_eq!(again.text, whole.text, "stage {stage}");
        }
    }
}

/// A file that can be taken away.
struct Removable {
    there: Rc<Cell<bool>>,
    reads: RefCell<u64>,
}

impl WeightSource for Removable {
    fn name(&self) -> &str {
        "stick/model.gguf"
    }

    fn len(&self) -> u64 {
        TINY.len() as u64
    }

    fn read<'a>(&'a self, offset: u64, out: &'a mut [u8]) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            if !self.there.get() {
                return Err(Error::io(self.name(), "is no longer there"));
            }
            check_range(self.name(), offset, out.len() as u64, self.len())?;
            *self.reads.borrow_mut() += out.len() as u64;
            let start = offset as usize;
            out.copy_from_slice(&TINY[start..start + out.len()]);
            Ok(())
        })
    }
}

#[test]
fn a_file_that_is_gone_is_told_in_one_line_and_found_again_later() {
    for device in gpus() {
        let there = Rc::new(Cell::new(true));
        let source = Rc::new(Removable {
            there: Rc::clone(&there),
            reads: RefCell::default(),
        });
        let opened = ModelFiles::open(vec![source.clone()]);
        let opened = pollster::block_on(opened).expect("opens");
        let mut session = load(opened, World::single(Rc::clone(&device)), options());
        let whole = ask(&mut session, &greedy(), device.as_ref(), &[]).expect("answers");
        session.reset();
        there.set(false);
        let told = ask(&mut session, &greedy(), device.as_ref(), &[When::Decode(7)]);
        let told = told.expect_err("nothing to load");
        assert!(matches!(told, Error::DeviceLost { .. }), "{told}");
        let told = told.to_string();
        let end = "it could not be loaded again: stick/model.gguf: is no longer there";
        assert!(told.ends_with(end) && !told.contains('\n'), "{told}");
        let told = ask(&mut session, &greedy(), device.as_ref(), &[]).expect_err("still not");
        assert!(matches!(told, Error::Io { .. }), "{told}");
        there.set(true);
        let again = ask(&mut session, &greedy(), device.as_ref(), &[]).expect("answers");
        assert_eq!(again.text, whole.text);
    }
}

#[test]
fn the_ledger_has_what_a_plan_says_and_is_empty_in_the_end() {
    for (name, tp) in [(TINY_NAME, 1), (TINY_NAME, 2), (TINY_MOE_NAME, 1)] {
        for device in devices() {
            let at = format!("{name}, tp {tp}, on {}", device.info());
            assert!(device.ledger().used().is_empty(), "{at}");
            let opened = files(name);
            let sizes = Sizes {
                context: 128,
                kv: KvDType::F16,
                chunk: 4,
            };
            let world = parallel(tp, &[Rc::clone(&device)]);
            let ranks = world.ranks().iter().map(|p| (**p).clone()).collect();
            let dry = dry_run(&opened, ranks, sizes, Some(device.limits()));
            let dry = pollster::block_on(dry).expect("a plan");
            let buffers = opened.tensors().len() as u64;
            let mut session = load(opened, world, options());
            let used = session.memory()[0].used;
            let plan = dry.memory;

            // Devices round each buffer up to 16 bytes.
            let near = |got: u64, want: u64, more: u64| (want..=want + more).contains(&got);
            let weights = used.weights + used.mapped;
            assert!(
                near(weights, plan.weights, 16 * tp as u64 * buffers),
                "{at}: {used:?} {plan:?}"
            );
            assert_eq!(used.kv, plan.cache, "{at}");
            assert_eq!(used.tables, plan.tables, "{at}");
            assert_eq!(used.experts, 0, "{at}");
            // A kernel's arguments take an aligned place.
            let calls = dry.decode.dispatches().count() + dry.prefill.dispatches().count();
            let activations = plan.activations + plan.other;
            assert!(
                near(used.activations, activations, 512 * calls as u64),
                "{at}: {used:?} {plan:?}"
            );
            assert!(used.peak >= used.total && used.total > 0, "{at}: {used:?}");
            let kinds = used.weights + used.tables + used.kv + used.activations + used.experts;
            assert_eq!(used.total, kinds + used.staging, "{at}");
            match device.info().kind {
                DeviceKind::Cpu => assert!(used.mapped > 0, "{at}: {used:?}"),
                _ => assert!(used.mapped == 0 && used.pipelines > 0, "{at}: {used:?}"),
            }
            ask(&mut session, &greedy(), device.as_ref(), &[]).expect("answers");
            drop(session);
            let left = device.ledger().used();
            assert_eq!((left.total, left.mapped), (0, 0), "{at}: {left:?}");
            println!("ledger: {at}: {used:?}");
            // Kernels stay with their device.
            let ledger = device.ledger().clone();
            drop(device);
            assert!(ledger.used().is_empty(), "{at}: {:?}", ledger.used());
        }
    }
}
