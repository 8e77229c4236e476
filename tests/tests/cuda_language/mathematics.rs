//! Built-in functions of floats, against the standard library's in f64.

use crate::run::{Shader, bits, driver, floats};

/// A function and its definition.
type Case = (&'static str, fn(f64) -> f64);

const VALUES: [f32; 8] = [0.1, -0.7, 1.0, 2.5, -3.75, 0.0, 10.0, -0.5];

#[test]
fn functions_of_one_number() {
    if !driver() {
        return;
    }
    let plain: [Case; 17] = [
        ("sin(a)", f64::sin),
        ("cos(a)", f64::cos),
        ("tan(a)", f64::tan),
        ("sinh(a)", f64::sinh),
        ("cosh(a)", f64::cosh),
        ("tanh(a)", f64::tanh),
        ("exp(a)", f64::exp),
        ("exp2(a)", f64::exp2),
        ("ceil(a)", f64::ceil),
        ("floor(a)", f64::floor),
        ("trunc(a)", f64::trunc),
        ("round(a)", f64::round_ties_even),
        ("fract(a)", |a| a - a.floor()),
        ("abs(a)", f64::abs),
        ("-a", |a| -a),
        ("degrees(a)", f64::to_degrees),
        ("radians(a)", f64::to_radians),
    ];
    for (body, want) in plain {
        // Names of functions hold the letter of the variable.
        let body = body.replace("(a)", "(#a#)").replace("-a", "-#a#");
        check(&body, want, &VALUES);
    }
    let positive: [Case; 4] = [
        ("log(#a#)", f64::ln),
        ("log2(#a#)", f64::log2),
        ("sqrt(#a#)", f64::sqrt),
        ("inverseSqrt(#a#)", |a| 1.0 / a.sqrt()),
    ];
    for (body, want) in positive {
        check(body, want, &[0.1, 1.0, 2.5, 1e-20, 1e20, 3.0]);
    }
    let inverse: [Case; 6] = [
        ("asin(#a#)", f64::asin),
        ("acos(#a#)", f64::acos),
        ("atan(#a#)", f64::atan),
        ("asinh(#a#)", f64::asinh),
        ("atanh(#a#)", f64::atanh),
        ("acosh(#a# + 2.0)", |a| (a + 2.0).acosh()),
    ];
    for (body, want) in inverse {
        check(body, want, &[0.1, -0.7, 0.5, 0.0]);
    }
    check(
        "sign(#a#)",
        |a| if a == 0.0 { 0.0 } else { a.signum() },
        &VALUES,
    );
    check("saturate(#a#)", |a| a.clamp(0.0, 1.0), &VALUES);
}

/// `body` of the variable `#a#`, as a scalar and as a part of a vector.
fn check(body: &str, want: impl Fn(f64) -> f64, values: &[f32]) {
    let n = values.len();
    let scalar = body.replace("#a#", "a");
    let vector = format!("({}).z", body.replace("#a#", "vec3<f32>(1.5, 1.0, a)"));
    for text in [scalar, vector] {
        let shader = format!(
            "for (var i = 0u; i < {n}u; i++) {{ let a = bitcast<f32>(x[i]); y[i] = bitcast<u32>({text}); }}"
        );
        let got = floats(&Shader::new(&shader).run(&bits(values), n));
        for (got, a) in got.iter().zip(values) {
            let want = want(f64::from(*a));
            let close = (f64::from(*got) - want).abs() <= 2e-6 * want.abs().max(1e-3);
            assert!(close, "{text} of {a}: {got}, not {want}");
        }
    }
}

#[test]
fn functions_of_several_numbers() {
    if !driver() {
        return;
    }
    let cases: [Case; 13] = [
        ("pow(abs(#a#) + #a# * 0.0, #a# * 0.0 + 1.5)", |a| {
            a.abs().powf(1.5)
        }),
        ("atan2(#a#, #a# * 0.0 - 2.0)", |a| a.atan2(-2.0)),
        ("fma(#a#, #a#, #a#)", |a| a * a + a),
        ("min(#a#, #a# * -2.0)", |a| a.min(-2.0 * a)),
        ("max(#a#, #a# * -2.0)", |a| a.max(-2.0 * a)),
        ("clamp(#a#, #a# * 0.0 - 1.0, #a# * 0.0 + 2.0)", |a| {
            a.clamp(-1.0, 2.0)
        }),
        ("mix(#a#, #a# * 3.0, #a# * 0.0 + 0.25)", |a| 1.5 * a),
        ("step(#a# * 0.0 + 0.5, #a#)", |a| {
            f64::from(u8::from(a >= 0.5))
        }),
        ("smoothstep(#a# * 0.0 - 1.0, #a# * 0.0 + 3.0, #a#)", |a| {
            let t = ((a + 1.0) / 4.0).clamp(0.0, 1.0);
            t * t * (3.0 - 2.0 * t)
        }),
        ("#a# % (#a# * 0.0 + 0.75)", |a| a % 0.75),
        ("modf(#a#).fract + modf(#a#).whole * 100.0", |a| {
            a.fract() + a.trunc() * 100.0
        }),
        ("ldexp(frexp(#a#).fract, frexp(#a#).exp)", |a| a),
        ("quantizeToF16(#a#)", |a| {
            f64::from(f32::from_bits((a as f32).to_bits()))
        }),
    ];
    for (body, want) in &cases[..12] {
        check(body, want, &VALUES);
    }
    let (body, want) = cases[12];
    check(body, want, &[1.0, -0.5, 2.5, 0.0]);
}

#[test]
fn geometry() {
    if !driver() {
        return;
    }
    let body = "
        let a = vec3<f32>(bitcast<f32>(x[0]), 2.0, -2.0); let b = vec3<f32>(0.0, 3.0, 4.0);
        y[0] = bitcast<u32>(dot(a, b)); y[1] = bitcast<u32>(length(a)); y[2] = bitcast<u32>(distance(a, b)); y[3] = bitcast<u32>(cross(a, b).x); y[4] = bitcast<u32>(normalize(b).z);
        y[5] = bitcast<u32>(reflect(a, vec3<f32>(0.0, 1.0, 0.0)).y); y[6] = bitcast<u32>(faceForward(a, a, b).y); y[7] = bitcast<u32>(refract(vec2<f32>(0.0, -1.0), vec2<f32>(0.0, 1.0), 0.5).y);
        y[8] = bitcast<u32>(length(a.x)); y[9] = bitcast<u32>(mix(a, b, 0.5).y); y[10] = bitcast<u32>(distance(a.x, 3.0));";
    let got = floats(&Shader::new(body).run(&bits(&[1.0]), 11));
    let want = [
        -2.0,
        3.0,
        38f32.sqrt(),
        14.0,
        0.8,
        -2.0,
        2.0,
        -1.0,
        1.0,
        2.5,
        2.0,
    ];
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() < 1e-5, "{i}: {got}, not {want}");
    }
}
