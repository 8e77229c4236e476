//! Sharded models against the same model unsharded, on one device and across devices.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;

use shardlight::comm::{LocalComm, Mesh, Placement, Traffic, World};
use shardlight::device::cpu::CpuDevice;
use shardlight::device::{
    Buffer, Device, DeviceInfo, DeviceKind, Ledger, Limits, Prepared, Purpose,
};
use shardlight::kv_cache::KvDType;
use shardlight::recording::Recording;
use shardlight::sampler::Sampling;
use shardlight::session::{GenerateOptions, Pooling, Session, SessionOptions};
use shardlight::shard::Split;
use shardlight::weights::source::LocalFuture;
use shardlight::weights::{BytesSource, Loader, ModelFiles, WeightSource};
use shardlight::{Error, Result};
use shardlight_tests::golden::{greedy, ids, json, nmse, tensor};
use shardlight_tests::{data, devices, open, smollm2, source};

/// What is told of a layout.
#[derive(Clone, Copy, Debug)]
struct Layout {
    tp: usize,
    pp: usize,
    sp: bool,
}

const fn layout(tp: usize, pp: usize) -> Layout {
    Layout { tp, pp, sp: false }
}

const fn sequence(tp: usize, pp: usize) -> Layout {
    Layout { tp, pp, sp: true }
}

/// Those that the issue names, and sequence parallelism with stages.
const LAYOUTS: &[Layout] = &[
    layout(2, 1),
    layout(3, 1),
    layout(4, 1),
    layout(5, 1),
    layout(1, 2),
    layout(1, 3),
    layout(3, 2),
    sequence(3, 1),
    sequence(2, 2),
];

const MIXTURES: &[&str] = &[
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "olmoe",
    "granite_moe",
    "gpt_oss",
    "gpt_oss_mxfp4",
    "deepseek_v2",
];

fn world(at: Layout, split: &Split, devices: &[Rc<dyn Device>]) -> World {
    let mesh = Mesh {
        tp: at.tp,
        pp: at.pp,
        ..Mesh::default()
    };
    let ranks = (0..mesh.world_size()).map(|rank| {
        let placement = Placement::new(mesh, rank, split.clone(), at.sp).expect("a placement");
        (placement, Rc::clone(&devices[rank % devices.len()]))
    });
    World::new(ranks.collect(), Rc::new(LocalComm)).expect("a world")
}

fn load(files: ModelFiles, world: World, chunk: usize) -> Result<Session> {
    let options = SessionOptions {
        context_length: Some(files.config.max_position_embeddings.min(256)),
        kv: KvDType::F32,
        prefill_chunk: chunk,
        ..SessionOptions::default()
    };
    let quiet = &mut |_| ControlFlow::Continue(());
    pollster::block_on(Session::load(files, world, options, quiet))
}

fn even(files: ModelFiles, at: Layout, devices: &[Rc<dyn Device>], chunk: usize) -> Session {
    let world = world(at, &Split::even(at.tp), devices);
    load(files, world, chunk).unwrap_or_else(|e| panic!("{at:?}: {e}"))
}

fn logits(session: &mut Session, tokens: &[u32], all: bool) -> Vec<f32> {
    pollster::block_on(session.logits(tokens, all)).unwrap_or_else(|e| panic!("{e}"))
}

/// The prompt `code`: its 64 tokens do not end early.
fn prompt() -> Vec<u32> {
    ids(&json(data().join("smollm2/code.json"))["tokens"])
}

