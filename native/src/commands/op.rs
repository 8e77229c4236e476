//! `shardlight op`: any kernel or layer on tensors from files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};
use console::style;
use pollster::block_on;
use serde_json::json;
use shardlight::device::{self, Device};
use shardlight::ops::{self, Array, ElementType, TensorFile};
use shardlight::weights::gguf::GgufHeader;
use shardlight::weights::{FileKind, WeightSource as _};

use crate::cli::Op;
use crate::cuda::Kernels;
use crate::exit::usage;
use crate::out::Out;
use crate::source::MmapSource;
use crate::ui::Ui;

/// Most values of an output that are printed as text.
const SHOWN: usize = 8;

/// Lists, checks or runs.
pub fn run(args: &Op, ui: Ui) -> anyhow::Result<()> {
    if args.list {
        return list(args);
    }
    // What it is asked about is WGSL's.
    args.device.choose_kernels(Kernels::Generated);
    let device = block_on(device::open(&args.device.device))?;
    args.device.check_kernels([device.info()].into_iter())?;
    match &args.name {
        Some(name) => compute(args, name, &*device, ui),
        None => check(args, &*device),
    }
}

/// Prints every operator, or the named one; with `--json` an object `{ops}`.
fn list(args: &Op) -> anyhow::Result<()> {
    let listed: Vec<&ops::Op> = match &args.name {
        Some(name) => vec![ops::find(name)?],
        None => ops::all().collect(),
    };
    let mut out = Out::new();
    if args.format.json {
        out.json(&json!({ "ops": listed.iter().map(|op| op.describe()).collect::<Vec<_>>() }))?;
        return out.finish();
    }
    for op in listed {
        out.line(format_args!("{}  {}", style(op.name).bold(), op.summary))?;
        for input in op.inputs {
            let optional = if input.optional { ", optional" } else { "" };
            let doc = if input.doc.is_empty() { "" } else { ": " };
            let (name, shape) = (input.name, input.shape);
            out.line(format_args!(
                "    in   {name} ({shape}){optional}{doc}{}",
                input.doc
            ))?;
        }
        for setting in op.settings {
            let (name, kind, doc) = (setting.name, setting.kind, setting.doc);
            out.line(format_args!("    set  {name} = {kind}: {doc}"))?;
        }
        for output in op.outputs {
            let doc = if output.doc.is_empty() { "" } else { ": " };
            out.line(format_args!(
                "    out  {} ({}){doc}{}",
                output.name, output.shape, output.doc
            ))?;
        }
        if !op.kinds.is_empty() {
            out.line(format_args!("    also {}", op.kinds.join(", ")))?;
        }
    }
    out.finish()
}

