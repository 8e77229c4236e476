//! What a dispatch costs: floating-point operations and bytes of device memory, by kernel.

use super::devices::{DeviceSpec, Peak};
use crate::kernels::{Access, Params, all_reduce};
use crate::recording::Dispatch;

/// Operations and memory traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations; a multiply-add is two.
    pub flops: u64,
    /// Bytes read and written, each once.
    pub bytes: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.flops += other.flops;
        self.bytes += other.bytes;
    }
}

/// What a recording does not say: its buffers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// Tokens in each sequence's cache before the step.
    pub position: usize,
    /// Sequences among which a step's tokens are divided.
    pub sequences: usize,
}

/// How a kernel's work follows from its call.
struct Rule {
    kernel: &'static str,
    flops: Flops,
    bytes: Bytes,
}

/// Floating-point operations of a call.
#[derive(Clone, Copy)]
enum Flops {
    /// So many for each element of the largest binding.
    Elements(u64),
    /// The product of these parameters, so many times.
    Product(u64, &'static [&'static str]),
    /// Of these parameters, see there.
    Of(fn(&Params, When) -> u64),
}

/// Bytes of a call.
#[derive(Clone, Copy)]
enum Bytes {
    /// All bindings, each once.
    All,
    /// All bindings; the first is read and written.
    InPlace,
    /// Of these parameters and the bindings that are read or written whole.
    Of(fn(&Dispatch, When) -> u64),
}

const fn rule(kernel: &'static str, flops: Flops, bytes: Bytes) -> Rule {
    Rule {
        kernel,
        flops,
        bytes,
    }
}

/// One multiply-add for each token, row and column.
const LINEAR: Flops = Flops::Product(2, &["T", "K", "N"]);