#[test]
fn embeddings_are_what_logits_are_made_of_however_split() {
    let folder = data().join("families/llama");
    let weights = folder.join("model.safetensors");
    let files = || open(&[folder.join("config.json"), weights.clone()]);
    let tokens = ids(&json(folder.join("case.json"))["tokens"]);
    let output = tensor(weights.clone(), "lm_head.weight");
    let embed = |session: &mut Session, tokens: &[u32], pooling, normalize| {
        let vector = pollster::block_on(session.embed(tokens, pooling, normalize));
        vector.unwrap_or_else(|e| panic!("{e}"))
    };
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    for device in devices() {
        let devices = [device];
        for at in [layout(1, 1), layout(2, 1), layout(1, 2), sequence(2, 2)] {
            // Several chunks, the last one shorter.
            let session = &mut even(files(), at, &devices, 5);
            let last = embed(session, &tokens, Pooling::Last, false);
            let products = output
                .chunks_exact(last.len())
                .map(|row| dot(row, &last) as f32);
            let error = nmse(
                &products.collect::<Vec<_>>(),
                &logits(session, &tokens, false),
            );
            assert!(error < 1e-10, "{at:?}: NMSE {error:e}");

            // The model is causal: each prefix's last vector is one of the mean's.
            let mut mean = vec![0.0; last.len()];
            for end in 1..=tokens.len() {
                let one = embed(session, &tokens[..end], Pooling::Last, false);
                let pairs = mean.iter_mut().zip(one);
                pairs.for_each(|(sum, x)| *sum += x / tokens.len() as f32);
            }
            let error = nmse(&embed(session, &tokens, Pooling::Mean, false), &mean);
            assert!(error < 1e-10, "{at:?}: the mean's NMSE {error:e}");

            let first = embed(session, &tokens, Pooling::Cls, true);
            assert!((dot(&first, &first) - 1.0).abs() < 1e-6);
            let alone = embed(session, &tokens[..1], Pooling::Last, true);
            assert!(nmse(&first, &alone) < 1e-10);
            assert!(pollster::block_on(session.embed(&[], Pooling::Mean, true)).is_err());
        }
    }
}

#[test]
fn smollm2_says_the_same_however_it_is_split() {
    let (path, prompt) = (smollm2(), prompt());
    for device in devices() {
        let files = || open(std::slice::from_ref(&path));
        let devices = [Rc::clone(&device)];
        // Software adapters are slow.
        let count = match device.info().kind {
            DeviceKind::SoftwareGpu => 16,
            _ => 64,
        };
        let mut whole = load(files(), World::single(Rc::clone(&device)), 32).expect("loads");
        let want = greedy(&mut whole, &prompt, count);
        let want_logits = logits(&mut whole, &prompt, false);
        assert_eq!(want.0.len(), count);
        let bytes = whole.shards()[0].held.bytes;
        for at in LAYOUTS {
            let place = format!("{at:?} on {}", device.info());
            let mut session = even(files(), *at, &devices, 32);
            let got = greedy(&mut session, &prompt, count);
            assert_eq!(got, want, "{place}");
            let got = logits(&mut session, &prompt, false);
            let error = nmse(&got, &want_logits);
            assert!(error <= 1e-6, "{place}: logits' NMSE {error:e}");
            assert_eq!(
                logits(&mut session, &prompt, false),
                got,
                "{place}: the same bits"
            );
            let held: Vec<_> = session.shards().iter().map(|s| s.held).collect();
            let sum: u64 = held.iter().map(|h| h.bytes).sum();
            // What one rank replicates is the model's own.
            let replicated: u64 = held.iter().skip(1).map(|h| h.replicated).sum();
            println!(
                "{place}: logits' NMSE {error:.1e}; weights {:.3} of the model's, {replicated} bytes replicated",
                sum as f64 / bytes as f64
            );
            // With stages a tied embedding is there twice.
            if at.pp == 1 {
                assert!(
                    sum as f64 <= 1.05 * bytes as f64 + replicated as f64,
                    "{place}: {sum} bytes of {bytes}, {replicated} replicated"
                );
            }
        }
    }
}

/// Devices of their own: ranks on them communicate through host memory.
fn apart(ranks: usize) -> Vec<Rc<dyn Device>> {
    let device = |_| Rc::new(CpuDevice::new()) as Rc<dyn Device>;
    (0..ranks).map(device).collect()
}

fn tiny() -> ModelFiles {
    let source = BytesSource::new(shardlight::builtin::TINY_NAME, shardlight::builtin::TINY);
    pollster::block_on(ModelFiles::open(vec![Rc::new(source)])).expect("opens")
}

