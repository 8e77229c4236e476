//! Attention with grouped heads over the KV cache, with an online softmax
//! (arXiv:2205.14135, algorithm 1; grouped heads: arXiv:2305.13245).
//!
//! Token t (position `step.pos + t`) sees the cache rows that the [rules](super::attention_rules)
//! say: `0 ..= step.pos + t` without any. Head h reads KV head `(h + HEAD0) / GROUP`. Caches are those
//! of [`kv_append`](super::kv_append). A sink is one score more in a head's softmax, without a value
//! (gpt-oss). A token that sees no key gives zeros. Tokens of different sequences, each with a position of its own, are
//! `PAGED`: see [`pages`](super::pages).
//!
//! Params: `B` sequences, `T` tokens, `H` heads, `KVH` KV heads, `GROUP` heads of a KV head, `HEAD0`
//! place of the first head in its group, `PARTIAL` (`HEAD0` is not 0, or `H` not `KVH * GROUP`: a
//! rank's heads, which begin or end inside a group), `D` head size and `DV` that of the values (even,
//! at most 512), `S` cache capacity, `SCALE` of the scores, `KV_F16`, `KV_Q8_0`, `HEADS_FIRST` (q and y
//! are (B, H, T, D)), `TOKENS_FIRST` (caches are (B, S, KVH, D)), `SINKS`, `PAGED` with `PAGE`, and those of the rules.

use super::attention_rules::{self, Mask, MaskKind, Rules};
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, case, fold, pages};
use crate::DType;
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
        Binding::optional("mask", Access::Read),
        Binding::optional("slopes", Access::Read),
        Binding::optional("kv_lengths", Access::Read),
        Binding::optional("sinks", Access::Read),
        Binding::optional("pages", Access::Read),
    ],
    uniforms: &[
        "T", "S", "PREFIX", "WINDOW", "MASK_B", "MASK_H", "MASK_T", "MASK_S",
    ],
    variants,
    cpu: cpu::attention,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// A call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// B: sequences.
    pub batch: usize,
    /// T: tokens of each.
    pub tokens: usize,
    /// H: heads.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Heads of a KV head in the whole model.
    pub group: usize,
    /// Place of the first head in its group, less than `group`. The groups at both ends may be
    /// partial: `(kv_heads - 1) group < first_head + heads <= kv_heads group`.
    pub first_head: usize,
    /// D: size of a head of q and k.
    pub head_size: usize,
    /// DV: size of a head of v and y.
    pub v_head_size: usize,
    /// S: keys that the caches have room for.
    pub capacity: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Element type of the caches: f32, f16 or q8_0.
    pub kv: DType,
    /// q and y are (B, H, T, D) instead of (B, T, H, D).
    pub heads_first: bool,
    /// Caches are (B, S, KVH, D) instead of (B, KVH, S, D).
    pub tokens_first: bool,
    /// Is there a sink for each head?
    pub sinks: bool,
    /// Tokens of several sequences; without prefix, masks and lengths.
    pub paged: bool,
    /// Which keys are seen, and what is done to the scores.
    pub rules: Rules,
}

impl Call {
    /// Plain causal attention of one sequence and whole groups, scaled by `1 / sqrt(D)`, over an f32
    /// cache.
    pub fn causal(
        tokens: usize,
        heads: usize,
        kv_heads: usize,
        head_size: usize,
        capacity: usize,
    ) -> Self {
        Call {
            batch: 1,
            tokens,
            heads,
            kv_heads,
            group: heads / kv_heads,
            first_head: 0,
            head_size,
            v_head_size: head_size,
            capacity,
            scale: (1.0 / (head_size as f64).sqrt()) as f32,
            kv: DType::F32,
            heads_first: false,
            tokens_first: false,
            sinks: false,
            paged: false,
            rules: Rules::default(),
        }
    }
}

