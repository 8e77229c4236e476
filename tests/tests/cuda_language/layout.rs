//! Where the parts of structs, arrays, vectors and matrices lie.

use crate::run::{Shader, driver, floats};

#[test]
fn vectors_are_taken_apart_and_put_together() {
    if !driver() {
        return;
    }
    let body = "
        var v = vec4<u32>(x[0], x[1], vec2<u32>(x[2], x[3])); let k = x[0];
        y[0] = v.wzyx.x; y[1] = v[k]; v[k + 1u] = 50u; y[2] = v.z; v.x = 9u; y[3] = v.xxy.y; v.w += 1u; y[4] = v.w;
        let w = vec3<u32>(v.xy, 7u); y[5] = w.z * w.x; y[6] = u32(all(w > vec3<u32>(1u))); y[7] = u32(any(w == vec3<u32>(7u)));
        y[8] = select(vec2<u32>(1u, 2u), vec2<u32>(3u, 4u), vec2<bool>(false, true)).y; y[9] = select(5u, 6u, k == 1u);
        y[10] = dot(vec3<u32>(1u, 2u, 3u), w); let u = vec4<u32>(1u, vec2<u32>(2u, 3u), 4u); y[11] = u.y * 10u + u.w; y[12] = (u * 3u + 1u).z;";
    let got = Shader::new(body).run(&[1, 2, 3, 4], 13);
    assert_eq!(got, [4, 2, 50, 9, 5, 63, 1, 1, 4, 6, 9 + 4 + 21, 24, 10]);
}

#[test]
fn structs_lie_in_memory_as_wgsl_says() {
    if !driver() {
        return;
    }
    // The words of y are written through one view and read through another.
    let declarations = "
        struct Inner { a: vec3<f32>, b: f32, c: array<vec3<f32>, 2> }
        struct Outer { n: u32, inner: Inner, m: mat3x3<f32>, small: mat2x2<f32>, tail: array<f32, 3> }
        var<workgroup> outer: Outer;
        var<workgroup> rows: array<Inner, 2>;";
    let body = "
        outer.inner = Inner(vec3(1.0, 2.0, 3.0), 4.0, array<vec3<f32>, 2>(vec3(5.0), vec3(6.0, 7.0, 8.0)));
        outer.m = mat3x3<f32>(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0); outer.small[1] = vec2(3.0, 4.0); outer.tail[2] = 11.0;
        let k = x[0];
        rows[k] = outer.inner; rows[k].c[k].y = 70.0;
        y[0] = bitcast<u32>(rows[1].a.z + rows[1].b); y[1] = bitcast<u32>(rows[1].c[1].y); y[2] = bitcast<u32>(outer.m[k].y); y[3] = bitcast<u32>(outer.m[2][k]);
        y[4] = bitcast<u32>(outer.small[1].y + outer.small[0].x); y[5] = bitcast<u32>(outer.tail[2] + outer.tail[k]); y[6] = bitcast<u32>(outer.inner.c[1].z);
        outer.m[k][2] = 60.0; let column = outer.m[1]; y[7] = bitcast<u32>(column.z);";
    let got = Shader::new(body).with(declarations).run(&[1], 8);
    assert_eq!(floats(&got), [7.0, 70.0, 5.0, 8.0, 4.0, 11.0, 8.0, 60.0]);
}

#[test]
fn bindings_are_read_with_wgsls_offsets() {
    if !driver() {
        return;
    }
    // The same 28 words as numbers and as a struct.
    let text = "
        struct Inner { a: vec3<f32>, b: f32 }
        struct All { n: u32, inner: Inner, two: vec2<f32>, m: mat2x3<f32>, rest: array<Inner> }
        @group(0) @binding(0) var<storage, read> x: All;
        @group(0) @binding(1) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(1) fn main() {
            y[0] = f32(x.n); y[1] = x.inner.a.y; y[2] = x.inner.b; y[3] = x.two.y; y[4] = x.m[1].z; y[5] = x.rest[1].b; y[6] = f32(arrayLength(&x.rest));
        }";
    let words: Vec<u32> = (0..28).map(|i| (i as f32).to_bits()).collect();
    let mut words = words;
    words[0] = 3;
    let shader = Shader::new("");
    // Word 4: inner; 8: two; 12: the matrix; 20: the array, of which two elements are there.
    let got = shader.run_text(text, &words, 2, 7);
    assert_eq!(floats(&got), [3.0, 5.0, 7.0, 9.0, 18.0, 27.0, 2.0]);
}

#[test]
fn matrices_multiply() {
    if !driver() {
        return;
    }
    let body = "
        let a = mat2x3<f32>(1.0, 2.0, 3.0, 4.0, 5.0, 6.0); let b = mat3x2<f32>(7.0, 8.0, 9.0, 10.0, 11.0, 12.0);
        let c = a * b; let d = a * vec2<f32>(1.0, -1.0); let e = vec3<f32>(1.0, 0.0, 2.0) * a; let f = transpose(a); let g = (a + a - a * 0.5) * 2.0;
        y[0] = bitcast<u32>(c[2].z); y[1] = bitcast<u32>(c[0].x); y[2] = bitcast<u32>(d.y); y[3] = bitcast<u32>(e.y); y[4] = bitcast<u32>(f[2].x); y[5] = bitcast<u32>(g[1].y);
        y[6] = bitcast<u32>(determinant(mat2x2<f32>(1.0, 2.0, 3.0, 4.0))); y[7] = bitcast<u32>(determinant(mat3x3<f32>(2.0, 0.0, 1.0, 1.0, 3.0, 2.0, 1.0, 1.0, 4.0)));
        y[8] = bitcast<u32>(determinant(mat4x4<f32>(2.0, 0.0, 1.0, 3.0, 1.0, 3.0, 2.0, 0.0, 1.0, 1.0, 4.0, 1.0, 0.0, 2.0, 1.0, 1.0)));
        let s = mat2x2<f32>(1.0, 2.0, 3.0, 4.0); let t = s * s; y[9] = bitcast<u32>(t[1].x);";
    let got = floats(&Shader::new(body).run(&[0], 10));
    // c[2] = 11 (1, 2, 3) + 12 (4, 5, 6); e.y = (1, 0, 2) . (4, 5, 6); t[1] = 3 (1, 2) + 4 (3, 4).
    assert_eq!(got[..8], [105.0, 39.0, -3.0, 16.0, 3.0, 15.0, -2.0, 18.0]);
    let rows = [
        [2.0f64, 1.0, 1.0, 0.0],
        [0.0, 3.0, 1.0, 2.0],
        [1.0, 2.0, 4.0, 1.0],
        [3.0, 0.0, 1.0, 1.0],
    ];
    assert_eq!(f64::from(got[8]), determinant(rows));
    assert_eq!(got[9], 15.0);
}

/// By elimination with exchanges of rows.
fn determinant(mut m: [[f64; 4]; 4]) -> f64 {
    let mut product = 1.0;
    for i in 0..4 {
        let pivot = (i..4)
            .max_by(|a, b| m[*a][i].abs().total_cmp(&m[*b][i].abs()))
            .unwrap_or(i);
        if pivot != i {
            m.swap(i, pivot);
            product = -product;
        }
        product *= m[i][i];
        for j in i + 1..4 {
            let factor = m[j][i] / m[i][i];
            let row = m[i];
            for (value, above) in m[j].iter_mut().zip(row).skip(i) {
                *value -= factor * above;
            }
        }
    }
    product.round()
}
