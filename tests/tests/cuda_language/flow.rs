//! Loops, switches, functions, pointers, barriers, atomics, indices beyond the end.

use naga_cuda::BoundsPolicy;

use crate::run::{Shader, driver, words};

#[test]
fn loops_continue_and_break() {
    if !driver() {
        return;
    }
    let body = "
        for (var i = 0u; i < 10u; i++) { if i % 3u == 0u { continue; } if i == 8u { break; } y[0] += i; }
        var i = 0u;
        loop { let square = i * i; i++; if square % 2u == 1u { continue; } y[1] += square; continuing { y[2] += square; break if square > 50u; } }
        for (var a = 0u; a < 3u; a++) { for (var b = 0u; b < 5u; b++) { if b == a { continue; } switch b { case 3u: { break; } default: { y[3] += 1u; } } if b == 4u { break; } } }
        while y[4] < 7u { y[4] += 2u; }
        var sum = 0u;
        loop { var fresh: u32; fresh += 5u; sum += fresh; if sum > 20u { break; } }
        y[5] = sum;";
    let got = Shader::new(body).run(&[0], 6);
    let squares: Vec<u32> = (0..=8).map(|i| i * i).collect();
    let even: u32 = squares.iter().filter(|s| *s % 2 == 0).sum();
    // 1 + 2 + 4 + 5 + 7; each row of the third loop leaves out its own column and column 3.
    assert_eq!(got, [19, even, squares.iter().sum(), 9, 8, 25]);
}

#[test]
fn a_switch_takes_its_case() {
    if !driver() {
        return;
    }
    let body = "for (var i = 0; i < 6; i++) { switch i - 1 { case -1: { y[i] = 10u; } default: { y[i] = 20u; } case 1, 3: { if i == 4 { break; } y[i] = 30u; } case 4: { y[i] = 40u; return; } } y[i] += 1u; }";
    assert_eq!(Shader::new(body).run(&[0], 6), [11, 21, 31, 21, 1, 40]);
}

#[test]
fn functions_take_values_and_pointers() {
    if !driver() {
        return;
    }
    let declarations = "
        struct Pair { a: u32, b: vec2<u32> }
        var<private> counter: u32 = 5u;
        const TABLE = array<u32, 4>(3u, 1u, 4u, 1u);
        const POINTS = array<vec2<u32>, 2>(vec2(7u, 8u), vec2(9u, 10u));
        fn bump(p: ptr<function, u32>, by: u32) -> u32 { let before = *p; *p += by; return before; }
        fn bump_private(p: ptr<private, u32>) { *p += 1u; counter *= 2u; }
        fn swap(p: Pair) -> Pair { return Pair(p.b.x, vec2(p.b.y, p.a)); }
        fn total(values: array<u32, 4>) -> u32 { var copy = values; copy[0] += 100u; var sum = 0u; for (var i = 0; i < 4; i++) { sum += copy[i]; } return sum; }
        fn first(v: vec2<u32>) -> u32 { return v[0]; }";
    let body = "
        var n = 2u; y[0] = bump(&n, 7u); y[1] = n;
        bump_private(&counter); y[2] = counter;
        y[3] = bump(&n, 1u) + n;
        let p = swap(Pair(1u, vec2(2u, 3u))); y[4] = p.a * 100u + p.b.x * 10u + p.b.y;
        var values = TABLE; y[5] = total(values); y[6] = values[0] + TABLE[x[0]];
        y[7] = first(POINTS[x[0] - 1u]);
        var grid = array<array<u32, 2>, 2>(); grid[x[0] - 1u][0] = 6u; let row = grid[1]; y[8] = row[0] + grid[0][x[0] - 2u];";
    let got = Shader::new(body).with(declarations).run(&[2], 9);
    assert_eq!(got, [2, 9, 12, 19, 231, 109, 7, 9, 6]);
}

