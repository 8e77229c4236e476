//! Many answers at once: each is what it would be alone.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::rc::Rc;

use shardlight::Error;
use shardlight::builtin::{TINY, TINY_NAME};
use shardlight::comm::{LocalComm, Mesh, Placement, World};
use shardlight::device::Device;
use shardlight::kv_cache::KvDType;
use shardlight::sampler::Sampling;
use shardlight::session::batch::{Batch, BatchEvent, BatchOptions, Request};
use shardlight::session::{GenerateOptions, Generated, Session, SessionOptions, StopReason};
use shardlight::shard::Split;
use shardlight::weights::{BytesSource, ModelFiles};
use shardlight_tests::{data, devices, open};

const TEXTS: &[&str] = &[
    "Once upon a time there was a little girl who",
    "Once upon a time there was a little girl who had a cat. The cat",
    "Once upon a time there was a little girl who had a dog. One day, the dog",
    "Tom",
    "The sun was shining and",
    "Lily and Ben went to the park. They saw a big",
    "Once upon a time there was a little girl who had a cat. The cat",
    "One day, a bird sat on a tree. The bird was sad because it could not fly. A boy saw the bird and said, \"Why are you",
];

fn tiny() -> ModelFiles {
    let source = Rc::new(BytesSource::new(TINY_NAME, TINY));
    pollster::block_on(ModelFiles::open(vec![source])).expect("it opens")
}

fn world(mesh: Mesh, device: &Rc<dyn Device>) -> World {
    let ranks = (0..mesh.world_size()).map(|rank| {
        let split = Split::even(mesh.tp);
        let placement = Placement::new(mesh, rank, split, false).expect("a placement");
        (placement, Rc::clone(device))
    });
    World::new(ranks.collect(), Rc::new(LocalComm)).expect("a world")
}

fn load(files: ModelFiles, world: World, kv: KvDType) -> Session {
    let options = SessionOptions {
        context_length: Some(files.config.max_position_embeddings.min(160)),
        kv,
        ..SessionOptions::default()
    };
    let quiet = &mut |_| ControlFlow::Continue(());
    pollster::block_on(Session::load(files, world, options, quiet))
        .unwrap_or_else(|e| panic!("{e}"))
}

fn greedy(max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens,
        ..GenerateOptions::default()
    }
}

fn drawn(max_tokens: usize, seed: u64) -> GenerateOptions {
    GenerateOptions {
        sampling: Sampling {
            temperature: 0.8,
            repeat_penalty: 1.1,
            seed,
            ..Sampling::default()
        },
        ..greedy(max_tokens)
    }
}

fn batch(session: Session, options: BatchOptions) -> Batch {
    pollster::block_on(Batch::new(session, options)).unwrap_or_else(|e| panic!("{e}"))
}

/// What was told of each answer.
#[derive(Default)]
struct Heard {
    streamed: HashMap<Request, String>,
    reused: HashMap<Request, usize>,
    done: HashMap<Request, shardlight::Result<Generated>>,
    order: Vec<Request>,
}

impl Heard {
    fn hear(&mut self, request: Request, event: BatchEvent<'_>) {
        match event {
            BatchEvent::Started { reused, .. } => {
                assert!(self.reused.insert(request, reused).is_none(), "begun twice");
                self.order.push(request);
            }
            BatchEvent::Token { text, .. } => {
                self.streamed.entry(request).or_default().push_str(text);
            }
            BatchEvent::Done(done) => {
                assert!(self.done.insert(request, done).is_none(), "ended twice");
            }
        }
    }

    fn generated(&self, request: Request) -> &Generated {
        self.done[&request]
            .as_ref()
            .unwrap_or_else(|e| panic!("{e}"))
    }
}

fn finish(batch: &mut Batch) -> Heard {
    let mut heard = Heard::default();
    while pollster::block_on(batch.step(&mut |r, e| heard.hear(r, e)))
        .unwrap_or_else(|e| panic!("{e}"))
    {}
    assert_eq!(
        (batch.running(), batch.waiting(), batch.cache_use().0),
        (0, 0, 0)
    );
    heard
}

fn ids(session: &Session, text: &str) -> Vec<u32> {
    let tokenizer = session.tokenizer().expect("it has a tokenizer");
    tokenizer.encode(text, true, false).expect("it has ids")
}

fn alone(session: &mut Session, prompt: &[u32], options: &GenerateOptions) -> Generated {
    session.reset();
    let quiet = &mut |_: shardlight::session::Event<'_>| ControlFlow::Continue(());
    pollster::block_on(session.generate(prompt, options, quiet)).unwrap_or_else(|e| panic!("{e}"))
}

