//! Element types of tensors, float and quantised.

use std::fmt;

/// The type of a tensor's elements, as stored in a model file.
///
/// Quantised types store blocks of [`DType::block_len`] elements in
/// [`DType::block_bytes`] bytes, in ggml's layout.
/// Source: ggml, `ggml-common.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
    /// 4-bit, `x = d (q - 8)`, 32 elements a block.
    Q4_0,
    /// 4-bit, `x = d q + m`, 32 elements a block.
    Q4_1,
    /// 5-bit, `x = d (q - 16)`, 32 elements a block.
    Q5_0,
    /// 5-bit, `x = d q + m`, 32 elements a block.
    Q5_1,
    /// 8-bit, `x = d q`, 32 elements a block.
    Q8_0,
    /// 4-bit, 8 sub-blocks of 32 with 6-bit scales and mins, 256 elements a block.
    Q4K,
    /// 5-bit, 8 sub-blocks of 32 with 6-bit scales and mins, 256 elements a block.
    Q5K,
    /// 6-bit, 16 sub-blocks of 16 with 8-bit scales, 256 elements a block.
    Q6K,
    /// 4-bit floats of one sign, two exponent and one fraction bits, with a power of two for 32 of them: a block. OCP's
    /// Microscaling Formats 1.0, as ggml stores it.
    Mxfp4,
    /// Unsigned 32-bit integer (token ids, positions); never a weight.
    U32,
}

impl DType {
    /// Every weight type, in the order of the support tables.
    pub const WEIGHTS: &'static [DType] = &[
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q8_0,
        DType::Q4K,
        DType::Q5K,
        DType::Q6K,
        DType::Mxfp4,
    ];

    /// Elements per block: 1 for float types.
    pub const fn block_len(self) -> usize {
        match self {
            DType::F32 | DType::F16 | DType::BF16 | DType::U32 => 1,
            DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 | DType::Q8_0 | DType::Mxfp4 => {
                32
            }
            DType::Q4K | DType::Q5K | DType::Q6K => 256,
        }
    }

    /// Bytes per block.
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Q4_0 => 18,
            DType::Q4_1 => 20,
            DType::Q5_0 => 22,
            DType::Q5_1 => 24,
            DType::Q8_0 => 34,
            DType::Q4K => 144,
            DType::Q5K => 176,
            DType::Q6K => 210,
            DType::Mxfp4 => 17,
        }
    }

    /// Bytes of `len` consecutive elements; `None` when `len` is not a whole
    /// number of blocks or the product overflows.
    pub const fn bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }

    /// The name in lower case: `f32`, `q4_0`, `q4_k`; also the name of the
    /// format's file in `shaders/shared`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::Q4_0 => "q4_0",
            DType::Q4_1 => "q4_1",
            DType::Q5_0 => "q5_0",
            DType::Q5_1 => "q5_1",
            DType::Q8_0 => "q8_0",
            DType::Q4K => "q4_k",
            DType::Q5K => "q5_k",
            DType::Q6K => "q6_k",
            DType::Mxfp4 => "mxfp4",
            DType::U32 => "u32",
        }
    }

    /// ggml's type number (`enum ggml_type`), as GGUF stores it.
    pub const fn from_ggml(id: u32) -> Option<DType> {
        Some(match id {
            0 => DType::F32,
            1 => DType::F16,
            2 => DType::Q4_0,
            3 => DType::Q4_1,
            6 => DType::Q5_0,
            7 => DType::Q5_1,
            8 => DType::Q8_0,
            12 => DType::Q4K,
            13 => DType::Q5K,
            14 => DType::Q6K,
            30 => DType::BF16,
            39 => DType::Mxfp4,
            _ => return None,
        })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_counts_whole_blocks_only() {
        assert_eq!(DType::Q4_1.bytes(576), Some(360));
        assert_eq!(DType::Q6K.bytes(256), Some(210));
        assert_eq!(DType::Q8_0.bytes(33), None);
        assert_eq!(DType::F32.bytes(usize::MAX), None);
    }
}
