//! One call of an operator: its inputs checked against their patterns, uploaded as they are asked
//! for, run, and the outputs read back.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::shape::Axes;
use super::{Array, ElementType, Input, Op, Settings};
use crate::comm::{Mesh, Placement, lower};
use crate::device::{Buffer, Device, Prepared, Purpose};
use crate::recording::Recording;
use crate::shard::Split;
use crate::tensor::{Storage, Tensor};
use crate::weights::Weight;
use crate::{DType, Error, Result};

/// A call that is being recorded.
pub struct Call<'d> {
    /// Which operator.
    pub op: &'static Op,
    /// Where dispatches go.
    pub r: Recording,
    /// Its settings.
    pub settings: Settings,
    device: &'d dyn Device,
    inputs: BTreeMap<&'static str, Array>,
    axes: Axes,
    outputs: Vec<(&'static str, Made)>,
    checks: Vec<(&'static str, Check)>,
}

/// What is wrong with an output that was read, if anything is.
pub type Check = fn(&Array) -> Option<String>;

/// An output before it is read.
enum Made {
    Device(Tensor),
    Host(Array),
}

/// What a call gave.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Outputs by name. Indices are i64.
    pub outputs: BTreeMap<&'static str, Array>,
    /// Names of the kernels that ran, in order.
    pub kernels: Vec<&'static str>,
}

/// A call made ready by a device: it can be run any number of times, for measuring. What works in
/// place (rotations, appending to a cache) then works on what the last run left.
pub struct Ready<'d> {
    op: &'static Op,
    device: &'d dyn Device,
    prepared: Prepared,
    checks: Vec<(&'static str, Check)>,
    outputs: Vec<(&'static str, Made)>,
    kernels: Vec<&'static str>,
}

/// Makes `op` ready for `inputs` with `settings` (texts by name).
///
/// # Errors
///
/// [`Error::Invalid`] naming the operator, the input or setting, and expected against found; those
/// of the device.
pub async fn prepare<'d>(
    device: &'d dyn Device,
    op: &'static Op,
    inputs: BTreeMap<String, Array>,
    settings: &BTreeMap<String, String>,
) -> Result<Ready<'d>> {
    let settings = Settings::read(op, settings)?;
    let (inputs, axes) = check_inputs(op, inputs)?;
    let mut call = Call {
        op,
        r: Recording::new(),
        settings,
        device,
        inputs,
        axes,
        outputs: Vec::new(),
        checks: Vec::new(),
    };
    (op.record)(&mut call).await?;
    let recording = call.r.fuse(device.limits());
    let kernels = recording.dispatches().map(|d| d.kernel.name);
    Ok(Ready {
        op,
        checks: call.checks,
        device,
        prepared: device.prepare(&recording).await?,
        kernels: kernels.collect(),
        outputs: call.outputs,
    })
}

/// Makes ready, runs and reads.
///
/// # Errors
///
/// Those of [`prepare`].
pub async fn run(
    device: &dyn Device,
    op: &'static Op,
    inputs: BTreeMap<String, Array>,
    settings: &BTreeMap<String, String>,
) -> Result<Ran> {
    let ready = prepare(device, op, inputs, settings).await?;
    ready.run()?;
    ready.read().await
}

impl Ready<'_> {
    /// Queues one run.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`].
    pub fn run(&self) -> Result<()> {
        self.device.run(&self.prepared)
    }

    /// Waits until all runs are done, by reading one word.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`].
    pub async fn wait(&self) -> Result<()> {
        for (_, made) in &self.outputs {
            if let Made::Device(tensor) = made {
                self.device.read(self.buffer(tensor)?, 0, 4).await?;
                return Ok(());
            }
        }
        self.device.flush().await
    }

    /// The outputs of the last run.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`]; [`Error::Invalid`] for what [`Call::check`] has found.
    pub async fn read(&self) -> Result<Ran> {
        let mut outputs = BTreeMap::new();
        for (name, made) in &self.outputs {
            let array = match made {
                Made::Host(array) => array.clone(),
                Made::Device(tensor) => self.array(tensor).await?,
            };
            outputs.insert(*name, array);
        }
        for (name, check) in &self.checks {
            if let Some(reason) = outputs.get(name).and_then(check) {
                return Err(Error::Invalid(format!("{}: {reason}", self.op.name)));
            }
        }
        Ok(Ran {
            outputs,
            kernels: self.kernels.clone(),
        })
    }

    async fn array(&self, tensor: &Tensor) -> Result<Array> {
        let bytes = 4 * tensor.len() as u64;
        let bytes = self.device.read(self.buffer(tensor)?, 0, bytes).await?;
        let dtype = match tensor.dtype {
            DType::U32 => ElementType::I32,
            _ => ElementType::F32,
        };
        let words = Array::new(dtype, &tensor.shape, bytes)?;
        Ok(match words.to_i64() {
            Some(indices) => Array::i64(&tensor.shape, &indices),
            None => words,
        })
    }

    fn buffer<'a>(&'a self, tensor: &'a Tensor) -> Result<&'a Buffer> {
        let buffer = self.prepared.tensor(tensor);
        buffer.ok_or_else(|| Error::Invalid("an output was not computed".into()))
    }
}