/// Answers of a batch beside those made one after the other.
fn same(
    at: &str,
    session: Session,
    options: BatchOptions,
    ask: &[(Vec<u32>, GenerateOptions)],
) -> Batch {
    let mut session = session;
    let want: Vec<_> = ask.iter().map(|(p, o)| alone(&mut session, p, o)).collect();
    let mut batch = batch(session, options);
    let add = |(prompt, options): &(Vec<u32>, GenerateOptions)| {
        batch
            .add(prompt, options.clone())
            .unwrap_or_else(|e| panic!("{at}: {e}"))
    };
    let requests: Vec<_> = ask.iter().map(add).collect();
    let heard = finish(&mut batch);
    for ((request, want), i) in requests.iter().zip(&want).zip(0..) {
        let got = heard.generated(*request);
        assert_eq!(
            (&got.tokens, got.stop, &got.text),
            (&want.tokens, want.stop, &want.text),
            "{at}: answer {i}"
        );
        let streamed = heard.streamed.get(request).cloned().unwrap_or_default();
        assert_eq!(streamed, got.text, "{at}: answer {i}");
    }
    batch
}

#[test]
fn texts_are_those_of_one_at_a_time() {
    for device in devices() {
        for (tp, pp) in [(1, 1), (2, 1), (1, 2)] {
            for kv in [KvDType::F16, KvDType::F32, KvDType::Q8_0] {
                let at = format!("tp {tp}, pp {pp} on {}, {kv:?}", device.info());
                let mesh = Mesh {
                    tp,
                    pp,
                    ..Mesh::default()
                };
                let session = load(tiny(), world(mesh, &device), kv);
                let each = |(i, text): (usize, &&str)| (ids(&session, text), greedy(8 + 5 * i));
                let mut ask: Vec<_> = TEXTS.iter().enumerate().map(each).collect();
                ask.push((ask[2].0.clone(), drawn(20, 3)));
                ask.push((
                    ask[4].0.clone(),
                    GenerateOptions {
                        stop: vec![".".into()],
                        ..greedy(60)
                    },
                ));
                ask.push((
                    ask[3].0.clone(),
                    GenerateOptions {
                        logprobs: Some(2),
                        ..greedy(9)
                    },
                ));
                ask.push((ask[3].0.clone(), greedy(0)));
                let batch = same(&at, session, BatchOptions::default(), &ask);
                let counts = batch.counts();
                // The longest has 43 tokens and its prompt; all go on in every step.
                assert!(counts.steps < 70, "{at}: {counts:?}");
                assert_eq!(counts.preempted, 0, "{at}");
            }
        }
    }
}

#[test]
fn where_pages_run_out_answers_wait_and_are_computed_again() {
    for device in devices() {
        let session = load(tiny(), World::single(Rc::clone(&device)), KvDType::F32);
        let ask: Vec<_> = TEXTS
            .iter()
            .map(|t| (ids(&session, t), greedy(70)))
            .collect();
        let options = BatchOptions {
            cache_tokens: Some(208),
            step_tokens: 24,
            max_sequences: 5,
        };
        let batch = same(&device.info().to_string(), session, options, &ask);
        assert!(batch.counts().preempted > 0, "{:?}", batch.counts());
    }
}

#[test]
fn every_family_answers_so() {
    let mut seen = 0;
    let mut folders: Vec<_> = std::fs::read_dir(data().join("families"))
        .expect("families")
        .map(|e| e.expect("an entry").path())
        .collect();
    folders.sort();
    for folder in folders.iter().filter(|f| f.is_dir()) {
        for device in devices() {
            let session = load(
                open(&[folder.join("config.json"), folder.join("model.safetensors")]),
                World::single(Rc::clone(&device)),
                KvDType::F32,
            );
            let vocab = session.config().vocab_size as u32;
            let prompt = |n: u32| (0..n).map(|i| (i * 37 + n) % vocab).collect::<Vec<u32>>();
            // Longer than the windows of those that have one.
            let ask: Vec<_> = [3, 17, 40, 1].map(|n| (prompt(n), greedy(12))).to_vec();
            let at = format!("{} on {}", folder.display(), device.info());
            same(
                &at,
                session,
                BatchOptions {
                    step_tokens: 30,
                    ..BatchOptions::default()
                },
                &ask,
            );
        }
        seen += 1;
    }
    println!("batch: {seen} families");
    assert!(seen >= 20);
}

#[test]
fn prompts_that_begin_alike_share_pages() {
    for device in devices() {
        let session = load(tiny(), World::single(Rc::clone(&device)), KvDType::F32);
        let first = ids(&session, TEXTS[7]);
        let mut longer = first.clone();
        longer.extend(ids(&session, TEXTS[3]));
        let mut batch = batch(session, BatchOptions::default());
        let a = batch.add(&first, greedy(4)).expect("it is taken");
        let heard = finish(&mut batch);
        assert_eq!(heard.reused[&a], 0);
        let b = batch.add(&longer, greedy(4)).expect("it is taken");
        let c = batch.add(&first, greedy(4)).expect("it is taken");
        let again = finish(&mut batch);
        assert_eq!(again.generated(c).tokens, heard.generated(a).tokens);
        // All of it but the last token, whose logits are needed; of the last page a copy of the rows that are the same.
        assert_eq!(
            (again.reused[&b], again.reused[&c]),
            (first.len(), first.len() - 1),
            "{}",
            device.info()
        );
        assert!(!first.len().is_multiple_of(16));
        assert_eq!(batch.counts().reused as usize, 2 * first.len() - 1);
    }
}

