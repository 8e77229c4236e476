//! Mixtures of experts against the dense models that they were made of.

use std::ops::ControlFlow;
use std::rc::Rc;

use shardlight::comm::World;
use shardlight::device::{Device, DeviceKind};
use shardlight::kv_cache::KvDType;
use shardlight::session::{Session, SessionOptions};
use shardlight::weights::gguf::{Upcycle, upcycle};
use shardlight::weights::{BytesSource, ModelFiles, WeightSource};
use shardlight_tests::golden::{greedy, nmse};
use shardlight_tests::{devices, smollm2};

fn load(source: &Rc<dyn WeightSource>, device: &Rc<dyn Device>) -> Session {
    let files = pollster::block_on(ModelFiles::open(vec![Rc::clone(source)]));
    let options = SessionOptions {
        context_length: Some(256),
        kv: KvDType::F32,
        prefill_chunk: 64,
    };
    let quiet = &mut |_| ControlFlow::Continue(());
    let world = World::single(Rc::clone(device));
    let session = Session::load(
        files.unwrap_or_else(|e| panic!("{e}")),
        world,
        options,
        quiet,
    );
    pollster::block_on(session).unwrap_or_else(|e| panic!("{e}"))
}

fn mixture(dense: &Rc<dyn WeightSource>, experts: usize, chosen: usize) -> Rc<dyn WeightSource> {
    let how = Upcycle {
        experts,
        chosen,
        seed: 1,
    };
    let mut bytes = Vec::new();
    let mut write = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    let made = upcycle(dense.as_ref(), how, &mut write);
    pollster::block_on(made).unwrap_or_else(|e| panic!("{e}"));
    Rc::new(BytesSource::new("mixture.gguf", bytes))
}

/// Logits of every token and greedy text, many and few pairs of tokens and experts.
fn compare(
    dense: &Rc<dyn WeightSource>,
    mixture: &Rc<dyn WeightSource>,
    tokens: &[u32],
    device: &Rc<dyn Device>,
) {
    let [want, got] = [dense, mixture].map(|source| {
        let mut session = load(source, device);
        let logits = pollster::block_on(session.logits(tokens, true));
        let logits = logits.unwrap_or_else(|e| panic!("{}: {e}", device.info()));
        (logits, greedy(&mut session, tokens, 16))
    });
    let error = nmse(&got.0, &want.0);
    println!("{}, {}: NMSE {error:.1e}", mixture.name(), device.info());
    assert!(error <= 1e-10, "{}: NMSE {error:e}", device.info());
    assert_eq!(got.1, want.1, "{}", device.info());
}

#[test]
fn identical_experts_give_the_dense_models_logits() {
    let tiny = BytesSource::new(shardlight::builtin::TINY_NAME, shardlight::builtin::TINY);
    let tiny: Rc<dyn WeightSource> = Rc::new(tiny);
    let tokens: Vec<u32> = (0..50).map(|i| 3 + i * 37 % 1000).collect();
    for device in devices() {
        for (experts, chosen) in [(8, 2), (4, 1), (5, 3), (64, 8)] {
            compare(&tiny, &mixture(&tiny, experts, chosen), &tokens, &device);
        }
    }
}

#[test]
fn smollm2_with_identical_experts_gives_its_logits() {
    let path = smollm2();
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let dense: Rc<dyn WeightSource> = Rc::new(BytesSource::new("smollm2.gguf", bytes));
    let mixture = mixture(&dense, 4, 2);
    for device in devices() {
        // A software GPU takes its time.
        let count = match device.info().kind {
            DeviceKind::Cpu => 64,
            _ => 20,
        };
        let tokens: Vec<u32> = (0..count).map(|i| 5 + i * 379 % 40_000).collect();
        compare(&dense, &mixture, &tokens, &device);
    }
}
