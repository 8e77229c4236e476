//! Kernels written by hand for what decoding spends its time on: products of quantised weights with a few tokens.
//!
//! Name, bindings and the order of parameters are those of the generated kernel, which is also what they are judged by:
//! the same cases, the same references. Activations become 16-bit integers with a scale for each 32, so their results
//! differ by [`ERROR`] from exact ones.

use std::fmt;

use clap::ValueEnum;
use naga_cuda::{Binding, Output, Space};
use shardlight::DType;
use shardlight::kernels::{Access, Activation, Kernel, Params, Value, Variant};

/// Which kernels a device runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum)]
pub enum Kernels {
    /// All are generated from WGSL.
    Generated,
    /// Those written by hand where there is one.
    #[default]
    Tuned,
}

/// Normalised mean squared error that 16-bit activations may cost. A step is 1 / 32767 of the largest of 32, an error
/// 1 / sqrt(12) of a step: 8e-9 where the largest is ten times their root mean square, 3e-10 for normally distributed ones.
pub const ERROR: f64 = 1e-8;

/// A kernel for one call, or for any whose constants are the same.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// Names it.
    pub key: String,
    /// Text and parameters.
    pub output: Output,
    /// Blocks.
    pub grid: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// Bytes of memory that launches share one after the other, zeros at first: a last parameter, if there are any.
    pub workspace: u64,
}

/// Threads of a block, and how many warps these are.
const THREADS: u32 = 256;
const WARPS: u32 = THREADS / 32;

/// Shared memory of a block on every device since 8.0.
const MOST_SHARED: u32 = 96 << 10;

/// More tokens than this share weights in tiles.
const FEW_TOKENS: u32 = 4;

/// The kernel for a call on a device of so many multiprocessors; `None` where there is only the generated one.
pub fn find(kernel: &'static Kernel, params: &Params, multiprocessors: u32) -> Option<Tuned> {
    let product = match kernel.name {
        "matvec" => Product::Plain,
        "gated_mlp" => Product::Gated,
        "qkv_product" => Product::Qkv,
        "attention" => return attention(kernel, params, multiprocessors),
        _ => return None,
    };
    product.tuned(kernel, params)
}

/// What is done with sums.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Product {
    Plain,
    Gated,
    Qkv,
}

impl Product {
    fn tuned(self, kernel: &'static Kernel, p: &Params) -> Option<Tuned> {
        let (rows, inner, experts) = (p.get("N"), p.get("K"), p.is("EXPERTS"));
        let formats = match self {
            Product::Gated => [p.format("GATE"), p.format("UP")],
            _ => [p.format("W"); 2],
        };
        let names = [format(formats[0])?, format(formats[1])?];
        // Both take x in one form.
        let floats = formats.map(|f| f == DType::F16);
        let acts = [Activation::Silu, Activation::GeluTanh].map(Activation::number);
        let few = match experts {
            true => p.get("TT") == 0,
            false => p.get("T") <= FEW_TOKENS,
        };
        if !few
            || floats[0] != floats[1]
            || (self == Product::Gated && !acts.contains(&p.get("ACT")))
        {
            return None;
        }
        let tokens = if experts { 1 } else { p.get("T") };
        let chunk = if floats[0] { 128 } else { 64 + 4 + 8 };
        let shared = tokens * (inner.div_ceil(32) * chunk).next_multiple_of(16);
        if shared > MOST_SHARED {
            return None;
        }
        // Enough rows to read x seldom, few enough to keep all multiprocessors busy.
        let each = match (self, rows) {
            (Product::Qkv, _) => 4,
            (_, 0..4096) => 1,
            (Product::Gated, _) | (_, 4096..16384) => 2,
            _ => 4,
        };
        let mut text = Text::new(kernel, p);
        text.define("PLAIN", 0);
        text.define("GATED", 1);
        text.define("QKV", 2);
        text.define("PRODUCT", self as u32);
        text.define("FORMAT", names[0]);
        text.define("UP_FORMAT", names[1]);
        text.define("ROWS", each);
        text.define("TOKENS", tokens);
        let named = Variant::new("tuned", [1; 3]);
        let named = named.set("ROWS", each).set("TOKENS", tokens);
        Some(Tuned {
            key: kernel.pipeline_key(p, &named),
            output: text.output(
                &[include_str!("quants.cuh"), include_str!("product.cu")],
                THREADS,
                false,
            ),
            grid: [
                rows.div_ceil(WARPS * each),
                if experts { p.get("T") } else { 1 },
                1,
            ],
            shared,
            workspace: 0,
        })
    }
}

/// Attention of one token, by the key/value heads and parts of the keys.
fn attention(kernel: &'static Kernel, p: &Params, multiprocessors: u32) -> Option<Tuned> {
    /// Fewer keys are not worth a block, as attention.cu has it.
    const LEAST: u32 = 64;
    const THREADS: u32 = 128;
    let (size, heads, group) = (p.get("D"), p.get("KVH"), p.get("GROUP"));
    let one = p.get("T") == 1 && p.get("B") == 1;
    let fits = size.is_power_of_two() && (32..=256).contains(&size) && p.get("DV") == size;
    let other = [
        "PARTIAL",
        "TOKENS_FIRST",
        "FULL",
        "PREFIXED",
        "KV_LENGTHS",
        "ADJUSTED",
    ];
    if !one || !fits || group > 8 || other.iter().any(|name| p.is(name)) {
        return None;
    }
    // Two blocks for each multiprocessor, if there are keys for so many.
    let most = (2 * multiprocessors).div_ceil(heads).max(1);
    let splits = p.get("S").div_ceil(LEAST).clamp(1, most);
    let mut text = Text::new(kernel, p);
    text.define("SPLITS", splits);
    let parts = u64::from(heads) * u64::from(splits * group * (size + 2));
    Some(Tuned {
        key: kernel.pipeline_key(p, &Variant::new("tuned", [1; 3]).set("SPLITS", splits)),
        output: text.output(&[include_str!("attention.cu")], THREADS, true),
        grid: [heads, splits, 1],
        shared: 0,
        workspace: 4 * (parts + u64::from(heads)),
    })
}

/// Switches that the texts ask for.
const SWITCHES: &[&str] = &[
    "ADJACENT", "BIAS", "CLAMP", "EXPERTS", "KV_F16", "KV_Q8_0", "NORM", "RESIDUAL", "ROPE",
    "SINKS", "WINDOWED",
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

    /// With these files and the entry point, whose parameters are the bound arrays in order and the uniform arguments.
    fn output(mut self, files: &[&str], threads: u32, workspace: bool) -> Output {
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
            if binding.optional && !is_bound(binding.name, self.params) {
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
        if workspace {
            parameters.push("float *workspace".to_string());
            fields += "    c.workspace = workspace;\n";
        }
        let entry = format!("{}_tuned", self.kernel.name);
        self.source += &format!(
            "extern \"C\" __global__ void __launch_bounds__({threads}) {entry}({}) {{\n    Call c = {{}};\n{fields}    c.args = args;\n    run(c);\n}}\n",
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