/// Every kernel of [`KERNELS`](crate::kernels::KERNELS), in its order.
static RULES: &[Rule] = &[
    rule("activation", Flops::Elements(8), Bytes::All),
    rule("activation_backward", Flops::Elements(12), Bytes::All),
    rule("add", Flops::Elements(1), Bytes::All),
    rule(
        "all_reduce",
        Flops::Product(all_reduce::MOST as u64, &["N"]),
        Bytes::Of(all_reduce_bytes),
    ),
    rule("argmax", Flops::Elements(1), Bytes::All),
    rule(
        "attention",
        Flops::Of(attention_flops),
        Bytes::Of(attention_bytes),
    ),
    rule("attention_mask", Flops::Elements(2), Bytes::InPlace),
    rule(
        "attention_scores",
        Flops::Product(2, &["B", "H", "T", "S", "D"]),
        Bytes::All,
    ),
    rule("column_sum", Flops::Elements(1), Bytes::All),
    rule("conv", Flops::Of(conv), Bytes::All),
    rule("copy", Flops::Elements(0), Bytes::Of(copy_bytes)),
    rule("cross_entropy", Flops::Elements(4), Bytes::All),
    rule("dequantize_linear", Flops::Elements(2), Bytes::All),
    rule("differential_entropy", Flops::Elements(4), Bytes::All),
    rule("dropout", Flops::Elements(1), Bytes::All),
    rule("embedding", Flops::Elements(0), Bytes::Of(embedding_bytes)),
    rule(
        "exchange_combine",
        Flops::Product(1, &["R", "T", "C"]),
        Bytes::All,
    ),
    rule("exchange_order", Flops::Elements(0), Bytes::All),
    rule("exchange_pack", Flops::Elements(0), Bytes::All),
    rule(
        "exchange_rows",
        Flops::Elements(0),
        Bytes::Of(exchange_rows_bytes),
    ),
    rule("exchange_unpack", Flops::Elements(0), Bytes::All),
    rule(
        "expert_combine",
        Flops::Product(2, &["T", "K", "C"]),
        Bytes::All,
    ),
    rule("expert_count", Flops::Product(1, &["T", "E"]), Bytes::All),
    rule(
        "expert_nest",
        Flops::Product(1, &["T", "K", "J"]),
        Bytes::All,
    ),
    rule("expert_order", Flops::Elements(0), Bytes::All),
    rule(
        "expert_positions",
        Flops::Product(2, &["N", "N"]),
        Bytes::All,
    ),
    rule("expert_scatter", Flops::Elements(0), Bytes::All),
    rule("gated_activation", Flops::Elements(8), Bytes::All),
    rule("gated_activation_backward", Flops::Elements(12), Bytes::All),
    rule(
        "gated_mlp",
        Flops::Of(gated_mlp_flops),
        Bytes::Of(gated_mlp_bytes),
    ),
    rule(
        "gemm",
        Flops::Product(2, &["BATCHES", "M", "N", "K"]),
        Bytes::All,
    ),
    rule("group_cross_entropy", Flops::Elements(4), Bytes::All),
    // Three and four gates; a state's products with a (H, H) matrix for each.
    rule("gru", Flops::Product(6, &["T", "N", "H", "H"]), Bytes::All),
    rule("gumbel", Flops::Elements(4), Bytes::All),
    rule("jitter", Flops::Elements(8), Bytes::All),
    rule("kv_append", Flops::Elements(0), Bytes::Of(kv_append_bytes)),
    rule("label_weight", Flops::Elements(1), Bytes::All),
    rule("load_loss", Flops::Elements(8), Bytes::All),
    rule("logit", Flops::Elements(4), Bytes::All),
    rule("lstm", Flops::Product(8, &["T", "N", "H", "H"]), Bytes::All),
    rule("matmul", Flops::Of(linear_flops), Bytes::Of(linear_bytes)),
    rule(
        "matmul_integer",
        Flops::Product(2, &["B", "M", "N", "K"]),
        Bytes::All,
    ),
    rule("matvec", Flops::Of(linear_flops), Bytes::Of(linear_bytes)),
    rule("max_pool", Flops::Elements(1), Bytes::All),
    rule("noisy_load", Flops::Elements(24), Bytes::All),
    rule("noisy_logits", Flops::Elements(8), Bytes::All),
    rule("noisy_top_k_backward", Flops::Elements(32), Bytes::All),
    rule("norm", Flops::Elements(4), Bytes::All),
    rule("norm_backward", Flops::Elements(8), Bytes::All),
    rule("norm_backward_weight", Flops::Elements(4), Bytes::All),
    rule("one_hot", Flops::Elements(0), Bytes::All),
    rule(
        "qkv_append",
        Flops::Product(3, &["T", "H", "ROT"]),
        Bytes::Of(qkv_append_bytes),
    ),
    rule("qkv_product", LINEAR, Bytes::Of(qkv_product_bytes)),
    rule("quantize_activations", Flops::Elements(2), Bytes::All),
    rule("quantized_dot", LINEAR, Bytes::All),
    rule("quantized_matmul", LINEAR, Bytes::All),
    rule("quantized_matvec", LINEAR, Bytes::All),
    rule("random", Flops::Elements(8), Bytes::All),
    rule("reduce_sum", Flops::Elements(1), Bytes::All),
    rule(
        "repeat_penalty",
        Flops::Product(1, &["N"]),
        Bytes::Of(repeat_penalty_bytes),
    ),
    rule(
        "rope",
        Flops::Product(3, &["B", "T", "H", "ROT"]),
        Bytes::Of(rope_bytes),
    ),
    rule("router", Flops::Elements(8), Bytes::All),
    rule("router_loss", Flops::Elements(16), Bytes::All),
    rule("second_expert", Flops::Elements(1), Bytes::All),
    rule("softmax", Flops::Elements(4), Bytes::All),
    rule("token_bitmask", Flops::Elements(1), Bytes::All),
    rule("top_k", Flops::Elements(1), Bytes::All),
    rule("transpose", Flops::Elements(0), Bytes::All),
    rule("vocab_cross_entropy", Flops::Elements(4), Bytes::All),
    rule("vocab_sums", Flops::Elements(4), Bytes::All),
];

/// Used for a kernel without a rule; the tests allow none.
static OTHER: Rule = rule("", Flops::Elements(1), Bytes::All);

/// What a call costs.
pub fn cost(dispatch: &Dispatch, when: When) -> Cost {
    let rule = RULES.iter().find(|r| r.kernel == dispatch.kernel.name);
    let rule = rule.unwrap_or(&OTHER);
    let p = &dispatch.params;
    let lengths = dispatch.bindings.iter().flatten().map(|t| t.len() as u64);
    Cost {
        flops: match rule.flops {
            Flops::Elements(each) => each * lengths.max().unwrap_or(0),
            Flops::Product(times, names) => product(p, names) * times,
            Flops::Of(flops) => flops(p, when),
        },
        bytes: match rule.bytes {
            Bytes::All => all(dispatch),
            Bytes::InPlace => all(dispatch) + bound(dispatch, 0),
            Bytes::Of(bytes) => bytes(dispatch, when),
        },
    }
}