#[test]
fn answers_end_when_they_are_cancelled_and_clients_take_turns() {
    let device = &devices()[0];
    let session = load(tiny(), World::single(Rc::clone(device)), KvDType::F16);
    let prompt = ids(&session, TEXTS[0]);
    let options = BatchOptions {
        max_sequences: 2,
        ..BatchOptions::default()
    };
    let mut batch = batch(session, options);
    let mut add = |client| {
        batch
            .add_of(client, &prompt, greedy(30))
            .expect("it is taken")
    };
    let [a, b, c, d, e] = [1, 1, 1, 2, 1].map(&mut add);
    let heard = RefCell::new(Heard::default());
    let step = |batch: &mut Batch| {
        pollster::block_on(batch.step(&mut |r, e| heard.borrow_mut().hear(r, e))).expect("it steps")
    };
    for _ in 0..5 {
        assert!(step(&mut batch));
    }
    assert_eq!((batch.running(), batch.waiting()), (2, 3));
    batch.cancel(a);
    batch.cancel(e);
    batch.cancel(Request(99));
    while step(&mut batch) {}
    let heard = heard.into_inner();
    assert_eq!(heard.order, [a, d, b, c]);
    let stop = |r| heard.generated(r).stop;
    assert_eq!(
        [a, b, c, d, e].map(stop),
        [
            StopReason::Cancelled,
            StopReason::Length,
            StopReason::Length,
            StopReason::Length,
            StopReason::Cancelled
        ]
    );
    assert!(!heard.generated(a).tokens.is_empty() && heard.generated(e).tokens.is_empty());
}

#[test]
fn what_cannot_be_is_told_in_one_line() {
    let device = &devices()[0];
    let make = |options| {
        pollster::block_on(Batch::new(
            load(tiny(), World::single(Rc::clone(device)), KvDType::F16),
            options,
        ))
    };
    let wrong = [
        BatchOptions {
            max_sequences: 0,
            ..BatchOptions::default()
        },
        BatchOptions {
            cache_tokens: Some(9),
            ..BatchOptions::default()
        },
        BatchOptions {
            cache_tokens: Some(usize::MAX),
            ..BatchOptions::default()
        },
    ];
    for options in wrong {
        let error = make(options).err().expect("it is refused").to_string();
        assert!(!error.contains('\n'), "{error}");
    }
    let mut batch = make(BatchOptions {
        cache_tokens: Some(64),
        ..BatchOptions::default()
    })
    .expect("it is made");
    let long = vec![1; 65];
    assert!(matches!(
        batch.add(&long, greedy(1)),
        Err(Error::ContextExceeded {
            prompt: 65,
            context: 64,
            ..
        })
    ));
    assert!(batch.add(&[], greedy(1)).is_err() && batch.add(&[u32::MAX], greedy(1)).is_err());
    // An answer that fills the whole cache ends there.
    let request = batch.add(&long[..60], greedy(50)).expect("it is taken");
    let heard = finish(&mut batch);
    let generated = heard.generated(request);
    assert!(
        matches!(generated.stop, StopReason::Context | StopReason::Eos),
        "{:?}",
        generated.stop
    );
    assert!(generated.tokens.len() <= 5);
}

#[test]
fn answers_go_on_when_a_device_is_lost() {
    for device in devices().into_iter().filter(|d| d.info().kind.is_gpu()) {
        let mut session = load(tiny(), World::single(Rc::clone(&device)), KvDType::F32);
        let ask: Vec<_> = TEXTS
            .iter()
            .map(|t| (ids(&session, t), greedy(20)))
            .collect();
        let want: Vec<_> = ask.iter().map(|(p, o)| alone(&mut session, p, o)).collect();
        let mut batch = batch(session, BatchOptions::default());
        let requests: Vec<_> = ask
            .iter()
            .map(|(p, o)| batch.add(p, o.clone()).expect("it is taken"))
            .collect();
        let mut heard = Heard::default();
        for _ in 0..7 {
            pollster::block_on(batch.step(&mut |r, e| heard.hear(r, e))).expect("it steps");
        }
        device.destroy();
        while pollster::block_on(batch.step(&mut |r, e| heard.hear(r, e))).expect("it steps") {}
        for (request, want) in requests.iter().zip(want) {
            assert_eq!(heard.generated(*request).text, want.text);
        }
    }
}
