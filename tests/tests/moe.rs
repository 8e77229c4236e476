//! Mixtures of experts against the dense models that they were made of.

use std::ops::ControlFlow;
use std::rc::Rc;

use shardlight::DType;
use shardlight::comm::World;
use shardlight::device::{Device, DeviceKind};
use shardlight::kv_cache::KvDType;
use shardlight::session::{Session, SessionOptions};
use shardlight::weights::dequant::dequantize;
use shardlight::weights::gguf::{GgufHeader, Upcycle, Writer, upcycle};
use shardlight::weights::{BytesSource, ModelFiles, WeightSource};
use shardlight_tests::golden::{greedy, ids, json, nmse, tensor};
use shardlight_tests::{data, devices, smollm2, source};

fn load(source: &Rc<dyn WeightSource>, device: &Rc<dyn Device>) -> Session {
    let files = pollster::block_on(ModelFiles::open(vec![Rc::clone(source)]));
    let options = SessionOptions {
        context_length: Some(256),
        kv: KvDType::F32,
        prefill_chunk: 64,
        ..SessionOptions::default()
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

/// The same model with all weights in f32, and how many of its tensors are of type `dtype`.
fn dequantized(source: &dyn WeightSource, dtype: DType) -> (Rc<dyn WeightSource>, usize) {
    let header = pollster::block_on(GgufHeader::read(source, 0)).unwrap_or_else(|e| panic!("{e}"));
    let mut writer = Writer::new();
    for (key, value) in header.metadata.iter() {
        writer = writer.metadata(key, value.clone());
    }
    for info in &header.tensors {
        let mut bytes = vec![0; info.bytes as usize];
        pollster::block_on(source.read(info.offset, &mut bytes)).expect("its bytes");
        let mut values = vec![0.0f32; info.shape.iter().product()];
        dequantize(info.dtype, &bytes, &mut values);
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        writer = writer.tensor(&info.name, DType::F32, &info.shape, bytes);
    }
    let count = header.tensors.iter().filter(|t| t.dtype == dtype).count();
    let bytes = writer.to_bytes().expect("a file");
    (Rc::new(BytesSource::new("f32.gguf", bytes)), count)
}

/// `mxfp4.gguf` is the family's file, written again by `tests/tools/gpt_oss_mxfp4.py`.
#[test]
fn gpt_oss_with_mxfp4_experts_is_the_model_of_their_values() {
    let folder = data().join("families/gpt_oss");
    let mxfp4 = source(&folder.join("mxfp4.gguf"));
    let (f32, count) = dequantized(mxfp4.as_ref(), DType::Mxfp4);
    assert_eq!(count, 6, "gate, up and down of two layers");
    let tokens = ids(&json(folder.join("case.json"))["tokens"]);
    // Many pairs too, which are sorted by expert.
    let long: Vec<u32> = tokens.iter().copied().cycle().take(100).collect();
    for device in devices() {
        compare(&f32, &mxfp4, &tokens, &device);
        compare(&f32, &mxfp4, &long, &device);
        let got = pollster::block_on(load(&mxfp4, &device).logits(&tokens, true));
        let got = got.unwrap_or_else(|e| panic!("{}: {e}", device.info()));
        let error = nmse(&got, &tensor(folder.join("logits.safetensors"), "logits"));
        println!("{}: NMSE {error:.1e} of the model in f32", device.info());
        assert!(error < 0.05, "{}: NMSE {error:e}", device.info());
    }
}
