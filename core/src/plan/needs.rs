//! What tokens need whoever computes them: the bounds that a benchmark is held against.

use super::cost::{When, cost, seen_bytes, weight_read};
use super::dry::{Sizes, dry_run, is_weight};
use crate::Result;
use crate::comm::Placement;
use crate::kv_cache::KvDType;
use crate::recording::Recording;
use crate::weights::ModelFiles;

/// Kernels whose operations are counted: products with weights, and attention. All others are small beside these.
const PRODUCTS: [&str; 5] = ["attention", "gated_mlp", "matmul", "matvec", "qkv_product"];

/// The least that some tokens need, on any device and however shared among ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Bytes of weights, in the file's types; of experts the chosen ones, of the embedding the tokens' rows.
    pub weights: u64,
    /// Bytes of keys and values that attention reads.
    pub cache: u64,
    /// Floating-point operations: 2 for each weight and token, and attention's 2 for each channel of a key and of a
    /// value that a query head sees.
    pub flops: u64,
}

impl Needs {
    /// Bytes that must be read.
    pub fn bytes(&self) -> u64 {
        self.weights + self.cache
    }

    fn of(recording: &Recording, position: usize) -> Self {
        let when = When {
            position,
            sequences: 1,
        };
        let mut needs = Needs::default();
        for dispatch in recording.dispatches() {
            let name = dispatch.kernel.name;
            for (binding, tensor) in dispatch.bindings.iter().enumerate() {
                if tensor.as_ref().is_some_and(is_weight) {
                    needs.weights += weight_read(dispatch, binding);
                }
            }
            if name == "attention" {
                needs.cache += seen_bytes(dispatch, when);
            }
            if PRODUCTS.contains(&name) {
                needs.flops += cost(dispatch, when).flops;
            }
        }
        needs
    }
}

/// What a prompt of `tokens` tokens and the logits behind it need; weights are read once for all of them.
///
/// # Errors
///
/// Those of [`Session::load`](crate::session::Session::load), as for a context of `tokens` that the model does not allow.
pub async fn prefill_needs(files: &ModelFiles, kv: KvDType, tokens: usize) -> Result<Needs> {
    let sizes = Sizes {
        context: tokens,
        kv,
        chunk: tokens,
    };
    let dry = dry_run(files, vec![Placement::alone()], sizes, None).await?;
    Ok(Needs::of(&dry.prefill, 0))
}

