//! The kernels: one file per `.wgsl` file, with parameters, variants, an f64 reference and test
//! cases. [`KERNELS`] lists them; tests, benches and the support table come from that list.
//!
//! A [`Kernel`] is data. A GPU device chooses a [`Variant`] by its [`Limits`], specialises the
//! WGSL and compiles it; the CPU device calls [`Kernel::cpu`].

pub mod act;
pub mod activation;
pub mod activation_backward;
pub mod add;
pub mod all_reduce;
pub mod argmax;
pub mod attention;
pub mod attention_mask;
pub mod attention_rules;
pub mod attention_scores;
pub mod axis;
pub mod case;
pub mod column_sum;
pub mod conv;
pub mod copy;
pub mod cross_entropy;
pub mod dequantize_linear;
pub mod differential_entropy;
pub mod dropout;
pub mod embedding;
pub mod exchange_combine;
pub mod exchange_order;
pub mod exchange_pack;
pub mod exchange_rows;
pub mod exchange_unpack;
pub mod expert_combine;
pub mod expert_count;
pub mod expert_nest;
pub mod expert_order;
pub mod expert_positions;
pub mod expert_scatter;
pub mod gated_activation;
pub mod gated_activation_backward;
pub mod gated_mlp;
pub mod gemm;
pub mod group_cross_entropy;
pub mod gru;
pub mod gumbel;
pub mod jitter;
pub mod kv_append;
pub mod label_weight;
mod linear;
pub mod load_loss;
pub mod logit;
pub mod lstm;
pub mod matmul;
pub mod matmul_integer;
pub mod matvec;
pub mod max_pool;
pub mod noisy_load;
pub mod noisy_logits;
pub mod noisy_top_k_backward;
pub mod norm;
pub mod norm_backward;
pub mod norm_backward_weight;
pub mod one_hot;
pub mod pages;
pub mod philox;
pub mod qkv_append;
pub mod qkv_product;
pub mod quantize_activations;
pub mod quantized_dot;
pub mod quantized_matmul;
pub mod quantized_matvec;
pub mod random;
pub mod reduce_sum;
pub mod repeat_penalty;
pub mod rope;
pub mod router;
pub mod router_loss;
pub mod second_expert;
pub mod sequence;
pub mod softmax;
pub mod token_bitmask;
pub mod top_k;
pub mod transpose;
pub mod vocab_cross_entropy;
pub mod vocab_sums;
pub mod window;

use std::collections::BTreeMap;
use std::fmt;

use shardlight_shaders::{Constant, Specialization};

use crate::DType;
use crate::device::Limits;
use crate::device::cpu::CpuDispatch;

pub use act::Activation;
pub use axis::Axis;
pub use case::{Case, HostArray};
pub use exchange_order::Spread;
pub use expert_order::Order;
pub use gated_activation::Packing;
pub use linear::{Pairs, Size, with_norm};

/// Every kernel.
pub static KERNELS: &[&Kernel] = &[
    &activation::KERNEL,
    &activation_backward::KERNEL,
    &add::KERNEL,
    &all_reduce::KERNEL,
    &argmax::KERNEL,
    &attention::KERNEL,
    &attention_mask::KERNEL,
    &attention_scores::KERNEL,
    &column_sum::KERNEL,
    &conv::KERNEL,
    &copy::KERNEL,
    &cross_entropy::KERNEL,
    &dequantize_linear::KERNEL,
    &differential_entropy::KERNEL,
    &dropout::KERNEL,
    &embedding::KERNEL,
    &exchange_combine::KERNEL,
    &exchange_order::KERNEL,
    &exchange_pack::KERNEL,
    &exchange_rows::KERNEL,
    &exchange_unpack::KERNEL,
    &expert_combine::KERNEL,
    &expert_count::KERNEL,
    &expert_nest::KERNEL,
    &expert_order::KERNEL,
    &expert_positions::KERNEL,
    &expert_scatter::KERNEL,
    &gated_activation::KERNEL,
    &gated_activation_backward::KERNEL,
    &gated_mlp::KERNEL,
    &gemm::KERNEL,
    &group_cross_entropy::KERNEL,
    &gru::KERNEL,
    &gumbel::KERNEL,
    &jitter::KERNEL,
    &kv_append::KERNEL,
    &label_weight::KERNEL,
    &load_loss::KERNEL,
    &logit::KERNEL,
    &lstm::KERNEL,
    &matmul::KERNEL,
    &matmul_integer::KERNEL,
    &matvec::KERNEL,
    &max_pool::KERNEL,
    &noisy_load::KERNEL,
    &noisy_logits::KERNEL,
    &noisy_top_k_backward::KERNEL,
    &norm::KERNEL,
    &norm_backward::KERNEL,
    &norm_backward_weight::KERNEL,
    &one_hot::KERNEL,
    &qkv_append::KERNEL,
    &qkv_product::KERNEL,
    &quantize_activations::KERNEL,
    &quantized_dot::KERNEL,
    &quantized_matmul::KERNEL,
    &quantized_matvec::KERNEL,
    &random::KERNEL,
    &reduce_sum::KERNEL,
    &repeat_penalty::KERNEL,
    &rope::KERNEL,
    &router::KERNEL,
    &router_loss::KERNEL,
    &second_expert::KERNEL,
    &softmax::KERNEL,
    &token_bitmask::KERNEL,
    &top_k::KERNEL,
    &transpose::KERNEL,
    &vocab_cross_entropy::KERNEL,
    &vocab_sums::KERNEL,
];

