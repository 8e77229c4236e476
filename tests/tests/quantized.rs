//! Integer weights: fastllm's layouts, the same results on both sides of the threshold between matvec and matmul, and
//! with quantised activations.

use std::collections::BTreeMap;

use pollster::block_on;
use shardlight::device::{Device, Purpose};
use shardlight::kernels::case;
use shardlight::nn::{Activations, QuantizedLinear};
use shardlight::ops::{self, Array, TensorFile, nmse};
use shardlight::recording::Recording;
use shardlight::tensor::Tensor;
use shardlight::weights::fastllm::{IntFormat, IntWeight};
use shardlight::{DType, Result};
use shardlight_tests::{data, devices};

const ROWS: usize = 37;
const COLS: usize = 160;

fn weight(format: IntFormat) -> IntWeight {
    let bytes = (0..ROWS * COLS * format.bits() / 8).map(|i| (i * 37 % 251) as u8);
    let groups = COLS.div_ceil(format.group(COLS));
    let scales = case::random(3, ROWS * groups);
    let middle = (1 << (format.bits() - 1)) as f32;
    let sides: Vec<_> = scales.iter().map(|s| [-middle * s, *s]).collect();
    let bytes: Vec<u8> = bytes.collect();
    IntWeight::from_fastllm("w", format, ROWS, COLS, &bytes, &sides).expect("the lengths fit")
}

/// y for the first `tokens` of nine tokens, and the kernels that ran.
async fn run(
    device: &dyn Device,
    linear: &QuantizedLinear,
    tokens: usize,
    activations: Activations,
) -> Result<(Vec<f32>, Vec<&'static str>)> {
    let x = case::random(1, 9 * COLS);
    let buffer = device
        .alloc((tokens * COLS * 4) as u64, Purpose::Activations, "x")
        .await?;
    let bytes: Vec<u8> = x[..tokens * COLS]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    device.write(&buffer, 0, &bytes)?;
    let x = Tensor::of(buffer, DType::F32, &[tokens, COLS]);
    let mut r = Recording::new();
    let y = r.quantized_linear(&x, linear, activations)?;
    r.keep(&y);
    let kernels = r.dispatches().map(|d| d.kernel.name).collect();
    let prepared = device.prepare(&r).await?;
    device.run(&prepared)?;
    let buffer = prepared.tensor(&y).expect("y was computed");
    let bytes = device.read(buffer, 0, 4 * y.len() as u64).await?;
    let values = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
    Ok((values.collect(), kernels))
}

#[test]
fn recorded_layouts_of_fastllm_are_read() {
    let mut files = 0;
    for entry in std::fs::read_dir(data().join("quantized")).expect("the folder is there") {
        let path = entry.expect("it can be listed").path();
        if path.extension().is_none_or(|e| e != "safetensors") {
            continue;
        }
        files += 1;
        let name = path.to_string_lossy();
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        let file = TensorFile::read(&name, &bytes).unwrap_or_else(|e| panic!("{e}"));
        for device in devices() {
            let compared = block_on(ops::check(&*device, &name, &file));
            for c in compared.unwrap_or_else(|e| panic!("{e}")) {
                let backend = &device.info().backend;
                assert!(
                    c.passes(),
                    "{name} {} on {backend}: NMSE {:.1e}",
                    c.tensor,
                    c.nmse
                );
            }
        }
    }
    assert_eq!(files, 8);
}

#[test]
fn both_sides_of_the_threshold_give_the_same() {
    let formats = [
        IntFormat::Int8,
        IntFormat::Int4NoZero,
        IntFormat::Int4Group(128),
    ];
    for device in devices() {
        for format in formats {
            let weight = weight(format);
            let told = |e| panic!("{format:?}: {e}");
            let linear =
                block_on(QuantizedLinear::new(&*device, &weight, None)).unwrap_or_else(told);
            let few = block_on(run(&*device, &linear, 8, Activations::F32))
                .unwrap_or_else(|e| panic!("{e}"));
            let many = block_on(run(&*device, &linear, 9, Activations::F32))
                .unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(
                (&few.1[..], &many.1[..]),
                (&["quantized_matvec"][..], &["quantized_matmul"][..])
            );
            let error = nmse(&many.0[..8 * ROWS], &few.0);
            assert!(
                error < 1e-12,
                "{format:?} on {}: {error:.1e}",
                device.info().backend
            );

            // Eight bits for each of 32 numbers: their largest is an outlier now and then.
            let coarse = block_on(run(&*device, &linear, 9, Activations::Int8))
                .unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(coarse.1, ["quantize_activations", "quantized_dot"]);
            let error = nmse(&coarse.0, &many.0);
            assert!(
                error < 1e-3 && error > 0.0,
                "{format:?} on {}: {error:.1e}",
                device.info().backend
            );
        }
    }
}

#[test]
fn a_gpu_multiplies_packed_bytes_by_its_own_instruction() {
    for device in devices().iter().filter(|d| d.info().kind.is_gpu()) {
        assert!(device.limits().packed_dot, "{}", device.info());
    }
}

#[test]
fn wrong_scales_are_told_in_one_line() {
    let device = shardlight::device::cpu::CpuDevice::new();
    let op = ops::find("gemv_int4").expect("it is there");
    let inputs = BTreeMap::from([
        ("x".to_string(), Array::f32(&[1, 4], &[1.0; 4])),
        ("weight".to_string(), Array::i64(&[1, 2], &[0, 255])),
        ("scale".to_string(), Array::f32(&[1], &[1.0])),
    ]);
    let settings = BTreeMap::from([("format".to_string(), "int4".to_string())]);
    let told = block_on(ops::run(&device, op, inputs, &settings)).expect_err("zero is missing");
    assert_eq!(
        told.to_string(),
        "quantized_linear: format int4 wants scale and zero, or min and max, of one length; found scale"
    );
}
