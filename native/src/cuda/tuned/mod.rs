//! Kernels written by hand for what a model spends its time on: products of weights with activations, and attention.
//!
//! Name, bindings and the order of parameters are those of the generated kernel, which is also what they are judged by:
//! the same cases, the same references, within [`Tuned::error`]. For few tokens activations become 16-bit integers with a
//! scale for each 32; for many, tensor cores multiply f16 with a scale for each token.

mod multiplied;

use std::fmt;

use clap::ValueEnum;
use naga_cuda::{Binding, Output, Space};
use shardlight::DType;
use shardlight::kernels::{Access, Activation, Kernel, Params, Value, Variant};

pub use multiplied::{Multiplied, multiplied};

/// Which kernels a device runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum)]
pub enum Kernels {
    /// All are generated from WGSL.
    Generated,
    /// Those written by hand where there is one.
    Own,
    /// As `own`, and for prompts cuBLASLt with F16 and BF16 weights, where there is one.
    #[default]
    Tuned,
    /// As `tuned`, but it is an error if there is no cuBLASLt.
    #[value(name = "cublaslt")]
    CublasLt,
}

impl Kernels {
    /// The name of the choice.
    pub fn name(self) -> &'static str {
        match self {
            Kernels::Generated => "generated",
            Kernels::Own => "own",
            Kernels::Tuned => "tuned",
            Kernels::CublasLt => "cublaslt",
        }
    }
}

/// Of 16-bit activations: a step is 1 / 32767 of the largest of 32, an error 1 / sqrt(12) of a step: 8e-9 where the
/// largest is ten times their root mean square, 3e-10 for normally distributed ones.
const FEW_ERROR: f64 = 1e-8;

/// Of activations and weights of f16, each rounded to 11 bits: 2 * 4^-11 / 12 = 4e-8 on average.
const TILES_ERROR: f64 = 2e-7;

/// Of attention with f16 queries: scores of 20 are off by 1e-2 at most, exponentials by as much of themselves.
const ATTENTION_ERROR: f64 = 2e-6;

/// What kernels are chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Compute capability.
    pub capability: (i32, i32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of shared memory that a block may ask for.
    pub shared: u32,
}

/// A kernel for one call, or for any whose constants are the same.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// Names it.
    pub key: String,
    /// Text and parameters.
    pub output: Output,
    /// Blocks.
    pub grid: [u32; 3],
    /// What it launches with.
    pub memory: Memory,
    /// What is launched before, with the same workspace.
    pub before: Option<Box<Tuned>>,
    /// Normalised mean squared error that its arithmetic may cost.
    pub error: f64,
}

/// Memory of one launch beside what is bound to it, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Dynamic shared memory.
    pub shared: u32,
    /// Global memory for the time of the call.
    pub workspace: u64,
    /// Counters that are zero before and after: a parameter behind the workspace, if there are any.
    pub counters: u64,
}

/// Threads of a block, and how many warps these are.
const THREADS: u32 = 256;
const WARPS: u32 = THREADS / 32;

/// More tokens than this share weights in tiles.
const FEW_TOKENS: u32 = 4;

/// As many tokens as this are worth tensor cores, which multiply 16 at a time.
const MANY_TOKENS: u32 = 32;

/// The kernel for a call on a device; `None` where there is only the generated one.
pub fn find(kernel: &'static Kernel, params: &Params, gpu: &Gpu) -> Option<Tuned> {
    let product = match kernel.name {
        "matvec" | "matmul" => Product::Plain,
        "gated_mlp" => Product::Gated,
        "qkv_product" => Product::Qkv,
        "attention" => return attention(kernel, params, gpu),
        _ => return None,
    };
    let found = product.few(kernel, params);
    let found = found.or_else(|| product.tiles(kernel, params, gpu));
    found.filter(|tuned| tuned.memory.shared <= gpu.shared)
}

/// What is done with sums.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Product {
    Plain,
    Gated,
    Qkv,
}

impl Product {
    /// Names of the weights' formats; of two the first is the gate's.
    fn formats(self, p: &Params) -> Option<[&'static str; 2]> {
        let [first, second] = match self {
            Product::Gated => [p.format("GATE"), p.format("UP")],
            _ => [p.format("W"); 2],
        };
        // Both take x in one form.
        let floats = [first, second].map(|f| matches!(f, DType::F16 | DType::BF16));
        let one_form = floats[0] == floats[1];
        one_form.then_some([format(first)?, format(second)?])
    }

    /// Is the activation one of gated.cuh's?
    fn activates(self, p: &Params) -> bool {
        let acts = [Activation::Silu, Activation::GeluTanh].map(Activation::number);
        self != Product::Gated || acts.contains(&p.get("ACT"))
    }

