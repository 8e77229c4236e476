//! Mixtures of experts whose experts stay in the file, against the same model in memory and recorded results.

use std::cell::Cell;
use std::fs;
use std::ops::ControlFlow;
use std::rc::Rc;

use shardlight::comm::{LocalComm, Mesh, Placement, World};
use shardlight::device::cpu::CpuDevice;
use shardlight::device::{Device, DeviceKind};
use shardlight::kv_cache::KvDType;
use shardlight::session::{Session, SessionOptions};
use shardlight::shard::Split;
use shardlight::weights::source::LocalFuture;
use shardlight::weights::{BytesSource, ModelFiles, WeightSource};
use shardlight::{Error, Result};
use shardlight_tests::golden::{greedy, ids, json, nmse, tensor};
use shardlight_tests::{data, devices, open};

/// Families with experts.
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

/// One rank.
fn alone() -> (Mesh, bool) {
    (Mesh::default(), false)
}

fn files(name: &str) -> ModelFiles {
    let folder = data().join("families").join(name);
    open(&[folder.join("config.json"), folder.join("model.safetensors")])
}

fn load(
    files: ModelFiles,
    device: &Rc<dyn Device>,
    (mesh, sp): (Mesh, bool),
    cache: Option<u64>,
) -> Result<Session> {
    let ranks = (0..mesh.tp).map(|rank| {
        let placement = Placement::new(mesh, rank, Split::even(mesh.tp), sp);
        (placement.expect("a placement"), Rc::clone(device))
    });
    let world = World::new(ranks.collect(), Rc::new(LocalComm)).expect("a world");
    let options = SessionOptions {
        context_length: Some(256),
        kv: KvDType::F32,
        prefill_chunk: 7,
        expert_cache: cache,
        ..SessionOptions::default()
    };
    let quiet = &mut |_| ControlFlow::Continue(());
    pollster::block_on(Session::load(files, world, options, quiet))
}

fn logits(session: &mut Session, tokens: &[u32]) -> Vec<f32> {
    pollster::block_on(session.logits(tokens, true)).unwrap_or_else(|e| panic!("{e}"))
}

/// Bytes of all experts.
fn experts_bytes(name: &str, device: &Rc<dyn Device>) -> u64 {
    let all = load(files(name), device, alone(), Some(1 << 40)).expect("loads");
    let used = all.expert_cache().expect("a cache");
    assert_eq!(used.slots, used.experts, "{name}: room for all");
    used.bytes
}

#[test]
fn a_cache_of_a_quarter_of_the_experts_gives_the_same_bits() {
    let cpu: Rc<dyn Device> = Rc::new(CpuDevice::new());
    for device in devices() {
        for name in MIXTURES {
            let at = format!("{name} on {}", device.info());
            let case = json(data().join("families").join(name).join("case.json"));
            let prompt = ids(&case["tokens"]);
            let mut whole = load(files(name), &device, alone(), None).expect("loads");
            let held = whole.shards()[0].held.bytes;
            let in_memory = logits(&mut whole, &prompt);
            drop(whole);

            let budget = experts_bytes(name, &device) / 4;
            let session = load(files(name), &device, alone(), Some(budget));
            let mut session = session.unwrap_or_else(|e| panic!("{at}: {e}"));
            let empty = session.expert_cache().expect("a cache");
            assert!(
                empty.bytes <= budget && empty.slots <= empty.experts / 4 && empty.bytes_read == 0,
                "{at}: {empty:?} of {budget}"
            );
            // Nothing of the experts was loaded. What is held is counted without the padding of rows, which the
            // CPU has none of.
            let rest = session.shards()[0].held.bytes;
            let experts = experts_bytes(name, &cpu);
            assert!(
                rest + experts <= held + held / 50,
                "{at}: {rest} + {experts} of {held}"
            );

            let got = logits(&mut session, &prompt);
            assert!(
                got == in_memory,
                "{at}: other bits, NMSE {:e}",
                nmse(&got, &in_memory)
            );
            let folder = data().join("families").join(name);
            let error = nmse(&got, &tensor(folder.join("logits.safetensors"), "logits"));
            assert!(error < 1e-9, "{at}: NMSE {error:e}");
            let want = ids(&case["greedy"]);
            assert_eq!(greedy(&mut session, &prompt, want.len()).0, want, "{at}");
            let used = session.expert_cache().expect("a cache");
            assert!(
                used.hits > 0 && used.misses > 0 && used.bytes_read > 0,
                "{at}: {used:?}"
            );
            println!("{at}: logits' NMSE {error:.1e}; {used:?}");
        }
    }
}

