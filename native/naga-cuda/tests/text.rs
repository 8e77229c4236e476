//! The text of small shaders. What they compute is tested where they run.

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga_cuda::{BoundsPolicy, Error, Options, Output, Space, write};

fn written(wgsl: &str, options: &Options<'_>) -> Result<Output, Error> {
    let module =
        naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|e| panic!("{}", e.emit_to_string(wgsl)));
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .unwrap_or_else(|e| panic!("{}", e.emit_to_string(wgsl)));
    write(&module, &info, options)
}

/// The program behind the prelude.
fn program(wgsl: &str, options: &Options<'_>) -> String {
    let output = written(wgsl, options).unwrap_or_else(|e| panic!("{e}"));
    let (_, program) = output
        .source
        .split_once("}  // namespace wgsl\n")
        .expect("the prelude ends");
    program.to_string()
}

/// The statements of `main`.
fn statements(body: &str) -> String {
    let wgsl = format!(
        "@group(0) @binding(0) var<storage, read_write> x: array<i32>;\n@compute @workgroup_size(32) fn main() {{ {body} }}"
    );
    let text = program(&wgsl, &Options::new("main"));
    let (_, body) = text.split_once("main_f() {\n").expect("there is a main");
    let (body, _) = body.split_once("\n    }\n").expect("it ends");
    body.lines()
        .map(str::trim)
        .filter(|l| *l != "return;")
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn bindings_are_in_order_with_sizes_and_strides() {
    let wgsl = "
        struct Block { n: u32, scale: f32, rows: array<vec3<f32>> }
        struct Args { a: u32, b: vec3<f32>, c: f32 }
        @group(0) @binding(3) var<uniform> args: Args;
        @group(0) @binding(0) var<storage, read> block: Block;
        @group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
        @group(1) @binding(0) var<storage, read_write> one: u32;
        @compute @workgroup_size(8, 4, 2) fn main() {
            y[0] = vec4<f32>(block.rows[args.a], args.c); one = arrayLength(&block.rows);
        }";
    let output = written(wgsl, &Options::new("main")).expect("it can be written");
    assert_eq!(output.workgroup_size, [8, 4, 2]);
    let found: Vec<_> = output
        .bindings
        .iter()
        .map(|b| (b.group, b.binding, b.space, b.bytes, b.stride))
        .collect();
    let storage = |writable| Space::Storage { writable };
    assert_eq!(
        found,
        [
            (0, 0, storage(false), 16, Some(16)),
            (0, 1, storage(true), 0, Some(16)),
            (0, 3, Space::Uniform, 32, None),
            (1, 0, storage(true), 4, None),
        ]
    );
    let kernel = "main_k(const Block_t4 *__restrict__ block_g1, wgsl::vec<f32, 4> *__restrict__ y_g2, const Args_t5 *__restrict__ args_g0, u32 *__restrict__ one_g3, u32 block_g1_length, u32 y_g2_length)";
    assert!(output.source.contains(kernel), "{}", output.source);
    // A scalar lies behind a vector of three.
    let args =
        "    u32 a_0;\n    unsigned char pad_0[12];\n    wgsl::vec<f32, 3> b_1;\n    f32 c_2;\n";
    assert!(output.source.contains(args), "{}", output.source);
}

#[test]
fn an_index_is_treated_as_the_policy_says() {
    let wgsl = "
        @group(0) @binding(0) var<storage, read_write> x: array<f32>;
        @compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) { x[id.x] = 1.0; }";
    let with = |bounds| {
        let options = Options {
            bounds,
            ..Options::new("main")
        };
        program(wgsl, &options)
    };
    let unchecked = with(BoundsPolicy::Unchecked);
    assert!(unchecked.contains("x_g0[id_a0.x] = (1.0f);"), "{unchecked}");
    let restricted = with(BoundsPolicy::Restrict);
    let index = "x_g0[wgsl::restrict_index(id_a0.x, x_g0_length)]";
    assert!(restricted.contains(index), "{restricted}");
    let checked = with(BoundsPolicy::Check);
    let index = "x_g0[wgsl::check_index(id_a0.x, x_g0_length)]";
    assert!(checked.contains(index), "{checked}");
}

#[test]
fn workgroup_memory_starts_as_zeros_unless_told_otherwise() {
    let wgsl = "
        var<workgroup> tile: array<f32, 64>;
        @group(0) @binding(0) var<storage, read_write> x: array<f32>;
        @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) { x[i] = tile[63 - i]; }";
    let text = program(wgsl, &Options::new("main"));
    assert!(
        text.contains("__shared__ wgsl::array<f32, 64, 4> tile_g0;"),
        "{text}"
    );
    assert!(
        text.contains("wgsl::zero(tile_g0);\n    __syncthreads();"),
        "{text}"
    );
    let options = Options {
        zero_workgroup_memory: false,
        ..Options::new("main")
    };
    assert!(!program(wgsl, &options).contains("wgsl::zero"));
}