/// Bytes that all ranks send for `tokens` tokens in a step, by the closed forms of the papers, in f32:
/// ring all-reduce 2 (R - 1) n, all-gather and reduce-scatter (R - 1) n (Patarasuk and Yuan, 2009).
fn closed_form(at: Layout, tokens: u64, layers: u64, channels: u64) -> Vec<(&'static str, u64)> {
    let (r, stages) = (at.tp as u64, at.pp as u64);
    let n = 4 * tokens * channels;
    // The embedding's sum, and attention's and the feed-forward block's of every layer.
    let sums = 2 * layers + 1;
    let mut forms = Vec::new();
    if at.sp {
        // Before attention and the block of every layer, and before the head.
        forms.push(("all_gather", (2 * layers + 1) * (r - 1) * n));
        forms.push(("reduce_scatter", sums * (r - 1) * n));
        forms.push(("send", (stages - 1) * n));
    } else {
        forms.push(("all_reduce", sums * 2 * (r - 1) * n));
        forms.push(("send", (stages - 1) * r * n));
    }
    forms.into_iter().filter(|(_, bytes)| *bytes > 0).collect()
}

fn sent(traffic: &Traffic) -> Vec<(&'static str, u64)> {
    let sent = traffic.iter().map(|(name, sent)| (name, sent.bytes));
    sent.filter(|(_, bytes)| *bytes > 0).collect()
}

#[test]
fn ranks_apart_give_the_same_bits_and_send_what_the_closed_forms_say() {
    let layouts = [
        layout(2, 1),
        layout(3, 1),
        layout(4, 1),
        layout(1, 2),
        layout(2, 2),
        sequence(2, 1),
        sequence(3, 1),
        sequence(2, 2),
    ];
    let one: [Rc<dyn Device>; 1] = [Rc::new(CpuDevice::new())];
    let tokens: Vec<u32> = (1..=24).collect();
    for at in layouts {
        let mut together = even(tiny(), at, &one, 32);
        let mut apart = even(tiny(), at, &apart(at.tp * at.pp), 32);
        let begin = [&together, &apart].map(|s| s.world().traffic());
        assert_eq!(begin, [Traffic::default(), Traffic::default()]);
        // All logits, so that nothing but the layers communicates before them.
        let want = logits(&mut together, &tokens, true);
        assert_eq!(
            logits(&mut apart, &tokens, true),
            want,
            "{at:?}: the same bits"
        );
        let [together, apart] = [&together, &apart].map(|s| sent(&s.world().traffic()));
        assert_eq!(together, apart, "{at:?}");

        let config = tiny().config;
        let (t, v) = (tokens.len() as u64, config.vocab_size as u64);
        let (l, c) = (config.num_hidden_layers as u64, config.hidden_size as u64);
        let mut want = closed_form(at, t, l, c);
        let mut add = |name, bytes: u64| match want.iter_mut().find(|(n, _)| *n == name) {
            Some((_, sum)) => *sum += bytes,
            None if bytes > 0 => want.push((name, bytes)),
            None => {}
        };
        // Then the logits: joined over the last stage's ranks, and given to the other stages.
        let (r, stages) = (at.tp as u64, at.pp as u64);
        add("all_gather", 4 * t * v * (r - 1));
        add("broadcast", 4 * t * v * (stages - 1) * r);
        want.sort_unstable();
        assert_eq!(apart, want, "{at:?}");
    }
}

#[test]
fn different_devices_share_a_model_in_unequal_parts() {
    let devices = devices();
    let prompt = prompt();
    let path = smollm2();
    let files = || open(std::slice::from_ref(&path));
    let cpu = World::single(Rc::clone(&devices[0]));
    let mut whole = load(files(), cpu, 32).expect("loads");
    let want = greedy(&mut whole, &prompt, 24);
    let want_logits = logits(&mut whole, &prompt, false);
    let split = Split::new(&[0.7, 0.3]).expect("shares");
    let world = world(layout(2, 1), &split, &devices);
    let mut session = load(files(), world, 32).expect("loads");
    let held: Vec<_> = session.shards().iter().map(|s| s.held).collect();
    let share = held[0].bytes as f64 / (held[0].bytes + held[1].bytes) as f64;
    assert!((0.6..0.8).contains(&share), "{held:?}");
    assert_eq!(greedy(&mut session, &prompt, 24), want);
    let error = nmse(&logits(&mut session, &prompt, false), &want_logits);
    assert!(error <= 1e-6, "logits' NMSE {error:e}");
}

