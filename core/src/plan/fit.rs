//! Would a model run here, and how well? Told before any of its data is read.

use serde::Serialize;

use super::layout::Layout;
use super::links::Link;
use super::measure::{Effort, measure};
use super::{DeviceSpec, Memory, Peak, Request, dry_run};
use crate::comm::{Mesh, Placement};
use crate::device::{Device, DeviceKind};
use crate::kv_cache::KvDType;
use crate::recording::Recording;
use crate::session::{DEFAULT_CONTEXT, SessionOptions};
use crate::shard::Split;
use crate::weights::ModelFiles;
use crate::{Error, Result};

/// Tokens of the prompt that speeds are estimated for, where the context has room for so many.
const PROMPT: usize = 128;

/// Shortest context that is worth an advice.
const SHORT: usize = 512;

/// Bytes of a weight in the smallest type that keeps most models usable, Q4_0: 18 for 32.
const FOUR_BITS: f64 = 18.0 / 32.0;

/// Tokens per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// Of a prompt.
    pub prefill: f64,
    /// Of an answer.
    pub decode: f64,
}

/// How a model fits a device.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fit {
    /// Elements of all tensors.
    pub parameters: u64,
    /// Bytes of all tensors in the file.
    pub bytes: u64,
    /// The element type of most of them.
    pub dtype: String,
    /// Tokens of context that memory is counted for.
    pub context_length: usize,
    /// The longest context that the model knows.
    pub max_context_length: usize,
    /// Device memory by what it holds.
    pub memory: Memory,
    /// Its sum.
    pub total: u64,
    /// Bytes that there are, if that is known.
    pub capacity: Option<u64>,
    /// Nothing is known that speaks against it.
    pub fits: bool,
    /// The longest context that there is room for, if that is known.
    pub largest_context: Option<usize>,
    /// Tensors that one binding cannot hold: they are kept in slices.
    pub sliced: usize,
    /// What the device would run: kernels and their variants, `matvec dp4a`.
    pub variants: Vec<String>,
    /// From a short measurement; `None` if a model is too small for it.
    pub speed: Option<Speed>,
    /// What speaks against it, one line each.
    pub problems: Vec<String>,
    /// What to do about it.
    pub advice: Vec<String>,
}

/// Measures `device` for half a second with weights of the model's type, and counts what the model needs there.
/// `capacity` is how many bytes the device has, if anybody knows; `clock` tells seconds.
///
/// # Errors
///
/// [`Error::Unsupported`] and [`Error::Format`] for a model that cannot be loaded on any device; [`Error::Invalid`] for
/// a context that it does not allow; those of [`measure`].
pub async fn fit(
    files: &ModelFiles,
    device: &dyn Device,
    context: Option<usize>,
    kv: KvDType,
    capacity: Option<u64>,
    clock: &dyn Fn() -> f64,
) -> Result<Fit> {
    let max = files.config.max_position_embeddings;
    let context = context.unwrap_or(max.min(DEFAULT_CONTEXT));
    let dtype = files.main_dtype();
    let limits = device.limits();
    let sizes = super::Sizes {
        context,
        kv,
        chunk: SessionOptions::default().prefill_chunk,
    };
    let dry = dry_run(files, vec![Placement::alone()], sizes, Some(limits)).await?;
    let (total, memory) = (dry.memory.total(), dry.memory);
    // Of the memory, what grows with the context.
    let grows = memory.cache + memory.tables;
    let largest = capacity.map(|capacity| {
        let free = capacity.saturating_sub(total - grows);
        let n = u128::from(free) * context as u128 / u128::from(grows.max(1));
        usize::try_from(n).unwrap_or(max).min(max)
    });
    let mut fit = Fit {
        parameters: files
            .tensors()
            .map(|t| t.shape.iter().product::<usize>() as u64)
            .sum(),
        bytes: files.bytes(),
        dtype: dtype.to_string(),
        context_length: context,
        max_context_length: max,
        memory,
        total,
        capacity,
        fits: capacity.is_none_or(|capacity| total <= capacity),
        largest_context: largest,
        sliced: files
            .tensors()
            .filter(|t| t.bytes > limits.max_binding_bytes)
            .count(),
        variants: variants(&[&dry.decode, &dry.prefill], device)?,
        speed: match measure(device, &files.config, dtype, Effort::QUICK, clock).await {
            Ok(spec) => Some(speed(files, spec, context, kv).await?),
            // The clock was too coarse for so small a model.
            Err(Error::Device { .. }) => None,
            Err(e) => return Err(e),
        },
        problems: Vec::new(),
        advice: Vec::new(),
    };
    fit.judge(files.config.moe.is_some());
    Ok(fit)
}