#[test]
fn ranks_page_their_own_experts() {
    for device in devices() {
        for name in ["mixtral", "gpt_oss", "gpt_oss_mxfp4", "deepseek_v2"] {
            let case = json(data().join("families").join(name).join("case.json"));
            let prompt = ids(&case["tokens"]);
            let folder = data().join("families").join(name);
            let want = tensor(folder.join("logits.safetensors"), "logits");
            let all = experts_bytes(name, &device);
            for (tp, ep, sp) in [(2, 1, false), (2, 2, true), (4, 2, false), (4, 4, true)] {
                let mesh = Mesh {
                    ep,
                    ..Mesh::tensor(tp)
                };
                // A rank of four may hold as many experts as a token needs.
                let budget = if ep == 4 { all } else { all / 2 };
                let at = format!("{name}, tp {tp}, ep {ep}, sp {sp} on {}", device.info());
                let session = load(files(name), &device, (mesh, sp), Some(budget));
                let mut session = session.unwrap_or_else(|e| panic!("{at}: {e}"));
                let error = nmse(&logits(&mut session, &prompt), &want);
                assert!(error <= 1e-10, "{at}: NMSE {error:e}");
                let want = ids(&case["greedy"]);
                assert_eq!(greedy(&mut session, &prompt, want.len()).0, want, "{at}");
                let used = session.expert_cache().expect("a cache");
                assert!(
                    used.bytes <= budget && used.hits > 0,
                    "{at}: {used:?} of {budget}"
                );
            }
        }
    }
}

#[test]
fn what_is_likely_is_read_ahead_on_gpus() {
    for device in devices() {
        let case = json(data().join("families/mixtral/case.json"));
        let budget = experts_bytes("mixtral", &device) / 2;
        let session = load(files("mixtral"), &device, alone(), Some(budget));
        let mut session = session.unwrap_or_else(|e| panic!("{e}"));
        // One token again and again has the same experts again and again.
        let prompt = vec![ids(&case["tokens"])[0]; 40];
        for _ in 0..3 {
            logits(&mut session, &ids(&case["tokens"]));
            greedy(&mut session, &prompt, 24);
        }
        let used = session.expert_cache().expect("a cache");
        println!("{}: {used:?}", device.info());
        match device.info().kind {
            DeviceKind::Cpu => assert_eq!(used.prefetched, 0),
            _ => assert!(used.prefetch_hits > 0, "{used:?}"),
        }
        assert!(used.prefetch_hits <= used.prefetched && used.prefetch_hits <= used.hits);
    }
}

#[test]
fn what_cannot_be_a_cache_says_so_with_its_numbers() {
    let device = &devices()[0];
    let told = |name: &str, cache| {
        let told = load(files(name), device, alone(), Some(cache));
        told.err().map(|e| e.to_string()).unwrap_or_default()
    };
    let least = "expert cache: 10000 bytes have room for ";
    let text = told("mixtral", 10_000);
    assert!(
        text.starts_with(least) && text.contains("needs 2 of them"),
        "{text}"
    );
    // What it says is enough, is.
    let bytes = text
        .split("at least ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let bytes: u64 = bytes
        .and_then(|b| b.parse().ok())
        .expect("a number of bytes");
    assert!(told("mixtral", bytes - 2).contains("at least"));
    assert_eq!(told("mixtral", bytes), "");
    assert_eq!(
        told("llama", 1 << 20),
        "expert cache: this model has no experts; leave it out"
    );
}

/// A file that cannot be read any more after so many reads.
struct Failing {
    file: BytesSource,
    left: Rc<Cell<usize>>,
}

impl WeightSource for Failing {
    fn name(&self) -> &str {
        self.file.name()
    }

    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read<'a>(&'a self, offset: u64, out: &'a mut [u8]) -> LocalFuture<'a, Result<()>> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                self.file.read(offset, out)
            }
            None => Box::pin(std::future::ready(Err(Error::io(self.name(), "gone")))),
        }
    }
}

#[test]
fn a_file_that_fails_while_a_step_runs_is_an_error_and_nothing_is_lost() {
    let folder = data().join("families/mixtral");
    let case = json(folder.join("case.json"));
    let prompt = ids(&case["tokens"]);
    for device in devices() {
        let left = Rc::new(Cell::new(usize::MAX));
        let sources = ["config.json", "model.safetensors"].map(|name| {
            let bytes = fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
            let file = BytesSource::new(name, bytes);
            let left = Rc::clone(&left);
            Rc::new(Failing { file, left }) as Rc<dyn WeightSource>
        });
        let files = pollster::block_on(ModelFiles::open(sources.into())).expect("opens");
        let budget = experts_bytes("mixtral", &device) / 4;
        let mut session = load(files, &device, alone(), Some(budget)).expect("loads");
        for reads in [0, 1, 5, 20] {
            left.set(reads);
            let told = pollster::block_on(session.logits(&prompt, true));
            let told = told.err().map(|e| e.to_string()).unwrap_or_default();
            assert_eq!(told, "model.safetensors: gone", "after {reads} reads");
        }
        left.set(usize::MAX);
        let want = tensor(folder.join("logits.safetensors"), "logits");
        let error = nmse(&logits(&mut session, &prompt), &want);
        assert!(error < 1e-9, "{}: NMSE {error:e}", device.info());
    }
}
