//! Operators for JavaScript: typed arrays in, typed arrays out.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use js_sys::{
    Array as JsArray, ArrayBuffer, Float32Array, Int32Array, Object, Reflect, Uint8Array,
};
use shardlight::device::Device;
use shardlight::ops::{self, Array, ElementType};
use shardlight::{DType, Error, Result};
use wasm_bindgen::prelude::*;

use crate::error::Failure;
use crate::options::{Load, options_from_js, to_js};
use crate::{browser, device, memory};

/// A device that runs operators.
#[wasm_bindgen]
pub struct WebRuntime {
    device: Rc<dyn Device>,
    closed: Cell<bool>,
}

/// Opens a device; `options` may have `device` (`auto`, `cpu`, `gpu`).
///
/// # Errors
///
/// The core's, as one line.
#[wasm_bindgen]
pub async fn open(options: JsValue) -> Result<WebRuntime, Failure> {
    let options: Load = options_from_js(&options)?;
    let device = shardlight::device::open(&options.device()?).await?;
    Ok(WebRuntime {
        device: device::yielding(device),
        closed: Cell::new(false),
    })
}

/// Every operator: an array of `{name, also, systems, summary, inputs, settings, outputs, bound}`.
///
/// # Errors
///
/// Never in practice: the list is always JSON.
#[wasm_bindgen]
pub fn ops() -> Result<JsValue, Failure> {
    let list: Vec<_> = ops::all().map(ops::Op::describe).collect();
    Ok(to_js(&list)?)
}

/// The feed-forward blocks at a width: an array of `{op, hidden, parameters, flops, bytes, inputs}`.
///
/// # Errors
///
/// When `channels` is 0 or very large.
#[wasm_bindgen]
pub fn mlps(channels: u32) -> Result<JsValue, Failure> {
    Ok(to_js(&ops::mlp_sizes(channels as usize)?)?)
}

#[wasm_bindgen]
impl WebRuntime {
    /// `{name, backend, kind, driver}`.
    ///
    /// # Errors
    ///
    /// Never in practice.
    pub fn info(&self) -> Result<JsValue, Failure> {
        Ok(to_js(&crate::options::Device::from(self.device.info()))?)
    }

    /// Runs operator `name`. `inputs` has a value for each input: `{data, shape}` with a typed array, a typed array
    /// (one axis), or nested arrays of numbers. `settings` has numbers, booleans, words and lists.
    /// Gives `{name: {data, shape}}`: `Float32Array`, or `Int32Array` for indices.
    ///
    /// # Errors
    ///
    /// The core's, as one line.
    pub async fn op(
        &self,
        name: String,
        inputs: JsValue,
        settings: JsValue,
    ) -> Result<JsValue, Failure> {
        let run = async || {
            let ready = self.ready(&name, &inputs, &settings).await?;
            ready.run()?;
            ready.read().await
        };
        let ran = self.again(run).await?;
        let outputs = Object::new();
        for (output, array) in &ran.outputs {
            set(&outputs, output, &tensor(array)?)?;
        }
        Ok(outputs.into())
    }

    /// Runs operator `name` once, and then `runs` times one by one: their times in milliseconds.
    ///
    /// # Errors
    ///
    /// As `op`.
    pub async fn time(
        &self,
        name: String,
        inputs: JsValue,
        settings: JsValue,
        runs: u32,
    ) -> Result<Vec<f64>, Failure> {
        let measure = async || {
            let ready = self.ready(&name, &inputs, &settings).await?;
            ready.run()?;
            ready.wait().await?;
            let mut times = Vec::new();
            for _ in 0..runs {
                let begin = browser::milliseconds();
                ready.run()?;
                ready.wait().await?;
                times.push(browser::milliseconds() - begin);
            }
            Ok(times)
        };
        self.again(measure).await
    }

    /// As `WebSession.memory`, of its one device.
    ///
    /// # Errors
    ///
    /// Never in practice.
    pub fn memory(&self) -> Result<JsValue, Failure> {
        Ok(memory::of(std::slice::from_ref(&self.device))?)
    }

    /// For tests: what a driver's reset does. An operator that is running, or the next one, runs on the device opened anew.
    #[wasm_bindgen(js_name = destroyDevice)]
    pub fn destroy_device(&self) {
        self.device.destroy();
    }

    /// Gives back all memory. Operators then fail with the code `closed`.
    pub fn dispose(&self) {
        self.closed.set(true);
        self.device.destroy();
    }
}

impl WebRuntime {
    /// What `run` gives; a second time where the device was lost, which is opened anew.
    async fn again<T>(&self, run: impl AsyncFn() -> Result<T>) -> Result<T, Failure> {
        let closed = || Failure::closed("runtime");
        if self.closed.get() {
            return Err(closed());
        }
        let mut ran = run().await;
        if self.closed.get() {
            return Err(closed());
        }
        if let Err(Error::DeviceLost { .. }) = &ran
            && self.device.reopen().await?
        {
            ran = run().await;
        }
        Ok(ran?)
    }

    async fn ready(
        &self,
        name: &str,
        inputs: &JsValue,
        settings: &JsValue,
    ) -> Result<ops::Ready<'_>> {
        let op = ops::find(name)?;
        let mut arrays = BTreeMap::new();
        for (input, value) in entries(&format!("{name}: inputs"), inputs)? {
            let array =
                array(&value).map_err(|e| Error::Invalid(format!("{name}: {input}: {e}")))?;
            arrays.insert(input, array);
        }
        let mut texts = BTreeMap::new();
        for (setting, value) in entries(&format!("{name}: settings"), settings)? {
            // `1`, `true`, `word` and `[1, 2]` become the texts that the core reads.
            let text = value.unchecked_into::<Object>().to_string();
            texts.insert(setting, String::from(text));
        }
        ops::prepare(&*self.device, op, arrays, &texts).await
    }
}

