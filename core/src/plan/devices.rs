//! Devices that a plan can be made for without having them: peak figures from their makers.

use crate::device::Limits;
use crate::{Error, Result};

/// What a plan must know of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceSpec {
    /// What `--device` calls it.
    pub name: String,
    /// Peak FLOP/s with f32 operands on shader cores: what our shaders reach for.
    pub f32: f64,
    /// Peak FLOP/s with f16 operands and f32 sums, dense; on matrix units where there are any.
    pub f16: f64,
    /// Bytes per second of device memory.
    pub bandwidth: f64,
    /// Bytes of device memory, if that is known.
    pub memory: Option<u64>,
    /// Seconds of a dispatch that does nothing.
    pub launch: f64,
    /// Seconds of a step beside its dispatches: queueing it, and reading the token back.
    pub submit: f64,
    /// What kernels have to fit into; `None` for a GPU of today's limits.
    pub limits: Option<Limits>,
    /// Where the numbers come from.
    pub source: String,
}

/// Which units compute the products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Peak {
    /// Shader cores, f32 operands: today's shaders.
    #[default]
    F32,
    /// Matrix units, f16 operands.
    F16,
}

/// One line of the table; FLOP/s in units of 1e12, bytes per second and bytes in units of 1e9.
struct Line(
    &'static str,
    [f64; 2],
    f64,
    f64,
    /// Microseconds of a dispatch.
    f64,
    &'static str,
);

/// Assumed for all GPUs: a dispatch and the barrier before it. NVIDIA's blog "Getting Started with CUDA Graphs"
/// measures 0.5 to 1 us of gap; APIs with barriers between dispatches have more.
const GPU: f64 = 3.0;

/// Assumed: waking the threads of a pool and waiting for them.
const CPU: f64 = 5.0;

/// Assumed for all devices of the table.
const SUBMIT: f64 = 20e-6;

/// Peaks without sparsity. Apple gives no figures for f16; its GPUs compute it at the rate of f32.
static TABLE: &[Line] = &[
    Line(
        "h200",
        [67.0, 989.4],
        4800.0,
        141.0,
        GPU,
        "NVIDIA H200 data sheet, SXM",
    ),
    Line(
        "h100",
        [67.0, 989.4],
        3350.0,
        80.0,
        GPU,
        "NVIDIA H100 data sheet, SXM",
    ),
    Line(
        "a100-80gb",
        [19.5, 312.0],
        2039.0,
        80.0,
        GPU,
        "NVIDIA A100 data sheet, SXM",
    ),
    Line(
        "a100-40gb",
        [19.5, 312.0],
        1555.0,
        40.0,
        GPU,
        "NVIDIA A100 data sheet, SXM",
    ),
    Line(
        "l40s",
        [91.6, 362.0],
        864.0,
        48.0,
        GPU,
        "NVIDIA L40S data sheet",
    ),
    Line(
        "l4",
        [30.3, 121.0],
        300.0,
        24.0,
        GPU,
        "NVIDIA L4 data sheet, dense",
    ),
    Line("t4", [8.1, 65.0], 320.0, 16.0, GPU, "NVIDIA T4 data sheet"),
    Line(
        "rtx4090",
        [82.6, 165.2],
        1008.0,
        24.0,
        GPU,
        "NVIDIA Ada white paper, f32 sums",
    ),
    Line(
        "rtx3090",
        [35.6, 71.0],
        936.0,
        24.0,
        GPU,
        "NVIDIA GA102 white paper, f32 sums",
    ),
    Line(
        "rtx3060",
        [12.7, 25.5],
        360.0,
        12.0,
        GPU,
        "NVIDIA product page, f32 sums",
    ),
    Line(
        "rx7900xtx",
        [61.4, 122.8],
        960.0,
        24.0,
        GPU,
        "AMD product page",
    ),
    Line(
        "m1",
        [2.6, 2.6],
        68.25,
        16.0,
        GPU,
        "Apple press release, 8-core GPU",
    ),
    Line(
        "m1-max",
        [10.4, 10.4],
        400.0,
        64.0,
        GPU,
        "Apple press release, 32-core GPU",
    ),
    Line(
        "m2",
        [3.6, 3.6],
        100.0,
        24.0,
        GPU,
        "Apple press release, 10-core GPU",
    ),
    Line(
        "m2-ultra",
        [27.2, 27.2],
        800.0,
        192.0,
        GPU,
        "Apple press release, 76-core GPU",
    ),
    Line(
        "m3",
        [3.6, 3.6],
        100.0,
        24.0,
        GPU,
        "rate of an m2; Apple gives memory only",
    ),
    Line(
        "m3-max",
        [14.2, 14.2],
        400.0,
        128.0,
        GPU,
        "40 cores at 1.4 GHz; Apple gives memory only",
    ),
    Line(
        "desktop-cpu",
        [2.3, 2.3],
        83.2,
        64.0,
        CPU,
        "AMD Ryzen 9 7950X: 16 cores x 32 FLOP at 4.5 GHz, DDR5-5200 x 2",
    ),
];

impl DeviceSpec {
    /// A device of the table.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] naming the known ones.
    pub fn find(name: &str) -> Result<DeviceSpec> {
        let found = TABLE.iter().find(|line| line.0.eq_ignore_ascii_case(name));
        let found = found.ok_or_else(|| {
            let names: Vec<_> = TABLE.iter().map(|line| line.0).collect();
            Error::Unsupported {
                what: format!("device {name:?}"),
                supported: names.join(", "),
            }
        })?;
        Ok(found.spec())
    }

    /// The whole table.
    pub fn all() -> impl Iterator<Item = DeviceSpec> {
        TABLE.iter().map(Line::spec)
    }

    /// FLOP/s of the units that compute products.
    pub fn flops(&self, peak: Peak) -> f64 {
        match peak {
            Peak::F32 => self.f32,
            Peak::F16 => self.f16,
        }
    }
}

impl Line {
    fn spec(&self) -> DeviceSpec {
        let Line(name, [f32, f16], bandwidth, memory, launch, source) = *self;
        DeviceSpec {
            name: name.into(),
            f32: f32 * 1e12,
            f16: f16 * 1e12,
            bandwidth: bandwidth * 1e9,
            memory: Some((memory * 1e9) as u64),
            launch: launch * 1e-6,
            submit: SUBMIT,
            limits: None,
            source: source.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_is_found_by_its_name_and_is_plausible() {
        for spec in DeviceSpec::all() {
            assert_eq!(DeviceSpec::find(&spec.name.to_uppercase()).unwrap(), spec);
            assert!(
                (1e12..1e15).contains(&spec.f32) && spec.f16 >= spec.f32,
                "{spec:?}"
            );
            assert!((5e10..1e13).contains(&spec.bandwidth), "{spec:?}");
            let memory = spec.memory.unwrap();
            assert!(
                (10_000_000_000..200_000_000_000).contains(&memory),
                "{spec:?}"
            );
        }
        let told = DeviceSpec::find("tpu").unwrap_err().to_string();
        assert!(
            told.starts_with("device \"tpu\"; supported: h200, h100"),
            "{told}"
        );
    }
}