#[test]
fn sampling_does_not_depend_on_the_split() {
    let options = |top_k| GenerateOptions {
        max_tokens: 24,
        sampling: Sampling {
            temperature: 0.8,
            top_k,
            repeat_penalty: 1.1,
            seed: 7,
            ..Sampling::default()
        },
        stop: Vec::new(),
        ..GenerateOptions::default()
    };
    for device in devices() {
        let devices = [Rc::clone(&device)];
        let mut answers = Vec::new();
        for at in [layout(1, 1), layout(2, 1), layout(1, 2), layout(2, 2)] {
            let mut session = even(tiny(), at, &devices, 32);
            // Top-k on the device, and all logits in host memory.
            let texts = [40, 0].map(|top_k| {
                let quiet = &mut |_: shardlight::session::Event<'_>| ControlFlow::Continue(());
                let options = options(top_k);
                let made = session.generate(&[1, 5, 9], &options, quiet);
                pollster::block_on(made)
                    .unwrap_or_else(|e| panic!("{at:?}: {e}"))
                    .tokens
            });
            answers.push(texts);
        }
        let same = answers.iter().all(|a| *a == answers[0]);
        assert!(same, "{}: {answers:?}", device.info());
    }
}

#[test]
fn dense_models_of_floats_are_split_too() {
    for device in devices() {
        let devices = [Rc::clone(&device)];
        for name in [
            "llama",
            "llama_tied",
            "llama3_rope",
            "gemma2",
            "gemma3",
            "phi3",
            "olmo2",
            "stablelm",
            "gpt2",
            "falcon",
            "falcon_alibi",
            "bloom",
            "mpt",
        ] {
            let folder = data().join("families").join(name);
            let files = || open(&[folder.join("config.json"), folder.join("model.safetensors")]);
            let tokens = ids(&json(folder.join("case.json"))["tokens"]);
            let mut whole = load(files(), World::single(Rc::clone(&device)), 7).expect("loads");
            let want = logits(&mut whole, &tokens, true);
            let heads = whole.config().num_attention_heads;
            for tp in (1..=4).filter(|tp| *tp <= heads) {
                for at in [layout(tp, 1), layout(tp, 2), sequence(tp, 1)] {
                    let mut session = even(files(), at, &devices, 7);
                    let error = nmse(&logits(&mut session, &tokens, true), &want);
                    assert!(
                        error <= 1e-10,
                        "{name} {at:?} on {}: {error:e}",
                        device.info()
                    );
                }
            }
        }
    }
}

/// Ranks on one device, in `ep` groups that each have some of the experts.
fn expert_parallel(device: &Rc<dyn Device>, tp: usize, ep: usize, sp: bool) -> World {
    let mesh = Mesh {
        ep,
        ..Mesh::tensor(tp)
    };
    let place = |rank| {
        let placement = Placement::new(mesh, rank, Split::even(tp), sp);
        (placement.expect("a placement"), Rc::clone(device))
    };
    World::new((0..tp).map(place).collect(), Rc::new(LocalComm)).expect("a world")
}

