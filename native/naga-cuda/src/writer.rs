//! A module: types, constants, variables, one struct whose members are its functions, and the kernel.

use std::fmt::Write as _;

use naga::proc::Layouter;
use naga::valid::ModuleInfo;
use naga::{
    AddressSpace, Binding as Location, BuiltIn, EntryPoint, GlobalVariable, Handle, Module, Scalar,
    ShaderStage, Type, TypeInner,
};

use crate::function::Body;
use crate::types::{is_read_only, plain};
use crate::{Binding, Error, Options, Output, Result, SUBGROUP_SIZE, Space, unsupported};

const PRELUDE: &str = include_str!("prelude.cuh");
const COOPERATIVE: &str = include_str!("cooperative.cuh");

/// What all parts of the text are written from.
pub(crate) struct Writer<'a> {
    pub(crate) module: &'a Module,
    pub(crate) info: &'a ModuleInfo,
    pub(crate) options: &'a Options<'a>,
    pub(crate) layouter: Layouter,
    /// Threads of a block.
    pub(crate) threads: u32,
}

pub(crate) fn write(module: &Module, info: &ModuleInfo, options: &Options<'_>) -> Result<Output> {
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx())?;
    let found = module.entry_points.iter().enumerate();
    let mut found =
        found.filter(|(_, e)| e.stage == ShaderStage::Compute && e.name == options.entry_point);
    let Some((number, entry)) = found.next() else {
        return Err(Error::EntryPoint(options.entry_point.to_string()));
    };
    let writer = Writer {
        module,
        info,
        options,
        layouter,
        threads: entry.workgroup_size.iter().product(),
    };
    let bindings = writer.bindings()?;
    let name = format!("{}_k", plain(Some(&entry.name), "main"));
    let source = writer.source(number, entry, &name, &bindings)?;
    Ok(Output {
        source,
        entry: name,
        workgroup_size: entry.workgroup_size,
        bindings: bindings.into_iter().map(|(_, b)| b).collect(),
    })
}

