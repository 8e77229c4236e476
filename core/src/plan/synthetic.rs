//! Models of a [`Shape`] with random weights: what a benchmark needs of a model is its sizes.

use std::collections::HashMap;

use super::Shape;
use crate::kernels::philox::{Draw, to_uniform};
use crate::weights::dequant::quantize;
use crate::weights::gguf::{MetaValue, Writer};
use crate::{DType, Error, Result};

/// About as many elements are drawn; matrices repeat them, each row from another place on.
const DRAWN: usize = 1 << 18;

/// Bytes that are written at once.
const PIECE: usize = 4 << 20;

/// Every tensor's data begins at a multiple of this.
const ALIGNMENT: u64 = 32;

impl Shape {
    /// Writes a GGUF file of this shape, piece by piece: matrices of type `dtype`, uniformly distributed with variance
    /// `1 / columns`; norms are ones. There is no tokenizer.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for mixtures and for rows that are not whole blocks of the type, and those of `write`.
    pub fn write_random(
        &self,
        dtype: DType,
        seed: u64,
        write: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        if self.experts.is_some() {
            return Err(Error::Unsupported {
                what: format!("{}: random weights of a mixture of experts", self.name),
                supported: "dense shapes, and --upcycle of what is made of one".into(),
            });
        }
        let files = self.files(dtype)?;
        let mut out = self.metadata();
        for tensor in files.tensors() {
            out = out.declare(&tensor.name, tensor.dtype, &tensor.shape);
        }
        let head = out.head()?;
        write(&head)?;
        let mut at = head.len() as u64;
        let mut drawn: HashMap<usize, Vec<u8>> = HashMap::new();
        for tensor in files.tensors() {
            let padding = at.next_multiple_of(ALIGNMENT) - at;
            write(&vec![0; padding as usize])?;
            at += padding + tensor.bytes;
            if tensor.shape.len() == 1 {
                write(&quantize(DType::F32, &vec![1.0; tensor.shape[0]]))?;
                continue;
            }
            let columns = tensor.row_len();
            let draw = || quantize(dtype, &uniform(dtype, columns, seed));
            let pattern = drawn.entry(columns).or_insert_with(draw);
            let mut left = tensor.bytes;
            while left > 0 {
                let n = left.min(pattern.len() as u64);
                write(&pattern[..n as usize])?;
                left -= n;
            }
        }
        Ok(())
    }

    fn metadata(&self) -> Writer {
        let [heads, kv_heads, head_dim] = self.heads;
        let number = |n: usize| MetaValue::U32(n as u32);
        let text = |text: &str| MetaValue::String(text.into());
        let config = self.config();
        let mut out = Writer::new()
            .metadata("general.architecture", text("llama"))
            .metadata("general.name", text(self.name));
        for (key, value) in [
            ("block_count", number(self.layers)),
            ("context_length", number(self.context)),
            ("embedding_length", number(self.channels)),
            ("feed_forward_length", number(self.hidden)),
            ("vocab_size", number(self.vocab)),
            ("attention.head_count", number(heads)),
            ("attention.head_count_kv", number(kv_heads)),
            ("attention.key_length", number(head_dim)),
            ("attention.value_length", number(head_dim)),
            ("rope.dimension_count", number(config.rope.dims)),
            ("rope.freq_base", MetaValue::F32(config.rope.theta as f32)),
            (
                "attention.layer_norm_rms_epsilon",
                MetaValue::F32(config.norm_eps),
            ),
        ] {
            out = out.metadata(&format!("llama.{key}"), value);
        }
        out
    }
}

/// A prime number of blocks, so that rows, which are another number of blocks, begin at other places of it; whole pieces'
/// worth.
fn uniform(dtype: DType, columns: usize, seed: u64) -> Vec<f32> {
    let prime = |n: &usize| {
        (2..)
            .take_while(|d| d * d <= *n)
            .all(|d| !n.is_multiple_of(d))
    };
    let most = (DRAWN / dtype.block_len()).min(PIECE);
    let blocks = (2..=most).rev().find(prime).unwrap_or(2);
    let draw = Draw::new(seed, columns as u32);
    let scale = (12.0 / columns as f32).sqrt();
    let each = |n: usize| scale * (to_uniform(draw.word(n as u32)) - 0.5);
    (0..blocks * dtype.block_len()).map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::World;
    use crate::device::cpu::CpuDevice;
    use crate::session::{Session, SessionOptions};
    use crate::weights::{BytesSource, ModelFiles};
    use pollster::block_on;
    use std::ops::ControlFlow;
    use std::rc::Rc;

    const SMALL: Shape = Shape {
        name: "small",
        channels: 256,
        hidden: 512,
        layers: 2,
        heads: [4, 2, 64],
        vocab: 300,
        context: 64,
        tied: true,
        experts: None,
    };

    #[test]
    fn files_of_every_type_are_models_of_the_shape() {
        for &dtype in DType::WEIGHTS {
            let mut bytes = Vec::new();
            let made = SMALL.write_random(dtype, 7, &mut |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            });
            made.unwrap_or_else(|e| panic!("{dtype}: {e}"));
            let source = Rc::new(BytesSource::new("small", bytes));
            let files = block_on(ModelFiles::open(vec![source]));
            let files = files.unwrap_or_else(|e| panic!("{dtype}: {e}"));
            assert_eq!(files.config.hidden_size, 256);
            let world = World::single(Rc::new(CpuDevice::new()));
            let quiet = &mut |_| ControlFlow::Continue(());
            let session = Session::load(files, world, SessionOptions::default(), quiet);
            let mut session = block_on(session).unwrap();
            let logits = block_on(session.logits(&[1, 2, 3], false)).unwrap();
            assert!(logits.iter().all(|x| x.is_finite()), "{dtype}");
            let spread = logits.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
            assert!(spread > 0.1 && spread < 100.0, "{dtype}: {spread}");
        }
    }

    #[test]
    fn rows_differ() {
        let mut bytes = Vec::new();
        let mut keep = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        SMALL.write_random(DType::Q4_0, 1, &mut keep).unwrap();
        let row = 256 / 32 * 18;
        let tail = &bytes[bytes.len() - 40 * row..];
        let rows: std::collections::HashSet<&[u8]> = tail.chunks(row).collect();
        assert!(rows.len() > 38);
    }
}
