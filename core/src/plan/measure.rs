//! What a device of this machine does, by short recordings.

use super::devices::DeviceSpec;
use crate::device::Device;
use crate::kernels::add;
use crate::models::ModelConfig;
use crate::nn::Linear;
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::Weight;
use crate::{DType, Error, Result};

/// Bytes of weights that the products read: more than caches hold.
const WEIGHTS: usize = 64 << 20;

/// Tokens of the product whose arithmetic is measured.
const TOKENS: usize = 64;

/// Shortest measurement, in seconds, and fewest runs.
const LEAST: (f64, u32) = (0.3, 5);

/// Measures launch, submission, bytes per second and FLOP/s of `device` with products of the model's sizes and
/// weights of type `dtype`. `clock` tells seconds. How much memory there is cannot be measured.
///
/// # Errors
///
/// [`Error::OutOfMemory`], [`Error::DeviceLost`].
pub async fn measure(
    device: &dyn Device,
    config: &ModelConfig,
    dtype: DType,
    clock: &dyn Fn() -> f64,
) -> Result<DeviceSpec> {
    let few = seconds(device, &adds(device, 16).await?, clock).await?;
    let many = seconds(device, &adds(device, 272).await?, clock).await?;
    let launch = ((many - few) / 256.0).max(1e-9);
    let submit = (few - 16.0 * launch).max(0.0);

    let (c, f) = (config.hidden_size, config.intermediate_size);
    let pair = dtype.bytes(2 * c * f).unwrap_or(usize::MAX);
    let pairs = (WEIGHTS / pair).clamp(1, 64);
    let mut layers = Vec::with_capacity(2 * pairs);
    for _ in 0..pairs {
        for (rows, cols) in [(f, c), (c, f)] {
            let bytes = dtype.bytes(rows * cols);
            let zeros = vec![0; bytes.unwrap_or_default()];
            let weight = Weight::from_bytes(device, "measure", dtype, rows, cols, &zeros).await?;
            layers.push(Linear::new(weight));
        }
    }
    let work = |tokens: usize| -> Result<(Recording, Tensor)> {
        let mut r = Recording::new();
        let mut x = r.scratch(DType::F32, &[tokens, c])?;
        for layer in &layers {
            x = r.linear(&x, layer)?;
        }
        r.keep(&x);
        Ok((r, x))
    };
    let overhead = submit + launch * layers.len() as f64;
    let one = seconds(device, &work(1)?, clock).await? - overhead;
    let all = seconds(device, &work(TOKENS)?, clock).await? - overhead;
    let bytes = (pairs * pair) as f64;
    let flops = (pairs * TOKENS * 4 * c * f) as f64;
    let positive = |x: f64, what: &str| match x > 0.0 {
        true => Ok(x),
        false => Err(Error::Device {
            device: device.info().name.clone(),
            reason: format!("{what} takes no longer than its launch; it cannot be measured"),
        }),
    };
    let flops = flops / positive(all, "a product of many tokens")?;
    Ok(DeviceSpec {
        name: device.info().name.clone(),
        f32: flops,
        f16: flops,
        bandwidth: bytes / positive(one, "a product of one token")?,
        memory: None,
        launch,
        submit,
        source: format!("measured, products with {dtype}"),
    })
}

/// So many additions of small vectors, one after the other.
async fn adds(device: &dyn Device, count: usize) -> Result<(Recording, Tensor)> {
    const LEN: usize = 64;
    let z = device.alloc(4 * LEN as u64, "measure").await?;
    let z = Tensor::of(z, DType::F32, &[LEN]);
    let mut r = Recording::new();
    let mut x = z.clone();
    for _ in 0..count {
        let y = r.scratch(DType::F32, &[LEN])?;
        let bindings = [&x, &z, &y].map(|t| Some(t.clone()));
        r.push(&add::KERNEL, add::params(LEN, 1.0), bindings.into())?;
        x = y;
    }
    r.keep(&x);
    Ok((r, x))
}

/// Seconds of one run, from queueing to having four bytes of the result: the shortest, since other work on the
/// machine only adds to it.
async fn seconds(
    device: &dyn Device,
    (recording, result): &(Recording, Tensor),
    clock: &dyn Fn() -> f64,
) -> Result<f64> {
    let prepared = device.prepare(recording).await?;
    let buffer = prepared.tensor(result).cloned();
    let buffer = buffer.ok_or_else(|| Error::Invalid("a result was not kept".into()))?;
    let (mut runs, mut shortest) = (0, f64::INFINITY);
    let begin = clock();
    while runs < LEAST.1 || clock() - begin < LEAST.0 {
        let start = clock();
        device.run(&prepared)?;
        device.read(&buffer, 0, 4).await?;
        shortest = shortest.min(clock() - start);
        runs += 1;
    }
    Ok(shortest)
}
