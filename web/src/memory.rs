//! What of the devices' memory is taken, as JavaScript sees it.

use std::rc::Rc;

use serde::Serialize;
use shardlight::Result;
use shardlight::device::{Device, MemoryUse};
use wasm_bindgen::prelude::*;

use crate::options::{self, to_js};

#[derive(Serialize)]
struct DeviceMemory {
    device: options::Device,
    #[serde(flatten)]
    used: MemoryUse,
}

/// Of each of these devices.
pub fn of(devices: &[Rc<dyn Device>]) -> Result<JsValue> {
    let memory = |device: &Rc<dyn Device>| DeviceMemory {
        device: device.info().into(),
        used: device.ledger().used(),
    };
    to_js(&devices.iter().map(memory).collect::<Vec<_>>())
}
