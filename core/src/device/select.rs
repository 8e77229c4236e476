//! Which device a run uses: what `--device` says, and what `auto` makes of the machine.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use super::cpu::CpuDevice;
use super::{Device, DeviceInfo, DeviceKind};
use crate::{Error, Result};

/// A wish for a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best: a real GPU, else the CPU device; never a software GPU.
    #[default]
    Auto,
    /// The CPU device.
    Cpu,
    /// The best GPU adapter, even a software one.
    Gpu,
    /// GPU adapter by number, as `shardlight devices` lists them.
    GpuNumber(usize),
    /// The best adapter of a backend: `vulkan`, `metal`, `dx12`, `webgpu`.
    Backend(String),
    /// A device by its number in a backend that was [registered](register): `cuda`, `cuda:1`.
    Registered(String, usize),
}

/// Devices that this crate does not know; a program adds them by [`register`].
pub trait Backend: Sync {
    /// What `--device` calls it, and the `backend` of its devices.
    fn name(&self) -> &'static str;

    /// Its devices by number; `auto` takes the first one before every other GPU. None on a machine that has no driver.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] when there is a driver and it fails.
    fn list(&self) -> Result<Vec<DeviceInfo>>;

    /// Opens one of them.
    ///
    /// # Errors
    ///
    /// [`Error::Device`].
    fn open(&self, number: usize) -> Result<Rc<dyn Device>>;
}

static REGISTERED: Mutex<Vec<&'static dyn Backend>> = Mutex::new(Vec::new());

/// Adds a backend for the whole process. One of the same name stays.
pub fn register(backend: &'static dyn Backend) {
    let mut all = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    if all.iter().all(|b| b.name() != backend.name()) {
        all.push(backend);
    }
}

fn registered() -> Vec<&'static dyn Backend> {
    let all = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    all.clone()
}

/// Backends that `--device` knows by name.
const BACKENDS: &[&str] = &["vulkan", "metal", "dx12", "webgpu"];

const NO_ADAPTER: &str = if cfg!(target_arch = "wasm32") {
    "this browser offers no WebGPU adapter"
} else {
    "this machine has no GPU adapter (no Vulkan, Metal or DX12 driver found)"
};

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = text.strip_prefix("gpu:").map(str::parse);
        let added: Vec<&str> = registered().iter().map(|b| b.name()).collect();
        let (name, which) = text.split_once(':').unwrap_or((text, "0"));
        if let (true, Ok(number)) = (added.contains(&name), which.parse()) {
            return Ok(DeviceChoice::Registered(name.to_string(), number));
        }
        Ok(match (text, number) {
            ("auto", _) => DeviceChoice::Auto,
            ("cpu", _) => DeviceChoice::Cpu,
            ("gpu", _) => DeviceChoice::Gpu,
            (_, Some(Ok(n))) => DeviceChoice::GpuNumber(n),
            _ if BACKENDS.contains(&text) => DeviceChoice::Backend(text.to_string()),
            _ => {
                return Err(Error::Unsupported {
                    what: format!("device {text:?}"),
                    supported: format!(
                        "auto, cpu, gpu, gpu:N, {}",
                        [BACKENDS, &added].concat().join(", ")
                    ),
                });
            }
        })
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Gpu => f.write_str("gpu"),
            DeviceChoice::GpuNumber(n) => write!(f, "gpu:{n}"),
            DeviceChoice::Backend(name) | DeviceChoice::Registered(name, 0) => f.write_str(name),
            DeviceChoice::Registered(name, n) => write!(f, "{name}:{n}"),
        }
    }
}

