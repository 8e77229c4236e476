//! Every kernel's cases, in every variant, on every device there is, against the kernel's f64
//! reference.
//!
//! `SHARDLIGHT_KERNEL=name` runs one kernel only. `SHARDLIGHT_REQUIRE_VULKAN=1` makes a missing
//! Vulkan adapter a failure.

use std::env;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{available_parallelism, scope};

use pollster::block_on;
use shardlight::device::cpu::CpuDevice;
use shardlight::device::wgpu::{WgpuDevice, adapters};
use shardlight::device::{Buffer, Device, Layout};
use shardlight::kernels::{Access, Binding, Case, HostArray, KERNELS, Kernel};
use shardlight::recording::Recording;
use shardlight::tensor::Tensor;
use shardlight::weights::planar;
use shardlight::{DType, Result};

/// Bytes behind each array, which no kernel may use or change.
const GUARD: usize = 64;
/// What they hold behind an input: NaN in every float format.
const POISON: u8 = 0xFF;
/// What they hold behind an output.
const MARK: u8 = 0xA5;

#[test]
fn cpu_results_match_the_references() {
    let mut report = Report::default();
    let device = CpuDevice::new();
    for kernel in selected() {
        for case in (kernel.cases)() {
            let want = reference(kernel, &case);
            report.add(&device, kernel, &case, None, &want);
        }
    }
    report.finish();
}

#[test]
fn gpu_results_match_the_references() {
    let found: Vec<_> = block_on(adapters()).into_iter().map(|a| a.info).collect();
    if env::var("SHARDLIGHT_REQUIRE_VULKAN").is_ok_and(|v| v == "1") {
        let vulkan = found.iter().any(|info| info.backend == "vulkan");
        assert!(vulkan, "no Vulkan adapter among {found:?}");
    }
    if found.is_empty() {
        println!("no GPU adapter: nothing was run");
    }
    for index in 0..found.len() {
        // Most of the time goes into the driver's compiler, which works in the calling thread.
        let threads = available_parallelism().map_or(1, |n| n.get().min(8));
        let next = AtomicUsize::new(0);
        let selected = selected();
        let work = || {
            let mut report = Report::default();
            let mut device = open(index);
            while let Some(kernel) = selected.get(next.fetch_add(1, Ordering::Relaxed)) {
                report.add_variants(&mut device, index, kernel);
            }
            report
        };
        let report = scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let reports =
                (workers.into_iter()).map(|w| w.join().unwrap_or_else(|p| resume_unwind(p)));
            reports.fold(Report::default(), Report::and)
        });
        report.finish();
    }
}

fn open(index: usize) -> WgpuDevice {
    let adapter = block_on(adapters()).into_iter().nth(index);
    block_on(adapter.expect("adapters do not disappear").open()).expect("the adapter opens")
}

/// The kernels that `SHARDLIGHT_KERNEL` names.
fn selected() -> Vec<&'static Kernel> {
    let name = env::var("SHARDLIGHT_KERNEL").unwrap_or_default();
    let wanted = |k: &&Kernel| name.is_empty() || k.name == name;
    let selected: Vec<_> = KERNELS.iter().copied().filter(wanted).collect();
    assert!(!selected.is_empty(), "no kernel is called {name:?}");
    selected
}

/// All arrays after the kernel's own definition has run.
fn reference(kernel: &Kernel, case: &Case) -> Vec<Vec<f64>> {
    let values = |a: &Option<HostArray>| a.as_ref().map_or(Vec::new(), HostArray::to_f64);
    let mut arrays: Vec<Vec<f64>> = case.arrays.iter().map(values).collect();
    (kernel.reference)(&case.params, &mut arrays);
    arrays
}

#[derive(Default)]
struct Report {
    device: String,
    cases: usize,
    failures: Vec<String>,
}