#[test]
fn a_continue_jumps_behind_the_body() {
    let text = statements("for (var i = 0; i < 4; i++) { if x[i] == 0 { continue; } x[i] = 1; }");
    assert!(text.contains("goto continue_0;"), "{text}");
    let (body, behind) = text.split_once("}\ncontinue_0:;\n").expect("a label");
    assert!(body.contains("x_g0["), "{text}");
    assert!(behind.contains("i_l0 = wgsl::add("), "{text}");
    let text = statements("for (var i = 0; i < 4; i++) { x[i] = 1; }");
    assert!(!text.contains("continue_0"), "{text}");
}

#[test]
fn a_value_of_the_body_is_declared_for_what_follows_it() {
    let body = "var i = 0; loop { let n = x[i]; if n == 7 { i = 0; continue; } x[0] = n; continuing { i = i + n; break if n > 3; } }";
    let text = statements(body);
    let (before, after) = text
        .split_once("{\nconst")
        .or(text.split_once("{\nn_e"))
        .expect("a body");
    assert!(before.contains("\ni32 n_e"), "{text}");
    assert!(!after.contains("const i32 n_e"), "{text}");
}

#[test]
fn overrides_take_their_values() {
    let wgsl = "
        override N: u32 = 4;
        override SCALE: f32;
        @group(0) @binding(0) var<storage, read_write> x: array<f32>;
        @compute @workgroup_size(N) fn main() { x[0] = SCALE; }";
    let mut options = Options::new("main");
    let e = written(wgsl, &options).expect_err("one has no value");
    assert!(matches!(e, Error::Overrides(_)), "{e}");
    options.constants.insert("SCALE".into(), 0.5);
    options.constants.insert("N".into(), 96.0);
    let output = written(wgsl, &options).expect("all have values");
    assert_eq!(output.workgroup_size, [96, 1, 1]);
    assert!(output.source.contains("= (0.5f);"), "{}", output.source);
}

#[test]
fn what_cuda_has_not_is_an_error() {
    let wgsl = "
        @group(0) @binding(0) var image: texture_2d<f32>;
        @group(0) @binding(1) var<storage, read_write> x: array<f32>;
        @compute @workgroup_size(1) fn main() { x[0] = textureLoad(image, vec2<u32>(0u), 0).x; }";
    let e = written(wgsl, &Options::new("main")).expect_err("no images");
    assert_eq!(
        e.to_string(),
        "variable Some(\"image\") cannot be written as CUDA C++"
    );
    let e = written(
        "@compute @workgroup_size(1) fn main() {}",
        &Options::new("other"),
    )
    .expect_err("no such entry point");
    assert_eq!(e.to_string(), "no compute entry point \"other\"");
}

#[test]
fn names_of_cplusplus_and_unicode_do_no_harm() {
    let text = statements("var float = 1; let größe = float + x[0]; x[0] = größe * größe;");
    assert!(text.contains("i32 float_l0 = 1;"), "{text}");
    assert!(text.is_ascii(), "{text}");
}

#[test]
fn cooperative_matrices_are_loaded_once() {
    let wgsl = "
        enable f16;
        enable wgpu_cooperative_matrix;
        @group(0) @binding(0) var<storage, read> a: array<f16>;
        @group(0) @binding(1) var<storage, read> b: array<f16>;
        @group(0) @binding(2) var<storage, read_write> c: array<f32>;
        @compute @workgroup_size(32) fn main() {
            let x = coopLoadT<coop_mat16x16<f16, A>>(&a[0], 16u);
            let y = coopLoad<coop_mat16x16<f16, B>>(&b[0], 16u);
            var sum = coopLoadT<coop_mat16x16<f32, C>>(&c[0], 16u);
            sum = coopMultiplyAdd(x, y, sum);
            coopStoreT(sum, &c[0], 16u);
        }";
    let options = Options {
        bounds: BoundsPolicy::Unchecked,
        ..Options::new("main")
    };
    let text = program(wgsl, &options);
    for line in [
        "const wgsl::coop<wgsl::f16, wgsl::COOP_A> x_e3 = wgsl::coop_load<wgsl::f16, wgsl::COOP_A, true>(&a_g0[0u], 16u);",
        "wgsl::coop_load<wgsl::f16, wgsl::COOP_B, false>(&b_g1[0u], 16u);",
        "wgsl::coop_store<true>(_e15, &c_g2[0u], 16u);",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let fewer = wgsl.replace("@workgroup_size(32)", "@workgroup_size(48)");
    let e = written(&fewer, &options).expect_err("48 is no multiple of 32");
    assert!(e.to_string().contains("48 invocations"), "{e}");
}
