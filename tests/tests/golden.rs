//! Whole models against recorded results of other programs; `tests/data/*/` name their origin.

use std::ops::ControlFlow;
use std::rc::Rc;

use shardlight::chat::{Message, Options};
use shardlight::comm::World;
use shardlight::device::Device;
use shardlight::kv_cache::KvDType;
use shardlight::models::Positions;
use shardlight::session::{Session, SessionOptions};
use shardlight::weights::gguf;
use shardlight::weights::{BytesSource, ModelFiles, WeightSource};
use shardlight_tests::golden::{compare, greedy, ids, json, nmse, numbers, tensor};
use shardlight_tests::{data, devices, open, smollm2};

fn load(files: ModelFiles, device: &Rc<dyn Device>, kv: KvDType, chunk: usize) -> Session {
    let options = SessionOptions {
        context_length: Some(files.config.max_position_embeddings.min(1024)),
        kv,
        prefill_chunk: chunk,
        ..SessionOptions::default()
    };
    let quiet = &mut |_| ControlFlow::Continue(());
    pollster::block_on(Session::load(
        files,
        World::single(Rc::clone(device)),
        options,
        quiet,
    ))
    .unwrap_or_else(|e| panic!("{}: {e}", device.info()))
}

const PROMPTS: &[&str] = &[
    "capital",
    "chat_capital",
    "chat_sky",
    "code",
    "count",
    "fox",
    "long",
    "unicode",
];

#[test]
fn smollm2_answers_as_recorded_on_every_device() {
    let path = smollm2();
    for device in devices() {
        let mut session = load(open(std::slice::from_ref(&path)), &device, KvDType::F32, 64);
        for name in PROMPTS {
            let place = format!("{name} on {}", device.info());
            let case = json(data().join(format!("smollm2/{name}.json")));
            let prompt = ids(&case["tokens"]);

            let file = data().join(format!("smollm2/{name}.logits.safetensors"));
            let want = tensor(file, "logits");
            let got = pollster::block_on(session.logits(&prompt, false));
            let error = nmse(&got.unwrap_or_else(|e| panic!("{place}: {e}")), &want);
            assert!(error < 1e-8, "{place}: logits' NMSE {error:e}");
            println!("{place}: logits' NMSE {error:.1e}");

            let want = ids(&case["greedy_tokens"]);
            let (got, text) = greedy(&mut session, &prompt, want.len());
            compare(&place, &got, &want, &numbers(&case["margins"]));
            if got == want {
                assert_eq!(Some(text.as_str()), case["greedy_text"].as_str(), "{place}");
            }
        }
    }
}

#[test]
fn smollm2_prompts_become_the_recorded_tokens() {
    let files = open(&[smollm2()]);
    let tokenizer = files.tokenizer.expect("a tokenizer");
    let template = files.template.expect("a template");
    for name in PROMPTS {
        let case = json(data().join(format!("smollm2/{name}.json")));
        let got = match case["messages"].as_array() {
            None => {
                let text = case["text"].as_str().expect("a text");
                tokenizer.encode(text, true, true)
            }
            Some(messages) => {
                let text = |v: &serde_json::Value| v.as_str().expect("a text").to_string();
                let messages: Vec<_> = (messages.iter())
                    .map(|m| Message::new(&text(&m["role"]), &text(&m["content"])))
                    .collect();
                let options = Options {
                    add_generation_prompt: true,
                    ..Options::default()
                };
                let pieces = template
                    .render_pieces(&messages, &options, &tokenizer.control_texts())
                    .expect("renders");
                tokenizer.encode_pieces(&pieces, false)
            }
        };
        assert_eq!(got.expect("encodes"), ids(&case["tokens"]), "{name}");
    }
}

