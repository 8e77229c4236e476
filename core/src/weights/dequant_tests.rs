use super::*;

/// Blocks and expected values recorded from the gguf package; see `tests/data/dequant/ORIGIN.md`.
const RECORDED: &[(DType, &[u8])] = &[
    (
        DType::F32,
        include_bytes!("../../../tests/data/dequant/f32.bin"),
    ),
    (
        DType::F16,
        include_bytes!("../../../tests/data/dequant/f16.bin"),
    ),
    (
        DType::BF16,
        include_bytes!("../../../tests/data/dequant/bf16.bin"),
    ),
    (
        DType::Q4_0,
        include_bytes!("../../../tests/data/dequant/q4_0.bin"),
    ),
    (
        DType::Q4_1,
        include_bytes!("../../../tests/data/dequant/q4_1.bin"),
    ),
    (
        DType::Q5_0,
        include_bytes!("../../../tests/data/dequant/q5_0.bin"),
    ),
    (
        DType::Q5_1,
        include_bytes!("../../../tests/data/dequant/q5_1.bin"),
    ),
    (
        DType::Q8_0,
        include_bytes!("../../../tests/data/dequant/q8_0.bin"),
    ),
    (
        DType::Q4K,
        include_bytes!("../../../tests/data/dequant/q4_k.bin"),
    ),
    (
        DType::Q5K,
        include_bytes!("../../../tests/data/dequant/q5_k.bin"),
    ),
    (
        DType::Q6K,
        include_bytes!("../../../tests/data/dequant/q6_k.bin"),
    ),
    (
        DType::Mxfp4,
        include_bytes!("../../../tests/data/dequant/mxfp4.bin"),
    ),
];

#[test]
fn dequantize_equals_the_recorded_values_bit_for_bit() {
    let types: Vec<DType> = RECORDED.iter().map(|r| r.0).collect();
    assert_eq!(types, DType::WEIGHTS);
    for &(dtype, file) in RECORDED {
        let (size, len) = (dtype.block_bytes(), dtype.block_len());
        let blocks = file.len() / (size + 4 * len);
        assert!(
            blocks >= 8 && file.len() == blocks * (size + 4 * len),
            "{dtype}"
        );
        let (bytes, want) = file.split_at(blocks * size);
        let mut got = vec![0.0; blocks * len];
        dequantize(dtype, bytes, &mut got);
        for (i, (got, want)) in got.iter().zip(want.chunks_exact(4)).enumerate() {
            let want = f32::from_bits(u32_at(want, 0));
            assert_eq!(
                got.to_bits(),
                want.to_bits(),
                "{dtype} [{i}]: want {want}, got {got}"
            );
        }
    }
}

/// Smooth values with one outlier in each block of 256, and a zero block.
fn samples() -> Vec<f32> {
    let mut x: Vec<f32> = (0..1024).map(|i| (i as f32 * 0.37).sin() * 0.05).collect();
    for i in [100, 300, 600] {
        x[i] = if i == 300 { -0.4 } else { 0.4 };
    }
    x[768..].fill(0.0);
    x
}

#[test]
fn quantized_values_decode_to_near_values() {
    let x = samples();
    // Half a step of the widest block, 0.45 wide or 0.4 high, and the scale's own rounding.
    let bounds = [
        (DType::F32, 0.0),
        (DType::F16, 2.5e-4),
        (DType::BF16, 1e-3),
        (DType::Q4_0, 0.051),
        (DType::Q4_1, 0.016),
        (DType::Q5_0, 0.026),
        (DType::Q5_1, 0.008),
        (DType::Q8_0, 0.0017),
        (DType::Q4K, 0.021),
        (DType::Q5K, 0.012),
        (DType::Q6K, 0.009),
        (DType::Mxfp4, 0.026),
    ];
    for (dtype, bound) in bounds {
        let bytes = quantize(dtype, &x);
        assert_eq!(Some(bytes.len()), dtype.bytes(x.len()));
        let mut y = vec![1.0; x.len()];
        dequantize(dtype, &bytes, &mut y);
        let worst = x
            .iter()
            .zip(&y)
            .map(|(x, y)| (x - y).abs())
            .fold(0.0, f32::max);
        assert!(worst <= bound, "{dtype}: worst error {worst} > {bound}");
        assert!(
            y[768..].iter().all(|&y| y == 0.0),
            "{dtype}: zeros stay zero"
        );
    }
}

#[test]
fn random_blocks_are_finite_and_repeatable() {
    for &dtype in DType::WEIGHTS {
        let bytes = random_blocks(dtype, 64, 5);
        assert_eq!(bytes, random_blocks(dtype, 64, 5));
        assert_ne!(bytes, random_blocks(dtype, 64, 6));
        let mut y = vec![0.0; 64 * dtype.block_len()];
        dequantize(dtype, &bytes, &mut y);
        assert!(y.iter().all(|y| y.is_finite()), "{dtype}");
        assert!(
            y.iter().any(|&y| y < 0.0) && y.iter().any(|&y| y > 0.0),
            "{dtype}"
        );
    }
}