impl DeviceChoice {
    /// Index into `devices` (sorted as [`list`] gives them) of the device meant; `Err` with the
    /// reason when there is none.
    fn pick(&self, devices: &[DeviceInfo]) -> Result<usize> {
        let find = |f: &dyn Fn(&DeviceInfo) -> bool| devices.iter().position(f);
        let gpus = devices.iter().filter(|d| d.kind.is_gpu()).count();
        let (found, reason) = match self {
            DeviceChoice::Auto => (Some(0), String::new()),
            DeviceChoice::Cpu => (find(&|d| d.kind == DeviceKind::Cpu), String::new()),
            DeviceChoice::Gpu => (find(&|d| d.kind.is_gpu()), NO_ADAPTER.to_string()),
            DeviceChoice::GpuNumber(n) => (
                (0..devices.len())
                    .filter(|i| devices[*i].kind.is_gpu())
                    .nth(*n),
                format!("there are {gpus} GPU adapters, numbered from 0"),
            ),
            DeviceChoice::Backend(name) => (
                find(&|d| d.backend == *name),
                format!("no adapter with the backend {name}"),
            ),
            DeviceChoice::Registered(name, n) => (
                devices
                    .iter()
                    .enumerate()
                    .filter(|(_, d)| d.backend == *name)
                    .nth(*n)
                    .map(|(i, _)| i),
                format!("no device {n} of the backend {name}"),
            ),
        };
        found.ok_or_else(|| {
            let there: Vec<_> = devices.iter().map(DeviceInfo::to_string).collect();
            Error::Device {
                device: self.to_string(),
                reason: format!("{reason}; there is {}", there.join(", ")),
            }
        })
    }
}

#[cfg(feature = "wgpu")]
async fn adapters() -> Vec<super::wgpu::Adapter> {
    super::wgpu::adapters().await
}

/// Every device, in the order in which `auto` prefers them.
pub async fn list() -> Vec<DeviceInfo> {
    let mut all = vec![CpuDevice::new().info().clone()];
    #[cfg(feature = "wgpu")]
    all.extend(adapters().await.into_iter().map(|a| a.info));
    all.sort_by_key(|d| d.kind);
    let added = registered().into_iter();
    let mut listed: Vec<_> = added.flat_map(|b| b.list().unwrap_or_default()).collect();
    listed.extend(all);
    listed
}

/// What `--device` takes for each of these: `cpu`, or a number counted in this order.
pub fn flags(devices: &[DeviceInfo]) -> Vec<String> {
    let added: Vec<&str> = registered().iter().map(|b| b.name()).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let flag = |info: &DeviceInfo| {
        let name = match info.kind.is_gpu() {
            true => added.iter().find(|n| info.backend == **n).unwrap_or(&"gpu"),
            false => return "cpu".to_owned(),
        };
        let count = counts.entry(name).or_default();
        *count += 1;
        format!("{name}:{}", *count - 1)
    };
    devices.iter().map(flag).collect()
}

/// Opens the device that `choice` means.
///
/// # Errors
///
/// [`Error::Device`] when there is none or it cannot be opened. `auto` falls back to the CPU
/// device, which always exists.
pub async fn open(choice: &DeviceChoice) -> Result<Rc<dyn Device>> {
    Ok(open_with_reason(choice).await?.0)
}

