//! Models without their files: shapes from their `config.json`, for plans.

use super::moe::Experts;
use crate::models::{
    ModelConfig, Multipliers, Positions, QkvOrder, RopeConfig, RopeScaling, Softcaps,
};
use crate::nn::Activation;
use crate::weights::{ModelFiles, TensorInfo};
use crate::{DType, Error, Result};

/// A model's sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// What `--shape` calls it.
    pub name: &'static str,
    /// C.
    pub channels: usize,
    /// F; of one expert where there are any.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads, key/value heads and their size.
    pub heads: [usize; 3],
    /// V.
    pub vocab: usize,
    /// Longest context.
    pub context: usize,
    /// Does the output layer share the embedding's weight?
    pub tied: bool,
    /// Experts of each layer; none in a dense model.
    pub experts: Option<Experts>,
}

const fn dense(
    name: &'static str,
    [channels, hidden, layers]: [usize; 3],
    heads: [usize; 3],
    [vocab, context]: [usize; 2],
) -> Shape {
    Shape {
        name,
        channels,
        hidden,
        layers,
        heads,
        vocab,
        context,
        tied: false,
        experts: None,
    }
}

const fn tied(shape: Shape) -> Shape {
    Shape {
        tied: true,
        ..shape
    }
}

const fn mixture(shape: Shape, count: usize, active: usize) -> Shape {
    Shape {
        experts: Some(Experts { count, active }),
        ..shape
    }
}

/// Sizes as in `config.json` of the models on Hugging Face; Llama 3 is Llama 3.1 (arXiv:2407.21783), Mistral is
/// version 0.3, which has no sliding window. Qwen 3's norms of queries and keys are left out.
pub static SHAPES: &[Shape] = &[
    dense("llama2-7b", [4096, 11008, 32], [32, 32, 128], [32000, 4096]),
    dense(
        "llama2-13b",
        [5120, 13824, 40],
        [40, 40, 128],
        [32000, 4096],
    ),
    dense("llama2-70b", [8192, 28672, 80], [64, 8, 128], [32000, 4096]),
    dense(
        "llama3-8b",
        [4096, 14336, 32],
        [32, 8, 128],
        [128_256, 131_072],
    ),
    tied(dense(
        "llama3.2-1b",
        [2048, 8192, 16],
        [32, 8, 64],
        [128_256, 131_072],
    )),
    dense(
        "llama3-70b",
        [8192, 28672, 80],
        [64, 8, 128],
        [128_256, 131_072],
    ),
    dense(
        "llama3-405b",
        [16384, 53248, 126],
        [128, 8, 128],
        [128_256, 131_072],
    ),
    dense(
        "mistral-7b",
        [4096, 14336, 32],
        [32, 8, 128],
        [32768, 32768],
    ),
    tied(dense(
        "smollm2-135m",
        [576, 1536, 30],
        [9, 3, 64],
        [49152, 8192],
    )),
    tied(dense(
        "smollm2-360m",
        [960, 2560, 32],
        [15, 5, 64],
        [49152, 8192],
    )),
    tied(dense(
        "smollm2-1.7b",
        [2048, 8192, 24],
        [32, 32, 64],
        [49152, 8192],
    )),
    dense("tinyllama", [2048, 5632, 22], [32, 4, 64], [32000, 2048]),
    mixture(
        dense(
            "mixtral-8x7b",
            [4096, 14336, 32],
            [32, 8, 128],
            [32000, 32768],
        ),
        8,
        2,
    ),
    mixture(
        dense(
            "mixtral-8x22b",
            [6144, 16384, 56],
            [48, 8, 128],
            [32768, 65536],
        ),
        8,
        2,
    ),
    mixture(
        dense(
            "qwen3-30b-a3b",
            [2048, 768, 48],
            [32, 4, 128],
            [151_936, 40960],
        ),
        128,
        8,
    ),
    mixture(
        dense(
            "qwen3-235b-a22b",
            [4096, 1536, 94],
            [64, 4, 128],
            [151_936, 40960],
        ),
        128,
        8,
    ),
];

