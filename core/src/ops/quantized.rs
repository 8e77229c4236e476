//! Integer weights and integer products.

use super::{Array, Call, Example, Input, Op, Output, Setting};
use crate::kernels::dequantize_linear::{self, Granularity};
use crate::kernels::matmul_integer;
use crate::nn::{Activations, QuantizedLinear};
use crate::weights::fastllm::{IntFormat, IntWeight, from_range, from_zero};
use crate::{DType, Result};

pub static OPS: &[Op] = &[
    Op {
        name: "quantized_linear",
        kinds: &["gemv_int8", "gemv_int4", "gemm_int8", "gemm_int4"],
        systems: &["gemv_int8, gemv_int4", "int4-nozero", "gemm_int8 / int4"],
        summary: "y = x w^T + bias, w = scale (q - zero) or min + scale q, in fastllm's layouts; up to \
                  8 tokens by matvec, above by matmul",
        inputs: &[
            Input::new("x", "... K", ""),
            Input::new(
                "weight",
                "N J",
                "u8, J bytes a row in the layout that format names",
            ),
            Input::optional("scale", "any", "(N), or (N G) for int4_group"),
            Input::optional("zero", "any", "zero points of int8 and int4, as scale"),
            Input::optional(
                "min",
                "any",
                "of the other formats, and of the range of int8 and int4",
            ),
            Input::optional(
                "max",
                "any",
                "ends of the range that int8 and int4 have in files",
            ),
            Input::optional("bias", "N", ""),
        ],
        settings: &[
            Setting::choice(
                "format",
                "int8",
                &[
                    "int8",
                    "int4",
                    "int4_nozero",
                    "int4_group",
                    "int8_perchannel",
                    "int4_perchannel",
                    "int4_group128",
                    "int4_group32",
                ],
                "int4: the even element is in the high half of its byte",
            ),
            Setting::int("group", 128, "elements with one scale, for int4_group"),
            Setting::choice(
                "activations",
                "f32",
                &["f32", "int8"],
                "int8: x becomes signed bytes, each 32 with a scale, and products are integers (DP4A)",
            ),
        ],
        outputs: &[Output::new("y", "... N", "")],
        bound: 1e-10,
        record: |c| Box::pin(quantized_linear(c)),
        examples: linear_examples,
    },
    Op {
        name: "matmul_integer",
        kinds: &["MatMulInteger"],
        systems: &[],
        summary: "y = (a - a_zero_point) (b - b_zero_point) of 8-bit integers in i32 (ONNX, \
                  MatMulInteger)",
        inputs: &[
            Input::new("a", "... M K", "i8 or u8"),
            Input::new("b", "any", "(K N), or as many matrices as a; i8 or u8"),
            Input::optional("a_zero_point", "any", "a scalar, or one for each of M rows"),
            Input::optional(
                "b_zero_point",
                "any",
                "a scalar, or one for each of N columns",
            ),
        ],
        settings: &[],
        outputs: &[Output::new("y", "... M N", "")],
        bound: 0.0,
        record: |c| Box::pin(matmul(c)),
        examples: || {
            let bytes = |shape: &[usize], seed: i64| {
                let len = shape.iter().product::<usize>() as i64;
                let values: Vec<i64> = (0..len).map(|i| (i * 37 + seed) % 256 - 128).collect();
                Array::i64(shape, &values)
            };
            vec![
                Example::new()
                    .input("a", bytes(&[4, 7], 1))
                    .input("b", bytes(&[7, 5], 2)),
                Example::new()
                    .input("a", bytes(&[2, 3, 9], 3))
                    .input("b", bytes(&[2, 9, 4], 5))
                    .input("a_zero_point", bytes(&[3], 7))
                    .input("b_zero_point", bytes(&[], 100)),
            ]
        },
    },
    Op {
        name: "dequantize_linear",
        kinds: &["DequantizeLinear"],
        systems: &[],
        summary: "y = (x - zero_point) scale, for all elements, along an axis or in blocks of it \
                  (ONNX, DequantizeLinear)",
        inputs: &[
            Input::new("x", "any", "integers, or floats of low precision"),
            Input::new(
                "scale",
                "any",
                "a scalar, (C) for an axis, or x's shape with fewer blocks",
            ),
            Input::optional("zero_point", "any", "as scale"),
        ],
        settings: &[
            Setting::int("axis", 1, "negative from the end"),
            Setting::int(
                "block_size",
                0,
                "elements of a block along the axis; 0: no blocks",
            ),
        ],
        outputs: &[Output::new("y", "any", "")],
        bound: 1e-13,
        record: |c| Box::pin(dequantize(c)),
        examples: || {
            let x = |shape: &[usize]| {
                let len = shape.iter().product::<usize>() as i64;
                Array::i64(shape, &(0..len).map(|i| i * 29 % 256).collect::<Vec<_>>())
            };
            vec![
                Example::new().input("x", x(&[7])).random("scale", &[]),
                Example::new()
                    .input("x", x(&[2, 3, 5]))
                    .random("scale", &[3])
                    .input("zero_point", x(&[3])),
                Example::new()
                    .input("x", x(&[2, 5, 3]))
                    .random("scale", &[2, 3, 3])
                    .input("zero_point", x(&[2, 3, 3]))
                    .set("axis", "-2")
                    .set("block_size", "2"),
            ]
        },
    },
];