#[test]
fn quantised_experts_say_the_same_however_they_are_split() {
    let tiny = BytesSource::new(
        shardlight::builtin::TINY_MOE_NAME,
        shardlight::builtin::TINY_MOE,
    );
    let tiny: Rc<dyn WeightSource> = Rc::new(tiny);
    let mxfp4 = source(&data().join("families/gpt_oss/mxfp4.gguf"));
    for device in devices() {
        for source in [&tiny, &mxfp4] {
            let files =
                || pollster::block_on(ModelFiles::open(vec![Rc::clone(source)])).expect("opens");
            let tokens: Vec<u32> = (0..40).map(|i| 3 + i * 37 % 380).collect();
            let mut whole = load(files(), World::single(Rc::clone(&device)), 64).expect("loads");
            let want = (
                logits(&mut whole, &tokens, true),
                greedy(&mut whole, &tokens, 16),
            );
            for (tp, ep, sp, chunk) in [
                (2, 1, false, 64),
                (2, 2, false, 7),
                (2, 2, true, 64),
                (4, 2, false, 64),
                (4, 4, false, 64),
            ] {
                let world = expert_parallel(&device, tp, ep, sp);
                let at = format!("{}, tp {tp}, ep {ep} on {}", source.name(), device.info());
                let mut session =
                    load(files(), world, chunk).unwrap_or_else(|e| panic!("{at}: {e}"));
                let error = nmse(&logits(&mut session, &tokens, true), &want.0);
                println!("{at}: NMSE {error:.1e}");
                assert!(error <= 1e-10, "{at}: NMSE {error:e}");
                assert_eq!(greedy(&mut session, &tokens, 16), want.1, "{at}");
            }
        }
    }
}

#[test]
fn mixtures_of_experts_say_the_same_however_they_are_split() {
    for device in devices() {
        for name in MIXTURES {
            let folder = data().join("families").join(name);
            let files = || open(&[folder.join("config.json"), folder.join("model.safetensors")]);
            let case = json(folder.join("case.json"));
            let tokens = ids(&case["tokens"]);
            let want = tensor(folder.join("logits.safetensors"), "logits");
            // tp, ep, sequence-parallel, tokens of a chunk: pairs one by one, and sorted by expert.
            let layouts = [
                (1, 1, false, 64),
                (2, 1, false, 64),
                (2, 2, false, 7),
                (2, 2, true, 64),
                (4, 2, false, 64),
                (4, 2, true, 64),
                (4, 4, false, 64),
                (4, 4, true, 64),
                (4, 4, true, 7),
            ];
            for (tp, ep, sp, chunk) in layouts {
                let world = expert_parallel(&device, tp, ep, sp);
                let at = format!("{name}, tp {tp}, ep {ep}, sp {sp} on {}", device.info());
                let mut session =
                    load(files(), world, chunk).unwrap_or_else(|e| panic!("{at}: {e}"));
                let error = nmse(&logits(&mut session, &tokens, true), &want);
                assert!(error <= 1e-10, "{at}: NMSE {error:e}");
                let want = ids(&case["greedy"]);
                assert_eq!(greedy(&mut session, &tokens, want.len()).0, want, "{at}");
            }
        }
    }
}

#[test]
fn experts_that_ranks_cannot_share_say_so_with_their_numbers() {
    let folder = data().join("families/mixtral");
    let device = &devices()[0];
    let told = |tp, ep| {
        let world = expert_parallel(device, tp, ep, false);
        let files = open(&[folder.join("config.json"), folder.join("model.safetensors")]);
        load(files, world, 7).err().map(|e| e.to_string())
    };
    let told = told(3, 3).expect("3 does not divide 8");
    assert!(
        told.ends_with("blk.0: ep 3 must divide 8 experts and 3 tensor-parallel ranks"),
        "{told}"
    );
}

/// The CPU device with so much memory.
struct Small {
    device: CpuDevice,
    left: Cell<u64>,
}

impl Device for Small {
    fn info(&self) -> &DeviceInfo {
        self.device.info()
    }

    fn limits(&self) -> &Limits {
        self.device.limits()
    }

    fn ledger(&self) -> &Ledger {
        self.device.ledger()
    }

