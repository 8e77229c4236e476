//! Products of many tokens by cuBLASLt: halves.cu, one product for each weight, finish.cu.

use shardlight::DType;
use shardlight::kernels::{Kernel, Params, Variant};

use super::super::blas::{Matmul, Place, Shape};
use super::{Gpu, MANY_TOKENS, Memory, Product, TENSOR, THREADS, TILES_ERROR, Text, Tuned};

/// Of activations of bf16, rounded to 8 bits: 4^-8 / 12 = 1.3e-6 on average.
const BRAIN_ERROR: f64 = 5e-6;

/// To so many bytes parts of the workspace are aligned.
const PART: u64 = 256;

/// A call by cuBLASLt.
#[derive(Clone, Debug)]
pub struct Multiplied {
    /// Makes 16-bit floats of x in the workspace.
    pub before: Tuned,
    /// One for each weight.
    pub products: Vec<Matmul>,
    /// What they lack.
    pub after: Option<Tuned>,
    /// Where in the workspace there is room for cuBLASLt's.
    pub room: u64,
    /// Normalised mean squared error that its arithmetic may cost.
    pub error: f64,
}

/// How cuBLASLt would do a call; `None` for calls that it is not asked for.
pub fn multiplied(kernel: &'static Kernel, p: &Params, gpu: &Gpu) -> Option<Multiplied> {
    /// Elements of a step of halves.cuh, and rows of weights of a block of finish.cu.
    const STEP: u32 = 64;
    const ITEMS: u32 = 4 * THREADS;
    let product = match kernel.name {
        "matvec" | "matmul" => Product::Plain,
        "gated_mlp" => Product::Gated,
        _ => return None,
    };
    let (rows, inner, tokens) = (p.get("N"), p.get("K"), p.get("T"));
    let formats = product.formats(p).filter(|[a, b]| a == b)?;
    let brain = match formats[0] {
        "F16" => false,
        "BF16" => true,
        _ => return None,
    };
    // Conversion to bf16 came with 8.0.
    let fits = tokens >= MANY_TOKENS && gpu.capability >= (8, 0) && product.activates(p);
    if !fits || rows == 0 || inner == 0 || p.is("EXPERTS") || p.is("NORM") {
        return None;
    }
    let bound = |name: &str| kernel.bindings.iter().position(|b| b.name == name);
    let step = inner.checked_next_multiple_of(STEP)?;
    let dtype = if brain { DType::BF16 } else { DType::F16 };
    // Rows of weights lie in whole words of 32 elements.
    let row = u32::try_from(shardlight::weights::planar::row_bytes(
        dtype,
        inner as usize,
    ))
    .ok()?
        / 2;
    let part = |bytes: u64| bytes.checked_next_multiple_of(PART);
    let scales = part(4 * u64::from(tokens))?;
    let sums = scales.checked_add(part(u64::from(tokens).checked_mul(2 * u64::from(step))?)?)?;
    let columns = rows.checked_next_multiple_of(64)?;
    let gated = product == Product::Gated;
    let room = match gated {
        true => sums.checked_add(part(
            u64::from(tokens).checked_mul(4 * u64::from(columns))?,
        )?)?,
        false => sums,
    };
    let memory = Memory {
        shared: 0,
        workspace: room,
        counters: 0,
    };
    let first = 4 * u64::from(p.get("ROW0"));
    // f32's range needs no scales, so that residuals can be added by the product.
    let added = brain && !gated && p.is("RESIDUAL");
    let x = Place {
        binding: None,
        offset: scales,
    };
    let one = |weight: &str, before: u32, y: Place, stride: u32| {
        let weight = Place {
            binding: Some(bound(weight)?),
            offset: u64::from(before).checked_mul(2 * u64::from(row))?,
        };
        let residual = match added {
            true => Some(Place {
                binding: Some(bound("residual")?),
                offset: first,
            }),
            false => None,
        };
        let shape = Shape {
            brain,
            rows,
            tokens,
            inner,
            strides: [row, step, stride],
            residual: added,
            aligned: [weight.aligned(), x.aligned(), y.aligned()],
        };
        Some(Matmul {
            shape,
            weight,
            x,
            y,
            residual,
        })
    };
    let y = Place {
        binding: Some(bound("y")?),
        offset: first,
    };
    let products = match gated {
        true => {
            let other = Place {
                binding: None,
                offset: sums,
            };
            vec![
                one("gate", p.get("GATE0"), y, p.get("NY"))?,
                one("up", p.get("UP0"), other, columns)?,
            ]
        }
        false => vec![one("w", 0, y, p.get("NY"))?],
    };
    // Gate and up are off by the same, their product by twice as much.
    let error = match (brain, gated) {
        (true, true) => 4.0 * BRAIN_ERROR,
        (true, false) => BRAIN_ERROR,
        (false, _) => TILES_ERROR,
    };
    let halves = include_str!("halves.cuh");
    let mut text = Text::new(kernel, p);
    text.define("KEPT", 1);
    text.define("BRAIN", u32::from(brain));
    let before = Tuned {
        key: format!("{} {inner} of {} kept", dtype, kernel.name),
        output: text.output(
            &[TENSOR, halves, include_str!("halves.cu")],
            THREADS,
            Some(&["x"]),
            &["workspace"],
        ),
        grid: [tokens, 1, 1],
        memory,
        before: None,
        error,
    };
    let left = !brain || gated || p.is("BIAS");
    let after = left.then(|| {
        let mut text = product.text(kernel, p, formats);
        text.define("ITEMS", ITEMS);
        text.define("SCALED", u32::from(!brain));
        if added {
            text.source += "#undef RESIDUAL\n#define RESIDUAL 0\n";
        }
        let (gate, finish) = (include_str!("gated.cuh"), include_str!("finish.cu"));
        let files = match gated {
            true => &[TENSOR, halves, gate, finish][..],
            false => &[TENSOR, halves, finish],
        };
        let residual = if added { "y" } else { "residual" };
        let only = ["bias", "gate_bias", "up_bias", residual, "y"];
        Tuned {
            key: kernel.pipeline_key(p, &Variant::new("finish", [1; 3])),
            output: text.output(files, THREADS, Some(&only), &["workspace"]),
            grid: [tokens, rows.div_ceil(ITEMS), 1],
            memory,
            before: None,
            error,
        }
    });
    Some(Multiplied {
        before,
        products,
        after,
        room,
        error,
    })
}