async fn quantized_linear(c: &mut Call<'_>) -> Result<()> {
    let (rows, cols) = (c.axis("N"), c.axis("K"));
    let format = match c.settings.choice("format") {
        "int8" => IntFormat::Int8,
        "int4" => IntFormat::Int4,
        "int4_nozero" => IntFormat::Int4NoZero,
        "int4_group" => IntFormat::Int4Group(c.settings.size("group")?),
        "int8_perchannel" => IntFormat::Int8PerChannel,
        "int4_perchannel" => IntFormat::Int4PerChannel,
        "int4_group128" => IntFormat::Int4Group128,
        _ => IntFormat::Int4Group32,
    };
    let bytes = bytes(c, "weight", 0..=255)?;
    let values = |name: &str| c.has(name).then(|| c.array(name).to_f32());
    let given = [
        values("scale"),
        values("zero"),
        values("min"),
        values("max"),
    ];
    let zero_point = matches!(format, IntFormat::Int8 | IntFormat::Int4);
    let sides: Vec<[f32; 2]> = match (given, zero_point) {
        ([None, None, None, None], _) if format.is_inline() => Vec::new(),
        ([Some(scale), Some(zero), None, None], true) if scale.len() == zero.len() => {
            let whole = |z: &f32| *z >= 0.0 && *z <= 255.0 && z.fract() == 0.0;
            if !zero.iter().all(whole) {
                return Err(c.error("zero holds numbers that are not whole ones from 0 to 255"));
            }
            let sides = scale.iter().zip(&zero);
            sides
                .map(|(scale, zero)| from_zero(*scale, *zero as u8))
                .collect()
        }
        ([None, None, Some(min), Some(max)], true) if min.len() == max.len() => {
            let ranges = min.iter().zip(&max);
            ranges
                .map(|(min, max)| from_range([*min, *max], format.bits()))
                .collect()
        }
        ([Some(scale), None, Some(min), None], false) if scale.len() == min.len() => min
            .iter()
            .zip(&scale)
            .map(|(min, scale)| [*min, *scale])
            .collect(),
        _ => {
            let wanted = match (format.is_inline(), zero_point) {
                (true, _) => "no scales beside the weight",
                (_, true) => "scale and zero, or min and max, of one length",
                _ => "min and scale of one length",
            };
            let all = ["scale", "zero", "min", "max"];
            let found: Vec<_> = all.into_iter().filter(|name| c.has(name)).collect();
            return Err(c.error(format_args!(
                "format {} wants {wanted}; found {}",
                c.settings.choice("format"),
                if found.is_empty() {
                    "none".into()
                } else {
                    found.join(", ")
                }
            )));
        }
    };
    let name = format!("{}: weight", c.op.name);
    let weight = IntWeight::from_fastllm(&name, format, rows, cols, &bytes, &sides)?;
    let bias = c.optional("bias").await?;
    let linear = QuantizedLinear::new(c.device(), &weight, bias).await?;
    let activations = match c.settings.choice("activations") {
        "int8" => Activations::Int8,
        _ => Activations::F32,
    };
    let x = c.tensor("x").await?;
    let y = c.r.quantized_linear(&x, &linear, activations)?;
    c.output("y", &y, &y.shape);
    Ok(())
}