#[test]
fn every_family_gives_the_recorded_logits() {
    let models = [
        "llama",
        "llama_tied",
        "llama3_rope",
        "llama_linear_rope",
        "llama_yarn",
        "mistral_swa",
        "qwen2",
        "qwen3",
        "granite",
        "mixtral",
        "qwen2_moe",
        "qwen3_moe",
        "olmoe",
        "granite_moe",
        "gpt_oss",
        "gpt_oss_mxfp4",
        "deepseek_v2",
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
    ];
    for device in devices() {
        for name in models {
            let folder = data().join("families").join(name);
            let place = format!("{name} on {}", device.info());
            let case = json(folder.join("case.json"));
            let mut files = open(&[folder.join("config.json"), folder.join("model.safetensors")]);
            // transformers' eager attention, with which it was recorded, adds ALiBi twice: in the mask and to the scores
            // (5.23, modeling_falcon.py, lines 394 and 775). Its other ways, and Falcon's own code, add it once.
            if let ("falcon_alibi", Positions::Alibi { scale, .. }) =
                (name, &mut files.config.positions)
            {
                *scale *= 2.0;
            }
            // Chunks of 7, so that prompts are cut in the middle.
            let mut session = load(files, &device, KvDType::F32, 7);
            let prompt = ids(&case["tokens"]);
            let want = tensor(folder.join("logits.safetensors"), "logits");
            let got = pollster::block_on(session.logits(&prompt, true));
            let error = nmse(&got.unwrap_or_else(|e| panic!("{place}: {e}")), &want);
            assert!(error < 1e-9, "{place}: logits' NMSE {error:e}");
            println!("{place}: logits' NMSE {error:.1e}");

            let want = ids(&case["greedy"]);
            let (got, _) = greedy(&mut session, &prompt, want.len());
            assert_eq!(got, want, "{place}");
        }
    }
}

#[test]
fn the_builtin_models_answer_as_recorded_on_every_device() {
    let files = ["tiny/golden.json", "tiny/moe.json"];
    assert_eq!(shardlight::builtin::MODELS.len(), files.len());
    for (&(name, bytes), golden) in shardlight::builtin::MODELS.iter().zip(files) {
        let golden = json(data().join(golden));
        let source: Rc<dyn WeightSource> = Rc::new(BytesSource::new(name, bytes));
        for device in devices() {
            let files = ModelFiles::open(vec![Rc::clone(&source)]);
            let files = pollster::block_on(files).unwrap_or_else(|e| panic!("{e}"));
            let mut session = load(files, &device, KvDType::F32, 16);
            for case in golden["cases"].as_array().expect("cases") {
                let place = format!("{name}: {} on {}", case["prompt"], device.info());
                let (prompt, want) = (ids(&case["tokens"]), ids(&case["greedy"]));
                let (got, _) = greedy(&mut session, &prompt, want.len());
                compare(&place, &got, &want, &numbers(&case["margins"]));
                if !case["logits"].is_null() {
                    let want: Vec<f32> =
                        numbers(&case["logits"]).iter().map(|v| *v as f32).collect();
                    let got = pollster::block_on(session.logits(&prompt, false));
                    let error = nmse(&got.unwrap_or_else(|e| panic!("{place}: {e}")), &want);
                    println!("{place}: logits' NMSE {error:.1e}");
                    // Recorded with six digits.
                    assert!(error < 1e-10, "{place}: logits' NMSE {error:e}");
                }
            }
        }
    }
}

/// As `gguf-split` does: the first file has the metadata, every one some of the tensors.
fn split(bytes: &'static [u8], count: usize) -> Vec<Rc<dyn WeightSource>> {
    let whole = BytesSource::new("m.gguf", bytes);
    let header = pollster::block_on(gguf::GgufHeader::read(&whole, 0)).expect("a model");
    let all = header.tensors.len();
    let part = |number: usize| {
        let mut file = gguf::Writer::new();
        if number == 0 {
            for (key, value) in header.metadata.iter() {
                file = file.metadata(key, value.clone());
            }
        }
        let file = file
            .metadata("split.no", gguf::MetaValue::U16(number as u16))
            .metadata("split.count", gguf::MetaValue::U16(count as u16))
            .metadata("split.tensors.count", gguf::MetaValue::I32(all as i32));
        let tensors = &header.tensors[all * number / count..all * (number + 1) / count];
        let file = tensors.iter().fold(file, |file, t| {
            let data = bytes[t.offset as usize..][..t.bytes as usize].to_vec();
            file.tensor(&t.name, t.dtype, &t.shape, data)
        });
        let name = format!("m-{:05}-of-{count:05}.gguf", number + 1);
        Rc::new(BytesSource::new(name, file.to_bytes().expect("a file"))) as Rc<dyn WeightSource>
    };
    (0..count).map(part).collect()
}

#[test]
fn a_split_model_is_the_whole_one() {
    let golden = json(data().join("tiny/golden.json"));
    let case = &golden["cases"][0];
    let (prompt, want) = (ids(&case["tokens"]), ids(&case["greedy"]));
    let mut parts = split(shardlight::builtin::TINY, 3);
    parts.reverse();
    for device in devices() {
        let files = pollster::block_on(ModelFiles::open(parts.clone()));
        let files = files.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(files.name(), "m-00001-of-00003.gguf");
        let mut session = load(files, &device, KvDType::F32, 16);
        let (got, _) = greedy(&mut session, &prompt, want.len());
        compare("in three files", &got, &want, &numbers(&case["margins"]));
    }
}

