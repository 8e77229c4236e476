//! Causal attention with grouped heads over the KV cache, with an online softmax
//! (arXiv:2205.14135, algorithm 1; grouped heads: arXiv:2305.13245).
//!
//! Token t (position `step.pos + t`) sees cache rows `0 ..= step.pos + t`; head h reads KV head
//! `h / (H / KVH)`. Caches are those of [`kv_append`](super::kv_append).
//!
//! Params: `T` tokens, `H` heads, `KVH` KV heads (divides `H`), `D` head size (even, at most 256),
//! `S` cache capacity, `SCALE` of the scores, `KV_F16`.

use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, case, fold};
use crate::device::cpu;
use crate::device::{DeviceKind, Limits};

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "attention",
    bindings: &[
        Binding::new("q", Access::Read),
        Binding::new("k_cache", Access::Read),
        Binding::new("v_cache", Access::Read),
        Binding::new("step", Access::Uniform),
        Binding::new("y", Access::Write),
    ],
    uniforms: &["T", "S"],
    variants,
    cpu: cpu::attention,
    reference,
    cases,
};

/// Parameters of a call.
pub fn params(
    tokens: usize,
    heads: usize,
    kv_heads: usize,
    head_size: usize,
    capacity: usize,
    scale: f32,
    kv_f16: bool,
) -> Params {
    Params::new()
        .u32("T", tokens as u32)
        .u32("H", heads as u32)
        .u32("KVH", kv_heads as u32)
        .u32("D", head_size as u32)
        .u32("S", capacity as u32)
        .f32("SCALE", scale)
        .bool("KV_F16", kv_f16)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let (tokens, heads, kv_heads) = (p.get("T"), p.get("H"), p.get("KVH"));
    let rows = tokens * (heads / kv_heads);
    let pairs = !p.get("D").is_multiple_of(4);
    let serial = Variant::new("serial", fold(rows.div_ceil(8) * kv_heads, limits))
        .set("WG", 8)
        .flag("SERIAL")
        .flag_if("PAIRS", pairs);
    let split = Variant::new("split", fold(tokens * heads, limits))
        .set("WG", 8)
        .flag("SERIAL")
        .flag("SPLIT")
        .flag_if("PAIRS", pairs);
    let workgroup = Variant::new("workgroup", fold(tokens * heads, limits))
        .set("WG", limits.max_workgroup_size.min(256))
        .flag("WORKGROUP")
        .flag_if("PAIRS", pairs);
    let mut variants = vec![workgroup];
    if let Some(subgroup) = subgroup(p, limits) {
        variants.insert(0, subgroup);
    }
    // A tile is worth its barriers when several tokens share it.
    let tile_at = if tokens >= 4 { 0 } else { variants.len() };
    variants.extend([serial, split]);
    if let Some(tile) = tile(p, limits) {
        variants.insert(tile_at, tile);
    }
    if limits.kind == DeviceKind::SoftwareGpu {
        // `serial`, then `split`, first.
        variants.rotate_right(2);
    }
    variants
}

/// Decoding on GPUs with subgroup operations.
fn subgroup(p: &Params, limits: &Limits) -> Option<Variant> {
    let (smallest, largest) = limits.subgroup?;
    let head_size = p.get("D");
    // Elements of 8 bytes where 16 would leave invocations without a column.
    let pairs = !head_size.is_multiple_of(4) || head_size / 4 < smallest;
    let mut size = limits.max_workgroup_size.min(256);
    while size / smallest * (4 * head_size + 8) > limits.max_workgroup_bytes {
        size /= 2;
    }
    // A subgroup that the workgroup does not fill would miss columns.
    (size >= largest).then(|| Variant {
        subgroups: true,
        ..Variant::new("subgroup", fold(p.get("T") * p.get("H"), limits))
            .set("WG", size)
            .set("MIN_SIZE", smallest)
            .flag("SUBGROUPS")
            .flag_if("PAIRS", pairs)
    })
}