impl Shape {
    /// A shape of [`SHAPES`].
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] naming the known ones.
    pub fn find(name: &str) -> Result<&'static Shape> {
        let found = SHAPES.iter().find(|s| s.name.eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            let names: Vec<_> = SHAPES.iter().map(|s| s.name).collect();
            Error::Unsupported {
                what: format!("shape {name:?}"),
                supported: names.join(", "),
            }
        })
    }

    /// Its configuration.
    pub fn config(&self) -> ModelConfig {
        let [heads, kv_heads, head_dim] = self.heads;
        ModelConfig {
            architecture: "llama".into(),
            hidden_size: self.channels,
            intermediate_size: self.hidden,
            num_hidden_layers: self.layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            vocab_size: self.vocab,
            max_position_embeddings: self.context,
            norm_eps: 1e-5,
            positions: Positions::Rotary,
            local_rope_theta: None,
            layer_norm: false,
            norm_offset: 0.0,
            parallel_residual: false,
            softcaps: Softcaps::default(),
            qkv: QkvOrder::default(),
            hidden_act: Activation::Silu,
            rope: RopeConfig {
                theta: 10_000.0,
                dims: head_dim,
                adjacent: true,
                scaling: RopeScaling::None,
            },
            window: None,
            multipliers: Multipliers::default(),
            norms_whole_rows: false,
            latent: None,
            moe: None,
        }
    }

    /// Its tensors under GGUF's names, of one expert where there are any, matrices of this element type, norms f32; there are no bytes behind
    /// them.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] when a row is not a whole number of the type's blocks.
    pub fn files(&self, dtype: DType) -> Result<ModelFiles> {
        let (c, f) = (self.channels, self.hidden);
        let [heads, kv_heads, head_dim] = self.heads;
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        let mut tensors = Tensors {
            shape: self.name,
            dtype,
            list: Vec::new(),
        };
        tensors.matrix("token_embd.weight", self.vocab, c)?;
        for layer in 0..self.layers {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            tensors.vector(&name("attn_norm"), c);
            tensors.matrix(&name("attn_q"), q, c)?;
            tensors.matrix(&name("attn_k"), kv, c)?;
            tensors.matrix(&name("attn_v"), kv, c)?;
            tensors.matrix(&name("attn_output"), c, q)?;
            tensors.vector(&name("ffn_norm"), c);
            tensors.matrix(&name("ffn_gate"), f, c)?;
            tensors.matrix(&name("ffn_up"), f, c)?;
            tensors.matrix(&name("ffn_down"), c, f)?;
        }
        tensors.vector("output_norm.weight", c);
        if !self.tied {
            tensors.matrix("output.weight", self.vocab, c)?;
        }
        Ok(ModelFiles::described(
            self.name,
            self.config(),
            tensors.list,
        ))
    }
}

struct Tensors {
    shape: &'static str,
    dtype: DType,
    list: Vec<TensorInfo>,
}

impl Tensors {
    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<()> {
        let dtype = self.dtype;
        let bytes = dtype.bytes(cols).and_then(|row| row.checked_mul(rows));
        let bytes = bytes.ok_or_else(|| Error::Unsupported {
            what: format!(
                "{}: {name} of {dtype}: rows of {cols} elements are not whole blocks of {}",
                self.shape,
                dtype.block_len()
            ),
            supported: DType::WEIGHTS
                .iter()
                .filter(|d| cols.is_multiple_of(d.block_len()))
                .map(|d| d.name())
                .collect::<Vec<_>>()
                .join(", "),
        })?;
        self.push(name, dtype, vec![rows, cols], bytes);
        Ok(())
    }

    fn vector(&mut self, name: &str, len: usize) {
        self.push(name, DType::F32, vec![len], 4 * len);
    }

    fn push(&mut self, name: &str, dtype: DType, shape: Vec<usize>, bytes: usize) {
        self.list.push(TensorInfo {
            name: name.into(),
            dtype,
            shape,
            offset: 0,
            bytes: bytes as u64,
            file: 0,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameters as the models' authors give them, in units of 1e9.
    #[test]
    fn shapes_have_the_parameters_that_their_names_promise() {
        for (name, want) in [
            ("llama2-7b", 6.738),
            ("llama2-13b", 13.016),
            ("llama2-70b", 68.977),
            ("llama3-8b", 8.030),
            ("llama3.2-1b", 1.2358),
            ("llama3-70b", 70.554),
            ("llama3-405b", 405.853),
            ("mistral-7b", 7.248),
            ("smollm2-135m", 0.1345),
            ("smollm2-360m", 0.3618),
            ("smollm2-1.7b", 1.7114),
            ("tinyllama", 1.1000),
            ("mixtral-8x7b", 46.703),
            ("mixtral-8x22b", 140.630),
            ("qwen3-30b-a3b", 30.532),
            ("qwen3-235b-a22b", 235.093),
        ] {
            let files = Shape::find(name).unwrap().files(DType::BF16).unwrap();
            let shape = Shape::find(name).unwrap();
            let dense: usize = files
                .tensors()
                .map(|t| t.shape.iter().product::<usize>())
                .sum();
            let more = shape.experts.map_or(0, |experts| {
                let block = 3 * shape.channels * shape.hidden;
                shape.layers * ((experts.count - 1) * block + experts.count * shape.channels)
            });
            let parameters = dense + more;
            let got = parameters as f64 / 1e9;
            assert!(
                (got / want - 1.0).abs() < 1e-3,
                "{name}: {got}, want {want}"
            );
        }
        assert_eq!(SHAPES.len(), 16);
    }

    #[test]
    fn a_type_whose_blocks_do_not_fit_names_those_that_do() {
        let shape = Shape::find("smollm2-135m").unwrap();
        let told = shape.files(DType::Q4K).err().unwrap().to_string();
        assert!(
            told.starts_with("smollm2-135m: token_embd.weight of q4_k: rows of 576")
                && told.ends_with("supported: f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, mxfp4"),
            "{told}"
        );
        assert!(
            Shape::find("gpt-9")
                .unwrap_err()
                .to_string()
                .contains("llama3-8b")
        );
    }
}
