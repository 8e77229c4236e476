//! Recorded answers of whole models, and how ours are compared with them.

use std::ops::ControlFlow;
use std::path::PathBuf;

use serde_json::Value;
use shardlight::session::{GenerateOptions, Session, StopReason};

/// A JSON file.
///
/// # Panics
///
/// When it cannot be read.
pub fn json(path: PathBuf) -> Value {
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A list of tokens.
///
/// # Panics
///
/// When it is none.
pub fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().expect("a list of tokens");
    list.iter()
        .map(|v| v.as_u64().expect("a token") as u32)
        .collect()
}

/// A list of numbers.
///
/// # Panics
///
/// When it is none.
pub fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list of numbers");
    list.iter().map(|v| v.as_f64().expect("a number")).collect()
}

/// The f32 tensor `name` of a safetensors file.
///
/// # Panics
///
/// When it has none.
pub fn tensor(path: PathBuf, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let names = file.names();
    let tensor = file
        .tensor(name)
        .unwrap_or_else(|e| panic!("{name} in {names:?}: {e}"));
    let words = tensor.data().chunks_exact(4);
    words
        .map(|w| f32::from_le_bytes([w[0], w[1], w[2], w[3]]))
        .collect()
}

/// Sum of squared differences over sum of squares.
///
/// # Panics
///
/// When the lengths differ.
pub fn nmse(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |v: f64| v * v;
    let pairs = got.iter().zip(want);
    let error: f64 = pairs
        .map(|(g, w)| square(f64::from(*g) - f64::from(*w)))
        .sum();
    error / want.iter().map(|w| square(f64::from(*w))).sum::<f64>()
}

/// Greedy tokens, the end token included where it came, and their text.
///
/// # Panics
///
/// When the session fails, or streams another text.
pub fn greedy(session: &mut Session, prompt: &[u32], count: usize) -> (Vec<u32>, String) {
    let options = GenerateOptions {
        max_tokens: count,
        ..GenerateOptions::default()
    };
    let mut streamed = String::new();
    let found = pollster::block_on(session.generate(prompt, &options, &mut |event| {
        if let shardlight::session::Event::Token { text, .. } = event {
            streamed.push_str(text);
        }
        ControlFlow::Continue(())
    }));
    let found = found.unwrap_or_else(|e| panic!("{}: {e}", session.device().info()));
    assert_eq!(found.text, streamed, "the stream is the text");
    let mut tokens = found.tokens;
    tokens.extend(found.end);
    assert_eq!(found.end.is_some(), found.stop == StopReason::Eos);
    (tokens, found.text)
}

/// Tokens must be equal up to the first step whose recorded margin is within rounding.
///
/// # Panics
///
/// When they are not.
pub fn compare(place: &str, got: &[u32], want: &[u32], margins: &[f64]) {
    for (i, want_id) in want.iter().enumerate() {
        if got.get(i) == Some(want_id) {
            continue;
        }
        let margin = margins.get(i).copied().unwrap_or(f64::INFINITY);
        assert!(
            margin < 0.02,
            "{place}: token {i} is {:?}, expected {want_id} (margin {margin})",
            got.get(i)
        );
        eprintln!(
            "{place}: compared {i} of {} tokens, then a tie of {margin}",
            want.len()
        );
        return;
    }
}