/// Inputs by the names of `op`, each checked against its pattern.
fn check_inputs(
    op: &'static Op,
    mut given: BTreeMap<String, Array>,
) -> Result<(BTreeMap<&'static str, Array>, Axes)> {
    let mut inputs = BTreeMap::new();
    let mut axes = Axes::default();
    for input in op.inputs {
        let Some(array) = given.remove(input.name) else {
            if input.optional {
                continue;
            }
            let expected = match input.shape {
                "any" => String::new(),
                shape => format!(", expected shape ({shape})"),
            };
            return Err(Error::Invalid(format!(
                "{}: input {} is missing{expected}",
                op.name, input.name
            )));
        };
        axes.bind(input.shape, &array.shape).map_err(|expected| {
            Error::Invalid(format!(
                "{}: {} has shape {}, expected {expected}",
                op.name,
                input.name,
                shown(&array.shape)
            ))
        })?;
        if array.is_empty() {
            return Err(Error::Invalid(format!(
                "{}: {} has shape {}, which holds no elements",
                op.name,
                input.name,
                shown(&array.shape)
            )));
        }
        inputs.insert(input.name, array);
    }
    if let Some((name, _)) = given.into_iter().next() {
        let known: Vec<_> = op.inputs.iter().map(|i| i.name).collect();
        return Err(Error::Invalid(format!(
            "{}: unknown input {name:?}; there are {}",
            op.name,
            known.join(", ")
        )));
    }
    Ok((inputs, axes))
}

/// `(3 5 48)`.
pub(super) fn shown(shape: &[usize]) -> String {
    let lens: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("({})", lens.join(" "))
}

