//! WGSL compute kernels of Shardlight and the small preprocessor that makes one concrete text of a
//! kernel for one adapter, shape and set of element types.
//!
//! Adding a kernel is one `.wgsl` file and one line in [`KERNELS`]; a file for [`SHARED`] is
//! something that kernels import.

mod specialize;

pub use specialize::{Constant, Specialization, SpecializeError, specialize};

/// A WGSL file: its name without the ending, and its text.
pub type Source = (&'static str, &'static str);

/// Every kernel, by name.
pub const KERNELS: &[Source] = &[("rms_norm", include_str!("rms_norm.wgsl"))];

/// What kernels import.
pub const SHARED: &[Source] = &[
    ("activation", include_str!("shared/activation.wgsl")),
    ("reduce", include_str!("shared/reduce.wgsl")),
];

/// The text of a kernel as it lies on disk.
pub fn kernel(name: &str) -> Option<&'static str> {
    find(KERNELS, name)
}

/// The text of an importable file as it lies on disk.
pub fn shared(name: &str) -> Option<&'static str> {
    find(SHARED, name)
}

fn find(list: &[Source], name: &str) -> Option<&'static str> {
    list.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}
