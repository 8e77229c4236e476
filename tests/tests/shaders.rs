//! Every variant of every kernel, expanded for every test case, is valid WGSL, becomes SPIR-V, MSL
//! and HLSL, stays within WebGPU's default limits, and has the interface its `Kernel` describes.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, StorageAccess, TypeInner};
use shardlight::device::{DeviceKind, Layout, Limits};
use shardlight::kernels::{Access, KERNELS, Kernel, Params, Variant};

/// WebGPU's default limits, on hardware of this kind.
fn limits(kind: DeviceKind) -> Limits {
    Limits {
        kind,
        layout: Layout::Planar,
        max_binding_bytes: 128 << 20,
        max_workgroup_size: 256,
        max_workgroup_bytes: 16 << 10,
        max_workgroups: 65535,
        subgroup: None,
        f16: false,
        packed_dot: false,
    }
}

fn every_limits() -> Vec<Limits> {
    let with = |kind, subgroup, f16| Limits {
        subgroup,
        f16,
        packed_dot: f16,
        ..limits(kind)
    };
    vec![
        with(DeviceKind::OtherGpu, None, false),
        with(DeviceKind::DiscreteGpu, Some((32, 32)), true),
        with(DeviceKind::IntegratedGpu, Some((8, 32)), true),
        with(DeviceKind::SoftwareGpu, Some((4, 4)), true),
    ]
}

/// Calls `f` with each distinct text once; `web`: as browsers get it.
fn for_each_text(web: bool, mut f: impl FnMut(&Kernel, &Params, &Variant, &str)) -> usize {
    let mut seen = HashSet::new();
    for kernel in KERNELS {
        for case in (kernel.cases)() {
            for limits in every_limits() {
                for variant in (kernel.variants)(&case.params, &limits) {
                    let spec = kernel.specialization(&case.params, &variant, web);
                    let text =
                        shardlight_shaders::specialize(kernel.name, &spec).unwrap_or_else(|e| {
                            panic!("{}: {e}", name(kernel, &case.params, &variant))
                        });
                    if seen.insert(text.clone()) {
                        f(kernel, &case.params, &variant, &text);
                    }
                }
            }
        }
    }
    seen.len()
}

fn name(kernel: &Kernel, params: &Params, variant: &Variant) -> String {
    format!("{} {} {params}", kernel.name, variant.name)
}

fn numbered(text: &str) -> String {
    let lines = text.lines().enumerate();
    lines.map(|(i, l)| format!("{:4} {l}\n", i + 1)).collect()
}

fn validate(variant: &Variant, text: &str) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    // unpack2x16float; every WebGPU device has it.
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SHADER_FLOAT16, variant.f16);
    capabilities.set(Capabilities::SUBGROUP, variant.subgroups);
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
    Ok((module, info.map_err(|e| e.emit_to_string(text))?))
}

fn write_all(module: &Module, info: &ModuleInfo) -> Result<(), String> {
    let options = spv::Options {
        lang_version: (1, 3),
        ..Default::default()
    };
    spv::write_vec(module, info, &options, None).map_err(|e| format!("SPIR-V: {e}"))?;
    let options = msl::Options {
        lang_version: (2, 4),
        ..Default::default()
    };
    msl::write_string(module, info, &options, &Default::default())
        .map_err(|e| format!("MSL: {e}"))?;
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_2,
        // Where HLSL finds num_workgroups.
        special_constants_binding: Some(Default::default()),
        ..Default::default()
    };
    let (mut out, pipeline) = (String::new(), hlsl::PipelineOptions::default());
    hlsl::Writer::new(&mut out, &options, &pipeline)
        .write(module, info, None)
        .map_err(|e| format!("HLSL: {e}"))?;
    Ok(())
}

/// What a binding of the shader must be for the kernel's description; `None` when it is right.
fn mismatch(kernel: &Kernel, module: &Module) -> Option<String> {
    let mut found = HashSet::new();
    for (_, var) in module.global_variables.iter() {
        let Some(binding) = &var.binding else {
            continue;
        };
        let (number, var_name) = (binding.binding as usize, var.name.as_deref()?);
        found.insert(number);
        let Some(want) = kernel.bindings.get(number) else {
            let args = number == kernel.bindings.len() && !kernel.uniforms.is_empty();
            if !args || var_name != "args" || var.space != AddressSpace::Uniform {
                return Some(format!("binding {number} {var_name} is not described"));
            }
            continue;
        };
        let (space, name) = match want.access {
            Access::Read => (read(StorageAccess::LOAD), want.name.to_string()),
            Access::Weight => (read(StorageAccess::LOAD), format!("{}_words", want.name)),
            Access::Write => (
                read(StorageAccess::LOAD | StorageAccess::STORE),
                want.name.to_string(),
            ),
            Access::Uniform => (AddressSpace::Uniform, want.name.to_string()),
        };
        if (binding.group, var.space, var_name) != (0, space, &name) {
            return Some(format!(
                "binding {number} is {var_name} in {:?}, described as {name} in {space:?}",
                var.space
            ));
        }
    }
    let missing = |i: &usize| !found.contains(i) && !kernel.bindings[*i].optional;
    if let Some(i) = (0..kernel.bindings.len()).find(missing) {
        return Some(format!(
            "binding {i} {} is missing",
            kernel.bindings[i].name
        ));
    }
    let args = module
        .types
        .iter()
        .find(|(_, t)| t.name.as_deref() == Some("Args"));
    let fields: Vec<&str> = match args.map(|(_, t)| &t.inner) {
        Some(TypeInner::Struct { members, .. }) => {
            members.iter().filter_map(|m| m.name.as_deref()).collect()
        }
        _ => Vec::new(),
    };
    (fields != kernel.uniforms)
        .then(|| format!("Args has {fields:?}, described {:?}", kernel.uniforms))
}