impl<'d> Call<'d> {
    /// The device.
    pub fn device(&self) -> &'d dyn Device {
        self.device
    }

    /// Length of an axis that the inputs' patterns name.
    ///
    /// # Panics
    ///
    /// When none of the inputs that are there names it.
    pub fn axis(&self, name: &str) -> usize {
        let len = self.axes.get(name);
        len.unwrap_or_else(|| panic!("{}: no input names axis {name}", self.op.name))
    }

    /// What `...` stands for in the inputs' patterns.
    pub fn lead(&self) -> &[usize] {
        self.axes.lead()
    }

    /// Is this optional input there?
    pub fn has(&self, name: &str) -> bool {
        self.inputs.contains_key(name)
    }

    /// An input in host memory.
    ///
    /// # Panics
    ///
    /// When it is not there; only optional inputs may be missing.
    pub fn array(&self, name: &str) -> &Array {
        self.inputs
            .get(name)
            .unwrap_or_else(|| panic!("{}: input {name} is not there", self.op.name))
    }

    /// All inputs that are there, by name.
    pub fn arrays(&self) -> BTreeMap<String, Array> {
        let inputs = self.inputs.iter();
        inputs.map(|(n, a)| (n.to_string(), a.clone())).collect()
    }

    /// An input's shape.
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.array(name).shape
    }

    /// An error that names the operator.
    pub fn error(&self, reason: impl std::fmt::Display) -> Error {
        Error::Invalid(format!("{}: {reason}", self.op.name))
    }

    /// An axis number of `rank` axes, counted from the end when negative, as NumPy counts.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when there is no such axis.
    pub fn axis_of(&self, setting: &str, rank: usize) -> Result<usize> {
        let axis = self.settings.int(setting);
        let from_start = if axis < 0 { axis + rank as i64 } else { axis };
        match usize::try_from(from_start) {
            Ok(a) if a < rank => Ok(a),
            _ => Err(self.error(format_args!(
                "setting {setting} is {axis}, expected one of {rank} axes"
            ))),
        }
    }

    /// An input on the device as f32, in its shape.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub async fn tensor(&mut self, name: &str) -> Result<Tensor> {
        let array = self.array(name);
        let (values, shape) = (array.to_f32(), array.shape.clone());
        self.floats(name, &shape, &values).await
    }

    /// The same, if the input is there.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub async fn optional(&mut self, name: &str) -> Result<Option<Tensor>> {
        match self.has(name) {
            true => Ok(Some(self.tensor(name).await?)),
            false => Ok(None),
        }
    }

    /// An input of whole numbers on the device as 32-bit words; negative ones as two's complement.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it holds floats or a number that needs more bits.
    pub async fn index(&mut self, name: &str) -> Result<Tensor> {
        let words = self.words(name)?;
        let shape = self.shape(name).to_vec();
        self.upload(name, DType::U32, &shape, bytemuck::cast_slice(&words))
            .await
    }

    /// An input of whole numbers as 32-bit words in host memory.
    ///
    /// # Errors
    ///
    /// As [`Call::index`].
    pub fn words(&self, name: &str) -> Result<Vec<u32>> {
        let array = self.array(name);
        let Some(values) = array.to_i64() else {
            return Err(self.error(format_args!(
                "{name} has element type {}, expected whole numbers",
                array.dtype
            )));
        };
        let word = |&v: &i64| match (i32::try_from(v), u32::try_from(v)) {
            (Ok(v), _) => Ok(v as u32),
            (_, Ok(v)) => Ok(v),
            _ => Err(self.error(format_args!("{name} holds {v}, which needs over 32 bits"))),
        };
        values.iter().map(word).collect()
    }

    /// A matrix `(rows, cols)` in its own element type and the device's layout. Integers become f32.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it has not two axes, [`Error::OutOfMemory`].
    pub async fn weight(&mut self, name: &str) -> Result<Weight> {
        self.weight_of(name, self.array(name)).await
    }

    /// The same of an array that is no input, such as a part of one.
    ///
    /// # Errors
    ///
    /// As [`Call::weight`].
    pub async fn weight_of(&self, name: &str, array: &Array) -> Result<Weight> {
        let &[rows, cols] = &array.shape[..] else {
            return Err(self.error(format_args!(
                "{name} has shape {}, expected a matrix",
                shown(&array.shape)
            )));
        };
        if let ElementType::Weight(dtype) = array.dtype {
            return Weight::from_bytes(self.device, name, dtype, rows, cols, &array.bytes).await;
        }
        let bytes = array.to_float(DType::F32).bytes;
        Weight::from_bytes(self.device, name, DType::F32, rows, cols, &bytes).await
    }

    /// Numbers on the device.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub async fn floats(&self, name: &str, shape: &[usize], values: &[f32]) -> Result<Tensor> {
        self.upload(name, DType::F32, shape, bytemuck::cast_slice(values))
            .await
    }

    /// Bytes on the device, padded with zeros to 16.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub async fn upload(
        &self,
        name: &str,
        dtype: DType,
        shape: &[usize],
        bytes: &[u8],
    ) -> Result<Tensor> {
        let padded = bytes.len().next_multiple_of(16).max(16);
        let buffer = self
            .device
            .alloc(padded as u64, Purpose::Activations, name)
            .await?;
        let whole = bytes.len() / 4 * 4;
        self.device.write(&buffer, 0, &bytes[..whole])?;
        if whole < bytes.len() {
            let mut last = [0; 4];
            last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.device.write(&buffer, whole as u64, &last)?;
        }
        Ok(Tensor::of(buffer, dtype, shape))
    }

    /// A recording for each of `world_size` tensor-parallel ranks, all on this device.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for no ranks.
    pub fn ranks(&self, world_size: usize, sequence_parallel: bool) -> Result<Vec<Recording>> {
        let mesh = Mesh::tensor(world_size);
        let recording = |rank| {
            let split = Split::even(world_size);
            let placement = Placement::new(mesh, rank, split, sequence_parallel);
            Ok(Recording::of(Rc::new(
                placement.map_err(|e| self.error(e))?,
            )))
        };
        match world_size {
            0 => Err(self.error("setting world_size is 0, expected 1 or more")),
            _ => (0..world_size).map(recording).collect(),
        }
    }

    /// Appends what the ranks do, their collectives as dispatches; `results` are tensors of each rank's
    /// recording, which are given as they become here.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when ranks wait for each other.
    pub fn join<const N: usize>(
        &mut self,
        ranks: &[Recording],
        results: &[[Tensor; N]],
    ) -> Result<Vec<[Tensor; N]>> {
        let lowered = lower::lower(ranks, &vec![0; ranks.len()])?;
        let slots = lowered.slots;
        let mut recordings = lowered.recordings;
        let offset = self.r.append(recordings.swap_remove(0));
        let mut found = results.to_vec();
        for (tensors, slots) in found.iter_mut().zip(&slots) {
            for tensor in tensors {
                let mapped = lower::mapped(slots, tensor);
                *tensor = mapped.ok_or_else(|| self.error("a rank has no result"))?;
                if let Storage::Scratch(slot) = &mut tensor.storage {
                    *slot += offset;
                }
            }
        }
        Ok(found)
    }

    /// Gives `tensor` as output `name`, in this shape.
    ///
    /// # Panics
    ///
    /// When the operator declares no such output, or the shape has another number of elements.
    pub fn output(&mut self, name: &'static str, tensor: &Tensor, shape: &[usize]) {
        let elements: usize = shape.iter().product();
        assert_eq!(tensor.len(), elements, "{}: {name}", self.op.name);
        self.r.keep(tensor);
        let mut tensor = tensor.clone();
        tensor.shape = shape.to_vec();
        self.made(name, Made::Device(tensor));
    }

    /// Gives an array that needs no computing (a view, a table) as output `name`.
    ///
    /// # Panics
    ///
    /// When the operator declares no such output.
    pub fn output_array(&mut self, name: &'static str, array: Array) {
        self.made(name, Made::Host(array));
    }

    /// Looks at an output when it has been read; a reason makes it an error.
    pub fn check(&mut self, output: &'static str, check: Check) {
        self.checks.push((output, check));
    }

    fn made(&mut self, name: &'static str, made: Made) {
        let output = self.op.outputs.iter().find(|o| o.name == name);
        let output = output.unwrap_or_else(|| panic!("{} declares no {name}", self.op.name));
        let shape = match &made {
            Made::Device(tensor) => &tensor.shape,
            Made::Host(array) => &array.shape,
        };
        if let Err(expected) = self.axes.bind(output.shape, shape) {
            let shape = shown(shape);
            panic!("{}: {name} is {shape}, declared {expected}", self.op.name);
        }
        self.outputs.push((name, made));
    }
}