/// What `tokens` tokens need that are computed one after the other, behind `past` others.
///
/// # Errors
///
/// Those of [`Session::load`](crate::session::Session::load), as for a context that the model does not allow.
pub async fn decode_needs(
    files: &ModelFiles,
    kv: KvDType,
    past: usize,
    tokens: usize,
) -> Result<Needs> {
    let sizes = Sizes {
        context: past + tokens,
        kv,
        chunk: 1,
    };
    let dry = dry_run(files, vec![Placement::alone()], sizes, None).await?;
    let mut sum = Needs::default();
    for position in past..past + tokens {
        let needs = Needs::of(&dry.decode, position);
        sum.weights += needs.weights;
        sum.cache += needs.cache;
        sum.flops += needs.flops;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use pollster::block_on;

    use super::*;
    use crate::kernels::KERNELS;
    use crate::plan::Shape;
    use crate::weights::BytesSource;
    use crate::{DType, builtin};

    #[test]
    fn products_are_kernels() {
        for name in PRODUCTS {
            assert!(KERNELS.iter().any(|k| k.name == name), "{name}");
        }
    }

    /// What the sizes of a dense model of llama's kind give: weights' bytes, operations of a token but for attention.
    struct Closed {
        /// Elements of all layers' matrices.
        layers: u64,
        head: u64,
        /// Elements of all norms, which are f32.
        norms: u64,
        /// Of one token of context, in all layers: elements of keys and values, operations.
        context: [u64; 2],
        row: u64,
    }

    fn closed(files: &ModelFiles) -> Closed {
        let c = &files.config;
        let [width, hidden, layers, vocab] = [
            c.hidden_size,
            c.intermediate_size,
            c.num_hidden_layers,
            c.vocab_size,
        ]
        .map(|n| n as u64);
        let [heads, kv_heads, dim] =
            [c.num_attention_heads, c.num_key_value_heads, c.head_dim].map(|n| n as u64);
        let attention = width * dim * (2 * heads + 2 * kv_heads);
        Closed {
            layers: layers * (attention + 3 * width * hidden),
            head: vocab * width,
            norms: (2 * layers + 1) * width,
            context: [layers * 2 * kv_heads * dim, layers * 4 * heads * dim],
            row: width,
        }
    }

    #[test]
    fn llamas_need_what_their_sizes_say() {
        for (shape, dtype) in [
            ("llama3.2-1b", DType::Q4_0),
            ("llama3-8b", DType::F16),
            ("smollm2-135m", DType::Q8_0),
        ] {
            let files = Shape::find(shape).unwrap().files(dtype).unwrap();
            let n = closed(&files);
            let bytes = |elements: u64| dtype.bytes(elements as usize).unwrap() as u64;
            let weights = bytes(n.layers + n.head) + 4 * n.norms;

            // Positions 1 to 128 see 2 to 129 keys.
            let decode = block_on(decode_needs(&files, KvDType::F16, 1, 128)).unwrap();
            let seen: u64 = (2..=129).sum();
            let want = Needs {
                weights: 128 * (weights + bytes(n.row)),
                cache: seen * 2 * n.context[0],
                flops: 128 * 2 * (n.layers + n.head) + seen * n.context[1],
            };
            assert_eq!(decode, want, "{shape}");
            assert_eq!(decode.bytes(), want.weights + want.cache);

            // Only the last token's logits are computed.
            for tokens in [1, 512, files.config.max_position_embeddings] {
                let prefill = block_on(prefill_needs(&files, KvDType::F16, tokens)).unwrap();
                let tokens = tokens as u64;
                let seen: u64 = (1..=tokens).sum();
                let want = Needs {
                    weights: weights + tokens * bytes(n.row),
                    cache: tokens * 2 * n.context[0],
                    flops: 2 * (tokens * n.layers + n.head) + seen * n.context[1],
                };
                assert_eq!(prefill, want, "{shape}, {tokens} tokens");
            }
        }
    }

    fn builtin(name: &str) -> ModelFiles {
        let (_, bytes) = builtin::MODELS.iter().find(|(n, _)| *n == name).unwrap();
        block_on(ModelFiles::open(vec![Rc::new(BytesSource::new(
            name, *bytes,
        ))]))
        .unwrap()
    }

    #[test]
    fn files_need_the_bytes_of_their_tensors() {
        let files = builtin(builtin::TINY_NAME);
        let n = closed(&files);
        let needs = block_on(decode_needs(&files, KvDType::F16, 0, 1)).unwrap();
        let embedding = files.tensors().find(|t| t.name == "token_embd.weight");
        let embedding = embedding.unwrap();
        let row = embedding.bytes / files.config.vocab_size as u64;
        let all: u64 = files.tensors().map(|t| t.bytes).sum();
        // The output layer reads it, too.
        assert!(!files.has("output.weight"));
        assert_eq!(needs.weights, all + row);
        assert_eq!(needs.cache, 2 * n.context[0]);
        assert_eq!(needs.flops, 2 * (n.layers + n.head) + n.context[1]);
    }

    #[test]
    fn a_token_needs_its_own_experts_only() {
        let files = builtin(builtin::TINY_MOE_NAME);
        let n = closed(&files);
        let needs = block_on(decode_needs(&files, KvDType::F16, 0, 1)).unwrap();
        let sum = |part: &str| -> u64 {
            let of = files.tensors().filter(|t| t.name.contains(part));
            of.map(|t| t.bytes).sum()
        };
        // Two of eight; the output layer is the embedding.
        let row = sum("token_embd") / files.config.vocab_size as u64;
        assert_eq!(needs.weights, sum("") - sum("_exps") / 4 * 3 + row);
        let experts = files.config.moe.as_ref().unwrap();
        let layers = files.config.num_hidden_layers;
        let block = layers * 3 * files.config.hidden_size * experts.intermediate_size;
        let routers = layers * experts.num_experts * files.config.hidden_size;
        // The closed form has one block in each layer, as wide as an expert.
        let elements = n.layers + n.head + (block + routers) as u64;
        assert_eq!(needs.flops, 2 * elements + n.context[1]);
    }
}