    fn text<'a>(
        self,
        kernel: &'static Kernel,
        p: &'a Params,
        formats: [&'static str; 2],
    ) -> Text<'a> {
        let mut text = Text::new(kernel, p);
        text.define("PLAIN", 0);
        text.define("GATED", 1);
        text.define("QKV", 2);
        text.define("PRODUCT", self as u32);
        text.define("FORMAT", formats[0]);
        text.define("UP_FORMAT", formats[1]);
        text
    }

    /// By rows: product.cu.
    fn few(self, kernel: &'static Kernel, p: &Params) -> Option<Tuned> {
        let (rows, inner, experts) = (p.get("N"), p.get("K"), p.is("EXPERTS"));
        let formats = self.formats(p)?;
        let few = match experts {
            true => p.get("TT") == 0,
            false => p.get("T") <= FEW_TOKENS,
        };
        if !few || !self.activates(p) {
            return None;
        }
        let tokens = if experts { 1 } else { p.get("T") };
        let chunk = match formats[0] {
            "F16" | "BF16" => 128,
            _ => 64 + 4 + 8,
        };
        let shared = tokens.checked_mul((inner.div_ceil(32) * chunk).next_multiple_of(16))?;
        // Enough rows to read x seldom, few enough to keep all multiprocessors busy.
        let each = match (self, rows) {
            (Product::Qkv, _) => 4,
            (_, 0..4096) => 1,
            (Product::Gated, _) | (_, 4096..16384) => 2,
            _ => 4,
        };
        let mut text = self.text(kernel, p, formats);
        text.define("ROWS", each);
        text.define("TOKENS", tokens);
        let named = Variant::new("tuned", [1; 3]);
        let named = named.set("ROWS", each).set("TOKENS", tokens);
        let files = match self {
            Product::Gated => &[
                QUANTS,
                include_str!("gated.cuh"),
                include_str!("product.cu"),
            ][..],
            _ => &[QUANTS, include_str!("product.cu")],
        };
        Some(Tuned {
            key: kernel.pipeline_key(p, &named),
            output: text.output(files, THREADS, None, &[]),
            grid: [
                rows.div_ceil(WARPS * each),
                if experts { p.get("T") } else { 1 },
                1,
            ],
            memory: Memory {
                shared,
                ..Memory::default()
            },
            before: None,
            error: FEW_ERROR,
        })
    }

    /// In tiles on tensor cores: tiles.cu, after halves.cu.
    fn tiles(self, kernel: &'static Kernel, p: &Params, gpu: &Gpu) -> Option<Tuned> {
        /// Of tiles.cu: elements of a step, warps by tokens and rows, steps in shared memory.
        const STEP: u32 = 64;
        const TOKEN_WARPS: u32 = 2;
        const ROW_WARPS: u32 = WARPS / TOKEN_WARPS;
        const STAGES: u32 = 3;
        let (rows, inner, tokens) = (p.get("N"), p.get("K"), p.get("T"));
        let formats = self.formats(p).filter(|[a, b]| a == b)?;
        let switches = p.is("EXPERTS") || p.is("NORM");
        // cp.async and this shape of mma.sync came with 8.0.
        if self == Product::Qkv
            || tokens < MANY_TOKENS
            || switches
            || gpu.capability < (8, 0)
            || !self.activates(p)
        {
            return None;
        }
        let own = if self == Product::Gated { 2 } else { 1 };
        let blocks = |by_tokens: u32, by_rows: u32| {
            tokens.div_ceil(TOKEN_WARPS * 16 * by_tokens)
                * rows.div_ceil(ROW_WARPS * 8 * by_rows / own)
        };
        // Tiles of a warp, and what a product of one costs beside one of the largest: fragments that it loads are used less often.
        let sizes = [(4, 4, 1.0), (2, 4, 1.15), (2, 2, 1.4)];
        let time = |(by_tokens, by_rows, cost): (u32, u32, f64)| {
            let turns = blocks(by_tokens, by_rows).div_ceil(gpu.multiprocessors.max(1));
            f64::from(turns * by_tokens * by_rows) * cost
        };
        let sizes = sizes.into_iter();
        let (by_tokens, by_rows, _) = sizes.min_by(|a, b| time(*a).total_cmp(&time(*b)))?;
        let step = inner.div_ceil(STEP).checked_mul(STEP)?;
        let halves = u64::from(tokens).checked_mul(2 * u64::from(step))?;
        let memory = Memory {
            shared: STAGES * 2 * STEP * (TOKEN_WARPS * 16 * by_tokens + ROW_WARPS * 8 * by_rows),
            workspace: halves + u64::from(tokens.next_multiple_of(64)) * 4,
            counters: 0,
        };
        let mut text = self.text(kernel, p, formats);
        text.define("HALVES", 1);
        // Two blocks at a time hide each other's waits, if they find registers.
        text.define("BLOCKS", 2);
        text.define("FORMAT_IS_F16", u32::from(formats[0] == "F16"));
        text.define("TOKEN_TILES", by_tokens);
        text.define("ROW_TILES", by_rows);
        let named = Variant::new("tiles", [1; 3]);
        let named = named
            .set("TOKEN_TILES", by_tokens)
            .set("ROW_TILES", by_rows);
        let halves = include_str!("halves.cuh");
        let tiles = include_str!("tiles.cu");
        let files = match self {
            Product::Gated => &[TENSOR, halves, QUANTS, include_str!("gated.cuh"), tiles][..],
            _ => &[TENSOR, halves, QUANTS, tiles],
        };
        let before = Tuned {
            key: format!("halves {inner} of {}", kernel.name),
            output: Text::new(kernel, p).output(
                &[TENSOR, halves, include_str!("halves.cu")],
                THREADS,
                Some(&["x"]),
                &["workspace"],
            ),
            grid: [tokens, 1, 1],
            memory: Memory {
                shared: 0,
                ..memory
            },
            before: None,
            error: TILES_ERROR,
        };
        Some(Tuned {
            key: kernel.pipeline_key(p, &named),
            output: text.output(files, THREADS, None, &["workspace"]),
            grid: [blocks(by_tokens, by_rows), 1, 1],
            memory,
            before: Some(Box::new(before)),
            error: TILES_ERROR,
        })
    }
}

