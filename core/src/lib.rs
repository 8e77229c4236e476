//! Shardlight's core: reads model weights, schedules layers over shards and runs them on a
//! [device](device).
//!
//! The road from a file's bytes to a token is described in `ARCHITECTURE.md`.

pub mod builtin;
pub mod chat;
pub mod comm;
pub mod constraint;
pub mod device;
pub mod dtype;
pub mod error;
pub mod expert_cache;
pub mod kernels;
pub mod kv_cache;
pub mod models;
pub mod nn;
pub mod ops;
pub mod plan;
pub mod profile;
pub mod recording;
pub mod sampler;
pub mod session;
pub mod shard;
pub mod tensor;
pub mod tokenizer;
pub mod trace;
pub mod weights;

pub use dtype::DType;
pub use error::{Error, Result};
