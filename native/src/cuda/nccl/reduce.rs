//! Sums of what ranks have sent, in the order of ranks, by the kernel that sums for ranks of one device.

use shardlight::comm::Reduce;
use shardlight::device::{Buffer, Device, Prepared, Purpose};
use shardlight::kernels::all_reduce;
use shardlight::recording::Recording;
use shardlight::tensor::Tensor;
use shardlight::{DType, Result};

/// Memory for a piece of each rank, and what sums them.
pub struct Reduction {
    /// The pieces by rank, `n` f32 each.
    pub pieces: Vec<Buffer>,
    /// Their sum, or the largest elements.
    pub result: Buffer,
    prepared: Prepared,
}

impl Reduction {
    /// Of `ranks` pieces of `n` elements.
    ///
    /// # Errors
    ///
    /// [`shardlight::Error::OutOfMemory`], [`shardlight::Error::DeviceLost`].
    pub async fn new(device: &dyn Device, how: Reduce, ranks: usize, n: usize) -> Result<Self> {
        let memory = async || {
            device
                .alloc(4 * n as u64, Purpose::Activations, "pieces of a sum")
                .await
        };
        let mut pieces = Vec::with_capacity(ranks);
        for _ in 0..ranks {
            pieces.push(memory().await?);
        }
        let result = memory().await?;
        let tensor = |buffer: &Buffer| Tensor::of(buffer.clone(), DType::F32, &[n]);
        let mut r = Recording::new();
        let mut left: Vec<Tensor> = pieces.iter().map(tensor).collect();
        while left.len() > 1 {
            // More than the kernel takes are summed in turns, the sum so far first.
            let now: Vec<Tensor> = left.drain(..left.len().min(all_reduce::MOST)).collect();
            let into = match left.is_empty() {
                true => tensor(&result),
                false => r.scratch(DType::F32, &[n])?,
            };
            let params = all_reduce::params(n, 0, now.len(), how);
            let mut bindings: Vec<_> = now.into_iter().map(Some).collect();
            bindings.resize(all_reduce::MOST, None);
            bindings.push(Some(into.clone()));
            r.push(&all_reduce::KERNEL, params, bindings)?;
            if !left.is_empty() {
                left.insert(0, into);
            }
        }
        Ok(Reduction {
            prepared: device.prepare(&r).await?,
            pieces,
            result,
        })
    }

    /// Queues it.
    ///
    /// # Errors
    ///
    /// As [`Device::run`].
    pub fn run(&self, device: &dyn Device) -> Result<()> {
        device.run(&self.prepared)
    }
}
