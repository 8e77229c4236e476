//! Integers, conversions, bits and packed numbers.

use crate::run::{Shader, bits, driver, floats, words};

/// Applies `body` (of `a` and `b`, with a result of type `R`) to each pair.
fn pairs(body: &str, ty: &str, pairs: &[(u32, u32)]) -> Vec<u32> {
    let n = pairs.len();
    let text = format!(
        "for (var i = 0u; i < {n}u; i++) {{ let a = bitcast<{ty}>(x[2u * i]); let b = bitcast<{ty}>(x[2u * i + 1u]); y[i] = bitcast<u32>({body}); }}"
    );
    let x: Vec<u32> = pairs.iter().flat_map(|(a, b)| [*a, *b]).collect();
    Shader::new(&text).run(&x, n)
}

const NUMBERS: [i32; 9] = [0, 1, -1, 2, -7, 7, 1_000_003, i32::MAX, i32::MIN];

fn number_pairs() -> Vec<(u32, u32)> {
    let with = |a: i32| NUMBERS.map(|b| (a as u32, b as u32));
    NUMBERS.iter().flat_map(|a| with(*a)).collect()
}

#[test]
fn signed_integers_wrap_and_divide_as_defined() {
    if !driver() {
        return;
    }
    let quotient = |a: i32, b: i32| if b == 0 { a } else { a.wrapping_div(b) };
    let remainder = |a: i32, b: i32| if b == 0 { 0 } else { a.wrapping_rem(b) };
    type Case = (&'static str, fn(i32, i32) -> i32);
    let cases: [Case; 8] = [
        ("a + b", i32::wrapping_add),
        ("a - b", i32::wrapping_sub),
        ("a * b", i32::wrapping_mul),
        ("a / b", quotient),
        ("a % b", remainder),
        ("-a", |a, _| a.wrapping_neg()),
        ("abs(a)", |a, _| a.wrapping_abs()),
        ("clamp(a, -5, 5) + sign(b)", |a, b| {
            a.clamp(-5, 5) + b.signum()
        }),
    ];
    for (body, want) in cases {
        let all = number_pairs();
        let want: Vec<u32> = all
            .iter()
            .map(|(a, b)| want(*a as i32, *b as i32) as u32)
            .collect();
        assert_eq!(pairs(body, "i32", &all), want, "{body}");
        let vector = format!(
            "({}).y",
            body.replace('a', "vec2(a, a)").replace('b', "vec2(b, b)")
        );
        if !body.contains('(') {
            assert_eq!(pairs(&vector, "i32", &all), want, "{vector}");
        }
    }
}

#[test]
fn unsigned_integers_wrap_and_divide_as_defined() {
    if !driver() {
        return;
    }
    type Case = (&'static str, fn(u32, u32) -> u32);
    let cases: [Case; 8] = [
        ("a + b", u32::wrapping_add),
        ("a - b", u32::wrapping_sub),
        ("a * b", u32::wrapping_mul),
        ("a / b", |a, b| a.checked_div(b).unwrap_or(a)),
        ("a % b", |a, b| a.checked_rem(b).unwrap_or(0)),
        ("a << (b & 63u)", |a, b| a.wrapping_shl(b & 63)),
        ("a >> (b & 63u)", |a, b| a.wrapping_shr(b & 63)),
        ("min(a, b) ^ ~max(a, b) | (a & b)", |a, b| {
            a.min(b) ^ !a.max(b) | (a & b)
        }),
    ];
    for (body, want) in cases {
        let all = number_pairs();
        let want: Vec<u32> = all.iter().map(|(a, b)| want(*a, *b)).collect();
        assert_eq!(pairs(body, "u32", &all), want, "{body}");
    }
    let shifted = pairs("a >> (bitcast<u32>(b) + 33u)", "i32", &[(-8i32 as u32, 0)]);
    assert_eq!(shifted, words(&[-4]));
}

#[test]
fn conversions_saturate() {
    if !driver() {
        return;
    }
    let x = bits(&[
        1e20,
        -1e20,
        -1.5,
        3.99,
        4e9,
        -0.0,
        16777217.0,
        f32::INFINITY,
    ]);
    let signed = "for (var i = 0; i < 8; i++) { y[i] = bitcast<u32>(i32(bitcast<f32>(x[i]))); }";
    let want = [
        2_147_483_520,
        i32::MIN,
        -1,
        3,
        2_147_483_520,
        0,
        16_777_216,
        2_147_483_520,
    ];
    assert_eq!(Shader::new(signed).run(&x, 8), words(&want));
    let unsigned = "for (var i = 0; i < 8; i++) { y[i] = u32(bitcast<f32>(x[i])); }";
    let most = 4_294_967_040;
    let want = [most, 0, 0, 3, 4_000_000_000, 0, 16_777_216, most];
    assert_eq!(Shader::new(unsigned).run(&x, 8), want);
    let body = "y[0] = bitcast<u32>(f32(x[0])); y[1] = bitcast<u32>(f32(bitcast<i32>(x[0]))); y[2] = u32(bool(x[1])); y[3] = u32(true);
        y[4] = bitcast<u32>(f32(bool(x[0]))); let v = vec3<f32>(vec3<u32>(1u, 2u, x[2])); y[5] = bitcast<u32>(v.z);";
    let got = Shader::new(body).run(&[u32::MAX, 0, 7], 6);
    assert_eq!(floats(&got[..2]), [4_294_967_296.0, -1.0]);
    assert_eq!(got[2..4], [0, 1]);
    assert_eq!(floats(&got[4..]), [1.0, 7.0]);
}

#[test]
fn bits_are_counted_and_moved() {
    if !driver() {
        return;
    }
    type Case = (&'static str, fn(u32) -> u32);
    let cases: [Case; 6] = [
        ("countOneBits(a)", u32::count_ones),
        ("countLeadingZeros(a)", u32::leading_zeros),
        ("countTrailingZeros(a)", u32::trailing_zeros),
        ("reverseBits(a)", u32::reverse_bits),
        ("firstLeadingBit(a)", |a| {
            a.checked_ilog2().unwrap_or(u32::MAX)
        }),
        ("firstTrailingBit(a)", |a| match a {
            0 => u32::MAX,
            _ => a.trailing_zeros(),
        }),
    ];
    let all: Vec<(u32, u32)> = [0, 1, 6, 0x8000_0000, u32::MAX, 0x00f0_1000]
        .map(|a| (a, 0))
        .to_vec();
    for (body, want) in cases {
        let want: Vec<u32> = all.iter().map(|(a, _)| want(*a)).collect();
        assert_eq!(pairs(body, "u32", &all), want, "{body}");
        let vector = format!("({}).z", body.replace("(a)", "(vec3(b, b, a))"));
        assert_eq!(pairs(&vector, "u32", &all), want, "{vector}");
    }
    // Of a signed number: the highest bit that differs from the sign.
    let got = pairs(
        "firstLeadingBit(a)",
        "i32",
        &[(0, 0), (u32::MAX, 0), (-9i32 as u32, 0), (8, 0)],
    );
    assert_eq!(got, words(&[-1, -1, 3, 3]));
    // Offset and count are cut at the width.
    let body = "y[0] = extractBits(x[0], 4u, 8u); y[1] = extractBits(x[0], 28u, 99u); y[2] = extractBits(x[0], 99u, 4u); y[3] = extractBits(x[0], 0u, 32u);
        y[4] = bitcast<u32>(extractBits(bitcast<i32>(x[0]), 8u, 4u)); y[5] = insertBits(x[0], 0u, 8u, 16u); y[6] = insertBits(x[0], x[1], 28u, 99u); y[7] = insertBits(x[0], 5u, 3u, 0u);";
    let got = Shader::new(body).run(&[0xabcd_efed, 0x5], 8);
    let want = [
        0xfe,
        0xa,
        0,
        0xabcd_efed,
        0xffff_ffff,
        0xab00_00ed,
        0x5bcd_efed,
        0xabcd_efed,
    ];
    assert_eq!(got, want);
}

#[test]
fn packed_numbers_are_taken_apart_and_multiplied() {
    if !driver() {
        return;
    }
    let (a, b) = ([-128i8, 127, -3, 5], [7i8, -128, 9, -1]);
    let pack = |v: [i8; 4]| u32::from_le_bytes(v.map(|v| v as u8));
    let body = "y[0] = bitcast<u32>(dot4I8Packed(x[0], x[1])); y[1] = dot4U8Packed(x[0], x[1]);
        let s = unpack4xI8(x[0]); let u = unpack4xU8(x[0]); y[2] = pack4xI8(s); y[3] = pack4xU8(u); y[4] = bitcast<u32>(s.x); y[5] = u.w;
        y[6] = pack4xI8Clamp(vec4<i32>(-1000, 1000, 3, -4)); y[7] = pack4xU8Clamp(vec4<u32>(1000u, 3u, 4u, 5u));
        y[8] = pack4x8snorm(vec4<f32>(-1.0, 1.0, 0.5, -2.0)); y[9] = pack4x8unorm(vec4<f32>(-1.0, 1.0, 0.5, 2.0));
        y[10] = bitcast<u32>(unpack4x8snorm(y[8]).x); y[11] = bitcast<u32>(unpack4x8unorm(y[9]).y);
        y[12] = pack2x16snorm(vec2<f32>(-1.0, 0.5)); y[13] = pack2x16unorm(vec2<f32>(1.0, 0.25)); y[14] = bitcast<u32>(unpack2x16snorm(y[12]).x); y[15] = bitcast<u32>(unpack2x16unorm(y[13]).x);";
    let got = Shader::new(body).run(&[pack(a), pack(b)], 16);
    let signed: i32 = a
        .iter()
        .zip(b)
        .map(|(a, b)| i32::from(*a) * i32::from(b))
        .sum();
    let unsigned: u32 = a
        .iter()
        .zip(b)
        .map(|(a, b)| u32::from(*a as u8) * u32::from(b as u8))
        .sum();
    assert_eq!(
        got[..6],
        [signed as u32, unsigned, pack(a), pack(a), -128i32 as u32, 5]
    );
    assert_eq!(
        got[6..8],
        [pack([-128, 127, 3, -4]), u32::from_le_bytes([255, 3, 4, 5])]
    );
    assert_eq!(
        got[8..10],
        [
            pack([-127, 127, 64, -127]),
            u32::from_le_bytes([0, 255, 128, 255])
        ]
    );
    assert_eq!(floats(&got[10..12]), [-1.0, 1.0]);
    assert_eq!(got[12..14], [0x4000_8001, 0x4000_ffff]);
    assert_eq!(floats(&got[14..]), [-1.0, 1.0]);
}

#[test]
fn halves_are_rounded_to_the_nearest_even() {
    if !driver() {
        return;
    }
    let values = [
        1.0 + 1.0 / 2048.0,
        1.0 + 3.0 / 2048.0,
        65519.0,
        65520.0,
        1e-8,
        6e-8,
        -0.333,
        5e-5,
    ];
    let body = "for (var i = 0u; i < 8u; i++) { let v = bitcast<f32>(x[i]); y[i] = pack2x16float(vec2<f32>(v, 0.0)); y[8u + i] = bitcast<u32>(unpack2x16float(y[i]).x); }";
    let got = Shader::new(body).run(&bits(&values), 16);
    let want = [
        0x3c00, 0x3c02, 0x7bff, 0x7c00, 0x0000, 0x0001, 0xb554, 0x0347,
    ];
    assert_eq!(got[..8], want);
    assert_eq!(floats(&got[8..11]), [1.0, 1.0 + 1.0 / 512.0, 65504.0]);
    let halves = "let a = f16(bitcast<f32>(x[0])); let b = f16(bitcast<f32>(x[1])); let v = vec4<f16>(a, b, a + b, a * b);
        y[0] = bitcast<u32>(f32(v.z)); y[1] = bitcast<u32>(f32(v.w)); y[2] = bitcast<u32>(f32(a / b)); y[3] = bitcast<u32>(f32(fma(a, b, a))); y[4] = bitcast<u32>(f32(dot(v, vec4<f16>(1.0h, 2.0h, 0.5h, 0.0h)))); y[5] = u32(a < b); y[6] = bitcast<u32>(f32(-max(a, b)));";
    let got = Shader::new(halves)
        .with("enable f16;---")
        .run(&bits(&[1.5, 2049.0]), 7);
    // 2049 is halfway between 2048 and 2050.
    assert_eq!(floats(&got[..2]), [2050.0, 3072.0]);
    assert_eq!(floats(&got[2..4]), [0.000_732_421_9, 3074.0]);
    assert_eq!(floats(&got[4..5]), [5120.0]);
    assert_eq!(got[5], 1);
    assert_eq!(floats(&got[6..]), [-2048.0]);
}
