//! MXFP4 as Hugging Face's files of gpt-oss have it, two tensors of bytes for one of numbers, read as blocks of
//! [`DType::Mxfp4`].
//!
//! ```text
//! NAME_blocks  u8 (E, rows, cols / 32, 16)   byte i: elements 2 i, low nibble, and 2 i + 1
//! NAME_scales  u8 (E, rows, cols / 32)       e8m0
//! ```
//!
//! Source: transformers, `integrations/mxfp4.py`, `convert_moe_packed_tensors`.

use std::rc::Rc;

use super::safetensors::{ByteTensor, SafetensorsHeader};
use super::source::{LocalFuture, check_range};
use super::{TensorInfo, WeightSource, shown};
use crate::models::Family;
use crate::{DType, Error, Result};

/// Bytes of nibbles in a block.
const NIBBLES: usize = 16;
/// Bytes of a block of [`DType::Mxfp4`]: the scale, then nibbles.
const BLOCK: usize = DType::Mxfp4.block_bytes();

/// Such a pair as a file of [`DType::Mxfp4`] blocks: `(E, rows, cols)`. Where rows of several matrices lie in
/// turns, as those of gpt-oss's gate and up do, each expert's are sorted: first all of gate, then all of up.
struct PackedMxfp4 {
    name: String,
    blocks: (Rc<dyn WeightSource>, u64),
    scales: (Rc<dyn WeightSource>, u64),
    /// E, rows, blocks of a row.
    shape: [usize; 3],
    /// How many matrices lie in turns.
    turns: usize,
}

/// The pairs of a header that `family` knows, by GGUF's names; `sources` gets a source for each.
///
/// # Errors
///
/// [`Error::Format`] when one of a pair is missing, or their shapes are none of a pair.
pub(super) fn pair(
    header: &SafetensorsHeader,
    family: &Family,
    sources: &mut Vec<Rc<dyn WeightSource>>,
) -> Result<Vec<TensorInfo>> {
    let mut tensors = Vec::new();
    for (name, tensor) in &header.bytes {
        let wrong = |reason: String| {
            let file = sources[tensor.file].name();
            Err(Error::format(
                format_args!("{file}: tensor {}", shown(name)),
                reason,
            ))
        };
        let of = |suffix| name.strip_suffix(suffix).zip(family.gguf_name(name));
        let there = |name: &String| header.bytes.contains_key(name);
        if let Some((base, _)) = of("_scales") {
            let blocks = format!("{base}_blocks");
            if !there(&blocks) {
                return wrong(format!("has no {} of type U8 beside it", shown(&blocks)));
            }
        }
        let Some((base, gguf)) = of("_blocks") else {
            continue;
        };
        let scales_name = format!("{base}_scales");
        let Some(scales) = header.bytes.get(&scales_name) else {
            return wrong(format!(
                "has no {} of type U8 beside it",
                shown(&scales_name)
            ));
        };
        // GGUF's tensor of both has first one's rows, then the other's.
        let turns = if gguf.ends_with("_gate_up_exps.weight") {
            2
        } else {
            1
        };
        let shape = match tensor.shape[..] {
            [count, rows, blocks, NIBBLES]
                if scales.shape == [count, rows, blocks]
                    && count * rows * blocks > 0
                    && rows.is_multiple_of(turns) =>
            {
                [count, rows, blocks]
            }
            _ => {
                return wrong(format!(
                    "has shape {:?} and its scales {:?}, expected [experts, rows, columns / 32, 16] and the same \
                     without the 16, the rows a multiple of {turns}",
                    tensor.shape, scales.shape
                ));
            }
        };
        let at = |t: &ByteTensor| (Rc::clone(&sources[t.file]), t.offset);
        let packed = PackedMxfp4 {
            name: format!("{}: {}", sources[tensor.file].name(), shown(name)),
            blocks: at(tensor),
            scales: at(scales),
            shape,
            turns,
        };
        tensors.push(TensorInfo {
            name: gguf,
            dtype: DType::Mxfp4,
            shape: vec![shape[0], shape[1], 32 * shape[2]],
            offset: 0,
            bytes: packed.len(),
            file: sources.len(),
        });
        sources.push(Rc::new(packed));
    }
    Ok(tensors)
}

impl PackedMxfp4 {
    /// `count` blocks from `first` on, of one matrix of one expert: where they begin in the file, and how many lie
    /// from the first to the last.
    fn span(&self, first: usize, count: usize) -> (usize, usize) {
        let last = self.stored(first + count - 1);
        let first = self.stored(first);
        (first, last - first + 1)
    }

    /// The number of a block in the file.
    fn stored(&self, block: usize) -> usize {
        let [_, rows, width] = self.shape;
        let (row, col) = (block / width, block % width);
        let (expert, row) = (row / rows, row % rows);
        let (matrix, row) = (row / (rows / self.turns), row % (rows / self.turns));
        (expert * rows + row * self.turns + matrix) * width + col
    }

    async fn fill(&self, offset: u64, mut out: &mut [u8]) -> Result<()> {
        check_range(&self.name, offset, out.len() as u64, self.len())?;
        let matrix = self.shape[1] / self.turns * self.shape[2];
        let (mut blocks, mut scales) = (Vec::new(), Vec::new());
        let mut at = offset as usize;
        while !out.is_empty() {
            let (first, skip) = (at / BLOCK, at % BLOCK);
            // To the end of the matrix at most.
            let count = (skip + out.len())
                .div_ceil(BLOCK)
                .min(matrix - first % matrix);
            let (from, span) = self.span(first, count);
            blocks.resize(span * NIBBLES, 0);
            scales.resize(span, 0);
            let (source, start) = &self.blocks;
            source
                .read(start + (from * NIBBLES) as u64, &mut blocks)
                .await?;
            let (source, start) = &self.scales;
            source.read(start + from as u64, &mut scales).await?;
            let (now, rest) = out.split_at_mut(out.len().min(count * BLOCK - skip));
            at += now.len();
            let mut now = now;
            for i in 0..count {
                let i_stored = self.stored(first + i) - from;
                let nibbles = &blocks[i_stored * NIBBLES..][..NIBBLES];
                let block = block(scales[i_stored], nibbles);
                let block = &block[if i == 0 { skip } else { 0 }..];
                let n = block.len().min(now.len());
                now[..n].copy_from_slice(&block[..n]);
                now = &mut now[n..];
            }
            out = rest;
        }
        Ok(())
    }
}

/// A block in ggml's order: byte j has elements j and j + 16.
fn block(scale: u8, nibbles: &[u8]) -> [u8; BLOCK] {
    let element = |k: usize| nibbles[k / 2] >> (4 * (k % 2)) & 15;
    std::array::from_fn(|i| match i {
        0 => scale,
        _ => element(i - 1) | element(i - 1 + 16) << 4,
    })
}

impl WeightSource for PackedMxfp4 {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.shape.iter().map(|n| *n as u64).product::<u64>() * BLOCK as u64
    }

    fn read<'a>(&'a self, offset: u64, out: &'a mut [u8]) -> LocalFuture<'a, Result<()>> {
        Box::pin(self.fill(offset, out))
    }

    fn seek_bytes(&self) -> u64 {
        self.blocks.0.seek_bytes()
    }
}

#[cfg(test)]
#[path = "mxfp4_tests.rs"]
mod tests;