/// As [`open`]; where `auto` falls back to the CPU device, or to another GPU than the best one, with the reason.
///
/// # Errors
///
/// As [`open`].
pub async fn open_with_reason(choice: &DeviceChoice) -> Result<(Rc<dyn Device>, Option<String>)> {
    let mut refused = Vec::new();
    match choice {
        DeviceChoice::Cpu => return Ok((Rc::new(CpuDevice::new()), None)),
        DeviceChoice::Registered(name, number) => {
            let backend = registered().into_iter().find(|b| b.name() == name);
            let backend = backend.ok_or_else(|| Error::Device {
                device: name.clone(),
                reason: "this program has no such backend".into(),
            })?;
            return Ok((backend.open(*number)?, None));
        }
        DeviceChoice::Auto => {
            for backend in registered() {
                let opened = match backend.list() {
                    // Most machines have none: that is no news.
                    Ok(devices) if devices.is_empty() => continue,
                    Ok(_) => backend.open(0),
                    Err(e) => Err(e),
                };
                match opened {
                    Ok(device) => return Ok((device, None)),
                    Err(e) => refused.push(e.to_string()),
                }
            }
        }
        _ => {}
    }
    let cpu = CpuDevice::new();
    let mut infos = vec![cpu.info().clone()];
    #[cfg(feature = "wgpu")]
    let mut gpus = adapters().await;
    #[cfg(feature = "wgpu")]
    infos.extend(gpus.iter().map(|a| a.info.clone()));
    infos.sort_by_key(|d| d.kind);
    let picked = choice.pick(&infos)?;
    if !infos[picked].kind.is_gpu() {
        refused.push(no_gpu(&infos));
        return Ok((Rc::new(cpu), Some(refused.join("; "))));
    }
    #[cfg(feature = "wgpu")]
    {
        let number = infos[..picked].iter().filter(|d| d.kind.is_gpu()).count();
        match gpus.swap_remove(number).open().await {
            Ok(device) => {
                let reason = (!refused.is_empty()).then(|| refused.join("; "));
                Ok((Rc::new(device), reason))
            }
            Err(e) if *choice == DeviceChoice::Auto => {
                refused.push(e.to_string());
                Ok((Rc::new(cpu), Some(refused.join("; "))))
            }
            Err(e) => Err(e),
        }
    }
    #[cfg(not(feature = "wgpu"))]
    Ok((Rc::new(cpu), Some(no_gpu(&infos))))
}

/// Why `auto` takes none of these GPUs.
fn no_gpu(devices: &[DeviceInfo]) -> String {
    match devices.iter().find(|d| d.kind.is_gpu()) {
        Some(software) => format!("{software} is slower than the CPU"),
        None => NO_ADAPTER.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(kind: DeviceKind, backend: &str) -> DeviceInfo {
        DeviceInfo {
            name: backend.to_string(),
            backend: backend.to_string(),
            kind,
            driver: String::new(),
        }
    }

    fn pick(choice: &str, devices: &[DeviceInfo]) -> Result<usize> {
        choice.parse::<DeviceChoice>().unwrap().pick(devices)
    }

    #[test]
    fn a_software_gpu_is_used_only_when_asked_for() {
        let all = [
            device(DeviceKind::Cpu, "cpu"),
            device(DeviceKind::SoftwareGpu, "vulkan"),
        ];
        assert_eq!(pick("auto", &all).unwrap(), 0);
        assert_eq!(pick("gpu", &all).unwrap(), 1);
        assert_eq!(pick("gpu:0", &all).unwrap(), 1);
        assert_eq!(pick("vulkan", &all).unwrap(), 1);
        assert!(pick("gpu:1", &all).is_err());
        assert!(pick("metal", &all).is_err());
    }

    #[test]
    fn a_real_gpu_comes_before_the_cpu() {
        let all = [
            device(DeviceKind::IntegratedGpu, "vulkan"),
            device(DeviceKind::Cpu, "cpu"),
        ];
        assert_eq!(pick("auto", &all).unwrap(), 0);
        assert_eq!(pick("cpu", &all).unwrap(), 1);
    }

    #[test]
    fn a_device_that_is_not_there_names_those_that_are() {
        let all = [device(DeviceKind::Cpu, "cpu")];
        let e = pick("gpu", &all).unwrap_err().to_string();
        assert_eq!(
            e,
            format!("device gpu: {NO_ADAPTER}; there is cpu (cpu, CPU)")
        );
    }

    #[test]
    fn the_reason_for_taking_no_gpu_is_said() {
        let software = device(DeviceKind::SoftwareGpu, "vulkan");
        let cpu = device(DeviceKind::Cpu, "cpu");
        assert_eq!(no_gpu(std::slice::from_ref(&cpu)), NO_ADAPTER);
        assert_eq!(
            no_gpu(&[cpu, software]),
            "vulkan (vulkan, software GPU) is slower than the CPU"
        );
    }

    #[test]
    fn an_unknown_device_names_the_known_ones() {
        let e = "tpu".parse::<DeviceChoice>().unwrap_err().to_string();
        assert_eq!(
            e,
            "device \"tpu\"; supported: auto, cpu, gpu, gpu:N, vulkan, metal, dx12, webgpu"
        );
    }
}