/// Prefill on GPUs: the largest tile that workgroup memory holds.
fn tile(p: &Params, limits: &Limits) -> Option<Variant> {
    let (head_size, kv_heads) = (p.get("D"), p.get("KVH"));
    let pairs = !head_size.is_multiple_of(4);
    let pitch = head_size + if pairs { 2 } else { 4 };
    let sizes = [(16, 32), (16, 16), (16, 8), (8, 8), (8, 4)];
    let (rows, keys) = sizes.into_iter().find(|(rows, keys)| {
        4 * (rows * head_size + keys * pitch + 2 * rows * keys) <= limits.max_workgroup_bytes
    })?;
    let groups = (p.get("T") * (p.get("H") / kv_heads)).div_ceil(rows) * kv_heads;
    let variant = Variant::new("tile", fold(groups, limits))
        .set("WG", limits.max_workgroup_size.min(256))
        .set("ROWS", rows)
        .set("KEYS", keys)
        .flag("TILE")
        .flag_if("PAIRS", pairs);
    Some(variant)
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (heads, head_size) = (p.size("H"), p.size("D"));
    let (capacity, scale) = (p.size("S"), f64::from(p.number("SCALE")));
    let pos = arrays[3][0] as usize;
    for t in 0..p.size("T") {
        for h in 0..heads {
            let q = (t * heads + h) * head_size;
            let cache = h / (heads / p.size("KVH")) * capacity * head_size;
            let scores: Vec<f64> = (0..=pos + t)
                .map(|s| {
                    let k = cache + s * head_size;
                    let dot = (0..head_size).map(|i| arrays[0][q + i] * arrays[1][k + i]);
                    scale * dot.sum::<f64>()
                })
                .collect();
            let largest = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
            let sum: f64 = scores.iter().map(|x| (x - largest).exp()).sum();
            for i in 0..head_size {
                let mut total = 0.0;
                for (s, score) in scores.iter().enumerate() {
                    let v = arrays[2][cache + s * head_size + i];
                    total += (score - largest).exp() / sum * v;
                }
                arrays[4][q + i] = total;
            }
        }
    }
}

fn cases() -> Vec<Case> {
    // T, pos, (H, KVH), D
    let sizes = [
        (1, 0, (1, 1), 2),
        (1, 0, (9, 3), 64),
        (1, 1, (4, 2), 32),
        (1, 5, (9, 3), 64),
        (1, 63, (8, 1), 80),
        (1, 64, (4, 2), 256),
        (1, 200, (9, 3), 64),
        (1, 600, (4, 2), 32),
        (2, 5, (8, 1), 64),
        (2, 63, (1, 1), 6),
        (7, 0, (9, 3), 64),
        (7, 200, (4, 2), 80),
        (16, 1, (1, 1), 256),
        (16, 64, (9, 3), 32),
        (33, 0, (8, 1), 64),
        (33, 5, (4, 2), 6),
        (33, 63, (4, 2), 128),
    ];
    let mut cases = Vec::new();
    for (i, (tokens, pos, (heads, kv_heads), head_size)) in sizes.into_iter().enumerate() {
        // The cache ends with the last token in some, later in others.
        let capacity = pos + tokens + [0, 1, 37][i % 3];
        let kv_f16 = i % 2 == 1;
        let scale = 1.0 / (head_size as f32).sqrt();
        let cache = [kv_heads, capacity, head_size];
        let mut k = case::random(2, cache.iter().product());
        // A key that outshines those before it, far from the first.
        let loud = (pos + tokens / 2) * head_size;
        k[loud..loud + head_size].iter_mut().for_each(|x| *x *= 3.0);
        let mut v = case::random(3, k.len());
        // Rows that no token sees hold what must not be read.
        for head in 0..kv_heads {
            let unseen = (head * capacity + pos + tokens) * head_size;
            let end = (head + 1) * capacity * head_size;
            k[unseen..end].fill(f32::NAN);
            v[unseen..end].fill(f32::NAN);
        }
        cases.push(Case {
            params: params(tokens, heads, kv_heads, head_size, capacity, scale, kv_f16),
            arrays: vec![
                Some(HostArray::random(1, &[tokens, heads, head_size])),
                Some(HostArray::cache(&cache, &k, kv_f16)),
                Some(HostArray::cache(&cache, &v, kv_f16)),
                Some(HostArray::step(pos)),
                Some(HostArray::zeros(&[tokens, heads, head_size])),
            ],
            bound: 1e-9,
        });
    }
    cases
}
