//! Every operator: its examples on every device, its gradient by small steps, recorded results,
//! and that there is one for each row of the table of systems.

use std::collections::BTreeSet;
use std::fs;
use std::rc::Rc;

use pollster::block_on;
use shardlight::device::Device;
use shardlight::device::cpu::CpuDevice;
use shardlight::kernels::{KERNELS, case};
use shardlight::ops::{self, Array, Example, Op, Ran, TensorFile};
use shardlight_tests::{data, devices};

fn run(device: &dyn Device, op: &'static Op, example: &Example) -> Ran {
    let (inputs, settings) = example.call();
    block_on(ops::run(device, op, inputs, &settings)).unwrap_or_else(|e| panic!("{e}"))
}

/// `SHARDLIGHT_OP=name` runs one operator only.
fn selected() -> Vec<&'static Op> {
    let name = std::env::var("SHARDLIGHT_OP").unwrap_or_default();
    ops::all()
        .filter(|op| name.is_empty() || op.name == name)
        .collect()
}

#[test]
fn examples_give_the_same_on_every_device() {
    let devices = devices();
    let (cpu, others) = devices.split_first().expect("the CPU device always exists");
    let (mut failures, mut runs) = (Vec::new(), 0);
    for op in selected() {
        for (i, example) in (op.examples)().iter().enumerate() {
            let want = run(&**cpu, op, example);
            assert!(!want.outputs.is_empty(), "{} gives nothing", op.name);
            for device in others {
                runs += 1;
                let got = run(&**device, op, example);
                for (name, want) in &want.outputs {
                    if let Err(why) = same(&got.outputs[name], want, op.bound) {
                        let backend = &device.info().backend;
                        failures.push(format!(
                            "{} example {i} on {backend}: {name}: {why}",
                            op.name
                        ));
                    }
                }
            }
        }
    }
    println!("{runs} examples compared");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn same(got: &Array, want: &Array, bound: f64) -> Result<(), String> {
    if got.shape != want.shape {
        return Err(format!(
            "shape {:?}, on the CPU {:?}",
            got.shape, want.shape
        ));
    }
    if let (Some(got), Some(want)) = (got.to_i64(), want.to_i64()) {
        return if got == want {
            Ok(())
        } else {
            Err(format!("{got:?}, on the CPU {want:?}"))
        };
    }
    let nmse = ops::nmse(&got.to_f32(), &want.to_f32());
    // Two results, each within the bound of the truth.
    if nmse <= 4.0 * bound {
        Ok(())
    } else {
        Err(format!("NMSE {nmse:.1e}"))
    }
}

/// The loss of the small steps: `sum(y * dy)`, or the loss that the operator itself gives, `of` where it
/// gives several.
fn loss(
    device: &dyn Device,
    op: &'static Op,
    of: Option<&str>,
    example: &Example,
    dy: Option<&[f32]>,
) -> f64 {
    let outputs = run(device, op, example).outputs;
    let names = of.map_or(vec!["y", "loss"], |of| vec![of]);
    let y = names.into_iter().find_map(|name| outputs.get(name));
    let y = y
        .unwrap_or_else(|| panic!("{} has neither y nor loss", op.name))
        .to_f32();
    let dy = |i| dy.map_or(1.0, |dy: &[f32]| f64::from(dy[i]));
    y.iter()
        .enumerate()
        .map(|(i, y)| f64::from(*y) * dy(i))
        .sum()
}

#[test]
fn gradients_are_what_small_steps_give() {
    const STEP: f32 = 1.0 / 256.0;
    let device = CpuDevice::new();
    let (mut checked, mut failures) = (0, Vec::new());
    for backward in selected() {
        let Some(name) = backward.name.strip_suffix("_backward") else {
            continue;
        };
        let forward = ops::find(name).expect("a gradient has its operator");
        for example in (backward.examples)() {
            let gradients = run(&device, backward, &example).outputs;
            let dy = example.inputs.iter().find(|(n, _)| *n == "dy");
            let dy = dy.map(|(_, a)| a.to_f32());
            let mut call = example.clone();
            call.inputs
                .retain(|(n, _)| forward.inputs.iter().any(|i| i.name == *n));
            call.settings
                .retain(|(n, _)| forward.settings.iter().any(|s| s.name == *n));
            for (output, gradient) in &gradients {
                let found = forward.gradient_of(output);
                let (input, of) = found.unwrap_or_else(|| panic!("{name}: no input of {output}"));
                let of = of.map(|o| o.name);
                let at = call.inputs.iter().position(|(n, _)| *n == input.name);
                let at = at.unwrap_or_else(|| panic!("{name}: no input {}", input.name));
                let (shape, values) = (call.inputs[at].1.shape.clone(), call.inputs[at].1.to_f32());
                let gradient = gradient.to_f32();
                assert_eq!(gradient.len(), values.len(), "{}: {output}", backward.name);
                // A few elements of each: the first, the last, some between.
                let picks: BTreeSet<usize> = (0..8).map(|i| i * (values.len() - 1) / 7).collect();
                let (mut got, mut want) = (Vec::new(), Vec::new());
                for i in picks {
                    let mut at_step = |step: f32| {
                        let mut moved = values.clone();
                        moved[i] += step;
                        call.inputs[at].1 = Array::f32(&shape, &moved);
                        loss(&device, forward, of, &call, dy.as_deref())
                    };
                    let slope = (at_step(STEP) - at_step(-STEP)) / f64::from(2.0 * STEP);
                    want.push(slope as f32);
                    got.push(gradient[i]);
                }
                call.inputs[at].1 = Array::f32(&shape, &values);
                checked += 1;
                let nmse = ops::nmse(&got, &want);
                if nmse > 1e-4 {
                    failures.push(format!(
                        "{} {output}: NMSE {nmse:.1e}: {got:?}, by steps {want:?}",
                        backward.name
                    ));
                }
            }
        }
    }
    println!("{checked} gradients checked by small steps");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_kernel_runs_in_some_example() {
    let device = CpuDevice::new();
    let mut missing: BTreeSet<&str> = KERNELS.iter().map(|k| k.name).collect();
    for op in ops::all() {
        for example in (op.examples)() {
            for kernel in run(&device, op, &example).kernels {
                missing.remove(kernel);
            }
        }
    }
    assert!(missing.is_empty(), "no operator runs {missing:?}");
}

#[test]
fn recorded_results_of_pytorch_are_met_on_every_device() {
    let mut files: Vec<_> = ["layers", "routers"]
        .into_iter()
        .flat_map(|folder| fs::read_dir(data().join(folder)).expect("tests/data has it"))
        .map(|entry| entry.expect("is readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    files.sort();
    assert!(files.len() >= 34, "{} files", files.len());
    for device in devices() {
        let (mut compared, mut failures) = (0, Vec::new());
        for path in &files {
            let name = path.file_name().expect("is a file").to_string_lossy();
            let bytes = fs::read(path).expect("is readable");
            let result = TensorFile::read(&name, &bytes)
                .and_then(|file| block_on(ops::check(&*device, &name, &file)));
            match result {
                Ok(tensors) => {
                    compared += tensors.len();
                    failures.extend(tensors.iter().filter(|c| !c.passes()).map(|c| {
                        format!(
                            "{name}: {} {}: NMSE {:.1e} > {:.0e}",
                            c.op, c.tensor, c.nmse, c.bound
                        )
                    }));
                }
                Err(e) => failures.push(e.to_string()),
            }
        }
        println!(
            "{}: {compared} tensors of {} files",
            device.info(),
            files.len()
        );
        assert!(
            failures.is_empty(),
            "{}:\n{}",
            device.info(),
            failures.join("\n")
        );
    }
}

#[test]
fn vocab_parallel_cross_entropy_is_pytorchs_at_every_world_size() {
    for device in devices() {
        for smoothing in ["0.0", "0.1"] {
            let name = format!("cross_entropy_ls{smoothing}.safetensors");
            let bytes = fs::read(data().join("layers").join(&name)).expect("is readable");
            let mut file = TensorFile::read(&name, &bytes).expect("is a file of tensors");
            let kind = "vocab_parallel_cross_entropy".to_owned();
            file.metadata.insert("kind".into(), kind);
            for world_size in [1, 2, 3, 4, 7, 37] {
                file.metadata
                    .insert("world_size".into(), world_size.to_string());
                let compared = block_on(ops::check(&*device, &name, &file))
                    .unwrap_or_else(|e| panic!("{name} on {world_size} ranks: {e}"));
                // The loss and its gradient.
                assert_eq!(compared.len(), 2);
                for c in compared {
                    let (op, tensor, nmse) = (c.op, &c.tensor, c.nmse);
                    let on = device.info();
                    assert!(
                        c.passes(),
                        "{name} on {world_size} ranks, {on}: {op} {tensor}: NMSE {nmse:.1e}"
                    );
                }
            }
        }
    }
}

/// Rows that are no layer: stages are tested with whole models, in `sharding.rs`.
const NO_LAYER: &[&str] = &["pipeline"];

#[test]
fn every_row_of_the_table_of_systems_has_an_operator() {
    let text = fs::read_to_string(data().join("systems.md")).expect("tests/data/systems.md");
    let mut rows: BTreeSet<String> = BTreeSet::new();
    for section in text.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        let cells = section.lines().filter_map(|line| line.strip_prefix("| "));
        let cells = cells.filter_map(|line| line.split(" | ").next());
        let cells = cells.filter(|cell| !matches!(*cell, "system" | "kernel"));
        let cells = cells.filter(|cell| !NO_LAYER.contains(cell));
        let before = rows.len();
        rows.extend(cells.map(|c| c.split(" (").next().unwrap_or(c).replace("**", "")));
        if rows.len() == before {
            // A section without a table is a system of its own.
            rows.insert(title.to_owned());
        }
    }
    assert!(rows.len() >= 20, "{rows:?}");
    let known: BTreeSet<&str> = ops::all().flat_map(|op| op.systems).copied().collect();
    for system in &known {
        assert!(
            rows.contains(*system),
            "an operator names {system:?}, which is no row"
        );
    }
    let missing: Vec<_> = rows
        .iter()
        .filter(|r| !known.contains(r.as_str()))
        .collect();
    assert!(missing.is_empty(), "rows without an operator: {missing:?}");
}

#[test]
fn a_seed_of_an_example_is_reproducible() {
    assert_eq!(case::random(7, 5), case::random(7, 5));
    let device: Rc<dyn Device> = Rc::new(CpuDevice::new());
    for op in selected() {
        for example in (op.examples)() {
            let [a, b] = [run(&*device, op, &example), run(&*device, op, &example)];
            assert_eq!(a.outputs, b.outputs, "{} differs from run to run", op.name);
        }
    }
}
