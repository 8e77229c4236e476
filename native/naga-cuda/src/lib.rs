//! Writes CUDA C++ from [naga]'s intermediate representation, so that a WGSL compute shader runs on NVIDIA's
//! own driver through NVRTC.
//!
//! The text is complete: it includes no header of CUDA's and names one kernel. Its parameters are one pointer for
//! each bound global variable in order of group and binding, then one `u32` for each of those that ends in a
//! runtime-sized array: the number of that array's elements.
//!
//! ```
//! let wgsl = "
//!     @group(0) @binding(0) var<storage, read_write> x: array<f32>;
//!     @compute @workgroup_size(64)
//!     fn double(@builtin(global_invocation_id) id: vec3<u32>) {
//!         if id.x < arrayLength(&x) { x[id.x] *= 2.0; }
//!     }";
//! let module = naga::front::wgsl::parse_str(wgsl)?;
//! let (flags, capabilities) = (naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty());
//! let info = naga::valid::Validator::new(flags, capabilities).validate(&module)?;
//! let output = naga_cuda::write(&module, &info, &naga_cuda::Options::new("double"))?;
//! assert!(output.source.contains("extern \"C\" __global__ void __launch_bounds__(64) double_k("));
//! assert_eq!(output.bindings[0].stride, Some(4));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What differs from CUDA C++ follows WGSL: integers wrap, division by zero is defined, shift distances are taken
//! modulo the width, conversions saturate, `workgroup` variables start as zeros, vectors, matrices and structs lie as
//! WGSL lays them out. Subgroups are warps: the caller makes sure that the device has warps of
//! [`SUBGROUP_SIZE`] lanes. As WGSL demands, barriers and subgroup operations must be in uniform control flow.
//! Cooperative matrices (naga's extension) of 16 x 16 elements with f16 factors run on tensor cores.
//!
//! Not there: images, samplers, ray queries, binding arrays, immediates, other cooperative matrices, and stages other
//! than compute.

mod expression;
mod function;
mod math;
mod types;
mod writer;

use naga::back::PipelineConstants;
use naga::back::pipeline_constants::{PipelineConstantError, process_overrides};
use naga::valid::ModuleInfo;
use naga::{Module, ShaderStage};

/// Lanes of a subgroup.
pub const SUBGROUP_SIZE: u32 = 32;

/// What an index beyond the end of an array, vector or matrix does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BoundsPolicy {
    /// Nothing is checked: for shaders that never do it.
    Unchecked,
    /// The last element is taken, as WGSL allows.
    #[default]
    Restrict,
    /// The kernel traps: for finding such shaders.
    Check,
}

/// How to write.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// Which compute entry point.
    pub entry_point: &'a str,
    /// Values of `override`s, by name or `@id`.
    pub constants: PipelineConstants,
    /// What an index beyond the end does.
    pub bounds: BoundsPolicy,
    /// Do `workgroup` variables start as zeros? WGSL says that they do; it costs a barrier.
    pub zero_workgroup_memory: bool,
}

impl<'a> Options<'a> {
    /// As WGSL wants it.
    pub fn new(entry_point: &'a str) -> Self {
        Options {
            entry_point,
            constants: PipelineConstants::default(),
            bounds: BoundsPolicy::default(),
            zero_workgroup_memory: true,
        }
    }
}

/// Where a bound variable lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// `var<storage>`.
    Storage {
        /// `read_write`?
        writable: bool,
    },
    /// `var<uniform>`.
    Uniform,
}

/// A parameter of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// `@group`.
    pub group: u32,
    /// `@binding`.
    pub binding: u32,
    /// Kind of memory.
    pub space: Space,
    /// Size in bytes, without the runtime-sized array.
    pub bytes: u32,
    /// Bytes from one element of the runtime-sized array to the next. The kernel then has a second parameter for it:
    /// how many elements there are.
    pub stride: Option<u32>,
}

/// A kernel's text.
#[derive(Clone, Debug)]
pub struct Output {
    /// CUDA C++17.
    pub source: String,
    /// The kernel's name in it.
    pub entry: String,
    /// Threads of a block.
    pub workgroup_size: [u32; 3],
    /// Parameters, in order of group and binding.
    pub bindings: Vec<Binding>,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such entry point.
    #[error("no compute entry point {0:?}")]
    EntryPoint(String),
    /// The module uses what is not written.
    #[error("{0} cannot be written as CUDA C++")]
    Unsupported(String),
    /// `override`s.
    #[error(transparent)]
    Overrides(#[from] Box<PipelineConstantError>),
    /// A type's layout.
    #[error(transparent)]
    Layout(#[from] naga::proc::LayoutError),
    /// A name's text, which does not happen when writing to memory.
    #[error(transparent)]
    Format(#[from] std::fmt::Error),
}

type Result<T> = std::result::Result<T, Error>;

fn unsupported<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Unsupported(what.into()))
}

/// Writes one entry point of a valid module.
///
/// # Errors
///
/// [`Error`]: no such entry point, something that CUDA C++ has not, or an `override` without a value.
pub fn write(module: &Module, info: &ModuleInfo, options: &Options<'_>) -> Result<Output> {
    let wanted = Some((ShaderStage::Compute, options.entry_point));
    let is_wanted =
        |e: &&naga::EntryPoint| e.stage == ShaderStage::Compute && e.name == options.entry_point;
    if !module.entry_points.iter().any(|e| is_wanted(&e)) {
        return Err(Error::EntryPoint(options.entry_point.to_string()));
    }
    let (module, info) =
        process_overrides(module, info, wanted, &options.constants).map_err(Box::new)?;
    writer::write(&module, &info, options)
}