impl DeviceSpec {
    /// Seconds of a dispatch: its launch, and what limits it, arithmetic or memory (the roofline model,
    /// doi:10.1145/1498765.1498785).
    pub fn seconds(&self, cost: Cost, peak: Peak) -> f64 {
        let compute = cost.flops as f64 / self.flops(peak);
        self.launch + compute.max(cost.bytes as f64 / self.bandwidth)
    }
}

fn product(p: &Params, names: &[&str]) -> u64 {
    names.iter().map(|name| u64::from(p.get(name))).product()
}

/// Bytes of all bindings but the small uniform ones.
fn all(dispatch: &Dispatch) -> u64 {
    let bindings = dispatch.kernel.bindings.iter().zip(&dispatch.bindings);
    let counted = bindings.filter(|(b, _)| b.access != Access::Uniform);
    counted
        .filter_map(|(_, t)| t.as_ref().map(|t| t.bytes()))
        .sum()
}

/// Bytes of what a call reads of a weight, which is this binding.
pub(super) fn weight_read(dispatch: &Dispatch, binding: usize) -> u64 {
    let p = &dispatch.params;
    match (dispatch.kernel.name, binding) {
        ("embedding", _) => embedding_rows(p),
        ("gated_mlp", 1) => weight_bytes(p, "GATE"),
        ("gated_mlp", 2) => weight_bytes(p, "UP"),
        ("matvec" | "matmul", 1) if p.is("EXPERTS") => weight_bytes(p, "W"),
        _ => bound(dispatch, binding),
    }
}

/// Bytes of one binding.
fn bound(dispatch: &Dispatch, binding: usize) -> u64 {
    dispatch.bindings[binding].as_ref().map_or(0, |t| t.bytes())
}

/// Keys that all tokens of a sequence see together, and how many of its tokens there are.
fn keys(p: &Params, when: When) -> (u64, u64) {
    let sequences = (when.sequences.max(1) as u64).min(u64::from(p.get("T")).max(1));
    let tokens = u64::from(p.get("T")) / sequences;
    let position = when.position as u64;
    let window = match p.get("WINDOW") {
        0 => u64::MAX,
        window => u64::from(window),
    };
    let seen: u64 = (0..tokens).map(|t| (position + t + 1).min(window)).sum();
    (sequences * seen, sequences)
}

fn attention_flops(p: &Params, when: When) -> u64 {
    let (seen, _) = keys(p, when);
    let width = u64::from(p.get("D")) + u64::from(p.get("DV"));
    2 * product(p, &["B", "H"]) * seen * width
}

/// Queries, results, and each key and value that is seen, once.
fn attention_bytes(dispatch: &Dispatch, when: When) -> u64 {
    bound(dispatch, 0) + bound(dispatch, 4) + seen_bytes(dispatch, when)
}

/// Bytes of the keys and values that a call of attention sees, each once.
pub(super) fn seen_bytes(dispatch: &Dispatch, when: When) -> u64 {
    let p = &dispatch.params;
    let (_, sequences) = keys(p, when);
    let tokens = u64::from(p.get("T")) / sequences;
    let capacity = u64::from(p.get("S")).max(1);
    let held = (when.position as u64 + tokens).min(capacity);
    let seen = match u64::from(p.get("WINDOW")) {
        0 => held,
        window => held.min(window + tokens - 1),
    };
    let cache = bound(dispatch, 1) + bound(dispatch, 2);
    // Products of two sizes of a few 10^11 bytes do not fit 64 bits.
    let read = u128::from(cache) * u128::from(seen) / u128::from(capacity);
    sequences * read as u64
}

fn conv(p: &Params, _: When) -> u64 {
    let groups = u64::from(p.get("G")).max(1);
    2 * product(p, &["N", "F", "KD", "KH", "KW", "OD", "OH", "OW"]) * u64::from(p.get("C")) / groups
}

/// Some elements of each part are read, and their reduction is written.
fn all_reduce_bytes(dispatch: &Dispatch, _: When) -> u64 {
    let tensors = dispatch.bindings.iter().flatten().count() as u64;
    4 * tensors * u64::from(dispatch.params.get("N"))
}

