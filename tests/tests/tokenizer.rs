//! Tokenizers against ids recorded by llama.cpp.
//!
//! The vocabularies are too large to keep here: they are looked for in `vocab/`
//! of the tools folder (`tests/data/tokenizer/README.md` says where they come
//! from). Without them the test says so, and fails where `SHARDLIGHT_REQUIRE_ALL`
//! is set.

use std::path::{Path, PathBuf};

use serde_json::Value;
use shardlight::tokenizer::{Tokenizer, TokenizerData};
use shardlight::weights::{BytesSource, gguf::GgufHeader};

/// Vocabularies of a kind that is not supported, each with its reason.
const UNSUPPORTED: &[(&str, &str)] = &[("bert-bge", "WordPiece in a GGUF")];

fn folder() -> PathBuf {
    let tools = std::env::var_os("SHARDLIGHT_TOOLS").map(PathBuf::from);
    let cache = || Some(std::env::home_dir()?.join(".cache/shardlight/tools"));
    tools.or_else(cache).unwrap_or_default().join("vocab")
}

#[test]
fn ids_equal_those_of_llama_cpp() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tokenizer");
    let (mut files, mut missing, mut wrong) = (0, Vec::new(), Vec::new());
    for entry in std::fs::read_dir(data).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        files += 1;
        let golden: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let name = golden["vocabulary"].as_str().unwrap();
        let file = format!("ggml-vocab-{name}.gguf");
        let Ok(bytes) = std::fs::read(folder().join(&file)) else {
            missing.push(file);
            continue;
        };
        let source = BytesSource::new(&file, bytes);
        let header = pollster::block_on(GgufHeader::read(&source, 0)).unwrap();
        let data = TokenizerData::from_gguf(&header.metadata).unwrap().unwrap();
        let tokenizer = Tokenizer::new(data);
        if let Some((_, why)) = UNSUPPORTED.iter().find(|u| u.0 == name) {
            assert!(
                tokenizer.is_err(),
                "{name} is listed as unsupported ({why}) and now works"
            );
            continue;
        }
        let tokenizer = tokenizer.unwrap_or_else(|e| panic!("{name}: {e}"));
        for case in golden["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let want: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let got = tokenizer.encode(text, false, false).unwrap();
            if got != want {
                wrong.push(format!("{name} {text:?}\n  want {want:?}\n  got  {got:?}"));
            }
        }
    }
    assert!(files >= 14, "{files} files of recorded ids");
    assert!(
        wrong.is_empty(),
        "{} cases:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    if !missing.is_empty() {
        println!(
            "not checked, missing in {}: {}",
            folder().display(),
            missing.join(", ")
        );
        assert!(
            std::env::var_os("SHARDLIGHT_REQUIRE_ALL").is_none(),
            "vocabularies are missing: {}; run `cargo xtest tools`",
            missing.join(", ")
        );
    }
}