/// Names of the inputs of `op`, for messages.
pub(super) fn names(inputs: &[Input]) -> Vec<&'static str> {
    inputs.iter().map(|i| i.name).collect()
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::super::find;
    use super::*;
    use crate::device::cpu::CpuDevice;

    fn told(inputs: &[(&str, Array)], settings: &[(&str, &str)]) -> String {
        let inputs = inputs.iter().map(|(n, a)| (n.to_string(), a.clone()));
        let settings = settings.iter().map(|(n, v)| (n.to_string(), v.to_string()));
        let op = find("rms_norm").unwrap();
        let device = CpuDevice::new();
        let result = block_on(run(&device, op, inputs.collect(), &settings.collect()));
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_call_is_one_line_with_expected_and_found() {
        let x = ("x", Array::f32(&[3, 48], &[1.0; 144]));
        let weight = ("weight", Array::f32(&[47], &[1.0; 47]));
        assert_eq!(
            told(&[x.clone(), weight.clone()], &[]),
            "rms_norm: weight has shape (47), expected (48)"
        );
        assert_eq!(
            told(std::slice::from_ref(&weight), &[]),
            "rms_norm: input x is missing"
        );
        let bad = told(std::slice::from_ref(&x), &[("epsilon", "1")]);
        assert!(
            bad.starts_with("rms_norm: unknown setting \"epsilon\"; there are eps"),
            "{bad}"
        );
        let bad = told(&[x, ("y", Array::f32(&[1], &[0.0]))], &[]);
        assert!(
            bad.starts_with("rms_norm: unknown input \"y\"; there are x, "),
            "{bad}"
        );
        let empty = ("x", Array::f32(&[0, 48], &[]));
        assert_eq!(
            told(&[empty], &[]),
            "rms_norm: x has shape (0 48), which holds no elements"
        );
    }
}