/// An input of whole numbers in this range, each as its lowest byte.
fn bytes(c: &Call<'_>, name: &str, range: std::ops::RangeInclusive<i64>) -> Result<Vec<u8>> {
    let values = c
        .array(name)
        .to_i64()
        .filter(|v| v.iter().all(|v| range.contains(v)));
    let values = values.ok_or_else(|| {
        c.error(format_args!(
            "{name} must hold whole numbers from {} to {}",
            range.start(),
            range.end()
        ))
    })?;
    Ok(values.into_iter().map(|v| v as u8).collect())
}

/// An operand as signed bytes, and what was taken from unsigned ones.
fn signed(c: &Call<'_>, name: &str) -> Result<(Vec<i8>, i64)> {
    let values = c.array(name).to_i64().unwrap_or_default();
    let offset = if values.iter().any(|v| *v > 127) {
        128
    } else {
        0
    };
    let found = bytes(c, name, offset - 128..=offset + 127)?;
    Ok((
        found
            .into_iter()
            .map(|b| (b ^ offset as u8) as i8)
            .collect(),
        offset,
    ))
}

/// Zero points as words, `len` of them, less `offset`.
fn zero_points(c: &Call<'_>, name: &str, len: usize, offset: i64) -> Result<Vec<u32>> {
    let mut values = match c.has(name) {
        true => c.array(name).to_i64().unwrap_or_default(),
        false => vec![0],
    };
    if values.len() == 1 {
        values = vec![values[0]; len];
    }
    if values.len() != len || values.iter().any(|z| !(-128..=255).contains(z)) {
        return Err(c.error(format_args!(
            "{name} has shape {:?}, expected a scalar or ({len}) of 8-bit integers",
            c.shape(name)
        )));
    }
    Ok(values
        .into_iter()
        .map(|z| (z - offset) as i32 as u32)
        .collect())
}

async fn matmul(c: &mut Call<'_>) -> Result<()> {
    let (rows, inner) = (c.axis("M"), c.axis("K"));
    let matrices: usize = c.lead().iter().product();
    let shape = c.shape("b").to_vec();
    let fits = |lead: &[usize]| lead.is_empty() || lead == c.lead();
    let columns = match &shape[..] {
        [lead @ .., k, n] if *k == inner && fits(lead) => *n,
        _ => {
            return Err(c.error(format_args!(
                "b has shape {shape:?}, expected ({inner} N) or as many matrices as a has"
            )));
        }
    };
    let ((a, a_offset), (b, b_offset)) = (signed(c, "a")?, signed(c, "b")?);
    // Columns of b become rows.
    let others = b.len() / (inner * columns);
    let mut w = Vec::with_capacity(b.len());
    for matrix in b.chunks(inner * columns) {
        for n in 0..columns {
            w.extend(matrix[n..].iter().step_by(columns));
        }
    }
    let a_zero = zero_points(c, "a_zero_point", rows, a_offset)?;
    let w_zero = zero_points(c, "b_zero_point", columns, b_offset)?;
    let shape = [c.lead(), &[rows, columns]].concat();
    let y = c.r.scratch(DType::U32, &shape)?;
    let mut bindings = Vec::new();
    let words = [
        matmul_integer::pack(&a, inner),
        matmul_integer::pack(&w, inner),
        a_zero,
        w_zero,
    ];
    for words in words {
        let bytes = bytemuck::cast_slice(&words);
        bindings.push(Some(
            c.upload("words", DType::U32, &[words.len()], bytes).await?,
        ));
    }
    bindings.push(Some(y.clone()));
    let params = matmul_integer::params(matrices, others, [rows, columns, inner]);
    c.r.push(&matmul_integer::KERNEL, params, bindings)?;
    c.output("y", &y, &shape);
    Ok(())
}