impl Writer<'_> {
    /// Bound variables in order.
    fn bindings(&self) -> Result<Vec<(Handle<GlobalVariable>, Binding)>> {
        let mut bindings = Vec::new();
        for (handle, variable) in self.module.global_variables.iter() {
            let Some(place) = variable.binding else {
                continue;
            };
            let space = match variable.space {
                AddressSpace::Uniform => Space::Uniform,
                AddressSpace::Storage { .. } => Space::Storage {
                    writable: !is_read_only(variable.space),
                },
                _ => return unsupported(format!("variable {:?}", variable.name)),
            };
            let array = self.runtime_array(variable.ty);
            let binding = Binding {
                group: place.group,
                binding: place.binding,
                space,
                bytes: array.map_or(self.layouter[variable.ty].size, |(offset, ..)| offset),
                stride: array.map(|(.., stride)| stride),
            };
            bindings.push((handle, binding));
        }
        bindings.sort_by_key(|(_, b)| (b.group, b.binding));
        Ok(bindings)
    }

    /// Name of a variable.
    pub(crate) fn global_name(&self, handle: Handle<GlobalVariable>) -> String {
        let name = self.module.global_variables[handle].name.as_deref();
        format!("{}_g{}", plain(name, "global"), handle.index())
    }

    /// Name of the number of elements of a variable's runtime-sized array.
    pub(crate) fn length_name(&self, handle: Handle<GlobalVariable>) -> String {
        format!("{}_length", self.global_name(handle))
    }

    /// Type of what a bound variable's pointer points to.
    fn pointee(&self, ty: Handle<Type>) -> Result<String> {
        match self.module.types[ty].inner {
            TypeInner::Array {
                base,
                size: naga::ArraySize::Dynamic,
                stride,
            } => self.element_name(base, stride),
            _ => self.type_name(ty),
        }
    }

    fn source(
        &self,
        number: usize,
        entry: &EntryPoint,
        name: &str,
        bindings: &[(Handle<GlobalVariable>, Binding)],
    ) -> Result<String> {
        let mut out = String::new();
        for (axis, n) in ["X", "Y", "Z"].iter().zip(entry.workgroup_size) {
            writeln!(out, "#define WGSL_SIZE_{axis} {n}u")?;
        }
        writeln!(out, "{PRELUDE}")?;
        let types = &self.module.types;
        let cooperative = |ty: &Type| matches!(ty.inner, TypeInner::CooperativeMatrix { .. });
        if types.iter().any(|(_, ty)| cooperative(ty)) {
            if !self.threads.is_multiple_of(SUBGROUP_SIZE) {
                return unsupported(format!(
                    "a cooperative matrix of {} invocations",
                    self.threads
                ));
            }
            writeln!(out, "{COOPERATIVE}")?;
        }
        write!(out, "{}", self.structs()?)?;
        for (handle, constant) in self.module.constants.iter() {
            if matches!(
                self.module.types[constant.ty].inner,
                TypeInner::Array { .. } | TypeInner::Struct { .. } | TypeInner::Matrix { .. }
            ) {
                let ty = self.type_name(constant.ty)?;
                let value = self.constant_expression(constant.init)?;
                writeln!(
                    out,
                    "__device__ const {ty} {} = {value};",
                    self.constant_name(handle)
                )?;
            }
        }
        for (handle, variable) in self.module.global_variables.iter() {
            if variable.space == AddressSpace::WorkGroup {
                let (ty, name) = (self.type_name(variable.ty)?, self.global_name(handle));
                writeln!(out, "__shared__ {ty} {name};")?;
            }
        }
        writeln!(out, "struct program {{")?;
        let (mut pointers, mut lengths, mut privates) = (Vec::new(), Vec::new(), Vec::new());
        for (handle, binding) in bindings {
            let variable = &self.module.global_variables[*handle];
            let constant = match is_read_only(variable.space) {
                true => "const ",
                false => "",
            };
            let (ty, name) = (self.pointee(variable.ty)?, self.global_name(*handle));
            writeln!(out, "    {constant}{ty} *{name};")?;
            pointers.push((format!("{constant}{ty} *__restrict__"), name));
            if binding.stride.is_some() {
                lengths.push(("u32".to_string(), self.length_name(*handle)));
            }
        }
        for (_, name) in &lengths {
            writeln!(out, "    u32 {name};")?;
        }
        for (handle, variable) in self.module.global_variables.iter() {
            match variable.space {
                AddressSpace::Private => {
                    let (ty, name) = (self.type_name(variable.ty)?, self.global_name(handle));
                    writeln!(out, "    {ty} {name};")?;
                    privates.push(match variable.init {
                        Some(value) => self.constant_expression(value)?,
                        None => format!("{ty}{{}}"),
                    });
                }
                AddressSpace::WorkGroup | AddressSpace::Uniform | AddressSpace::Storage { .. } => {}
                _ => return unsupported(format!("variable {:?}", variable.name)),
            }
        }
        for (handle, function) in self.module.functions.iter() {
            let name = self.function_name(handle);
            out.push_str(&Body::new(self, function, &self.info[handle]).member(&name)?);
        }
        let main = Body::new(self, &entry.function, self.info.get_entry_point(number));
        out.push_str(&main.member("main_f")?);
        writeln!(out, "}};\n")?;

        let parameters: Vec<_> = pointers.into_iter().chain(lengths).collect();
        let declared: Vec<_> = parameters
            .iter()
            .map(|(ty, name)| format!("{ty} {name}"))
            .collect();
        writeln!(
            out,
            "extern \"C\" __global__ void __launch_bounds__({}) {name}({}) {{",
            self.threads,
            declared.join(", ")
        )?;
        let values = parameters
            .iter()
            .map(|(_, name)| name.clone())
            .chain(privates);
        let values: Vec<_> = values.collect();
        writeln!(out, "    program p{{{}}};", values.join(", "))?;
        self.zero_workgroup_memory(&mut out, number)?;
        let mut arguments = Vec::new();
        for argument in &entry.function.arguments {
            arguments.push(self.input(argument.ty, argument.binding.as_ref())?);
        }
        writeln!(out, "    p.main_f({});", arguments.join(", "))?;
        writeln!(out, "}}")?;
        Ok(out)
    }

    fn zero_workgroup_memory(&self, out: &mut String, entry: usize) -> Result<()> {
        let uses = self.info.get_entry_point(entry);
        let mut any = false;
        for (handle, variable) in self.module.global_variables.iter() {
            let wanted = self.options.zero_workgroup_memory && !uses[handle].is_empty();
            if wanted && variable.space == AddressSpace::WorkGroup {
                writeln!(out, "    wgsl::zero({});", self.global_name(handle))?;
                any = true;
            }
        }
        if any {
            writeln!(out, "    __syncthreads();")?;
        }
        Ok(())
    }

    /// An argument of the entry point.
    fn input(&self, ty: Handle<Type>, binding: Option<&Location>) -> Result<String> {
        let Some(binding) = binding else {
            let TypeInner::Struct { members, .. } = &self.module.types[ty].inner else {
                return unsupported("an argument without a built-in value");
            };
            let parts = members
                .iter()
                .map(|m| self.input(m.ty, m.binding.as_ref()))
                .collect::<Result<Vec<_>>>()?;
            return Ok(format!(
                "{}::make({})",
                self.type_name(ty)?,
                parts.join(", ")
            ));
        };
        let Location::BuiltIn(builtin) = binding else {
            return unsupported("an argument with a location");
        };
        let index = "wgsl::thread_index()";
        let groups = self.threads.div_ceil(SUBGROUP_SIZE);
        Ok(match builtin {
            BuiltIn::WorkGroupId => "wgsl::vec<u32, 3>{blockIdx.x, blockIdx.y, blockIdx.z}".into(),
            BuiltIn::NumWorkGroups => "wgsl::vec<u32, 3>{gridDim.x, gridDim.y, gridDim.z}".into(),
            BuiltIn::LocalInvocationId => {
                "wgsl::vec<u32, 3>{threadIdx.x, threadIdx.y, threadIdx.z}".into()
            }
            BuiltIn::GlobalInvocationId => "wgsl::vec<u32, 3>{blockIdx.x * WGSL_SIZE_X + threadIdx.x, blockIdx.y * WGSL_SIZE_Y + threadIdx.y, blockIdx.z * WGSL_SIZE_Z + threadIdx.z}".into(),
            BuiltIn::WorkGroupSize => "wgsl::vec<u32, 3>{WGSL_SIZE_X, WGSL_SIZE_Y, WGSL_SIZE_Z}".into(),
            BuiltIn::LocalInvocationIndex => index.into(),
            BuiltIn::SubgroupSize => format!("{SUBGROUP_SIZE}u"),
            BuiltIn::SubgroupInvocationId => "wgsl::lane()".into(),
            BuiltIn::SubgroupId => format!("{index} / {SUBGROUP_SIZE}u"),
            BuiltIn::NumSubgroups => format!("{groups}u"),
            other => return unsupported(format!("built-in value {other:?}")),
        })
    }

    /// The scalar that a type consists of.
    pub(crate) fn scalar_of(inner: &TypeInner) -> Option<Scalar> {
        match *inner {
            TypeInner::Scalar(s) | TypeInner::Atomic(s) => Some(s),
            TypeInner::Vector { scalar, .. }
            | TypeInner::Matrix { scalar, .. }
            | TypeInner::CooperativeMatrix { scalar, .. } => Some(scalar),
            TypeInner::ValuePointer { scalar, .. } => Some(scalar),
            _ => None,
        }
    }
}
