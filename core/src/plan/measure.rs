//! What a device of this machine does, by short recordings.

use super::devices::DeviceSpec;
use crate::device::{Buffer, Device, Purpose};
use crate::kernels::{add, copy};
use crate::models::ModelConfig;
use crate::nn::Linear;
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::Weight;
use crate::{DType, Error, Result};

/// How much a measurement may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Bytes of weights that the products read.
    pub weights: usize,
    /// Tokens of the product whose arithmetic is measured.
    pub tokens: usize,
    /// Seconds that each of the four recordings is run for, if it is not slower.
    pub seconds: f64,
    /// Fewest runs of each.
    pub runs: u32,
}

impl Effort {
    /// More weights than caches hold, and 1.2 seconds.
    pub const THOROUGH: Effort = Effort {
        weights: 64 << 20,
        tokens: 64,
        seconds: 0.3,
        runs: 5,
    };
    /// An estimate within half a second, also where the device is slow.
    pub const QUICK: Effort = Effort {
        weights: 16 << 20,
        tokens: 16,
        seconds: 0.1,
        runs: 2,
    };
}

/// Measurements of copying, whose median counts, and seconds that each of them takes at least.
const COPIES: (usize, f64) = (7, 0.02);

/// Smallest buffer whose copying says anything, in bytes.
const LEAST_COPY: u64 = 1 << 20;

/// How fast a device copies its memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Copied {
    /// Bytes of the buffer that was copied into another one.
    pub bytes: u64,
    /// Bytes read and written per second.
    pub bandwidth: f64,
}

/// Measures launch, submission, bytes per second and FLOP/s of `device` with products of the model's sizes and
/// weights of type `dtype`. `clock` tells seconds. How much memory there is cannot be measured. Blocks of more weights than
/// `effort` allows are taken narrower.
///
/// # Errors
///
/// [`Error::OutOfMemory`], [`Error::DeviceLost`].
pub async fn measure(
    device: &dyn Device,
    config: &ModelConfig,
    dtype: DType,
    effort: Effort,
    clock: &dyn Fn() -> f64,
) -> Result<DeviceSpec> {
    let few = seconds(device, &adds(device, 16).await?, effort, clock).await?;
    let many = seconds(device, &adds(device, 272).await?, effort, clock).await?;
    let launch = ((many - few) / 256.0).max(1e-9);
    let submit = (few - 16.0 * launch).max(0.0);

    let (c, mut f) = (config.hidden_size, config.intermediate_size);
    let bytes = |f: usize| dtype.bytes(2 * c * f).unwrap_or(usize::MAX);
    // A width that all quantised types can have.
    while bytes(f) > effort.weights && f > 512 {
        f = (f / 2).next_multiple_of(256);
    }
    let pair = bytes(f);
    let pairs = (effort.weights / pair).clamp(1, 64);
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
    let one = seconds(device, &work(1)?, effort, clock).await? - overhead;
    let all = seconds(device, &work(effort.tokens)?, effort, clock).await? - overhead;
    let bytes = (pairs * pair) as f64;
    let flops = (pairs * effort.tokens * 4 * c * f) as f64;
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
        limits: Some(device.limits().clone()),
        source: format!("measured, products with {dtype}"),
    })
}

/// Measures how fast `device` copies a buffer of `most` bytes by our own kernel, or of a quarter of the largest that it
/// can bind, or of what it has room for: the median of several measurements. `clock` tells seconds.
///
/// # Errors
///
/// [`Error::OutOfMemory`] when there is no room for a buffer of a MiB, [`Error::DeviceLost`].
pub async fn copy_bandwidth(
    device: &dyn Device,
    most: u64,
    clock: &dyn Fn() -> f64,
) -> Result<Copied> {
    let mut bytes = most.min(device.limits().max_binding_bytes / 4);
    let [x, y] = loop {
        bytes = bytes.max(LEAST_COPY) & !15;
        let pair = match device.alloc(bytes, Purpose::Activations, "measure").await {
            Ok(x) => device
                .alloc(bytes, Purpose::Activations, "measure")
                .await
                .map(|y| [x, y]),
            Err(e) => Err(e),
        };
        match pair {
            Err(Error::OutOfMemory { .. }) if bytes > LEAST_COPY => bytes /= 2,
            pair => break pair?,
        }
    };
    let len = bytes as usize / 4;
    let mut r = Recording::new();
    // To and fro: memory that was never written may be one page of zeros for all.
    for (from, to) in [(&x, &y), (&y, &x)] {
        let tensor = |b: &Buffer| Some(Tensor::of(b.clone(), DType::F32, &[len]));
        let params = copy::params(1, 1, (len, 0), (len, 0), len);
        r.push(&copy::KERNEL, params, vec![tensor(from), tensor(to)])?;
    }
    let prepared = device.prepare(&r).await?;
    let moved = 4.0 * bytes as f64;
    let mut runs = 1;
    let mut rates = Vec::with_capacity(COPIES.0);
    // The first one finds out how many runs take long enough; before it pages are touched and graphs captured.
    for _ in 0..3 {
        device.run(&prepared)?;
    }
    device.read(&x, 0, 4).await?;
    for i in 0..=COPIES.0 {
        let start = clock();
        for _ in 0..runs {
            device.run(&prepared)?;
        }
        device.read(&x, 0, 4).await?;
        let seconds = (clock() - start).max(1e-9);
        match i {
            0 => runs = (COPIES.1 / seconds).ceil().clamp(1.0, 1000.0) as u32,
            _ => rates.push(f64::from(runs) * moved / seconds),
        }
    }
    rates.sort_by(f64::total_cmp);
    Ok(Copied {
        bytes,
        bandwidth: rates[rates.len() / 2],
    })
}

/// So many additions of small vectors, one after the other.
async fn adds(device: &dyn Device, count: usize) -> Result<(Recording, Tensor)> {
    const LEN: usize = 64;
    let z = device
        .alloc(4 * LEN as u64, Purpose::Activations, "measure")
        .await?;
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
    effort: Effort,
    clock: &dyn Fn() -> f64,
) -> Result<f64> {
    let prepared = device.prepare(recording).await?;
    let buffer = prepared.tensor(result).cloned();
    let buffer = buffer.ok_or_else(|| Error::Invalid("a result was not kept".into()))?;
    let (mut runs, mut shortest) = (0, f64::INFINITY);
    let begin = clock();
    while runs < effort.runs || clock() - begin < effort.seconds {
        let start = clock();
        device.run(&prepared)?;
        device.read(&buffer, 0, 4).await?;
        shortest = shortest.min(clock() - start);
        runs += 1;
    }
    Ok(shortest)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use pollster::block_on;

    use super::*;
    use crate::device::cpu::CpuDevice;

    #[test]
    fn copies_are_counted_read_and_written() {
        let device = CpuDevice::new();
        // A millisecond passes whenever it is looked at.
        let now = Cell::new(0);
        let clock = || {
            now.set(now.get() + 1);
            f64::from(now.get()) * 1e-3
        };
        for (most, bytes) in [(2_000_003, 2_000_000), (0, 1 << 20)] {
            let copied = block_on(copy_bandwidth(&device, most, &clock)).unwrap();
            assert_eq!(copied.bytes, bytes);
            // 20 ms are 20 runs of the first; each run copies twice.
            let rate = copied.bandwidth / (20.0 * 4.0 * bytes as f64 / 1e-3);
            assert!((rate - 1.0).abs() < 0.06, "{rate}");
        }
    }
}
