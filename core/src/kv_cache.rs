//! Keys and values of past tokens, on the device.

use crate::device::Device;
use crate::models::ModelConfig;
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

/// Element type of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvDType {
    /// Half precision: half the memory, about 1e-3 off.
    #[default]
    F16,
    /// Single precision.
    F32,
}

impl std::str::FromStr for KvDType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f16" => Ok(KvDType::F16),
            "f32" => Ok(KvDType::F32),
            _ => Err(Error::Unsupported {
                what: format!("cache type {text:?}"),
                supported: "f16, f32".into(),
            }),
        }
    }
}

/// Keys and values of every layer, `(KVH, S, D)` each.
pub struct KvCache {
    layers: Vec<(Tensor, Tensor)>,
    capacity: usize,
    dtype: KvDType,
}

impl KvCache {
    /// Room for `capacity` tokens.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`]; [`Error::Invalid`] when a layer does not fit a binding.
    pub async fn new(
        device: &dyn Device,
        config: &ModelConfig,
        capacity: usize,
        dtype: KvDType,
    ) -> Result<Self> {
        let shape = [config.num_key_value_heads, capacity, config.head_dim];
        let element = match dtype {
            KvDType::F16 => DType::F16,
            KvDType::F32 => DType::F32,
        };
        let bytes = KvCache::layer_bytes(config, capacity, dtype) / 2;
        let most = device.limits().max_binding_bytes;
        if bytes > most {
            return Err(Error::Invalid(format!(
                "a layer's keys for {capacity} tokens take {bytes} bytes, the device's largest \
                 binding has {most}; try a context length of {}",
                (capacity as u64).saturating_mul(most) / bytes.max(1)
            )));
        }
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for _ in 0..config.num_hidden_layers {
            let k = device.alloc(bytes, "key cache").await?;
            let v = device.alloc(bytes, "value cache").await?;
            layers.push((
                Tensor::of(k, element, &shape),
                Tensor::of(v, element, &shape),
            ));
        }
        Ok(KvCache {
            layers,
            capacity,
            dtype,
        })
    }

    /// Bytes of one layer's keys and values.
    pub fn layer_bytes(config: &ModelConfig, capacity: usize, dtype: KvDType) -> u64 {
        let element = match dtype {
            KvDType::F16 => 2,
            KvDType::F32 => 4,
        };
        let row = (config.num_key_value_heads * config.head_dim) as u64;
        2 * row * capacity as u64 * element
    }

    /// Keys and values of a layer.
    pub fn layer(&self, layer: usize) -> (&Tensor, &Tensor) {
        let (k, v) = &self.layers[layer];
        (k, v)
    }

    /// S: tokens it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Is it in half precision?
    pub fn is_f16(&self) -> bool {
        self.dtype == KvDType::F16
    }
}
