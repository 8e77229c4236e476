//! Appends the keys and values of T tokens to the KV cache, from position `step.pos` on.
//!
//! Caches are (KVH, S, D), in f32 or f16; f16 elements are held to +-65504, so that an outlier
//! does not become infinite. Rows past `S` are dropped.
//!
//! Params: `T` tokens, `KVH` KV heads, `D` head size (even), `S` cache capacity, `KV_F16`.

use half::f16;

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, case, fold};
use crate::device::Limits;
use crate::device::cpu::{self, CpuDispatch};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "kv_append",
    bindings: &[
        Binding::new("k", Access::Read),
        Binding::new("v", Access::Read),
        Binding::new("k_cache", Access::Write),
        Binding::new("v_cache", Access::Write),
        Binding::new("step", Access::Uniform),
    ],
    uniforms: &["T", "S"],
    variants,
    cpu,
    reference,
    cases,
};

/// Parameters of a call.
pub fn params(
    tokens: usize,
    kv_heads: usize,
    head_size: usize,
    capacity: usize,
    kv_f16: bool,
) -> Params {
    Params::new()
        .u32("T", tokens as u32)
        .u32("KVH", kv_heads as u32)
        .u32("D", head_size as u32)
        .u32("S", capacity as u32)
        .bool("KV_F16", kv_f16)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let pairs = p.get("T") * p.get("KVH") * (p.get("D") / 2);
    vec![Variant::new("pairs", fold(pairs.div_ceil(64), limits)).set("WG", 64)]
}

fn cpu(d: &CpuDispatch<'_>) {
    for (from, to) in [(0, 2), (1, 3)] {
        if d.params.is("KV_F16") {
            append(d, from, &mut d.write::<u16>(to), |v| {
                f16::from_f32(v.clamp(-65504.0, 65504.0)).to_bits()
            });
        } else {
            append(d, from, &mut d.write::<f32>(to), |v| v);
        }
    }
}

fn append<E: Send>(
    d: &CpuDispatch<'_>,
    from: usize,
    cache: &mut [E],
    store: impl Fn(f32) -> E + Sync,
) {
    let (kv_heads, head_size) = (d.params.size("KVH"), d.params.size("D"));
    let (tokens, capacity) = (d.params.size("T"), d.params.size("S"));
    let pos = d.u32(4)[0] as usize;
    let rows = tokens.min(capacity.saturating_sub(pos));
    let from = d.f32(from);
    let from = &*from;
    let one_head = |g: usize, head: &mut [E]| {
        for t in 0..rows {
            let from = &from[(t * kv_heads + g) * head_size..][..head_size];
            let to = &mut head[(pos + t) * head_size..][..head_size];
            for (to, from) in to.iter_mut().zip(from) {
                *to = store(*from);
            }
        }
    };
    let len = capacity * head_size;
    let heads = &mut cache[..kv_heads * len];
    if rows * head_size < 2048 {
        let heads = heads.chunks_mut(len).enumerate();
        heads.for_each(|(g, head)| one_head(g, head));
    } else {
        cpu::for_each_chunk(heads, len, one_head);
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (kv_heads, head_size, capacity) = (p.size("KVH"), p.size("D"), p.size("S"));
    let pos = arrays[4][0] as usize;
    for (from, to) in [(0, 2), (1, 3)] {
        for t in (0..p.size("T")).filter(|t| pos + t < capacity) {
            for g in 0..kv_heads {
                for i in 0..head_size {
                    let value = arrays[from][(t * kv_heads + g) * head_size + i];
                    let limit = if p.is("KV_F16") { 65504.0 } else { f64::MAX };
                    arrays[to][(g * capacity + pos + t) * head_size + i] =
                        value.clamp(-limit, limit);
                }
            }
        }
    }
}

fn cases() -> Vec<Case> {
    let sizes = [
        (1, 1, 2, 1, 0),
        (1, 3, 64, 301, 200),
        (2, 1, 32, 9, 5),
        (7, 2, 80, 71, 63),
        (33, 3, 256, 35, 1),
        // Two of five tokens find room.
        (5, 2, 64, 7, 5),
    ];
    let mut cases = Vec::new();
    for (tokens, kv_heads, head_size, capacity, pos) in sizes {
        for kv_f16 in [false, true] {
            let mut k = case::random(1, tokens * kv_heads * head_size);
            // Beyond what f16 holds.
            k[0] = -70000.0;
            let cache = [kv_heads, capacity, head_size];
            cases.push(Case {
                params: params(tokens, kv_heads, head_size, capacity, kv_f16),
                arrays: vec![
                    Some(HostArray::f32(&[tokens, kv_heads, head_size], &k)),
                    Some(HostArray::random(2, &[tokens, kv_heads, head_size])),
                    Some(HostArray::random_cache(3, &cache, kv_f16)),
                    Some(HostArray::random_cache(4, &cache, kv_f16)),
                    Some(HostArray::step(pos)),
                ],
                bound: if kv_f16 { 1e-6 } else { 0.0 },
            });
        }
    }
    cases
}