/// What a device that was measured would do.
async fn speed(
    files: &ModelFiles,
    device: DeviceSpec,
    context: usize,
    kv: KvDType,
) -> Result<Speed> {
    let link = Link::find("pcie4")?;
    let request = Request {
        files,
        experts: None,
        layout: Layout {
            mesh: Mesh::default(),
            split: Split::even(1),
            sequence_parallel: false,
            near: link,
            far: link,
            ranks_per_host: 1,
            one_device: false,
        },
        device,
        peak: Peak::F32,
        context,
        prompt: PROMPT.min(context.saturating_sub(1)),
        batch: 1,
        kv,
    };
    let plan = request.plan().await?;
    Ok(Speed {
        prefill: plan.prefill.tokens_per_second,
        decode: plan.decode.tokens_per_second,
    })
}

/// The kernels of these recordings as the device runs them, each once.
fn variants(recordings: &[&Recording], device: &dyn Device) -> Result<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    for dispatch in recordings.iter().flat_map(|r| r.dispatches()) {
        let kernel = dispatch.kernel.name;
        // A CPU runs our own code in place of shaders.
        let name = match device.limits().kind {
            DeviceKind::Cpu => kernel.to_string(),
            _ => match dispatch.choose(device.limits()) {
                Ok(variant) => format!("{kernel} {}", variant.name),
                Err(reason) => {
                    let device = device.info().name.clone();
                    return Err(Error::Device { device, reason });
                }
            },
        };
        if !found.contains(&name) {
            found.push(name);
        }
    }
    Ok(found)
}

impl Fit {
    fn judge(&mut self, experts: bool) {
        let Some(capacity) = self.capacity.filter(|_| !self.fits) else {
            return;
        };
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        self.problems.push(format!(
            "needs {} MiB of device memory (weights {}, keys and values {}), there are {}",
            mib(self.total),
            mib(self.memory.weights),
            mib(self.memory.cache),
            mib(capacity)
        ));
        if let Some(n) = self
            .largest_context
            .filter(|n| (SHORT..self.context_length).contains(n))
        {
            self.advice
                .push(format!("a context of {n} tokens has room"));
        }
        let small = (self.parameters as f64 * FOUR_BITS) as u64;
        let others = self.total - self.memory.weights;
        if self.memory.weights > small + (small >> 3) && small + others <= capacity {
            self.advice.push(format!(
                "take this model with 4-bit weights (Q4_0, about {} MiB)",
                mib(small)
            ));
        }
        if experts {
            self.advice
                .push("keep its experts where they are, with a cache of some of them".into());
        }
        if self.advice.is_empty() {
            self.advice
                .push("take a smaller model, or share it among devices".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use pollster::block_on;

    use super::*;
    use crate::DType;
    use crate::builtin;
    use crate::device::cpu::CpuDevice;
    use crate::plan::Shape;
    use crate::weights::BytesSource;

    fn tiny() -> ModelFiles {
        let source = BytesSource::new(builtin::TINY_NAME, builtin::TINY);
        block_on(ModelFiles::open(vec![Rc::new(source)])).unwrap()
    }

    fn on_cpu(files: &ModelFiles, context: Option<usize>, capacity: Option<u64>) -> Fit {
        let device = CpuDevice::new();
        // A millisecond passes whenever it is looked at: too coarse for speeds, which tests/web/fit.test.mjs looks at.
        let now = Cell::new(0);
        let clock = || {
            now.set(now.get() + 1);
            f64::from(now.get()) * 1e-3
        };
        let kv = KvDType::F16;
        block_on(fit(files, &device, context, kv, capacity, &clock)).unwrap()
    }

    #[test]
    fn a_model_fits_where_there_is_room_for_all_it_needs() {
        let files = tiny();
        let free = on_cpu(&files, None, None);
        assert!(free.fits && free.problems.is_empty(), "{free:?}");
        assert_eq!(free.bytes, files.bytes());
        assert_eq!(free.sliced, 0);
        assert_eq!(free.speed, None);
        assert!(free.variants.iter().any(|v| v == "attention"), "{free:?}");
        assert!(on_cpu(&files, None, Some(free.total)).fits);

        let full = on_cpu(&files, None, Some(free.total - 1));
        assert!(!full.fits);
        assert_eq!(full.problems.len(), 1);
        let largest = full.largest_context.unwrap();
        assert!(largest < full.context_length);
        let advised = on_cpu(&files, Some(largest), Some(free.total - 1));
        assert!(advised.fits, "{advised:?}");
    }

    #[test]
    fn what_is_too_large_comes_with_an_advice() {
        let large = Shape::find("llama3-8b").unwrap();
        let files = large.files(DType::F16).unwrap();
        let fit = on_cpu(&files, Some(2048), Some(8 << 30));
        assert!(!fit.fits);
        assert!(fit.parameters > 8_000_000_000, "{}", fit.parameters);
        assert_eq!(fit.largest_context, Some(0));
        let advice = fit.advice.join("; ");
        assert!(advice.contains("4-bit weights (Q4_0"), "{advice}");

        let fit = on_cpu(&files, Some(2048), Some(2 << 30));
        let advice = fit.advice.join("; ");
        assert!(advice.contains("smaller model"), "{advice}");
    }
}