/// Parameters of a call.
pub fn params(call: &Call) -> Params {
    let partial = call.first_head != 0 || call.heads != call.kv_heads * call.group;
    let p = Params::new()
        .u32("B", call.batch as u32)
        .u32("T", call.tokens as u32)
        .u32("H", call.heads as u32)
        .u32("KVH", call.kv_heads as u32)
        .u32("GROUP", call.group as u32)
        .u32("HEAD0", call.first_head as u32)
        .switch("PARTIAL", partial)
        .u32("D", call.head_size as u32)
        .u32("DV", call.v_head_size as u32)
        .u32("S", call.capacity as u32)
        .f32("SCALE", call.scale)
        .switch("KV_F16", call.kv == DType::F16)
        .switch("KV_Q8_0", call.kv == DType::Q8_0)
        .switch("HEADS_FIRST", call.heads_first)
        .switch("TOKENS_FIRST", call.tokens_first)
        .switch("SINKS", call.sinks)
        .switch("PAGED", call.paged);
    let p = match call.paged {
        true => p.u32("PAGE", pages::PAGE as u32),
        false => p,
    };
    call.rules.set(p)
}

/// Are `few` elements two, because a row is not a whole number of fours?
fn pairs(p: &Params) -> bool {
    !p.get("D").is_multiple_of(4) || !p.get("DV").is_multiple_of(4)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let (tokens, heads, kv_heads) = (p.get("T"), p.get("H"), p.get("KVH"));
    let (batch, v_head_size) = (p.get("B"), p.get("DV"));
    let rows = tokens * group(p);
    let each = fold(batch * tokens * heads, limits);
    let serial = Variant::new("serial", fold(rows.div_ceil(8) * kv_heads * batch, limits))
        .set("WG", 8)
        .flag("SERIAL")
        .flag_if("PAIRS", pairs(p));
    // As many parts of a row's sums as workgroup memory holds.
    let most = limits.max_workgroup_bytes / (4 * v_head_size + 8);
    let split = Variant::new("split", fold(rows * kv_heads * batch, limits))
        .set("WG", most.clamp(1, 8))
        .flag("SERIAL")
        .flag("SPLIT")
        .flag_if("PAIRS", pairs(p));
    let workgroup = Variant::new("workgroup", each)
        .set("WG", limits.max_workgroup_size.min(256))
        .flag("WORKGROUP")
        .flag_if("PAIRS", pairs(p));
    let mut variants = vec![workgroup];
    if let Some(subgroup) = subgroup(p, limits) {
        variants.insert(0, subgroup);
    }
    // A tile is worth its barriers when several tokens share it.
    let tile_at = if tokens >= 4 { 0 } else { variants.len() };
    if p.is("PAGED") {
        // Rows share no keys.
        let at = match limits.kind {
            DeviceKind::SoftwareGpu => 0,
            _ => variants.len(),
        };
        variants.insert(at, split);
        return variants;
    }
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

/// Most heads of this call that share a KV head.
fn group(p: &Params) -> u32 {
    p.get("GROUP").min(p.get("H"))
}

/// Decoding on GPUs with subgroup operations.
fn subgroup(p: &Params, limits: &Limits) -> Option<Variant> {
    let (smallest, largest) = limits.subgroup?;
    let (head_size, v_head_size) = (p.get("D"), p.get("DV"));
    // Elements of 8 bytes where 16 would leave invocations without a column.
    let pairs = pairs(p) || head_size / 4 < smallest;
    let mut size = limits.max_workgroup_size.min(256);
    while size / smallest * (4 * v_head_size + 8) > limits.max_workgroup_bytes {
        size /= 2;
    }
    // A subgroup that the workgroup does not fill would miss columns.
    (size >= largest).then(|| Variant {
        subgroups: true,
        ..Variant::new(
            "subgroup",
            fold(p.get("B") * p.get("T") * p.get("H"), limits),
        )
        .set("WG", size)
        .set("MIN_SIZE", smallest)
        .flag("SUBGROUPS")
        .flag_if("PAIRS", pairs)
    })
}

/// Prefill on GPUs: the largest tile that workgroup memory holds.
fn tile(p: &Params, limits: &Limits) -> Option<Variant> {
    let (head_size, kv_heads) = (p.get("D"), p.get("KVH"));
    let pitch = head_size.max(p.get("DV")) + if pairs(p) { 2 } else { 4 };
    let sizes = [(16, 32), (16, 16), (16, 8), (8, 8), (8, 4)];
    let (rows, keys) = sizes.into_iter().find(|(rows, keys)| {
        4 * (rows * head_size + keys * pitch + 2 * rows * keys) <= limits.max_workgroup_bytes
    })?;
    let groups = (p.get("T") * group(p)).div_ceil(rows) * kv_heads * p.get("B");
    let variant = Variant::new("tile", fold(groups, limits))
        .set("WG", limits.max_workgroup_size.min(256))
        .set("ROWS", rows)
        .set("KEYS", keys)
        .flag("TILE")
        .flag_if("PAIRS", pairs(p));
    Some(variant)
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (batch, tokens, heads, kv_heads) = (p.size("B"), p.size("T"), p.size("H"), p.size("KVH"));
    let (size, v_size) = (p.size("D"), p.size("DV"));
    let (capacity, scale) = (p.size("S"), f64::from(p.number("SCALE")));
    let mut y = vec![0.0; batch * tokens * heads * v_size];
    for i in 0..batch * tokens * heads {
        let (b, t, h) = (i / heads / tokens, i / heads % tokens, i % heads);
        let row = match p.is("HEADS_FIRST") {
            true => (b * heads + h) * tokens + t,
            false => i,
        };
        let g = (h + p.size("HEAD0")) / p.size("GROUP");
        let (pos, _) = pages::place(p, [&arrays[3], &arrays[9]], t);
        // The rules count from the call's first token.
        let (first, own) = match p.is("PAGED") {
            true => (pos, 0),
            false => (pos - t, t),
        };
        let key = |s: usize| match p.is("TOKENS_FIRST") {
            true => (b * capacity + s) * kv_heads + g,
            false => (b * kv_heads + g) * capacity + pages::key_row(p, &arrays[9], t, s),
        };
        let score = |s: usize| {
            let extra = [&arrays[5][..], &arrays[6], &arrays[7]];
            let seen = attention_rules::reference_score(p, extra, first, [b, h, own], s, 0.0);
            if seen == f64::NEG_INFINITY {
                return seen;
            }
            let (q, k) = (&arrays[0][row * size..], &arrays[1][key(s) * size..]);
            let dot: f64 = (0..size).map(|i| q[i] * k[i]).sum();
            attention_rules::reference_score(p, extra, first, [b, h, own], s, scale * dot)
        };
        let keys = match p.is("PAGED") {
            true => pos + 1,
            false => capacity,
        };
        let scores: Vec<f64> = (0..keys).map(score).collect();
        let sink = arrays[8].get(h).copied().unwrap_or(f64::NEG_INFINITY);
        let largest = scores.iter().fold(sink, |a, b| a.max(*b));
        if largest == f64::NEG_INFINITY {
            continue;
        }
        let e = |x: f64| (x - largest).exp();
        let sum: f64 = e(sink) + scores.iter().map(|x| e(*x)).sum::<f64>();
        for (s, score) in scores
            .iter()
            .enumerate()
            .filter(|x| *x.1 > f64::NEG_INFINITY)
        {
            for c in 0..v_size {
                y[row * v_size + c] += e(*score) / sum * arrays[2][key(s) * v_size + c];
            }
        }
    }
    arrays[4] = y;
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
        let plain = Call::causal(tokens, heads, kv_heads, head_size, capacity);
        let kv = [DType::F32, DType::F16][i % 2];
        cases.push(case(
            pos,
            &[],
            Call {
                kv,
                ..plain.clone()
            },
        ));
        if i % 3 == 1 && head_size.is_multiple_of(32) {
            let kv = DType::Q8_0;
            cases.push(case(pos, &[], Call { kv, ..plain }));
        }
    }
    // Several tiles of tokens and of keys.
    for (i, (pos, (heads, kv_heads), head_size)) in [
        (200, (9, 3), 64),
        (63, (4, 2), 128),
        (0, (2, 2), 80),
        (99, (8, 1), 32),
    ]
    .into_iter()
    .enumerate()
    {
        let tokens = [70, 33][i % 2];
        let rules = Rules {
            window: [None, Some(37)][i / 2],
            ..Rules::default()
        };
        let call = Call {
            kv: DType::F16,
            sinks: i % 3 == 0,
            rules,
            ..Call::causal(tokens, heads, kv_heads, head_size, pos + tokens + i)
        };
        cases.push(case(pos, &[], call));
    }
    cases.extend(rules_cases());
    cases.extend(paged_cases());
    cases.extend(partial_cases());
    cases
}