#[test]
fn a_half_precision_cache_changes_little() {
    for device in devices() {
        let folder = data().join("families/llama");
        let files = open(&[folder.join("config.json"), folder.join("model.safetensors")]);
        let mut session = load(files, &device, KvDType::F16, 7);
        let case = json(folder.join("case.json"));
        let want = tensor(folder.join("logits.safetensors"), "logits");
        let got = pollster::block_on(session.logits(&ids(&case["tokens"]), true));
        let error = nmse(&got.unwrap_or_else(|e| panic!("{e}")), &want);
        // Recorded elsewhere: about 3e-3 absolute on such models.
        assert!(error < 1e-5, "{}: NMSE {error:e}", device.info());
        assert!(
            error > 0.0,
            "{}: the cache is not in half precision",
            device.info()
        );
    }
}

#[test]
fn an_eight_bit_cache_changes_little_and_no_text() {
    let golden = json(data().join("tiny/golden.json"));
    let bytes = BytesSource::new(shardlight::builtin::TINY_NAME, shardlight::builtin::TINY);
    let source: Rc<dyn WeightSource> = Rc::new(bytes);
    for device in devices() {
        let mut sessions = [KvDType::F32, KvDType::Q8_0].map(|kv| {
            let files = pollster::block_on(ModelFiles::open(vec![Rc::clone(&source)]));
            load(files.unwrap_or_else(|e| panic!("{e}")), &device, kv, 16)
        });
        for case in golden["cases"].as_array().expect("cases") {
            let place = format!("{} on {}", case["prompt"], device.info());
            let tokens = ids(&case["tokens"]);
            let logits = sessions.each_mut().map(|s| {
                let logits = pollster::block_on(s.logits(&tokens, true));
                logits.unwrap_or_else(|e| panic!("{place}: {e}"))
            });
            let error = nmse(&logits[1], &logits[0]);
            assert!(error < 1e-4, "{place}: NMSE {error:e}");
            assert!(error > 0.0, "{place}: the cache is not in 8 bits");
            let want = ids(&case["greedy"]);
            let (got, _) = greedy(&mut sessions[1], &tokens, want.len());
            compare(&place, &got, &want, &numbers(&case["margins"]));
        }
    }
}

#[test]
fn a_conversation_reuses_its_cache_and_gives_the_same_text() {
    for device in devices() {
        let folder = data().join("families/llama");
        let files = open(&[folder.join("config.json"), folder.join("model.safetensors")]);
        let mut session = load(files, &device, KvDType::F32, 7);
        let case = json(folder.join("case.json"));
        let prompt = ids(&case["tokens"]);
        let (first, _) = greedy(&mut session, &prompt, 6);
        let (second, _) = greedy(&mut session, &[&prompt[..], &first[..]].concat(), 6);
        assert_eq!([first, second].concat(), ids(&case["greedy"]));
    }
}

#[test]
fn a_router_that_gives_no_numbers_is_named_with_its_layer_and_token() {
    let folder = data().join("families/mixtral");
    let path = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (name, token) = ("model.layers.1.block_sparse_moe.gate.weight", 65usize);
    // Where a tensor's bytes begin.
    let start = |name: &str| {
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        tensor.data().as_ptr().addr() - bytes.as_ptr().addr()
    };
    let router = start(name);
    bytes[router..router + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let source = |name: &str, bytes: Vec<u8>| -> Rc<dyn WeightSource> {
        Rc::new(BytesSource::new(name, bytes))
    };
    let config = std::fs::read(folder.join("config.json")).expect("a configuration");
    for device in devices() {
        let sources = vec![
            source("config.json", config.clone()),
            source("model.safetensors", bytes.clone()),
        ];
        let files = pollster::block_on(ModelFiles::open(sources)).unwrap_or_else(|e| panic!("{e}"));
        let mut session = load(files, &device, KvDType::F32, 7);
        let options = shardlight::session::GenerateOptions::default();
        let quiet = &mut |_: shardlight::session::Event<'_>| ControlFlow::Continue(());
        let told = pollster::block_on(session.generate(&[token as u32, 7], &options, quiet));
        let told = told
            .map(|made| made.text)
            .expect_err("no number")
            .to_string();
        let want = "layer 1: the router's logits of token 65 at position 0 are not numbers";
        assert!(told.starts_with(want), "{}: {told}", device.info());
    }
}