impl Report {
    /// Runs and compares one variant of one case; false when the device gave an error.
    fn add(
        &mut self,
        device: &dyn Device,
        kernel: &'static Kernel,
        case: &Case,
        variant: Option<&'static str>,
        want: &[Vec<f64>],
    ) -> bool {
        self.device = device.info().to_string();
        self.cases += 1;
        let (params, backend) = (&case.params, &device.info().backend);
        let way = variant.map_or(String::new(), |v| format!(" {v}"));
        let what = format!("{} {params}{way} on {backend}", kernel.name);
        match block_on(run(device, kernel, case, variant)) {
            Ok(outputs) => {
                for (binding, bytes) in outputs {
                    let array = case.arrays[binding].as_ref().expect("outputs have arrays");
                    let name = kernel.bindings[binding].name;
                    let (array, bytes) = match is_planar(device, array) {
                        true => unpacked(array, &bytes),
                        false => (array.clone(), bytes),
                    };
                    if let Err(reason) = compare(&array, &bytes, &want[binding], case.bound) {
                        self.failures.push(format!("{what}: {name}: {reason}"));
                    }
                }
                true
            }
            Err(error) => {
                self.failures.push(format!("{what}: {error}"));
                false
            }
        }
    }

    /// Runs every variant of every case on the adapter `index`.
    fn add_variants(&mut self, device: &mut WgpuDevice, index: usize, kernel: &'static Kernel) {
        for case in (kernel.cases)() {
            let want = reference(kernel, &case);
            for variant in (kernel.variants)(&case.params, device.limits()) {
                if !self.add(device, kernel, &case, Some(variant.name), &want) {
                    // A device that failed once fails for ever.
                    *device = open(index);
                }
            }
        }
    }

    /// Both reports as one.
    fn and(mut self, other: Report) -> Report {
        if self.device.is_empty() {
            self.device = other.device;
        }
        self.cases += other.cases;
        self.failures.extend(other.failures);
        self
    }

    fn finish(self) {
        println!("{}: {} runs", self.device, self.cases);
        assert!(self.cases > 0, "no kernel has a case");
        let (failed, text) = (self.failures.len(), self.failures.join("\n"));
        let (device, cases) = (self.device, self.cases);
        assert!(
            failed == 0,
            "{device}: {failed} failures in {cases} runs:\n{text}"
        );
    }
}

/// Runs a case; gives the bytes of each written binding, guard included.
async fn run(
    device: &dyn Device,
    kernel: &'static Kernel,
    case: &Case,
    variant: Option<&'static str>,
) -> Result<Vec<(usize, Vec<u8>)>> {
    let mut tensors = Vec::new();
    for (binding, array) in kernel.bindings.iter().zip(&case.arrays) {
        tensors.push(match array {
            Some(array) => Some(upload(device, binding, array).await?),
            None => None,
        });
    }
    let mut recording = Recording::new();
    let bindings = tensors.iter().map(|t| t.as_ref().map(|(t, _)| t.clone()));
    recording.push(kernel, case.params.clone(), bindings.collect())?;
    if let Some(variant) = variant {
        recording.force_variant(variant);
    }
    let prepared = device.prepare(&recording).await?;
    device.run(&prepared)?;
    let mut outputs = Vec::new();
    for (i, (binding, tensor)) in kernel.bindings.iter().zip(&tensors).enumerate() {
        if let (Access::Write, Some((_, buffer))) = (binding.access, tensor) {
            outputs.push((i, device.read(buffer, 0, buffer.bytes()).await?));
        }
    }
    Ok(outputs)
}

/// Copies an array to the device in the layout that it wants, with a guard behind it.
async fn upload(
    device: &dyn Device,
    binding: &Binding,
    array: &HostArray,
) -> Result<(Tensor, Buffer)> {
    let planar = device.limits().layout == Layout::Planar;
    let mut bytes = if planar && (binding.access == Access::Weight || is_planar(device, array)) {
        repacked(array)
    } else {
        array.bytes.clone()
    };
    let guard = match binding.access {
        Access::Write => MARK,
        _ => POISON,
    };
    let whole = (bytes.len() + GUARD).next_multiple_of(16);
    bytes.resize(whole, guard);
    let buffer = device.alloc(whole as u64, binding.name).await?;
    device.write(&buffer, 0, &bytes)?;
    let tensor = Tensor::of(buffer.clone(), array.dtype, &array.shape);
    Ok((tensor, buffer))
}

/// Is this a quantised array on a device that stores rows in its own layout?
fn is_planar(device: &dyn Device, array: &HostArray) -> bool {
    array.dtype.block_len() > 1 && device.limits().layout == Layout::Planar
}