/// Tokens of sequences of their own.
fn paged_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (i, (tokens, last, (heads, kv_heads), head_size)) in [
        (1, 40, (9, 3), 64),
        (3, 200, (4, 2), 32),
        (8, 63, (8, 1), 80),
        (5, 16, (2, 2), 6),
        (33, 100, (4, 2), 64),
    ]
    .into_iter()
    .enumerate()
    {
        for kv in [DType::F32, DType::F16, DType::Q8_0] {
            if kv == DType::Q8_0 && head_size % 32 != 0 {
                continue;
            }
            let plain = Call::causal(tokens, heads, kv_heads, head_size, 64 * pages::PAGE);
            let rules = Rules {
                window: (i % 3 == 1).then_some(21),
                softcap: if i % 3 == 2 { 2.0 } else { 0.0 },
                alibi: i == 3,
                ..Rules::default()
            };
            let call = Call {
                kv,
                rules,
                sinks: i == 1,
                paged: true,
                ..plain
            };
            let mut case = case(0, &[], call.clone());
            // Sequences of one token, or of several, not in order.
            let sequences = tokens.min(4);
            let positions: Vec<usize> = (0..tokens).map(|t| last - last * t / tokens).collect();
            case.arrays[9] = Some(pages::case(&positions, sequences, call.capacity));
            cases.push(case);
        }
    }
    cases
}