/// The block that is moved is read and written.
fn copy_bytes(dispatch: &Dispatch, _: When) -> u64 {
    8 * product(&dispatch.params, &["OUTER", "LEN", "INNER"])
}

/// As many rows as there can be.
fn exchange_rows_bytes(dispatch: &Dispatch, _: When) -> u64 {
    8 * product(&dispatch.params, &["LEN", "INNER"])
}

fn embedding_bytes(dispatch: &Dispatch, _: When) -> u64 {
    bound(dispatch, 0) + embedding_rows(&dispatch.params) + bound(dispatch, 2)
}

/// The tokens' rows.
fn embedding_rows(p: &Params) -> u64 {
    let row = p.format("W").bytes(p.size("C")).unwrap_or(0) as u64;
    u64::from(p.get("T")) * row
}

/// Rows of y that a product computes: with `EXPERTS` its experts' share of the pairs, if all experts
/// have as many.
fn products(p: &Params) -> u64 {
    let rows = u64::from(p.get("T"));
    match p.is("EXPERTS") {
        true => (rows * u64::from(p.get("COUNT"))).div_ceil(u64::from(p.get("E")).max(1)),
        false => rows,
    }
}

/// Rows of a weight that a product reads: with `EXPERTS` those of as many experts as there are pairs.
fn weight_rows(p: &Params) -> u64 {
    match p.is("EXPERTS") {
        true => u64::from(p.get("N")) * products(p).min(u64::from(p.get("COUNT"))),
        false => u64::from(p.get("N")),
    }
}

/// Bytes of so many of a weight's rows.
fn weight_bytes(p: &Params, dtype: &str) -> u64 {
    p.format(dtype).bytes(p.size("K")).unwrap_or(0) as u64 * weight_rows(p)
}

fn linear_flops(p: &Params, _: When) -> u64 {
    2 * products(p) * product(p, &["K", "N"])
}

fn gated_mlp_flops(p: &Params, when: When) -> u64 {
    2 * linear_flops(p, when)
}

/// All bindings, but of several experts those that are chosen.
fn linear_bytes(dispatch: &Dispatch, _: When) -> u64 {
    match dispatch.params.is("EXPERTS") {
        true => all(dispatch) - bound(dispatch, 1) + weight_bytes(&dispatch.params, "W"),
        false => all(dispatch),
    }
}

/// Rows of both weights, which may be halves of one tensor.
fn gated_mlp_bytes(dispatch: &Dispatch, _: When) -> u64 {
    let p = &dispatch.params;
    let weights = weight_bytes(p, "GATE") + weight_bytes(p, "UP");
    bound(dispatch, 0) + weights + bound(dispatch, 5)
}

/// New keys and values are read, and written in the cache's type.
fn kv_append_bytes(dispatch: &Dispatch, _: When) -> u64 {
    let p = &dispatch.params;
    let rows = product(p, &["B", "T", "KVH"]);
    let written = [(2, "D"), (3, "DV")].map(|(binding, size)| {
        let dtype = dispatch.bindings[binding].as_ref().map(|t| t.dtype);
        rows * dtype.and_then(|d| d.bytes(p.size(size))).unwrap_or(0) as u64
    });
    bound(dispatch, 0) + bound(dispatch, 1) + written[0] + written[1]
}

/// x is read once, q written; keys and values are written in the cache's type; a row of the table a token.
fn qkv_append_bytes(dispatch: &Dispatch, _: When) -> u64 {
    let p = &dispatch.params;
    let dtype = dispatch.bindings[5].as_ref().map(|t| t.dtype);
    let row = dtype.and_then(|d| d.bytes(p.size("D"))).unwrap_or(0) as u64;
    let written = 2 * product(p, &["T", "KVH"]) * row;
    bound(dispatch, 0) + bound(dispatch, 4) + written + 4 * product(p, &["T", "ROT"])
}

/// x, the weight and what is added are read once; a row is written for each of the weight, in the cache's type where it
/// goes there; a row of the table a token.
fn qkv_product_bytes(dispatch: &Dispatch, _: When) -> u64 {
    let p = &dispatch.params;
    let read: u64 = (0..4).map(|binding| bound(dispatch, binding)).sum();
    read + 4 * product(p, &["T", "N"]) + 4 * product(p, &["T", "ROT"])
}

/// Logits of the listed tokens are read and written.
fn repeat_penalty_bytes(dispatch: &Dispatch, _: When) -> u64 {
    bound(dispatch, 0) + 8 * u64::from(dispatch.params.get("N"))
}