/// A device's bytes of a quantised array, decoded to f32, with what is behind them.
fn unpacked(array: &HostArray, bytes: &[u8]) -> (HostArray, Vec<u8>) {
    let (rows, k) = rows(array);
    let row = planar::row_bytes(array.dtype, k);
    let mut values = vec![0.0; rows * k];
    for (bytes, values) in bytes.chunks(row).zip(values.chunks_mut(k)) {
        planar::decode_row(array.dtype, k, bytes, values);
    }
    let decoded = HostArray::f32(&array.shape, &values);
    let all = [&decoded.bytes, &bytes[rows * row..]].concat();
    (decoded, all)
}

/// Rows of an array and their length.
fn rows(array: &HostArray) -> (usize, usize) {
    let (k, rows) = array.shape.split_last().expect("an array has a shape");
    (rows.iter().product(), *k)
}

/// A weight's bytes in the layout of GPU devices.
fn repacked(array: &HostArray) -> Vec<u8> {
    let (rows, k) = rows(array);
    let mut bytes = vec![0; rows * planar::row_bytes(array.dtype, k)];
    planar::repack_rows(array.dtype, k, &array.bytes, &mut bytes);
    bytes
}

/// `bytes`: what the device left of `array`, guard included. u32 must be equal, other types within
/// `bound`.
fn compare(
    array: &HostArray,
    bytes: &[u8],
    want: &[f64],
    bound: f64,
) -> std::result::Result<(), String> {
    let (result, guard) = bytes.split_at(array.bytes.len());
    if let Some(at) = guard.iter().position(|b| *b != MARK) {
        return Err(format!("byte {at} beyond the end was written"));
    }
    let got = HostArray {
        bytes: result.to_vec(),
        ..array.clone()
    };
    let got = got.to_f64();
    let exact = array.dtype == DType::U32;
    let errors: Vec<f64> = got
        .iter()
        .zip(want)
        .map(|(g, w)| square_error(*g, *w))
        .collect();
    let norm: f64 = want.iter().filter(|w| w.is_finite()).map(|w| w * w).sum();
    let error: f64 = errors.iter().sum();
    let bound = if exact { 0.0 } else { bound };
    if error <= bound * norm {
        return Ok(());
    }
    // At least one element is as bad as the mean that is allowed.
    let allowed = bound * norm / errors.len() as f64;
    let first = errors.iter().position(|e| *e > allowed || e.is_nan());
    let first = first.expect("a sum over the bound has a part over the mean");
    Err(format!(
        "NMSE {:.1e} > {bound:.0e}; first at {:?}: want {}, got {}",
        error / norm,
        index(first, &array.shape),
        want[first],
        got[first],
    ))
}

/// 0 for equal values, infinities and NaN included.
fn square_error(got: f64, want: f64) -> f64 {
    if got == want || (got.is_nan() && want.is_nan()) {
        0.0
    } else if got.is_finite() && want.is_finite() {
        (got - want) * (got - want)
    } else {
        f64::INFINITY
    }
}

/// The index of element `flat`, slowest dimension first.
fn index(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index: Vec<usize> = (shape.iter().rev())
        .map(|len| {
            let i = flat % len;
            flat /= len;
            i
        })
        .collect();
    index.reverse();
    index
}

#[test]
fn a_wrong_element_is_told_with_its_place() {
    let array = HostArray::zeros(&[2, 3]);
    let mut values = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let want: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
    let bytes = |values: &[f32]| -> Vec<u8> {
        let words = values.iter().flat_map(|v| v.to_le_bytes());
        words.chain([MARK; GUARD]).collect()
    };
    assert_eq!(compare(&array, &bytes(&values), &want, 1e-9), Ok(()));
    values[4] = 0.0;
    let told = compare(&array, &bytes(&values), &want, 1e-9).unwrap_err();
    assert_eq!(told, "NMSE 2.7e-1 > 1e-9; first at [1, 1]: want 5, got 0");
    values[4] = f32::NAN;
    assert!(compare(&array, &bytes(&values), &want, 1e-9).is_err());
    values[4] = 5.0;
    let mut spilled = bytes(&values);
    spilled[24] = 0;
    let told = compare(&array, &spilled, &want, 1e-9).unwrap_err();
    assert_eq!(told, "byte 0 beyond the end was written");
}