#[test]
fn barriers_order_workgroup_memory() {
    if !driver() {
        return;
    }
    let declarations = "var<workgroup> tile: array<u32, 96>; var<workgroup> flag: u32;";
    let body = "
        tile[lane] = x[lane];
        workgroupBarrier();
        for (var half = 64u; half > 0u; half /= 2u) { if lane < half && lane + half < 96u { tile[lane] += tile[lane + half]; } workgroupBarrier(); }
        if lane == 40u { flag = tile[0]; }
        y[lane] = workgroupUniformLoad(&flag) + lane;";
    let x: Vec<u32> = (0..96).collect();
    let sum: u32 = x.iter().sum();
    let want: Vec<u32> = x.iter().map(|i| sum + i).collect();
    assert_eq!(
        Shader::new(body).with(declarations).threads(96).run(&x, 96),
        want
    );
}

#[test]
fn invocations_that_return_are_not_waited_for() {
    if !driver() {
        return;
    }
    // No barrier follows: WGSL wants those in uniform control flow.
    let body = "if lane % 3u == 1u { return; } y[lane] = x[lane] + group.x;";
    let x: Vec<u32> = (100..164).collect();
    let got = Shader::new(body).threads(64).run(&x, 64);
    let want = |(i, x): (usize, &u32)| if i % 3 == 1 { 0 } else { *x };
    assert_eq!(got, x.iter().enumerate().map(want).collect::<Vec<_>>());
}

#[test]
fn atomics_count_over_all_workgroups() {
    if !driver() {
        return;
    }
    let body = "
        atomicAdd(&here, 2u); workgroupBarrier();
        if lane == 0u { y[group.x] = atomicLoad(&here); }";
    let shader = Shader {
        blocks: 7,
        ..Shader::new(body)
            .with("var<workgroup> here: atomic<u32>;")
            .threads(64)
    };
    assert_eq!(shader.run(&[0], 7), [128; 7]);
    let declarations = "var<workgroup> s: atomic<i32>; var<workgroup> m: atomic<u32>; var<workgroup> n: atomic<i32>; var<workgroup> o: atomic<u32>; var<workgroup> c: atomic<u32>; var<workgroup> e: atomic<u32>;";
    let body = "
        if lane == 0u { atomicStore(&n, 1000); atomicStore(&e, 77u); }
        workgroupBarrier();
        atomicSub(&s, i32(lane)); atomicMax(&m, lane * 3u); atomicMin(&n, 500 - i32(lane)); atomicOr(&o, 1u << (lane % 32u)); atomicXor(&o, 0u); atomicAnd(&o, ~4u);
        let swapped = atomicCompareExchangeWeak(&c, 0u, lane + 1u);
        if swapped.exchanged { y[6] = u32(atomicLoad(&c) == lane + 1u) + swapped.old_value; }
        let old = atomicExchange(&e, lane);
        if old == 77u { y[7] += 1u; }
        workgroupBarrier();
        if lane == 0u { y[0] = bitcast<u32>(atomicLoad(&s)); y[1] = atomicLoad(&m); y[2] = bitcast<u32>(atomicLoad(&n)); y[3] = atomicLoad(&o) | 4u; y[4] = u32(atomicLoad(&c) > 0u); y[5] = u32(atomicLoad(&e) < 64u); }";
    let got = Shader::new(body)
        .with(declarations)
        .threads(64)
        .run(&[0], 8);
    let sum: i32 = (0..64).sum();
    assert_eq!(got, words(&[-sum, 63 * 3, 437, -1, 1, 1, 1, 1]));
}

#[test]
fn an_index_beyond_the_end_takes_the_last_element() {
    if !driver() {
        return;
    }
    let body = "var v = vec3<u32>(1u, 2u, 3u); var a = array<u32, 2>(5u, 6u); let far = x[2];
        y[0] = x[far]; y[1] = v[far]; y[2] = a[far]; v[far] = 9u; y[3] = v.z; y[4] = arrayLength(&x); y[5] = arrayLength(&y); y[far] = 8u;";
    let shader = Shader {
        bounds: BoundsPolicy::Restrict,
        ..Shader::new(body)
    };
    assert_eq!(
        shader.run(&[10, 20, 1_000_000], 7),
        [1_000_000, 3, 6, 9, 3, 7, 8]
    );
}