fn read(access: StorageAccess) -> AddressSpace {
    AddressSpace::Storage { access }
}

/// Bytes of workgroup memory and number of storage buffers.
fn resources(module: &Module) -> (u32, usize) {
    let mut layouter = naga::proc::Layouter::default();
    layouter
        .update(module.to_ctx())
        .expect("a valid module has a layout");
    let (mut bytes, mut buffers) = (0, 0);
    for (_, var) in module.global_variables.iter() {
        match var.space {
            AddressSpace::WorkGroup => {
                bytes += layouter[var.ty].size.next_multiple_of(16);
            }
            AddressSpace::Storage { .. } => buffers += 1,
            _ => {}
        }
    }
    (bytes, buffers)
}

#[test]
fn every_text_is_valid_and_translates() {
    let texts = for_each_text(false, |kernel, params, variant, text| {
        let name = name(kernel, params, variant);
        let (module, info) =
            validate(variant, text).unwrap_or_else(|e| panic!("{name}: {e}\n{}", numbered(text)));
        write_all(&module, &info).unwrap_or_else(|e| panic!("{name}: {e}\n{}", numbered(text)));
        if let Some(e) = mismatch(kernel, &module) {
            panic!("{name}: {e}");
        }
        let (bytes, buffers) = resources(&module);
        let limits = limits(DeviceKind::OtherGpu);
        assert!(
            bytes <= limits.max_workgroup_bytes,
            "{name}: {bytes} B of workgroup memory"
        );
        assert!(buffers <= 8, "{name}: {buffers} storage buffers");
        let entry = &module.entry_points[0];
        let invocations: u32 = entry.workgroup_size.iter().product();
        assert!(
            invocations <= limits.max_workgroup_size,
            "{name}: {invocations} invocations"
        );
        assert_eq!(entry.name, "main", "{name}");
    });
    assert!(
        texts >= KERNELS.len(),
        "{texts} texts of {} kernels",
        KERNELS.len()
    );
}

/// Where `tests/web/shaders.test.mjs` looks for them: `$SHARDLIGHT_WGSL_DIR`, else `wgsl` in the target folder.
fn wgsl_folder() -> PathBuf {
    match env::var_os("SHARDLIGHT_WGSL_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("wgsl"),
    }
}

#[test]
fn every_text_is_written_for_the_browser_tests() {
    let folder = wgsl_folder();
    fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    // Texts of variants that are no more would be tested for ever.
    for entry in fs::read_dir(&folder).expect("the folder can be listed") {
        let path = entry.expect("the folder can be listed").path();
        if path.extension().is_some_and(|ext| ext == "wgsl") {
            fs::remove_file(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
    let mut number = 0;
    let texts = for_each_text(true, |kernel, params, variant, text| {
        let name = name(kernel, params, variant).replace('\n', " ");
        let file = format!("{}_{}_{number:04}.wgsl", kernel.name, variant.name);
        let path = folder.join(file);
        fs::write(&path, format!("// {name}\n{text}"))
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        number += 1;
    });
    assert_eq!(texts, number);
}

#[test]
fn the_last_variant_needs_no_feature() {
    for kernel in KERNELS {
        for case in (kernel.cases)() {
            for limits in every_limits() {
                let variants = (kernel.variants)(&case.params, &limits);
                let last = variants.last().expect("there is a variant");
                assert!(
                    !last.f16 && !last.subgroups,
                    "{}",
                    name(kernel, &case.params, last)
                );
                let names: HashSet<&str> = variants.iter().map(|v| v.name).collect();
                assert_eq!(
                    names.len(),
                    variants.len(),
                    "{} {}",
                    kernel.name,
                    case.params
                );
                for v in &variants {
                    let fits = v
                        .workgroups
                        .iter()
                        .all(|n| (1..=limits.max_workgroups).contains(n));
                    assert!(fits, "{} {:?}", name(kernel, &case.params, v), v.workgroups);
                }
            }
        }
    }
}

#[test]
fn every_kernel_has_a_file_and_every_file_a_kernel() {
    let mut kernels: Vec<&str> = KERNELS.iter().map(|k| k.name).collect();
    let mut files: Vec<&str> = shardlight_shaders::KERNELS.iter().map(|f| f.0).collect();
    kernels.sort_unstable();
    files.sort_unstable();
    assert_eq!(kernels, files);
}
