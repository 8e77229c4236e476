//! NVIDIA GPUs through CUDA's driver: the same kernels as everywhere, compiled from their WGSL by NVRTC.
//!
//! Nothing of CUDA is needed to build. At run time the driver's library and NVRTC's are looked for; where one is
//! missing, the machine has no CUDA devices and says why.

pub mod blas;
mod compile;
mod device;
mod library;
pub mod nccl;
mod prepared;
mod staging;
mod timer;
pub mod tuned;

use std::rc::Rc;
use std::sync::OnceLock;

use cudarc::driver::{CudaContext, DriverError, sys};
use shardlight::device::{Backend, Device, DeviceInfo, DeviceKind};
use shardlight::{Error, Result};

pub use compile::{Code, Compiler};
pub use device::CudaDevice;
pub use naga_cuda::BoundsPolicy;
pub use tuned::Kernels;

/// Which kernels [`BACKEND`]'s devices run.
static KERNELS: OnceLock<Kernels> = OnceLock::new();

/// Chooses the kernels of the devices that [`BACKEND`] opens; only the first choice before the first device counts.
pub fn choose_kernels(kernels: Kernels) {
    let _ = KERNELS.set(kernels);
}

/// Which kernels a device runs, if it is one of CUDA's.
pub fn kernels_of(device: &dyn Device) -> Option<String> {
    Some(device.as_any()?.downcast_ref::<CudaDevice>()?.kernels())
}

/// Why a device does not use a cuBLASLt that is there.
pub fn refused_products(device: &dyn Device) -> Option<String> {
    let device = device.as_any()?.downcast_ref::<CudaDevice>()?;
    let reason = device.refused_products()?;
    Some(format!("cuBLASLt: {reason}; our own kernels do without it"))
}

/// CUDA's devices, for [`shardlight::device::register`].
pub static BACKEND: Cuda = Cuda;

/// See [`BACKEND`].
#[derive(Debug)]
pub struct Cuda;

impl Backend for Cuda {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn list(&self) -> Result<Vec<DeviceInfo>> {
        if !has_driver() {
            return Ok(Vec::new());
        }
        driver()?;
        let count = CudaContext::device_count().map_err(|e| refused("cuda", e))?;
        (0..count).map(info).collect()
    }

    fn open(&self, number: usize) -> Result<Rc<dyn Device>> {
        let kernels = *KERNELS.get_or_init(Kernels::default);
        Ok(Rc::new(CudaDevice::open(
            number,
            BoundsPolicy::Unchecked,
            kernels,
        )?))
    }
}

/// An error that is no fault of the work: the device cannot be used.
fn unusable(reason: impl Into<String>) -> Error {
    Error::Device {
        device: "cuda".into(),
        reason: reason.into(),
    }
}

fn refused(what: &str, error: DriverError) -> Error {
    unusable(format!("{what}: {}", words(error)))
}

/// What the driver said.
fn words(error: DriverError) -> String {
    let text = |text: std::result::Result<&std::ffi::CStr, DriverError>| {
        text.map(|t| t.to_string_lossy().into_owned()).ok()
    };
    match (text(error.error_name()), text(error.error_string())) {
        (Some(name), Some(what)) => format!("{what} ({name})"),
        _ => format!("{:?}", error.0),
    }
}

/// Is there a driver's library? Without it, every other call would panic.
fn has_driver() -> bool {
    // SAFETY: it only looks for the library.
    unsafe { sys::is_culib_present() }
}

/// Makes sure that there is a driver.
fn driver() -> Result<()> {
    if !has_driver() {
        let library = match cfg!(windows) {
            true => "nvcuda.dll",
            false => "libcuda.so.1",
        };
        return Err(unusable(format!(
            "no NVIDIA driver library ({library}) found"
        )));
    }
    cudarc::driver::result::init().map_err(|e| refused("the driver does not start", e))
}

fn info(number: i32) -> Result<DeviceInfo> {
    use cudarc::driver::result::device;
    let said = |e| refused("the device does not answer", e);
    let handle = device::get(number).map_err(said)?;
    let mut version = 0;
    // SAFETY: writes one integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(said)?;
    let attribute = |which| {
        // SAFETY: `handle` is of a device that is there.
        unsafe { device::get_attribute(handle, which) }.map_err(said)
    };
    use sys::CUdevice_attribute as A;
    let major = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let integrated = attribute(A::CU_DEVICE_ATTRIBUTE_INTEGRATED)? != 0;
    Ok(DeviceInfo {
        name: device::get_name(handle).map_err(said)?,
        backend: "cuda".into(),
        kind: match integrated {
            true => DeviceKind::IntegratedGpu,
            false => DeviceKind::DiscreteGpu,
        },
        driver: format!(
            "CUDA {}.{}, compute capability {major}.{minor}",
            version / 1000,
            version % 1000 / 10
        ),
    })
}
