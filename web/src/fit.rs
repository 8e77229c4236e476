//! Would a model run here? Asked before its data is fetched.

use serde::Serialize;
use shardlight::device::{self, DeviceKind, Limits};
use shardlight::plan;
use shardlight::weights::ModelFiles;
use wasm_bindgen::prelude::*;

use crate::browser;
use crate::error::Failure;
use crate::options::{Device, Load, options_from_js, to_js};
use crate::source;

/// Bytes that 32-bit wasm can address, but for what the program itself needs.
const WASM_MEMORY: u64 = (4 << 30) - (128 << 20);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fit<'a> {
    name: &'a str,
    architecture: &'a str,
    parameters: u64,
    bytes: u64,
    dtype: &'a str,
    context_length: usize,
    max_context_length: usize,
    memory: Memory,
    /// Bytes of device memory, where they are known.
    capacity: Option<u64>,
    largest_context: Option<usize>,
    device: Device,
    limits: LimitsOf,
    sliced: usize,
    variants: &'a [String],
    speed: Option<plan::Speed>,
    fits: bool,
    problems: &'a [String],
    advice: &'a [String],
}

#[derive(Serialize)]
struct Memory {
    weights: u64,
    kv: u64,
    activations: u64,
    total: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LimitsOf {
    max_binding_bytes: u64,
    max_workgroup_size: u32,
    max_workgroup_bytes: u32,
    f16: bool,
    packed_dot: bool,
    subgroups: bool,
}

impl From<&Limits> for LimitsOf {
    fn from(limits: &Limits) -> Self {
        LimitsOf {
            max_binding_bytes: limits.max_binding_bytes,
            max_workgroup_size: limits.max_workgroup_size,
            max_workgroup_bytes: limits.max_workgroup_bytes,
            f16: limits.f16,
            packed_dot: limits.packed_dot,
            subgroups: limits.subgroup.is_some(),
        }
    }
}

/// How the model of `source` would fit the device of `options`, both as [`load`](crate::load) takes them: only its
/// headers are read. `memory` is how many bytes a GPU has, if that is known.
///
/// # Errors
///
/// The core's, as one line with a `code`, for what is no model or one that no device can run.
#[wasm_bindgen]
pub async fn check(
    source: JsValue,
    options: JsValue,
    memory: Option<f64>,
) -> Result<JsValue, Failure> {
    let options: Load = options_from_js(&options)?;
    let session = options.session();
    let files = ModelFiles::open(source::sources(&source).await?).await?;
    let device = device::open(&options.device()?).await?;
    let capacity = match device.info().kind {
        DeviceKind::Cpu => Some(WASM_MEMORY),
        _ => memory.map(|bytes| bytes as u64),
    };
    let clock = || browser::milliseconds() / 1e3;
    let context = session.context_length;
    let fit = plan::fit(
        &files,
        device.as_ref(),
        context,
        session.kv,
        capacity,
        &clock,
    )
    .await?;
    Ok(to_js(&Fit {
        name: files.name(),
        architecture: &files.config.architecture,
        parameters: fit.parameters,
        bytes: fit.bytes,
        dtype: &fit.dtype,
        context_length: fit.context_length,
        max_context_length: fit.max_context_length,
        memory: Memory {
            weights: fit.memory.weights,
            kv: fit.memory.cache,
            activations: fit.total - fit.memory.weights - fit.memory.cache,
            total: fit.total,
        },
        capacity,
        largest_context: fit.largest_context,
        device: device.info().into(),
        limits: device.limits().into(),
        sliced: fit.sliced,
        variants: &fit.variants,
        speed: fit.speed,
        fits: fit.fits,
        problems: &fit.problems,
        advice: &fit.advice,
    })?)
}
