//! Subgroups, which are warps, and cooperative matrices.

use crate::run::{Shader, driver, floats};

/// Runs for whole and for partial warps; `want` gets the values of a warp and a lane of it.
fn check(body: &str, want: impl Fn(&[u32], usize) -> u32) {
    for threads in [32u32, 64, 48, 5] {
        let x: Vec<u32> = (0..threads).map(|i| (i * 7 + 3) % 23 + 1).collect();
        let text = format!("let a = x[lane]; y[lane] = {body};");
        let got = Shader::new(&text).threads(threads).run(&x, x.len());
        for (warp, (values, got)) in x.chunks(32).zip(got.chunks(32)).enumerate() {
            for (lane, got) in got.iter().enumerate() {
                let want = want(values, lane);
                assert_eq!(
                    *got, want,
                    "{body}, {threads} threads, warp {warp}, lane {lane}"
                );
            }
        }
    }
}

#[test]
fn reductions_and_scans() {
    if !driver() {
        return;
    }
    check("subgroupAdd(a)", |v, _| v.iter().sum());
    check("subgroupMul(a)", |v, _| {
        v.iter().fold(1, |p, a| p.wrapping_mul(*a))
    });
    check("subgroupMin(a)", |v, _| {
        v.iter().copied().min().unwrap_or(0)
    });
    check("subgroupMax(a)", |v, _| {
        v.iter().copied().max().unwrap_or(0)
    });
    check("subgroupAnd(a | 64u)", |v, _| {
        v.iter().fold(!0, |p, a| p & (a | 64))
    });
    check("subgroupOr(a)", |v, _| v.iter().fold(0, |p, a| p | a));
    check("subgroupXor(a)", |v, _| v.iter().fold(0, |p, a| p ^ a));
    check("subgroupInclusiveAdd(a)", |v, lane| v[..=lane].iter().sum());
    check("subgroupExclusiveAdd(a)", |v, lane| v[..lane].iter().sum());
    let product = |v: &[u32]| v.iter().fold(1u32, |p, a| p.wrapping_mul(*a));
    check("subgroupInclusiveMul(a)", |v, lane| product(&v[..=lane]));
    check("subgroupExclusiveMul(a)", |v, lane| product(&v[..lane]));
    check("u32(f32(subgroupAdd(f32(a) * 0.5)) * 2.0)", |v, _| {
        v.iter().sum()
    });
    check("subgroupAdd(vec3<u32>(a, 1u, a * 2u)).z", |v, _| {
        2 * v.iter().sum::<u32>()
    });
    check("bitcast<u32>(subgroupMin(-bitcast<i32>(a)))", |v, _| {
        v.iter().max().unwrap_or(&0).wrapping_neg()
    });
}

#[test]
fn votes_and_exchanges() {
    if !driver() {
        return;
    }
    check(
        "u32(subgroupAll(a > 0u)) + 2u * u32(subgroupAny(a == 1000u))",
        |_, _| 1,
    );
    check("subgroupBallot(a > 12u).x", |v, _| {
        let bit = |(i, a): (usize, &u32)| u32::from(*a > 12) << i;
        v.iter().enumerate().map(bit).sum()
    });
    check("subgroupBroadcast(a, 3u)", |v, _| v[3]);
    check("subgroupBroadcastFirst(a)", |v, _| v[0]);
    // A lane that is not there gives anything.
    let there = |v: &[u32], from: usize, or: u32| v.get(from).copied().unwrap_or(or);
    check("subgroupShuffle(a, (sub_lane * 3u) % 5u)", |v, lane| {
        v[lane * 3 % 5]
    });
    check(
        "select(0u, subgroupShuffleXor(a, 1u), (lane ^ 1u) < arrayLength(&x))",
        |v, lane| there(v, lane ^ 1, 0),
    );
    check(
        "select(0u, subgroupShuffleUp(a, 2u), sub_lane >= 2u)",
        |v, lane| lane.checked_sub(2).map_or(0, |from| v[from]),
    );
    check(
        "select(0u, subgroupShuffleDown(a, 2u), sub_lane + 2u < 32u && lane + 2u < arrayLength(&x))",
        |v, lane| there(v, lane + 2, 0),
    );
    check("sub * 32u + sub_lane - lane", |_, _| 0);
}

#[test]
fn cooperative_matrices_multiply() {
    if !driver() {
        return;
    }
    let declarations = "enable f16; enable wgpu_cooperative_matrix;---
        var<workgroup> a: array<f16, 256>; var<workgroup> b: array<f16, 320>; var<workgroup> c: array<f32, 256>; var<workgroup> d: array<f16, 256>;";
    let body = "
        for (var i = lane; i < 256u; i += 32u) { a[i] = f16(i % 7u) - 3.0h; b[i / 16u * 20u + i % 16u] = f16(i % 5u) * 0.5h; c[i] = f32(i); d[i] = 1.0h; }
        workgroupBarrier();
        let p = coopLoadT<coop_mat16x16<f16, A>>(&a[0], 16u);
        let q = coopLoad<coop_mat16x16<f16, B>>(&b[0], 20u);
        var sum = coopLoadT<coop_mat16x16<f32, C>>(&c[0], 16u);
        sum = coopMultiplyAdd(p, q, sum) * 2.0;
        coopStore(sum, &c[0], 16u);
        var half = coopMultiplyAdd(p, q, coopLoadT<coop_mat16x16<f16, C>>(&d[0], 16u));
        coopStoreT(half + half, &d[0], 16u);
        workgroupBarrier();
        for (var i = lane; i < 256u; i += 32u) { y[i] = bitcast<u32>(c[i]); y[256u + i] = bitcast<u32>(f32(d[i])); }";
    let got = floats(
        &Shader::new(body)
            .with(declarations)
            .threads(32)
            .run(&[0], 512),
    );
    let a = |row: usize, k: usize| ((row * 16 + k) % 7) as f32 - 3.0;
    // Columns lie one behind the other.
    let b = |k: usize, column: usize| ((column * 16 + k) % 5) as f32 * 0.5;
    for row in 0..16 {
        for column in 0..16 {
            let product: f32 = (0..16).map(|k| a(row, k) * b(k, column)).sum();
            let want = 2.0 * (product + (row * 16 + column) as f32);
            assert_eq!(got[column * 16 + row], want, "row {row}, column {column}");
            let want = 2.0 * (product + 1.0);
            assert_eq!(
                got[256 + row * 16 + column],
                want,
                "f16, row {row}, column {column}"
            );
        }
    }
}
