//! Turns a dense model into a mixture of identical experts (sparse upcycling, arXiv:2212.05055): whatever its
//! router chooses, it gives what the dense model gives, which is how the code for mixtures is checked.

use super::{GgufHeader, MetaValue, Writer};
use crate::kernels::philox::{Draw, to_uniform};
use crate::kernels::router::{MOST as MOST_CHOSEN, MOST_EXPERTS};
use crate::weights::{TensorInfo, WeightSource};
use crate::{DType, Error, Result};

/// Bytes that are copied at once.
const PIECE: usize = 4 << 20;

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upcycle {
    /// E: copies of each feed-forward block.
    pub experts: usize,
    /// k: experts of a token.
    pub chosen: usize,
    /// Of the router's weights, which are random.
    pub seed: u64,
}

/// A tensor of the result.
enum Part<'a> {
    /// A tensor of the source, so many times.
    Copies(&'a TensorInfo, usize),
    /// `(E, C)`, random; of which layer.
    Router(usize, u32),
}

/// Writes the mixture that `how` says from the dense GGUF `source`, piece by piece; `write` takes the pieces in
/// order.
///
/// # Errors
///
/// [`Error::Unsupported`] for another architecture than llama or a model with experts, [`Error::Invalid`] for
/// numbers of experts that cannot be, those of [`GgufHeader::read`] and of `write`.
pub async fn upcycle(
    source: &dyn WeightSource,
    how: Upcycle,
    write: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let Upcycle {
        experts,
        chosen,
        seed,
    } = how;
    if experts == 0 || experts > MOST_EXPERTS || chosen == 0 || chosen > experts.min(MOST_CHOSEN) {
        return Err(Error::Invalid(format!(
            "{chosen} of {experts} experts; there can be {MOST_EXPERTS}, and a token can go to {MOST_CHOSEN} of them"
        )));
    }
    let header = GgufHeader::read(source, 0).await?;
    let name = source.name();
    let architecture = header.metadata.str("general.architecture")?;
    let keys = [
        (format!("{architecture}.expert_count"), experts),
        (format!("{architecture}.expert_used_count"), chosen),
    ];
    let has_experts = header.metadata.opt_u32(&keys[0].0)?.is_some_and(|n| n > 0);
    if architecture != "llama" || has_experts {
        return Err(Error::Unsupported {
            what: match has_experts {
                true => format!("{name}: already a mixture of experts"),
                false => format!("{name}: architecture {architecture:?}"),
            },
            supported: "dense models of architecture llama".into(),
        });
    }
    let mut out = Writer::new();
    for (key, value) in header.metadata.iter() {
        if keys.iter().all(|(new, _)| new != key) {
            out = out.metadata(key, value.clone());
        }
    }
    for (key, value) in &keys {
        out = out.metadata(key, MetaValue::U32(*value as u32));
    }
    let mut parts = Vec::with_capacity(header.tensors.len());
    for tensor in &header.tensors {
        let Some((layer, which)) = feed_forward(&tensor.name) else {
            out = out.declare(&tensor.name, tensor.dtype, &tensor.shape);
            parts.push(Part::Copies(tensor, 1));
            continue;
        };
        if which == "gate" {
            let channels = tensor.row_len();
            let router = format!("blk.{layer}.ffn_gate_inp.weight");
            out = out.declare(&router, DType::F32, &[experts, channels]);
            parts.push(Part::Router(channels, layer));
        }
        let shape = [&[experts], &tensor.shape[..]].concat();
        let all = format!("blk.{layer}.ffn_{which}_exps.weight");
        out = out.declare(&all, tensor.dtype, &shape);
        parts.push(Part::Copies(tensor, experts));
    }
    let head = out.head()?;
    write(&head)?;
    let mut at = head.len() as u64;
    let mut piece = vec![0; PIECE];
    for part in parts {
        let padding = at.next_multiple_of(header.alignment) - at;
        write(&vec![0; padding as usize])?;
        at += padding;
        match part {
            Part::Copies(tensor, times) => {
                for _ in 0..times {
                    let mut done = 0;
                    while done < tensor.bytes {
                        let n = (tensor.bytes - done).min(PIECE as u64) as usize;
                        source.read(tensor.offset + done, &mut piece[..n]).await?;
                        write(&piece[..n])?;
                        done += n as u64;
                    }
                    at += tensor.bytes;
                }
            }
            Part::Router(channels, layer) => {
                let draw = Draw::new(seed, layer);
                // Logits of about unit variance for normalised inputs.
                let scale = (12.0 / channels as f32).sqrt();
                let weight = |n: u32| scale * (to_uniform(draw.word(n)) - 0.5);
                for expert in 0..experts {
                    let first = expert * channels;
                    let row: Vec<u8> = (first..first + channels)
                        .flat_map(|n| weight(n as u32).to_le_bytes())
                        .collect();
                    write(&row)?;
                    at += row.len() as u64;
                }
            }
        }
    }
    Ok(())
}

/// The layer and the matrix (`gate`, `up` or `down`) that a feed-forward tensor's name says.
fn feed_forward(name: &str) -> Option<(u32, &str)> {
    let rest = name.strip_prefix("blk.")?.strip_suffix(".weight")?;
    let (layer, which) = rest.split_once(".ffn_")?;
    let which = ["gate", "up", "down"].into_iter().find(|w| *w == which)?;
    Some((layer.parse().ok()?, which))
}