/// x is read and written; a row of the table for each token.
fn rope_bytes(dispatch: &Dispatch, _: When) -> u64 {
    2 * bound(dispatch, 0) + 4 * product(&dispatch.params, &["B", "T", "ROT"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::device::Buffer;
    use crate::kernels::{KERNELS, Kernel, attention, matvec};
    use crate::recording::Recording;
    use crate::tensor::Tensor;

    #[test]
    fn every_kernel_has_one_rule() {
        let ruled: Vec<_> = RULES.iter().map(|r| r.kernel).collect();
        let kernels: Vec<_> = KERNELS.iter().map(|k| k.name).collect();
        assert_eq!(ruled, kernels);
    }

    #[test]
    fn products_are_of_parameters_that_the_kernels_have() {
        let named = RULES.iter().filter_map(|r| match r.flops {
            Flops::Product(_, names) => Some((r.kernel, names)),
            _ => None,
        });
        for (name, names) in named {
            let kernel = KERNELS.iter().find(|k| k.name == name).unwrap();
            let case = (kernel.cases)().swap_remove(0);
            for name in names {
                assert!(case.params.get(name) > 0, "{}: {name}", kernel.name);
            }
        }
    }

    fn dispatch(kernel: &'static Kernel, params: Params, tensors: &[(usize, Tensor)]) -> Dispatch {
        let mut bindings = vec![None; kernel.bindings.len()];
        for (i, tensor) in tensors {
            bindings[*i] = Some(tensor.clone());
        }
        let mut r = Recording::new();
        r.push(kernel, params, bindings).unwrap();
        r.dispatches().next().cloned().unwrap()
    }

    fn tensor(dtype: DType, shape: &[usize]) -> Tensor {
        Tensor::of(Buffer::new((), 0), dtype, shape)
    }

    #[test]
    fn a_matrix_product_reads_its_weight_once() {
        let params = Params::new().u32("T", 2).u32("K", 64).u32("N", 10);
        let x = tensor(DType::F32, &[2, 64]);
        let w = tensor(DType::Q4_0, &[10, 64]);
        let y = tensor(DType::F32, &[2, 10]);
        let call = dispatch(&matvec::KERNEL, params, &[(0, x), (1, w), (4, y)]);
        let when = When {
            position: 0,
            sequences: 1,
        };
        let want = Cost {
            flops: 2 * 2 * 64 * 10,
            bytes: 512 + 10 * 36 + 80,
        };
        assert_eq!(cost(&call, when), want);
    }

    #[test]
    fn attention_reads_what_the_cache_holds() {
        let call = |tokens: usize| {
            let p = attention::params(&attention::Call::causal(tokens, 8, 2, 64, 100));
            let cache = || tensor(DType::F16, &[2, 100, 64]);
            let q = tensor(DType::F32, &[tokens, 512]);
            let step = tensor(DType::U32, &[4]);
            let bound = [
                (0, q.clone()),
                (1, cache()),
                (2, cache()),
                (3, step),
                (4, q),
            ];
            dispatch(&attention::KERNEL, p, &bound)
        };
        let at = |position, sequences| When {
            position,
            sequences,
        };
        // One token at position 9 sees 10 keys in each of 8 heads.
        let one = cost(&call(1), at(9, 1));
        assert_eq!(one.flops, 2 * 8 * 10 * 128);
        assert_eq!(one.bytes, 2 * 4 * 512 + 10 * 2 * 2 * 128);
        // Three tokens of one sequence see 10 + 11 + 12; three sequences read three caches.
        assert_eq!(cost(&call(3), at(9, 1)).flops, 2 * 8 * 33 * 128);
        let batch = cost(&call(3), at(9, 3));
        assert_eq!((batch.flops, batch.bytes), (3 * one.flops, 3 * one.bytes));
    }

    #[test]
    fn the_slower_of_arithmetic_and_memory_sets_the_time() {
        let spec = DeviceSpec::find("h100").unwrap();
        let cost = Cost {
            flops: 67_000_000_000,
            bytes: 3_350_000_000,
        };
        assert!((spec.seconds(cost, Peak::F32) - 1.003e-3).abs() < 1e-9);
        let fast = spec.seconds(Cost { bytes: 0, ..cost }, Peak::F16);
        assert!((fast - 70.72e-6).abs() < 1e-8, "{fast}");
    }
}