async fn dequantize(c: &mut Call<'_>) -> Result<()> {
    let shape = c.shape("x").to_vec();
    let scale_shape = c.shape("scale").to_vec();
    let scales = c.array("scale").len();
    let block = c.settings.size("block_size")?;
    let (view, granularity) = if scales == 1 && block == 0 {
        ([1, 1, shape.iter().product()], Granularity::Tensor)
    } else {
        let axis = c.axis_of("axis", shape.len())?;
        let view = [
            shape[..axis].iter().product(),
            shape[axis],
            shape[axis + 1..].iter().product(),
        ];
        let mut blocked = shape.clone();
        blocked[axis] = shape[axis].div_ceil(block.max(1));
        match block {
            0 if scales == shape[axis] => (view, Granularity::Axis),
            1.. if scale_shape == blocked => (view, Granularity::Block(block)),
            _ => {
                let wanted = if block == 0 {
                    vec![shape[axis]]
                } else {
                    blocked
                };
                return Err(c.error(format_args!(
                    "scale has shape {scale_shape:?}, expected a scalar or {wanted:?}"
                )));
            }
        }
    };
    if c.has("zero_point") && c.array("zero_point").len() != scales {
        return Err(c.error(format_args!(
            "zero_point has shape {:?}, scale {scale_shape:?}",
            c.shape("zero_point")
        )));
    }
    let (x, scale) = (c.tensor("x").await?, c.tensor("scale").await?);
    let zero = c.optional("zero_point").await?;
    let y = c.r.scratch(DType::F32, &shape)?;
    let params = dequantize_linear::params(view, granularity, zero.is_some());
    let bindings = vec![Some(x), Some(scale), zero, Some(y.clone())];
    c.r.push(&dequantize_linear::KERNEL, params, bindings)?;
    c.output("y", &y, &shape);
    Ok(())
}

fn linear_examples() -> Vec<Example> {
    let bytes = |rows: usize, width: usize| {
        let values: Vec<i64> = (0..rows * width).map(|i| (i * 37 % 251) as i64).collect();
        Array::i64(&[rows, width], &values)
    };
    // Rows that hold their scales: their bytes are numbers of sound size.
    let inline = |rows: usize, parts: &[(usize, &[f32])], short: bool| {
        let mut row = Vec::new();
        for (quants, scales) in parts {
            row.extend((0..*quants).map(|i| (i * 37 % 251) as i64));
            for scale in *scales {
                let all = scale.to_le_bytes();
                let bytes = if short { &all[2..] } else { &all[..] };
                row.extend(bytes.iter().map(|b| i64::from(*b)));
            }
        }
        Array::i64(&[rows, row.len()], &row.repeat(rows))
    };
    let x = |tokens: usize, cols: usize| Example::new().random("x", &[tokens, cols]);
    vec![
        x(3, 50)
            .input("weight", bytes(5, 50))
            .random("scale", &[5])
            .input("zero", Array::i64(&[5], &[128, 0, 255, 7, 100]))
            .random("bias", &[5]),
        x(9, 50)
            .input("weight", bytes(5, 25))
            .random("min", &[5])
            .input("max", Array::f32(&[5], &[3.0, 4.0, 2.5, 0.0, 5.0]))
            .set("format", "int4"),
        x(1, 50)
            .input("weight", bytes(5, 25))
            .random("min", &[5])
            .random("scale", &[5])
            .set("format", "int4_nozero")
            .set("activations", "int8"),
        x(10, 160)
            .input("weight", bytes(5, 80))
            .random("min", &[5, 3])
            .random("scale", &[5, 3])
            .set("format", "int4_group")
            .set("group", "64"),
        x(2, 40)
            .input("weight", inline(3, &[(40, &[-1.0, 0.01])], false))
            .set("format", "int8_perchannel"),
        x(2, 40)
            .input("weight", inline(3, &[(20, &[-1.0, 0.1])], false))
            .set("format", "int4_perchannel"),
        x(2, 256)
            .input(
                "weight",
                inline(3, &[(64, &[-1.0, 0.1]), (64, &[-0.5, 0.2])], false),
            )
            .set("format", "int4_group128"),
        x(2, 160)
            .input(
                "weight",
                inline(3, &[(64, &[0.5, 1.0, 2.0, 0.25]), (16, &[4.0])], true),
            )
            .set("format", "int4_group32"),
    ]
}
