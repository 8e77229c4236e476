//! Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1).

use std::ops::Range;

use super::{Attention, Linear, RmsNorm, Rope};
use crate::comm::Heads;
use crate::kv_cache::KvCache;
use crate::models::LatentConfig;
use crate::recording::Recording;
use crate::tensor::Tensor;
use crate::weights::{Loader, Part};
use crate::{DType, Error, Result};

/// Attention whose keys and values are made of one latent vector a token.
///
/// What makes keys of it is applied to queries instead, and what makes values to what attention gives
/// (section 2.1.2): so the cache has one head, of `kv_lora_rank + qk_rope_head_dim` channels, which all heads
/// read.
pub struct LatentAttention {
    config: LatentConfig,
    /// Down-projection of q and its norm; DeepSeek-V2-Lite has none.
    q_a: Option<(Linear, RmsNorm)>,
    /// To this rank's heads of `qk_nope_head_dim + qk_rope_head_dim`.
    q_b: Linear,
    /// To the latent and the rotary key.
    kv_a: Linear,
    kv_norm: RmsNorm,
    /// Of each head: `(kv_lora_rank, qk_nope_head_dim)` and `(v_head_dim, kv_lora_rank)`.
    k_b: Linear,
    v_b: Linear,
    /// This rank's heads.
    held: Range<usize>,
    /// The head of each row of `(T, H)`.
    ids: Tensor,
    attention: Attention,
}

impl LatentAttention {
    /// Loads this rank's heads `held` of `count` of the block `name`; `layer` is its place in the cache, which
    /// has room for `context` tokens.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::weight`].
    pub async fn load(
        loader: &mut Loader<'_>,
        name: &str,
        [channels, count, layer, context]: [usize; 4],
        held: Range<usize>,
        config: &LatentConfig,
        eps: f32,
    ) -> Result<Self> {
        let of = |part: &str| format!("{name}.{part}");
        let [nope, turned, latent] = [
            config.qk_nope_head_dim,
            config.qk_rope_head_dim,
            config.kv_lora_rank,
        ];
        let size = nope + turned;
        let rows = held.start * size..held.end * size;
        let (q_a, q_b) = match config.q_lora_rank {
            Some(rank) => {
                let down = Linear::load(loader, &of("attn_q_a"), rank, channels).await?;
                let norm = RmsNorm::load(loader, &of("attn_q_a_norm"), rank, eps).await?;
                let up = of("attn_q_b");
                let up = Linear::load_column(loader, &up, count * size, rank, rows).await?;
                (Some((down, norm)), up)
            }
            None => {
                let q = of("attn_q");
                (
                    None,
                    Linear::load_column(loader, &q, count * size, channels, rows).await?,
                )
            }
        };
        let kv_a = of("attn_kv_a_mqa");
        let kv_a = Linear::load(loader, &kv_a, latent + turned, channels).await?;
        let kv_norm = RmsNorm::load(loader, &of("attn_kv_a_norm"), latent, eps).await?;
        let [values, own] = [config.v_head_dim, held.len()];
        let (k_b, v_b) = if loader.files().has(&of("attn_k_b.weight")) {
            let shapes = [[count, latent, nope], [count, values, latent]];
            let part = |shape: [usize; 3]| Part::all(shape[1], shape[2]);
            let [k, v] = [of("attn_k_b.weight"), of("attn_v_b.weight")];
            let k = loader
                .experts(&k, shapes[0], held.clone(), &part(shapes[0]))
                .await?;
            let v = loader
                .experts(&v, shapes[1], held.clone(), &part(shapes[1]))
                .await?;
            (k, v)
        } else {
            // Keys' rows, then values', of each head.
            let both = of("attn_kv_b.weight");
            let shape = [count, nope + values, latent];
            let k = Part::all(latent, nope);
            let k = loader
                .transposed(&both, shape, [0, 1], held.clone(), &k)
                .await?;
            let v = Part {
                rows: nope..nope + values,
                cols: 0..latent,
            };
            (k, loader.experts(&both, shape, held.clone(), &v).await?)
        };
        let scale = config.scale.unwrap_or((1.0 / (size as f64).sqrt()) as f32);
        let heads = Heads {
            q: held.clone(),
            kv: 0..1,
            group: count,
        };
        Ok(LatentAttention {
            config: *config,
            q_a,
            q_b,
            kv_a,
            kv_norm,
            k_b: Linear::new(k_b),
            v_b: Linear::new(v_b),
            ids: loader.cycle(own, context).await?,
            held,
            attention: Attention::new(heads, latent + turned, layer).with_scale(scale),
        })
    }
}

impl Recording {
    /// Attends with `x` `(T, C)`, whose keys and values go to the cache: `(T, H v_head_dim)` of this rank's
    /// heads.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a shape does not fit.
    pub fn latent_attention(
        &mut self,
        x: &Tensor,
        a: &LatentAttention,
        rope: &Rope,
        step: &Tensor,
        cache: &KvCache,
    ) -> Result<Tensor> {
        let (tokens, heads) = (x.rows(), a.held.len());
        let [nope, turned, latent] = [
            a.config.qk_nope_head_dim,
            a.config.qk_rope_head_dim,
            a.config.kv_lora_rank,
        ];
        let pairs = tokens * heads;
        if pairs > a.ids.len() {
            return Err(Error::Invalid(format!(
                "latent attention: {tokens} tokens, made for {}",
                a.ids.len() / heads.max(1)
            )));
        }
        let ids = Tensor::new(a.ids.storage.clone(), DType::U32, &[pairs, 1]);

        let q = match &a.q_a {
            Some((down, norm)) => {
                let q = self.linear(x, down)?;
                let q = self.rms_norm(&q, norm)?;
                self.linear(&q, &a.q_b)?
            }
            None => self.linear(x, &a.q_b)?,
        };
        let by_head = q.reshaped(&[pairs, nope + turned]);
        let q_nope = self.columns(&by_head, 0, nope)?;
        let q_rope = self.columns(&by_head, nope, turned)?;
        self.rope(
            &q_rope.reshaped(&[tokens, heads * turned]),
            rope,
            turned,
            step,
            cache.pages(),
        )?;
        let q_latent = self.by_id(&q_nope, &ids, &a.k_b, heads)?;
        let q = self.concat_columns(&[q_latent, q_rope])?;

        let kv = self.linear(x, &a.kv_a)?;
        let v = self.columns(&kv, 0, latent)?;
        let v = self.rms_norm(&v, &a.kv_norm)?;
        let k_rope = self.columns(&kv, latent, turned)?;
        self.rope(&k_rope, rope, turned, step, cache.pages())?;
        let k = self.concat_columns(&[v.clone(), k_rope])?;

        let y = self.attend_latent([&q, &k, &v], &a.attention, latent, step, cache)?;
        let y = self.by_id(&y.reshaped(&[pairs, latent]), &ids, &a.v_b, heads)?;
        Ok(y.reshaped(&[tokens, heads * a.config.v_head_dim]))
    }
}
