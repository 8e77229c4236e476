//! Keys and values of past tokens, on the device.

use crate::device::{Device, Layout, Purpose};
use crate::kernels::copy;
use crate::kernels::pages::PAGE;
use crate::recording::Recording;
use crate::tensor::{Storage, Tensor};
use crate::weights::planar;
use crate::{DType, Error, Result};

/// Element type of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvDType {
    /// Half precision: half the memory, about 1e-3 off.
    #[default]
    F16,
    /// Single precision.
    F32,
    /// 8 bits and a scale for each 32: about half of F16's memory, about 1e-2 off.
    Q8_0,
}

impl KvDType {
    /// The same as an element type of tensors.
    pub fn dtype(self) -> DType {
        match self {
            KvDType::F16 => DType::F16,
            KvDType::F32 => DType::F32,
            KvDType::Q8_0 => DType::Q8_0,
        }
    }
}

impl std::str::FromStr for KvDType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f16" => Ok(KvDType::F16),
            "f32" => Ok(KvDType::F32),
            "q8_0" => Ok(KvDType::Q8_0),
            _ => Err(Error::Unsupported {
                what: format!("cache type {text:?}"),
                supported: "f16, f32, q8_0".into(),
            }),
        }
    }
}

/// Bytes of one row of a cache: `size` elements, in blocks or planar where the device wants it.
pub(crate) fn row_bytes(dtype: DType, size: usize, layout: Layout) -> usize {
    if dtype.block_len() > 1 && layout == Layout::Planar {
        planar::row_bytes(dtype, size)
    } else {
        size.div_ceil(dtype.block_len()) * dtype.block_bytes()
    }
}

/// What of keys and values a rank keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Number of its layers.
    pub layers: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// D: size of a head of keys.
    pub head_size: usize,
    /// Size of a head of values.
    pub v_head_size: usize,
}

impl CacheShape {
    /// Bytes of one layer's keys and values of `capacity` tokens on a device with this layout of
    /// quantised rows.
    pub fn layer_bytes(&self, capacity: usize, dtype: KvDType, layout: Layout) -> u64 {
        let [k, v] = self.bytes(capacity, dtype, layout);
        k + v
    }

    /// The same of keys and of values.
    fn bytes(&self, capacity: usize, dtype: KvDType, layout: Layout) -> [u64; 2] {
        [self.head_size, self.v_head_size].map(|size| {
            let row = row_bytes(dtype.dtype(), size, layout);
            (self.kv_heads * row) as u64 * capacity as u64
        })
    }
}

/// Keys and values of every layer of a rank, `(KVH, S, D)` each.
pub struct KvCache {
    layers: Vec<(Tensor, Tensor)>,
    shape: CacheShape,
    capacity: usize,
    dtype: KvDType,
    /// Where each token of a step is, if they are of several sequences.
    pages: Option<Tensor>,
}

impl KvCache {
    /// Room for `capacity` tokens.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`]; [`Error::Invalid`] when a layer does not fit a binding;
    /// [`Error::Unsupported`] when the head size is not a whole number of q8_0's blocks.
    pub async fn new(
        device: &dyn Device,
        cache: CacheShape,
        capacity: usize,
        dtype: KvDType,
    ) -> Result<Self> {
        let element = dtype.dtype();
        let sizes = [cache.head_size, cache.v_head_size];
        if let Some(odd) = sizes
            .iter()
            .find(|s| !s.is_multiple_of(element.block_len()))
        {
            return Err(Error::Unsupported {
                what: format!("{element} cache for heads of {odd}"),
                supported: "multiples of 32; use f16".into(),
            });
        }
        let each = cache.bytes(capacity, dtype, device.limits().layout);
        let most = device.limits().max_binding_bytes;
        let bytes = each[0].max(each[1]);
        if bytes > most {
            return Err(Error::Invalid(format!(
                "a layer's keys for {capacity} tokens take {bytes} bytes, the device's largest \
                 binding has {most}; try a context length of {}",
                (capacity as u64).saturating_mul(most) / bytes.max(1)
            )));
        }
        let mut layers = Vec::with_capacity(cache.layers);
        for _ in 0..cache.layers {
            let k = device.alloc(each[0], Purpose::KvCache, "key cache").await?;
            let v = device
                .alloc(each[1], Purpose::KvCache, "value cache")
                .await?;
            let [k_shape, v_shape] = sizes.map(|size| [cache.kv_heads, capacity, size]);
            layers.push((
                Tensor::of(k, element, &k_shape),
                Tensor::of(v, element, &v_shape),
            ));
        }
        Ok(KvCache {
            layers,
            shape: cache,
            capacity,
            dtype,
            pages: None,
        })
    }