/// Own properties of an object that are not `undefined`; none of `undefined` itself.
fn entries(what: &str, value: &JsValue) -> Result<Vec<(String, JsValue)>> {
    if value.is_undefined() || value.is_null() {
        return Ok(Vec::new());
    }
    let object = value.dyn_ref::<Object>();
    let object = object.ok_or_else(|| Error::Invalid(format!("{what} are not an object")))?;
    let pairs = Object::entries(object);
    let pairs = pairs.iter().map(|pair| {
        let pair: JsArray = pair.unchecked_into();
        (pair.get(0).as_string().unwrap_or_default(), pair.get(1))
    });
    Ok(pairs.filter(|(_, value)| !value.is_undefined()).collect())
}

fn array(value: &JsValue) -> Result<Array, String> {
    if ArrayBuffer::is_view(value) {
        return typed(value, None);
    }
    if let Some(list) = value.dyn_ref::<JsArray>() {
        let (mut shape, mut values) = (Vec::new(), Vec::new());
        nested(list, 0, &mut shape, &mut values)?;
        return Ok(Array::f32(&shape, &values));
    }
    const EXPECTED: &str =
        "expected {data: a typed array, shape: [..]}, a typed array or nested arrays";
    if !value.is_object() {
        return Err(EXPECTED.into());
    }
    let data = Reflect::get(value, &"data".into()).map_err(|e| browser::reason(&e))?;
    let shape = Reflect::get(value, &"shape".into()).map_err(|e| browser::reason(&e))?;
    if !ArrayBuffer::is_view(&data) || !JsArray::is_array(&shape) {
        return Err(EXPECTED.into());
    }
    let axis = |len: JsValue| match len.as_f64() {
        Some(len) if len >= 0.0 && len.fract() == 0.0 && len <= f64::from(u32::MAX) => {
            Ok(len as usize)
        }
        _ => Err(format!("shape holds {len:?}, expected whole numbers")),
    };
    let shape: Result<Vec<usize>, String> =
        shape.unchecked_into::<JsArray>().iter().map(axis).collect();
    typed(&data, Some(shape?))
}

/// A typed array, of one axis unless `shape` says otherwise.
fn typed(view: &JsValue, shape: Option<Vec<usize>>) -> Result<Array, String> {
    let get =
        |of: &JsValue, key: &str| Reflect::get(of, &key.into()).map_err(|e| browser::reason(&e));
    let name = get(&get(view, "constructor")?, "name")?
        .as_string()
        .unwrap_or_default();
    let dtype = match &name[..] {
        "Float32Array" => ElementType::F32,
        "Float64Array" => ElementType::F64,
        "Float16Array" => ElementType::Weight(DType::F16),
        "BigInt64Array" => ElementType::I64,
        "BigUint64Array" => ElementType::U64,
        "Int32Array" => ElementType::I32,
        "Uint32Array" => ElementType::U32,
        "Int16Array" => ElementType::I16,
        "Uint16Array" => ElementType::U16,
        "Int8Array" => ElementType::I8,
        "Uint8Array" | "Uint8ClampedArray" => ElementType::U8,
        other => return Err(format!("a {other} holds no elements; give a typed array")),
    };
    let number = |key| get(view, key).map(|n| n.as_f64().unwrap_or(0.0));
    let (offset, bytes) = (number("byteOffset")? as u32, number("byteLength")? as u32);
    let bytes = Uint8Array::new_with_byte_offset_and_length(&get(view, "buffer")?, offset, bytes);
    let shape = shape.map_or_else(|| number("length").map(|n| vec![n as usize]), Ok)?;
    Array::new(dtype, &shape, bytes.to_vec()).map_err(|e| e.to_string())
}

/// Deepest nesting of arrays of numbers.
const MOST_AXES: usize = 8;

fn nested(
    list: &JsArray,
    depth: usize,
    shape: &mut Vec<usize>,
    values: &mut Vec<f32>,
) -> Result<(), String> {
    if depth == MOST_AXES {
        return Err(format!("arrays are nested over {MOST_AXES} deep"));
    }
    let len = list.length() as usize;
    match shape.get(depth) {
        None => shape.push(len),
        Some(&first) if first == len => {}
        Some(first) => {
            return Err(format!(
                "a nested array has {len} elements, the first one {first}"
            ));
        }
    }
    for value in list.iter() {
        match (value.as_f64(), value.dyn_ref::<JsArray>()) {
            (Some(number), _) if depth + 1 == shape.len() => values.push(number as f32),
            (None, Some(inner)) => nested(inner, depth + 1, shape, values)?,
            _ => {
                return Err(format!(
                    "nested arrays hold {value:?}, expected numbers at one depth"
                ));
            }
        }
    }
    Ok(())
}

/// `{data, shape}`
fn tensor(array: &Array) -> Result<JsValue> {
    let data: JsValue = match array.to_i64() {
        // Indices have at most 32 bits on devices.
        Some(values) => {
            Int32Array::from(&values.iter().map(|v| *v as i32).collect::<Vec<_>>()[..]).into()
        }
        None => Float32Array::from(&array.to_f32()[..]).into(),
    };
    let shape: JsArray = array
        .shape
        .iter()
        .map(|len| JsValue::from(*len as u32))
        .collect();
    let tensor = Object::new();
    set(&tensor, "data", &data)?;
    set(&tensor, "shape", &shape)?;
    Ok(tensor.into())
}

fn set(object: &Object, key: &str, value: &JsValue) -> Result<()> {
    let set = Reflect::set(object, &key.into(), value);
    set.map(drop)
        .map_err(|e| Error::Invalid(browser::reason(&e)))
}