/// Attention of one sequence's tokens over its cache.
fn attention(kernel: &'static Kernel, p: &Params, gpu: &Gpu) -> Option<Tuned> {
    let other = [
        "PARTIAL",
        "TOKENS_FIRST",
        "FULL",
        "PREFIXED",
        "KV_LENGTHS",
        "ADJUSTED",
        "PAGED",
    ];
    let plain = p.get("B") == 1 && p.get("DV") == p.get("D");
    if !plain || other.iter().any(|name| p.is(name)) {
        return None;
    }
    match p.get("T") {
        1 => attention_of_one(kernel, p, gpu),
        _ => attention_tiles(kernel, p, gpu),
    }
}

/// By the key/value heads and parts of the keys: attention.cu.
fn attention_of_one(kernel: &'static Kernel, p: &Params, gpu: &Gpu) -> Option<Tuned> {
    /// Fewer keys are not worth a block, as attention.cu has it.
    const LEAST: u32 = 64;
    const THREADS: u32 = 128;
    let (size, heads, group) = (p.get("D"), p.get("KVH"), p.get("GROUP"));
    if !size.is_power_of_two() || !(32..=256).contains(&size) || group > 8 {
        return None;
    }
    // Two blocks for each multiprocessor, if there are keys for so many.
    let most = (2 * gpu.multiprocessors).div_ceil(heads).max(1);
    let splits = p.get("S").div_ceil(LEAST).clamp(1, most);
    let mut text = Text::new(kernel, p);
    text.define("SPLITS", splits);
    Some(Tuned {
        key: kernel.pipeline_key(p, &Variant::new("tuned", [1; 3]).set("SPLITS", splits)),
        output: text.output(
            &[include_str!("attention.cu")],
            THREADS,
            None,
            &["workspace", "counters"],
        ),
        grid: [heads, splits, 1],
        memory: Memory {
            shared: 0,
            workspace: 4 * u64::from(heads) * u64::from(splits * group * (size + 2)),
            counters: 4 * u64::from(heads),
        },
        before: None,
        error: FEW_ERROR,
    })
}

/// By the key/value heads and tiles of their rows, on tensor cores: attention_tiles.cu.
fn attention_tiles(kernel: &'static Kernel, p: &Params, gpu: &Gpu) -> Option<Tuned> {
    /// As attention_tiles.cu has it.
    const ROWS: u32 = 64;
    const KEYS: u32 = 64;
    const STAGES: u32 = 2;
    const THREADS: u32 = 128;
    let (size, tokens) = (p.get("D"), p.get("T"));
    let fits = size.is_multiple_of(16) && (32..=128).contains(&size) && p.is("KV_F16");
    if !fits || tokens < MANY_TOKENS || gpu.capability < (8, 0) {
        return None;
    }
    let rows = tokens.checked_mul(p.get("GROUP"))?;
    Some(Tuned {
        key: kernel.pipeline_key(p, &Variant::new("tiles", [1; 3])),
        output: Text::new(kernel, p).output(
            &[TENSOR, include_str!("attention_tiles.cu")],
            THREADS,
            None,
            &[],
        ),
        grid: [rows.div_ceil(ROWS), p.get("KVH"), 1],
        memory: Memory {
            // Keys and values, 16 bytes more a row.
            shared: STAGES * 2 * KEYS * (2 * size + 16),
            ..Memory::default()
        },
        before: None,
        error: ATTENTION_ERROR,
    })
}

