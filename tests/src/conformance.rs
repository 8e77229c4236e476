//! Runs the cases of kernels on a device and compares with their f64 references.

use std::env;
use std::rc::Rc;

use pollster::block_on;
use shardlight::device::{Buffer, Device, Layout, Purpose};
use shardlight::kernels::{Access, Binding, Case, HostArray, KERNELS, Kernel};
use shardlight::recording::Recording;
use shardlight::tensor::Tensor;
use shardlight::weights::planar;
use shardlight::{DType, Result};

/// Bytes behind each array, which no kernel may use or change.
pub const GUARD: usize = 64;
/// What they hold behind an input: NaN in every float format.
const POISON: u8 = 0xFF;
/// What they hold behind an output.
pub const MARK: u8 = 0xA5;

/// The kernels that `SHARDLIGHT_KERNEL` names; all if it is not set.
///
/// # Panics
///
/// When none has that name.
pub fn selected() -> Vec<&'static Kernel> {
    let name = env::var("SHARDLIGHT_KERNEL").unwrap_or_default();
    let wanted = |k: &&Kernel| name.is_empty() || k.name == name;
    let selected: Vec<_> = KERNELS.iter().copied().filter(wanted).collect();
    assert!(!selected.is_empty(), "no kernel is called {name:?}");
    selected
}

/// All arrays after the kernel's own definition has run.
pub fn reference(kernel: &Kernel, case: &Case) -> Vec<Vec<f64>> {
    let values = |a: &Option<HostArray>| a.as_ref().map_or(Vec::new(), HostArray::to_f64);
    let mut arrays: Vec<Vec<f64>> = case.arrays.iter().map(values).collect();
    (kernel.reference)(&case.params, &mut arrays);
    arrays
}

/// What ran, and what went wrong.
#[derive(Debug, Default)]
pub struct Report {
    /// Where.
    pub device: String,
    /// Runs.
    pub cases: usize,
    /// A line for each run that failed.
    pub failures: Vec<String>,
}

impl Report {
    /// Runs and compares one variant of one case; false when the device gave an error.
    pub fn add(
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
                // At once: some devices take the whole process down.
                eprintln!("{what}: {error}");
                self.failures.push(format!("{what}: {error}"));
                false
            }
        }
    }

    /// Runs every variant of every case. A device that failed once fails for ever: `open` gives another.
    pub fn add_variants(
        &mut self,
        device: &mut Rc<dyn Device>,
        open: &dyn Fn() -> Rc<dyn Device>,
        kernel: &'static Kernel,
    ) {
        for case in (kernel.cases)() {
            let want = reference(kernel, &case);
            for variant in (kernel.variants)(&case.params, device.limits()) {
                if !self.add(device.as_ref(), kernel, &case, Some(variant.name), &want) {
                    *device = open();
                }
            }
        }
    }

    /// Both reports as one.
    pub fn and(mut self, other: Report) -> Report {
        if self.device.is_empty() {
            self.device = other.device;
        }
        self.cases += other.cases;
        self.failures.extend(other.failures);
        self
    }

    /// Prints how many ran.
    ///
    /// # Panics
    ///
    /// With what failed, or when nothing ran.
    pub fn finish(self) {
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
///
/// # Errors
///
/// The device's.
pub async fn upload(
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
    let buffer = device
        .alloc(whole as u64, Purpose::Activations, binding.name)
        .await?;
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
///
/// # Errors
///
/// What is wrong, and where.
pub fn compare(
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
