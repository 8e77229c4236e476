//! Test cases of kernels: inputs that include outliers and near-zero values, reproducible
//! everywhere.

use crate::DType;
use crate::kernels::Params;
use crate::weights::dequant::{dequantize, quantize};

/// An array as a test gives it to a device: in the file's layout.
#[derive(Clone, Debug)]
pub struct HostArray {
    /// Element type.
    pub dtype: DType,
    /// Shape, slowest dimension first; the last is the row length of a weight.
    pub shape: Vec<usize>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl HostArray {
    /// An f32 array.
    pub fn f32(shape: &[usize], values: &[f32]) -> Self {
        HostArray {
            dtype: DType::F32,
            shape: shape.to_vec(),
            bytes: bytemuck::cast_slice(values).to_vec(),
        }
    }

    /// A u32 array.
    pub fn u32(shape: &[usize], values: &[u32]) -> Self {
        HostArray {
            dtype: DType::U32,
            shape: shape.to_vec(),
            bytes: bytemuck::cast_slice(values).to_vec(),
        }
    }

    /// Zeros, for outputs.
    pub fn zeros(shape: &[usize]) -> Self {
        let len = shape.iter().product();
        HostArray::f32(shape, &vec![0.0; len])
    }

    /// Random f32 values of about unit size.
    pub fn random(seed: u64, shape: &[usize]) -> Self {
        HostArray::f32(shape, &random(seed, shape.iter().product()))
    }

    /// Random f32 values of about the size `scale`.
    pub fn scaled(seed: u64, shape: &[usize], scale: f32) -> Self {
        let values = random(seed, shape.iter().product());
        HostArray::f32(shape, &values.iter().map(|x| scale * x).collect::<Vec<_>>())
    }

    /// The uniform `step` for tokens from absolute position `pos` on.
    pub fn step(pos: usize) -> Self {
        HostArray::u32(&[4], &[pos as u32, 0, 0, 0])
    }

    /// A KV cache of these values, in f32, f16 or q8_0.
    pub fn cache(shape: &[usize], values: &[f32], dtype: DType) -> Self {
        HostArray {
            dtype,
            shape: shape.to_vec(),
            bytes: quantize(dtype, values),
        }
    }

    /// A KV cache of random values of about unit size.
    pub fn random_cache(seed: u64, shape: &[usize], dtype: DType) -> Self {
        HostArray::cache(shape, &random(seed, shape.iter().product()), dtype)
    }

    /// A weight of random values; the last dimension is a whole number of blocks.
    pub fn weight(seed: u64, dtype: DType, shape: &[usize]) -> Self {
        HostArray {
            dtype,
            shape: shape.to_vec(),
            bytes: quantize(dtype, &random(seed, shape.iter().product())),
        }
    }

    /// The values as f64, decoded.
    pub fn to_f64(&self) -> Vec<f64> {
        if self.dtype == DType::U32 {
            let values = bytemuck::allocation::pod_collect_to_vec::<u8, u32>(&self.bytes);
            return values.into_iter().map(f64::from).collect();
        }
        let mut values = vec![0.0; self.shape.iter().product()];
        dequantize(self.dtype, &self.bytes, &mut values);
        values.into_iter().map(f64::from).collect()
    }
}

/// Pearson's chi-square of counts against what is expected: the sum of `(count - expected)^2 / expected`.
pub fn chi_square(counts: &[f64], expected: &[f64]) -> f64 {
    let parts = counts.iter().zip(expected);
    parts.map(|(c, e)| (c - e) * (c - e) / e).sum()
}

/// One call with its inputs.
#[derive(Clone, Debug)]
pub struct Case {
    /// Parameters of the call.
    pub params: Params,
    /// One array per binding, `None` where it is omitted; outputs hold what is there before.
    pub arrays: Vec<Option<HostArray>>,
    /// Largest normalised mean squared error of any output:
    /// `sum((got - want)^2) / sum(want^2)`.
    pub bound: f64,
}

/// `len` values in about (-2, 2), every 61st ten times as large, every 17th near zero.
pub fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    (0..len)
        .map(|i| {
            // splitmix64: Steele, Lea, Flood, OOPSLA 2014.
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            let unit = (z >> 40) as f32 / (1u64 << 24) as f32;
            let value = 4.0 * unit - 2.0;
            match i {
                _ if i % 61 == 60 => 10.0 * value,
                _ if i % 17 == 16 => 1e-6 * value,
                _ => value,
            }
        })
        .collect()
}
