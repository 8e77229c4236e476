//! `shardlight devices`: what can run a model here.

use console::style;
use serde_json::json;
use shardlight::device::{self, DeviceChoice};

use crate::cli::Devices;
use crate::load;
use crate::out::Out;
use crate::ui::Ui;

/// Prints a table, or with `--json` an object `{devices}` in the order in which `auto` prefers them.
pub fn run(args: &Devices) -> anyhow::Result<()> {
    let devices = pollster::block_on(device::list());
    let flags = device::flags(&devices);
    let mut out = Out::new();
    if args.format.json {
        let rows: Vec<_> = devices
            .iter()
            .zip(&flags)
            .enumerate()
            .map(|(i, (info, flag))| {
                json!({
                    "device": flag,
                    "name": info.name,
                    "backend": info.backend,
                    "kind": info.kind.to_string(),
                    "driver": info.driver,
                    "auto": i == 0,
                })
            })
            .collect();
        out.json(&json!({ "devices": rows }))?;
        return out.finish();
    }
    for (i, (info, flag)) in devices.iter().zip(&flags).enumerate() {
        let mark = if i == 0 { "*" } else { " " };
        let flag = style(format!("{flag:7}")).bold();
        let backend = format!("{}, {}", info.backend, info.kind);
        let driver = style(&info.driver).dim();
        out.line(format_args!(
            "{mark} {flag}  {}  ({backend})  {driver}",
            info.name
        ))?;
    }
    out.line(style("* is what --device auto takes").dim())?;
    out.finish()?;
    let (device, reason) = pollster::block_on(device::open_with_reason(&DeviceChoice::Auto))?;
    if let Some(reason) = reason {
        Ui::new(false).aside(load::fallback(&reason, device.info()));
    }
    Ok(())
}