    fn alloc<'a>(
        &'a self,
        bytes: u64,
        purpose: Purpose,
        label: &'a str,
    ) -> LocalFuture<'a, Result<Buffer>> {
        Box::pin(async move {
            let Some(left) = self.left.get().checked_sub(bytes) else {
                return Err(Error::OutOfMemory {
                    device: "small".into(),
                    bytes,
                    what: label.to_string(),
                });
            };
            self.left.set(left);
            self.device.alloc(bytes, purpose, label).await
        })
    }

    fn write(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        self.device.write(buffer, offset, bytes)
    }

    fn flush(&self) -> LocalFuture<'_, Result<()>> {
        self.device.flush()
    }

    fn read<'a>(&'a self, b: &'a Buffer, at: u64, n: u64) -> LocalFuture<'a, Result<Vec<u8>>> {
        self.device.read(b, at, n)
    }

    fn prepare<'a>(&'a self, recording: &'a Recording) -> LocalFuture<'a, Result<Prepared>> {
        self.device.prepare(recording)
    }

    fn run_segment(&self, prepared: &Prepared, segment: usize) -> Result<()> {
        self.device.run_segment(prepared, segment)
    }
}

#[test]
fn a_device_without_room_names_the_rank_and_what_would_fit() {
    let one: Rc<dyn Device> = Rc::new(CpuDevice::new());
    let small: Rc<dyn Device> = Rc::new(Small {
        device: CpuDevice::new(),
        left: Cell::new(300_000),
    });
    let world = world(layout(2, 1), &Split::even(2), &[one, small]);
    let told = load(tiny(), world, 32).err().expect("there is no room");
    let text = told.to_string();
    for part in [
        "device small: out of memory",
        "of rank 1",
        "would fit here (--split)",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

/// A file that counts what is read of it.
struct Counted {
    bytes: BytesSource,
    read: Rc<Cell<u64>>,
}

impl WeightSource for Counted {
    fn name(&self) -> &str {
        self.bytes.name()
    }

    fn len(&self) -> u64 {
        self.bytes.len()
    }

    fn read<'a>(&'a self, offset: u64, out: &'a mut [u8]) -> LocalFuture<'a, Result<()>> {
        self.read.set(self.read.get() + out.len() as u64);
        self.bytes.read(offset, out)
    }
}

#[test]
fn a_rank_reads_only_its_own_bytes() {
    let one: [Rc<dyn Device>; 1] = [Rc::new(CpuDevice::new())];
    let mesh = Mesh::tensor(4);
    for rank in 0..4 {
        let read = Rc::new(Cell::new(0));
        let source = Counted {
            bytes: BytesSource::new("tiny", shardlight::builtin::TINY),
            read: Rc::clone(&read),
        };
        let files = pollster::block_on(ModelFiles::open(vec![Rc::new(source)])).expect("opens");
        let header = read.replace(0);
        let placement = Placement::new(mesh, rank, Split::even(4), false).expect("a placement");
        let quiet = &mut |_, _| Ok(());
        let mut loader = Loader::new(&files, Rc::clone(&one[0]), quiet);
        loader.go_to(Rc::new(placement), Rc::clone(&one[0]));
        pollster::block_on(shardlight::models::load(&mut loader, 64)).expect("loads");
        // What is read is what is kept, and about a quarter of the file.
        let held = loader.held();
        assert_eq!(read.get(), held.read, "rank {rank}");
        let share = read.get() as f64 / files.bytes() as f64;
        assert!(
            (0.2..0.4).contains(&share),
            "rank {rank}: {share} of the file, header {header}"
        );
    }
}

#[test]
fn what_cannot_be_split_says_so_with_its_numbers() {
    let one: [Rc<dyn Device>; 1] = [Rc::new(CpuDevice::new())];
    let told = |at: Layout| {
        let world = world(at, &Split::even(at.tp), &one);
        match load(tiny(), world, 32) {
            Ok(_) => panic!("{at:?} loads"),
            Err(e) => e.to_string(),
        }
    };
    let config = tiny().config;
    let (heads, layers) = (config.num_attention_heads, config.num_hidden_layers);
    let text = told(layout(heads + 1, 1));
    assert!(
        text.contains("attention heads") && text.contains("at most"),
        "{text}"
    );
    let text = told(layout(1, layers + 1));
    assert!(
        text.contains("layers") && text.contains(&layers.to_string()),
        "{text}"
    );
}