/// What a kernel does with a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Storage, read only.
    Read,
    /// Storage, read and written (or only written).
    Write,
    /// A quantised or float weight in the device's own layout, read only.
    Weight,
    /// A small uniform buffer (`step`: what changes at each step).
    Uniform,
}

/// One `@binding`; its number is its place in [`Kernel::bindings`].
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Name in the shader.
    pub name: &'static str,
    /// What the kernel does with it.
    pub access: Access,
    /// May it be left out? The kernel's params then say so by a switch.
    pub optional: bool,
}

impl Binding {
    /// A binding that is always there.
    pub const fn new(name: &'static str, access: Access) -> Self {
        Binding {
            name,
            access,
            optional: false,
        }
    }

    /// A binding that may be left out.
    pub const fn optional(name: &'static str, access: Access) -> Self {
        Binding {
            name,
            access,
            optional: true,
        }
    }
}

/// A kernel's name, interface, implementations and tests.
pub struct Kernel {
    /// Name of the `.wgsl` file.
    pub name: &'static str,
    /// Storage and step bindings in order; the uniform `args`, if there are any
    /// [`Kernel::uniforms`], is the next number after them.
    pub bindings: &'static [Binding],
    /// Params that go into the uniform `struct Args` (u32 or f32, in this order) instead of into
    /// constants, so that one pipeline serves all their values.
    pub uniforms: &'static [&'static str],
    /// Variants that fit these params and limits, best first. Never empty: the last one fits
    /// every device that meets WebGPU's default limits.
    pub variants: fn(&Params, &Limits) -> Vec<Variant>,
    /// The CPU device's implementation.
    pub cpu: fn(&CpuDispatch<'_>),
    /// The definition: plain loops, f64 sums. Arrays are in binding order, weights decoded,
    /// omitted bindings empty; results are written into the `Write` arrays. Not in a browser.
    pub reference: fn(&Params, &mut [Vec<f64>]),
    /// Test cases. Not in a browser.
    pub cases: fn() -> Vec<Case>,
}

/// A kernel's reference, which only tests ask for: a page does not load it.
const fn definition(reference: fn(&Params, &mut [Vec<f64>])) -> fn(&Params, &mut [Vec<f64>]) {
    if cfg!(target_arch = "wasm32") {
        |_, _| unreachable!("references are not in the wasm")
    } else {
        reference
    }
}