/// Runs one operator; prints its outputs, or writes them to `--out`. With `--json` an object
/// `{op, device, kernels, ms, outputs: {name: {dtype, shape, data}}}`; `ms` is the median of `--reps`
/// runs, `null` without.
fn compute(args: &Op, name: &str, device: &dyn Device, ui: Ui) -> anyhow::Result<()> {
    let op = ops::find(name)?;
    let renamed = pairs("--tensor", &args.tensor)?;
    let settings = pairs("--set", &args.set)?;
    let mut inputs = BTreeMap::new();
    let mut ignored = Vec::new();
    for path in &args.input {
        // The inputs that a tensor of the file is for.
        let wanted = |tensor: &str| {
            let renamed_to = renamed.iter().filter(|(_, name)| *name == tensor);
            let mut inputs: Vec<String> = renamed_to.map(|(input, _)| input.clone()).collect();
            let known = op.inputs.iter().any(|i| i.name == tensor);
            if known && !renamed.contains_key(tensor) {
                inputs.push(tensor.to_owned());
            }
            inputs
        };
        for (tensor, array) in read(path, &wanted, &mut ignored)? {
            if inputs.insert(tensor.clone(), array).is_some() {
                bail!("{}: {tensor} was already given", path.display());
            }
        }
    }
    for (input, tensor) in &renamed {
        if !inputs.contains_key(input) {
            bail!("--tensor {input}={tensor}: no file given with --in holds {tensor}");
        }
    }
    if !ignored.is_empty() {
        ui.aside(format_args!(
            "{}: not inputs, ignored: {}",
            op.name,
            ignored.join(", ")
        ));
    }
    let ready = block_on(ops::prepare(device, op, inputs, &settings))?;
    ready.run()?;
    // Before it is measured: repeating what works in place changes it.
    let ran = block_on(ready.read())?;
    let mut times = Vec::new();
    for _ in 0..args.reps {
        let begin = Instant::now();
        ready.run()?;
        block_on(ready.wait())?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let ms = times.get(times.len() / 2);
    if let Some(path) = &args.out {
        let outputs = ran.outputs.iter();
        let file = TensorFile {
            metadata: BTreeMap::new(),
            tensors: outputs.map(|(n, a)| ((*n).to_owned(), a.clone())).collect(),
        };
        write(path, &file.write()?)?;
    }
    let mut out = Out::new();
    if args.format.json {
        let mut outputs = serde_json::Map::new();
        for (name, array) in &ran.outputs {
            let mut output = json!({ "dtype": array.dtype.to_string(), "shape": array.shape });
            if args.out.is_none() {
                output["data"] = match array.to_i64() {
                    Some(values) => json!(values),
                    None => json!(array.to_f32()),
                };
            }
            outputs.insert((*name).to_owned(), output);
        }
        out.json(&json!({
            "op": op.name,
            "device": device.info().to_string(),
            "kernels": ran.kernels,
            "ms": ms,
            "outputs": outputs,
        }))?;
        return out.finish();
    }
    for (name, array) in &ran.outputs {
        let values: Vec<String> = match array.to_i64() {
            Some(values) => values.iter().take(SHOWN).map(i64::to_string).collect(),
            None => array
                .to_f32()
                .iter()
                .take(SHOWN)
                .map(f32::to_string)
                .collect(),
        };
        let more = if array.len() > SHOWN { " ..." } else { "" };
        out.line(format_args!(
            "{} {} {:?}: {}{more}",
            style(name).bold(),
            array.dtype,
            array.shape,
            values.join(" ")
        ))?;
    }
    if let Some(ms) = ms {
        let (reps, device) = (times.len(), device.info());
        out.line(format_args!(
            "{ms:.3} ms, median of {reps} runs on {device}"
        ))?;
    }
    out.finish()
}

/// Compares recorded results; a line for each tensor, or with `--json` an object `{device, tensors}`.
fn check(args: &Op, device: &dyn Device) -> anyhow::Result<()> {
    let mut out = Out::new();
    let mut rows = Vec::new();
    let (mut all, mut failed) = (0, 0);
    for path in &args.check {
        let name = path.display().to_string();
        let bytes = fs::read(path).with_context(|| name.clone())?;
        let file = TensorFile::read(&name, &bytes)?;
        for compared in block_on(ops::check(device, &name, &file))? {
            all += 1;
            failed += usize::from(!compared.passes());
            if args.format.json {
                rows.push(json!({
                    "file": name,
                    "op": compared.op,
                    "tensor": compared.tensor,
                    "nmse": compared.nmse,
                    "bound": compared.bound,
                    "passes": compared.passes(),
                }));
                continue;
            }
            let verdict = match compared.passes() {
                true => style("ok").green(),
                false => style("PAST THE BOUND").red().bold(),
            };
            out.line(format_args!(
                "{name}: {} {}: NMSE {:.1e} (bound {:.0e}) {verdict}",
                compared.op, compared.tensor, compared.nmse, compared.bound
            ))?;
        }
    }
    if args.format.json {
        let device = device.info().to_string();
        out.json(&json!({ "device": device, "tensors": rows, "failed": failed }))?;
    } else {
        let files = args.check.len();
        let device = device.info();
        out.line(format_args!(
            "{all} tensors of {files} files compared on {device}, {failed} past the bound"
        ))?;
    }
    out.finish()?;
    if failed > 0 {
        bail!("{failed} of {all} tensors are past their bounds");
    }
    Ok(())
}

/// `NAME=VALUE` texts.
fn pairs(flag: &str, texts: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    for text in texts {
        let Some((name, value)) = text.split_once('=') else {
            return Err(usage(format!("{flag} {text}: expected NAME=VALUE")));
        };
        if pairs.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(usage(format!("{flag}: {name} is given twice")));
        }
    }
    Ok(pairs)
}

/// The tensors of a .safetensors or .gguf file that `wanted` gives an input's name for; the names
/// of the others go to `ignored`.
fn read(
    path: &Path,
    wanted: &dyn Fn(&str) -> Vec<String>,
    ignored: &mut Vec<String>,
) -> anyhow::Result<Vec<(String, Array)>> {
    let source = MmapSource::open(path)?;
    let mut tensors = Vec::new();
    if block_on(FileKind::of(&source))? == FileKind::Gguf {
        for info in block_on(GgufHeader::read(&source, 0))?.tensors {
            let inputs = wanted(&info.name);
            if inputs.is_empty() {
                // A model has hundreds of others.
                continue;
            }
            let mut bytes = vec![0; usize::try_from(info.bytes)?];
            block_on(source.read(info.offset, &mut bytes))?;
            let array = Array::new(ElementType::Weight(info.dtype), &info.shape, bytes)?;
            tensors.extend(inputs.into_iter().map(|input| (input, array.clone())));
        }
        return Ok(tensors);
    }
    let mut bytes = vec![0; usize::try_from(source.len())?];
    block_on(source.read(0, &mut bytes))?;
    for (name, array) in TensorFile::read(&path.display().to_string(), &bytes)?.tensors {
        let inputs = wanted(&name);
        if inputs.is_empty() {
            ignored.push(name);
        }
        tensors.extend(inputs.into_iter().map(|input| (input, array.clone())));
    }
    Ok(tensors)
}

/// Writes a whole file or none: under another name first.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let name = path.display().to_string();
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let written = fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // Nothing more can be done about a rest that cannot be removed.
        let _ = fs::remove_file(&partial);
    }
    written.with_context(|| format!("{name}: {} bytes could not be written", bytes.len()))
}