/// Heads of one rank of several: they begin or end inside a group.
fn partial_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (heads, kv_heads, group, first_head) in [
        (5, 2, 3, 0),
        (4, 2, 3, 2),
        (2, 2, 3, 2),
        (1, 1, 4, 3),
        (7, 3, 3, 1),
    ] {
        let whole = |tokens| Call {
            group,
            first_head,
            ..Call::causal(tokens, heads, kv_heads, 32, 150)
        };
        let (decode, prefill) = (whole(1), whole(19));
        cases.push(case(99, &[], decode.clone()));
        cases.push(case(99, &[], prefill.clone()));
        let alibi = Rules {
            alibi: true,
            ..Rules::default()
        };
        for plain in [decode, prefill] {
            let call = Call {
                kv: DType::F16,
                sinks: true,
                rules: alibi.clone(),
                ..plain
            };
            cases.push(case(99, &[], call.clone()));
            let mask = Mask {
                kind: MaskKind::Additive,
                shape: [2, heads, call.tokens, 150],
            };
            let rules = Rules {
                mask: Some(mask),
                ..Rules::default()
            };
            let batch = 2;
            let (heads_first, tokens_first) = (first_head > 0, group == 3);
            cases.push(case(
                99,
                &[],
                Call {
                    batch,
                    heads_first,
                    tokens_first,
                    rules,
                    ..call
                },
            ));
        }
    }
    cases
}