/// A kernel's cases, likewise.
const fn checks(cases: fn() -> Vec<Case>) -> fn() -> Vec<Case> {
    if cfg!(target_arch = "wasm32") {
        || unreachable!("cases are not in the wasm")
    } else {
        cases
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// One way to run a kernel.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Name, unique within the kernel and the params: `workgroup`, `subgroup`, `serial`.
    pub name: &'static str,
    /// Constants beside the params' own: workgroup size, tile sizes.
    pub constants: Vec<(&'static str, Constant)>,
    /// `#if` switches beside the params' own.
    pub flags: Vec<&'static str>,
    /// Does the text use subgroup operations?
    pub subgroups: bool,
    /// Does the text use `f16`?
    pub f16: bool,
    /// Workgroups to dispatch.
    pub workgroups: [u32; 3],
}

impl Variant {
    /// A variant without constants, flags or features.
    pub fn new(name: &'static str, workgroups: [u32; 3]) -> Self {
        Variant {
            name,
            constants: Vec::new(),
            flags: Vec::new(),
            subgroups: false,
            f16: false,
            workgroups,
        }
    }

    /// Sets a `u32` constant.
    pub fn set(mut self, name: &'static str, value: u32) -> Self {
        self.constants.push((name, Constant::U32(value)));
        self
    }

    /// Sets a switch.
    pub fn flag(mut self, name: &'static str) -> Self {
        self.flags.push(name);
        self
    }

    /// Sets a switch if `on`.
    pub fn flag_if(self, name: &'static str, on: bool) -> Self {
        if on { self.flag(name) } else { self }
    }
}

/// Spreads `groups` workgroups over two dimensions when one is too small; the shader computes
/// `group.x + group.y * groups.x` and checks the end.
pub fn fold(groups: u32, limits: &Limits) -> [u32; 3] {
    if groups <= limits.max_workgroups {
        return [groups, 1, 1];
    }
    let y = groups.div_ceil(limits.max_workgroups);
    [groups.div_ceil(y), y, 1]
}

/// A parameter's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Size, count or index.
    U32(u32),
    /// Number.
    F32(f32),
    /// Switch, `#if NAME`.
    Bool(bool),
    /// Element type of a weight: `#import $NAME as …` takes the file of that name.
    DType(DType),
}

/// Named parameters of one call: the one place from which shader, CPU code and reference take
/// shapes and constants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params(BTreeMap<&'static str, Value>);

impl Params {
    /// No parameters.
    pub fn new() -> Self {
        Params::default()
    }

    /// Sets a size, count or index.
    pub fn u32(mut self, name: &'static str, value: u32) -> Self {
        self.0.insert(name, Value::U32(value));
        self
    }

    /// Sets a number.
    pub fn f32(mut self, name: &'static str, value: f32) -> Self {
        self.0.insert(name, Value::F32(value));
        self
    }

    /// Sets a switch.
    pub fn bool(mut self, name: &'static str, value: bool) -> Self {
        self.0.insert(name, Value::Bool(value));
        self
    }

    /// Sets a switch if it is on; one that is off may be left out.
    pub fn switch(self, name: &'static str, on: bool) -> Self {
        if on { self.bool(name, true) } else { self }
    }

    /// Sets a weight's element type.
    pub fn dtype(mut self, name: &'static str, value: DType) -> Self {
        self.0.insert(name, Value::DType(value));
        self
    }

    /// Size, count or index; 0 when it was not set.
    pub fn get(&self, name: &str) -> u32 {
        match self.0.get(name) {
            Some(Value::U32(v)) => *v,
            _ => 0,
        }
    }

    /// The same as `usize`.
    pub fn size(&self, name: &str) -> usize {
        self.get(name) as usize
    }

    /// Number; 0 when it was not set.
    pub fn number(&self, name: &str) -> f32 {
        match self.0.get(name) {
            Some(Value::F32(v)) => *v,
            _ => 0.0,
        }
    }

    /// Switch; off when it was not set.
    pub fn is(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Value::Bool(true)))
    }

    /// Element type; F32 when it was not set.
    pub fn format(&self, name: &str) -> DType {
        match self.0.get(name) {
            Some(Value::DType(v)) => *v,
            _ => DType::F32,
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Value)> + '_ {
        self.0.iter().map(|(n, v)| (*n, *v))
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            match value {
                Value::U32(v) => write!(f, "{space}{name}={v}")?,
                Value::F32(v) => write!(f, "{space}{name}={v:e}")?,
                Value::Bool(v) => write!(f, "{space}{name}={v}")?,
                Value::DType(v) => write!(f, "{space}{name}={v}")?,
            }
        }
        Ok(())
    }
}

impl Kernel {
    /// What `shardlight_shaders::specialize` needs for this variant. `web`: browsers require
    /// `enable subgroups;`, naga refuses it.
    pub fn specialization(&self, params: &Params, variant: &Variant, web: bool) -> Specialization {
        let mut spec = Specialization::default();
        for (name, value) in params.iter() {
            if self.uniforms.contains(&name) {
                continue;
            }
            match value {
                Value::U32(v) => {
                    spec.constants.insert(name.to_string(), Constant::U32(v));
                }
                Value::F32(v) => {
                    spec.constants.insert(name.to_string(), Constant::F32(v));
                }
                Value::Bool(true) => {
                    spec.flags.insert(name.to_string());
                }
                Value::Bool(false) => {}
                Value::DType(v) => {
                    spec.formats.insert(name.to_string(), v.name().to_string());
                }
            }
        }
        for (name, value) in &variant.constants {
            spec.constants.insert(name.to_string(), *value);
        }
        for flag in &variant.flags {
            spec.flags.insert(flag.to_string());
        }
        if variant.f16 {
            spec.enables.push("f16");
        }
        if variant.subgroups && web {
            spec.enables.push("subgroups");
        }
        spec
    }

    /// The text of this variant; `web`: for a browser.
    ///
    /// # Errors
    ///
    /// The reason why the shader cannot be specialised, which is a mistake of ours.
    pub fn wgsl(&self, params: &Params, variant: &Variant, web: bool) -> Result<String, String> {
        let spec = self.specialization(params, variant, web);
        shardlight_shaders::specialize(self.name, &spec).map_err(|e| e.to_string())
    }

    /// Names a pipeline: kernel, variant and every value that is not a uniform.
    pub fn pipeline_key(&self, params: &Params, variant: &Variant) -> String {
        let mut key = format!("{} {}", self.name, variant.name);
        for (name, value) in params.iter() {
            if !self.uniforms.contains(&name) {
                key += &format!(" {name}={value:?}");
            }
        }
        for (name, value) in &variant.constants {
            key += &format!(" {name}={value}");
        }
        for flag in &variant.flags {
            key += &format!(" {flag}");
        }
        key
    }

    /// The bytes of the uniform `args`, padded to 16.
    pub fn args(&self, params: &Params) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16);
        for name in self.uniforms {
            let word = match params.0.get(name) {
                Some(Value::U32(v)) => *v,
                Some(Value::F32(v)) => v.to_bits(),
                _ => 0,
            };
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        bytes
    }
}
