// negative_log: -ln(u) for u in (0, 1), also where u is near 1: WGSL's log is off by 2^-21 there,
// more than the result. 1 - u is exact for u > 0.5; -ln(1 - d) = 2 atanh(d / (2 - d)).

fn negative_log(u: f32) -> f32 {
    let d = 1.0 - u;
    let s = d / (2.0 - d);
    let s2 = s * s;
    var series = 1.0 / 15.0;
    series = series * s2 + 1.0 / 13.0;
    series = series * s2 + 1.0 / 11.0;
    series = series * s2 + 1.0 / 9.0;
    series = series * s2 + 1.0 / 7.0;
    series = series * s2 + 1.0 / 5.0;
    series = series * s2 + 1.0 / 3.0;
    series = series * s2 + 1.0;
    return select(-log(u), 2.0 * s * series, u > 0.5);
}