/// Everything but the plain causal path.
fn rules_cases() -> Vec<Case> {
    let mask = |kind, shape| Some(Mask { kind, shape });
    let rules = |f: fn(&mut Rules)| {
        let mut rules = Rules::default();
        f(&mut rules);
        rules
    };
    let decode = Call::causal(1, 6, 2, 64, 150);
    let prefill = Call::causal(21, 6, 2, 32, 150);
    let mut cases = Vec::new();
    for (kv, plain) in [
        (DType::F16, decode.clone()),
        (DType::F32, prefill.clone()),
        (DType::Q8_0, prefill.clone()),
    ] {
        for rules in [
            rules(|r| r.window = Some(1)),
            rules(|r| r.window = Some(37)),
            rules(|r| r.prefix = 113),
            rules(|r| r.softcap = 0.5),
            rules(|r| r.alibi = true),
            rules(|r| (r.causal, r.window) = (false, Some(5))),
        ] {
            cases.push(case(
                99,
                &[],
                Call {
                    kv,
                    rules,
                    ..plain.clone()
                },
            ));
        }
        cases.push(case(
            99,
            &[],
            Call {
                kv,
                sinks: true,
                ..plain.clone()
            },
        ));
        let shape = [1, 1, plain.tokens, 150];
        for kind in [MaskKind::Additive, MaskKind::Seen, MaskKind::Hidden] {
            let rules = Rules {
                mask: mask(kind, shape),
                ..Rules::default()
            };
            cases.push(case(
                99,
                &[],
                Call {
                    kv,
                    rules,
                    ..plain.clone()
                },
            ));
        }
    }
    // Batches, layouts, sizes of v, lengths, and several at once.
    let lengths = [0, 7, 19];
    for (i, (batch, tokens, head_size, v_head_size)) in [
        (2, 4, 8, 10),
        (3, 1, 32, 8),
        (3, 5, 64, 32),
        (2, 17, 6, 64),
        (1, 9, 64, 320),
    ]
    .into_iter()
    .enumerate()
    {
        let several = [
            Rules::full(),
            Rules {
                mask: mask(MaskKind::Additive, [batch, 1, tokens, 13]),
                kv_lengths: true,
                ..Rules::full()
            },
            Rules {
                mask: mask(MaskKind::Seen, [1, 6, 1, 19]),
                softcap: 2.0,
                alibi: true,
                window: Some(4),
                ..Rules::default()
            },
        ];
        let layouts = [(false, true), (true, false), (true, true)];
        for (j, rules) in several.into_iter().enumerate() {
            let (heads_first, tokens_first) = layouts[(i + j) % 3];
            let sinks = rules.kv_lengths;
            let call = Call {
                batch,
                v_head_size,
                heads_first,
                tokens_first,
                kv: [DType::F32, DType::F16][i % 2],
                rules,
                sinks,
                ..Call::causal(tokens, 6, 3, head_size, 19)
            };
            cases.push(case(2, &lengths[..batch], call));
        }
    }
    cases
}

fn case(pos: usize, lengths: &[u32], call: Call) -> Case {
    let Call {
        batch,
        tokens,
        heads,
        kv_heads,
        capacity,
        ..
    } = call;
    let shape = |outer: usize, inner: usize, size: usize, swapped: bool| match swapped {
        true => [batch, inner, outer, size],
        false => [batch, outer, inner, size],
    };
    let k_shape = shape(kv_heads, capacity, call.head_size, call.tokens_first);
    let v_shape = shape(kv_heads, capacity, call.v_head_size, call.tokens_first);
    let mut k = case::random(2, k_shape.iter().product());
    let mut v = case::random(3, v_shape.iter().product());
    let row = |g: usize, s: usize| match call.tokens_first {
        true => s * kv_heads + g,
        false => g * capacity + s,
    };
    // A key that outshines those before it, far from the first.
    let loud = row(0, (pos + tokens / 2).min(capacity - 1)) * call.head_size;
    k[loud..loud + call.head_size]
        .iter_mut()
        .for_each(|x| *x *= 3.0);
    // Rows that no token sees hold what must not be read.
    if batch == 1 && !call.paged && call.rules == Rules::default() && call.kv != DType::Q8_0 {
        for g in 0..kv_heads {
            for s in pos + tokens..capacity {
                k[row(g, s) * call.head_size..][..call.head_size].fill(f32::NAN);
                v[row(g, s) * call.v_head_size..][..call.v_head_size].fill(f32::NAN);
            }
        }
    }
    let q_shape = shape(tokens, heads, call.head_size, call.heads_first);
    let y_shape = shape(tokens, heads, call.v_head_size, call.heads_first);
    let [mask, slopes, kv_lengths] = attention_rules::case_arrays(&call.rules, heads, lengths);
    Case {
        params: params(&call),
        arrays: vec![
            Some(HostArray::random(1, &q_shape)),
            Some(HostArray::cache(&k_shape, &k, call.kv)),
            Some(HostArray::cache(&v_shape, &v, call.kv)),
            Some(HostArray::step(pos)),
            Some(HostArray::zeros(&y_shape)),
            mask,
            slopes,
            kv_lengths,
            call.sinks.then(|| HostArray::random(6, &[heads])),
            None,
        ],
        bound: 1e-9,
    }
}