    /// An empty one of the same size.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub async fn another(&self, device: &dyn Device) -> Result<Self> {
        KvCache::new(device, self.shape, self.capacity, self.dtype).await
    }

    /// Records that the first `tokens` tokens go to another one of the same size. False, and nothing, where rows are
    /// no whole words: blocks of 34 bytes, an odd number of them.
    pub(crate) fn copy(&self, r: &mut Recording, to: &KvCache, tokens: usize) -> Result<bool> {
        let heads = self.shape.kv_heads;
        let pairs = self.layers.iter().zip(&to.layers);
        for (from, to) in pairs.flat_map(|(from, to)| [(&from.0, &to.0), (&from.1, &to.1)]) {
            let Storage::Buffer(buffer) = &from.storage else {
                return Ok(false);
            };
            let row = buffer.bytes() / (heads * self.capacity) as u64;
            if !row.is_multiple_of(4) {
                return Ok(false);
            }
            let along = (self.capacity, 0);
            let params = copy::params(heads, row as usize / 4, along, along, tokens);
            let bindings = vec![Some(from.clone()), Some(to.clone())];
            r.push(&copy::KERNEL, params, bindings)?;
        }
        Ok(true)
    }

    /// Room for `capacity` tokens of several sequences, in [`pages`](crate::kernels::pages); `words` are those that
    /// say where a step's tokens are.
    ///
    /// # Errors
    ///
    /// Those of [`KvCache::new`].
    pub async fn paged(&self, device: &dyn Device, capacity: usize, words: usize) -> Result<Self> {
        let mut cache = KvCache::new(device, self.shape, capacity, self.dtype).await?;
        let bytes = 4 * words as u64;
        let pages = device.alloc(bytes, Purpose::Activations, "pages").await?;
        cache.pages = Some(Tensor::of(pages, DType::U32, &[words]));
        Ok(cache)
    }

    /// Where each token of a step is (`kernels::pages`), if they are of several sequences.
    pub fn pages(&self) -> Option<&Tensor> {
        self.pages.as_ref()
    }

    /// Records that the first `rows` rows of a page go to another one, by way of scratch memory. False, and nothing,
    /// where rows are no whole words: blocks of 34 bytes, an odd number of them.
    pub(crate) fn copy_page(
        &self,
        r: &mut Recording,
        [from, to]: [usize; 2],
        rows: usize,
    ) -> Result<bool> {
        let heads = self.shape.kv_heads;
        let words = |t: &Tensor| match &t.storage {
            Storage::Buffer(buffer) => {
                let row = buffer.bytes() / (heads * self.capacity) as u64;
                row.is_multiple_of(4).then_some(row as usize / 4)
            }
            Storage::Scratch(_) => None,
        };
        for tensor in self.layers.iter().flat_map(|(k, v)| [k, v]) {
            let Some(row) = words(tensor) else {
                return Ok(false);
            };
            let between = r.scratch(DType::U32, &[heads, rows, row])?;
            let (from, to) = ((self.capacity, from * PAGE), (self.capacity, to * PAGE));
            let whole = (rows, 0);
            for (params, [x, y]) in [
                (
                    copy::params(heads, row, from, whole, rows),
                    [tensor, &between],
                ),
                (
                    copy::params(heads, row, whole, to, rows),
                    [&between, tensor],
                ),
            ] {
                let bindings = vec![Some(x.clone()), Some(y.clone())];
                r.push(&copy::KERNEL, params, bindings)?;
            }
        }
        Ok(true)
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

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.dtype.dtype()
    }
}
