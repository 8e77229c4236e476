//! wasm-bindgen surface of Shardlight.