const TENSOR: &str = include_str!("tensor.cuh");
const QUANTS: &str = include_str!("quants.cuh");

/// Switches that the texts ask for.
const SWITCHES: &[&str] = &[
    "ADJACENT",
    "BIAS",
    "CLAMP",
    "EXPERTS",
    "HEADS_FIRST",
    "KV_F16",
    "KV_Q8_0",
    "NORM",
    "RESIDUAL",
    "ROPE",
    "SINKS",
    "WINDOWED",
];

/// The name of a weight's format in quants.cuh.
fn format(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::Q4_0 => "Q4_0",
        DType::Q4_1 => "Q4_1",
        DType::Q8_0 => "Q8_0",
        DType::Q4K => "Q4_K",
        DType::Q6K => "Q6_K",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        _ => return None,
    })
}

/// A text in the making: definitions of all that WGSL's constants and switches say, then files.
struct Text<'a> {
    kernel: &'static Kernel,
    params: &'a Params,
    source: String,
}

impl<'a> Text<'a> {
    fn new(kernel: &'static Kernel, params: &'a Params) -> Self {
        let mut text = Text {
            kernel,
            params,
            source: String::new(),
        };
        for name in SWITCHES {
            text.define(name, u32::from(params.is(name)));
        }
        for (name, value) in params.iter() {
            let uniform = kernel.uniforms.contains(&name);
            match value {
                Value::U32(v) if !uniform => text.define(name, format_args!("{v}u")),
                Value::F32(v) if !uniform => text.define(name, format_args!("{v:e}f")),
                _ => {}
            }
        }
        text
    }

    fn define(&mut self, name: &str, value: impl fmt::Display) {
        self.source += &format!("#define {name} {value}\n");
    }

    /// With these files and the entry point, whose parameters are the bound arrays in order (`only` some), the uniform
    /// arguments, and the fields `memory` of its [`Memory`].
    fn output(
        mut self,
        files: &[&str],
        threads: u32,
        only: Option<&[&str]>,
        memory: &[&str],
    ) -> Output {
        self.source += "#ifndef BLOCKS\n#define BLOCKS 1\n#endif\n";
        self.source += include_str!("common.cuh");
        let uniforms = self.kernel.uniforms.join(", ");
        self.source += &format!("struct Args {{\n    u32 {uniforms};\n}};\n");
        self.source.extend(files.iter().copied());
        let mut bindings = Vec::new();
        let mut add = |binding: usize, space| {
            bindings.push(Binding {
                group: 0,
                binding: binding as u32,
                space,
                bytes: 0,
                stride: None,
            });
        };
        let (mut parameters, mut fields) = (Vec::new(), String::new());
        for (i, binding) in self.kernel.bindings.iter().enumerate() {
            let wanted = only.is_none_or(|only| only.contains(&binding.name));
            if !wanted || (binding.optional && !is_bound(binding.name, self.params)) {
                continue;
            }
            let writable = binding.access == Access::Write;
            add(
                i,
                match binding.access {
                    Access::Uniform => Space::Uniform,
                    _ => Space::Storage { writable },
                },
            );
            let name = binding.name;
            parameters.push(format!(
                "{}void *{name}",
                if writable { "" } else { "const " }
            ));
            fields += &format!("    c.{name} = (decltype(c.{name})){name};\n");
        }
        add(self.kernel.bindings.len(), Space::Uniform);
        parameters.push("const Args *args".to_string());
        for name in memory {
            parameters.push(format!("void *{name}"));
            fields += &format!("    c.{name} = (decltype(c.{name})){name};\n");
        }
        let entry = format!("{}_tuned", self.kernel.name);
        self.source += &format!(
            "extern \"C\" __global__ void __launch_bounds__({threads}, BLOCKS) {entry}({}) {{\n    Call c = {{}};\n{fields}    c.args = args;\n    run(c);\n}}\n",
            parameters.join(", ")
        );
        Output {
            source: self.source,
            entry,
            workgroup_size: [threads, 1, 1],
            bindings,
        }
    }
}

/// Is an optional binding of these kernels used?
fn is_bound(name: &str, p: &Params) -> bool {
    match name {
        "bias" | "gate_bias" | "up_bias" => p.is("BIAS"),
        "residual" => p.is("RESIDUAL"),
        "sinks" => p.is("SINKS"),
        "pairs" => p.is("EXPERTS"),
        "norm" => p.is("NORM"),
        "table" => p.is("ROPE"),
        _ => false,
    }
}
