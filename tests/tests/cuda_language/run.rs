//! One shader with an input `x` and an output `y` of 32-bit words.

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga_cuda::{BoundsPolicy, Options};
use shardlight_tests::cuda::launch;

pub use shardlight_tests::cuda::there as driver;

/// A shader: declarations, and the body of an entry point with `lane` and bindings `x` and `y`.
pub struct Shader<'a> {
    pub declarations: &'a str,
    pub threads: u32,
    pub blocks: u32,
    pub body: &'a str,
    pub bounds: BoundsPolicy,
}

impl<'a> Shader<'a> {
    pub fn new(body: &'a str) -> Self {
        Shader {
            declarations: "",
            threads: 1,
            blocks: 1,
            body,
            bounds: BoundsPolicy::Check,
        }
    }

    pub fn with(self, declarations: &'a str) -> Self {
        Shader {
            declarations,
            ..self
        }
    }

    pub fn threads(self, threads: u32) -> Self {
        Shader { threads, ..self }
    }

    /// The output of `words` words for this input.
    pub fn run(&self, x: &[u32], words: usize) -> Vec<u32> {
        let Shader {
            declarations,
            threads,
            body,
            ..
        } = self;
        let (extensions, declarations) = match declarations.split_once("---") {
            Some((extensions, rest)) => (extensions, rest),
            None => ("", *declarations),
        };
        let wgsl = format!(
            "{extensions}
            @group(0) @binding(0) var<storage, read> x: array<u32>;
            @group(0) @binding(1) var<storage, read_write> y: array<u32>;
            {declarations}
            @compute @workgroup_size({threads}) fn main(
                @builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) group: vec3<u32>,
                @builtin(subgroup_invocation_id) sub_lane: u32, @builtin(subgroup_id) sub: u32,
            ) {{ {body} }}"
        );
        self.run_text(&wgsl, x, x.len() as u32, words)
    }

    /// The output of a whole text, whose `x` ends in `count` elements.
    pub fn run_text(&self, wgsl: &str, x: &[u32], count: u32, words: usize) -> Vec<u32> {
        let module = naga::front::wgsl::parse_str(wgsl)
            .unwrap_or_else(|e| panic!("{}", e.emit_to_string(wgsl)));
        let info = Validator::new(ValidationFlags::all(), Capabilities::all())
            .validate(&module)
            .unwrap_or_else(|e| panic!("{}", e.emit_to_string(wgsl)));
        let options = Options {
            bounds: self.bounds,
            ..Options::new("main")
        };
        let output = naga_cuda::write(&module, &info, &options).unwrap_or_else(|e| panic!("{e}"));
        launch(&output, self.blocks, x, count, words)
    }
}

/// The bits of floats.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The bits of integers.
pub fn words(values: &[i32]) -> Vec<u32> {
    values.iter().map(|v| *v as u32).collect()
}

/// Floats from their bits.
pub fn floats(words: &[u32]) -> Vec<f32> {
    words.iter().map(|w| f32::from_bits(*w)).collect()
}
