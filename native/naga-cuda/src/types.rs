//! Types: names, and definitions of structs in WGSL's layout.

use std::fmt::Write as _;

use naga::{
    AddressSpace, ArraySize, CooperativeRole, CooperativeSize, Handle, Scalar, ScalarKind,
    StorageAccess, Type, TypeInner,
};

use crate::writer::Writer;
use crate::{Result, unsupported};

/// Name of a scalar type.
pub(crate) fn scalar(scalar: Scalar) -> Result<&'static str> {
    Ok(match (scalar.kind, scalar.width) {
        (ScalarKind::Bool, _) => "bool",
        (ScalarKind::Sint, 4) => "i32",
        (ScalarKind::Uint, 4) => "u32",
        (ScalarKind::Sint, 8) => "i64",
        (ScalarKind::Uint, 8) => "u64",
        (ScalarKind::Float, 2) => "wgsl::f16",
        (ScalarKind::Float, 4) => "f32",
        (ScalarKind::Float, 8) => "f64",
        _ => return unsupported(format!("type {scalar:?}")),
    })
}

/// Suffix of the functions that convert to a scalar type.
pub(crate) fn suffix(s: Scalar) -> Result<&'static str> {
    scalar(s).map(|name| name.trim_start_matches("wgsl::"))
}

/// Letters, digits and underscores of a name.
pub(crate) fn plain(name: Option<&str>, or: &str) -> String {
    let kept = |c: char| match c.is_ascii_alphanumeric() {
        true => c,
        false => '_',
    };
    let text: String = name.unwrap_or(or).chars().map(kept).collect();
    match text.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("_{text}"),
        false => text,
    }
}

/// Can what lies there not change?
pub(crate) fn is_read_only(space: AddressSpace) -> bool {
    match space {
        AddressSpace::Uniform => true,
        AddressSpace::Storage { access } => !access.contains(StorageAccess::STORE),
        _ => false,
    }
}

impl Writer<'_> {
    /// Name of a type.
    pub(crate) fn type_name(&self, handle: Handle<Type>) -> Result<String> {
        match &self.module.types[handle] {
            Type {
                name,
                inner: TypeInner::Struct { .. },
            } => Ok(format!(
                "{}_t{}",
                plain(name.as_deref(), "Type"),
                handle.index()
            )),
            other => self.inner_name(&other.inner),
        }
    }

    /// Name of a type that need not be in the module.
    pub(crate) fn inner_name(&self, inner: &TypeInner) -> Result<String> {
        Ok(match *inner {
            TypeInner::Scalar(s) | TypeInner::Atomic(s) => scalar(s)?.to_string(),
            TypeInner::Vector { size, scalar: s } => {
                format!("wgsl::vec<{}, {}>", scalar(s)?, size as u8)
            }
            TypeInner::Matrix {
                columns,
                rows,
                scalar: s,
            } => {
                format!(
                    "wgsl::mat<{}, {}, {}>",
                    scalar(s)?,
                    columns as u8,
                    rows as u8
                )
            }
            TypeInner::CooperativeMatrix {
                columns: CooperativeSize::Sixteen,
                rows: CooperativeSize::Sixteen,
                scalar: s,
                role,
            } => {
                // Tensor cores round f32 factors.
                if role != CooperativeRole::C && s != Scalar::F16 {
                    return unsupported(format!("a cooperative matrix {role:?} of {s:?}"));
                }
                format!("wgsl::coop<{}, wgsl::COOP_{role:?}>", scalar(s)?)
            }
            TypeInner::Array {
                base,
                size: ArraySize::Constant(n),
                stride,
            } => {
                format!("wgsl::array<{}, {n}, {stride}>", self.type_name(base)?)
            }
            TypeInner::Pointer { base, space } => {
                let pointee = self.type_name(base)?;
                match is_read_only(space) {
                    true => format!("const {pointee} *"),
                    false => format!("{pointee} *"),
                }
            }
            TypeInner::ValuePointer {
                size,
                scalar: s,
                space,
            } => {
                let pointee = match size {
                    Some(size) => format!("wgsl::vec<{}, {}>", scalar(s)?, size as u8),
                    None => scalar(s)?.to_string(),
                };
                match is_read_only(space) {
                    true => format!("const {pointee} *"),
                    false => format!("{pointee} *"),
                }
            }
            ref other => return unsupported(format!("type {other:?}")),
        })
    }

    /// Name of a member of a struct.
    pub(crate) fn member_name(&self, ty: Handle<Type>, index: u32) -> String {
        let name = match &self.module.types[ty].inner {
            TypeInner::Struct { members, .. } => members
                .get(index as usize)
                .and_then(|member| member.name.as_deref()),
            _ => None,
        };
        format!("{}_{index}", plain(name, "member"))
    }

    /// The runtime-sized array that a type is or ends in: its offset, and the element's type and stride.
    pub(crate) fn runtime_array(&self, ty: Handle<Type>) -> Option<(u32, Handle<Type>, u32)> {
        match &self.module.types[ty].inner {
            TypeInner::Array {
                base,
                size: ArraySize::Dynamic,
                stride,
            } => Some((0, *base, *stride)),
            TypeInner::Struct { members, .. } => {
                let last = members.last()?;
                let (offset, base, stride) = self.runtime_array(last.ty)?;
                Some((last.offset + offset, base, stride))
            }
            _ => None,
        }
    }

    /// Name of the type of the elements of a runtime-sized array, padded to its stride.
    pub(crate) fn element_name(&self, base: Handle<Type>, stride: u32) -> Result<String> {
        let name = self.type_name(base)?;
        Ok(match self.is_padded(base, stride) {
            true => format!("wgsl::slot<{name}, {stride}>"),
            false => name,
        })
    }

    /// Is an element smaller than its stride?
    pub(crate) fn is_padded(&self, base: Handle<Type>, stride: u32) -> bool {
        self.layouter[base].size != stride
    }

    /// Definitions of the module's structs.
    pub(crate) fn structs(&self) -> Result<String> {
        let mut out = String::new();
        for (handle, ty) in self.module.types.iter() {
            let TypeInner::Struct { members, span } = &ty.inner else {
                continue;
            };
            let name = self.type_name(handle)?;
            let alignment = self.layouter[handle].alignment.round_up(1);
            writeln!(out, "struct alignas({alignment}) {name} {{")?;
            let (mut end, mut pads) = (0, 0);
            let mut pad = |out: &mut String, from: u32, to: u32| -> Result<()> {
                if to > from {
                    writeln!(out, "    unsigned char pad_{pads}[{}];", to - from)?;
                    pads += 1;
                }
                Ok(())
            };
            let (mut parameters, mut assignments) = (Vec::new(), String::new());
            for (i, member) in members.iter().enumerate() {
                pad(&mut out, end, member.offset)?;
                let member_name = self.member_name(handle, i as u32);
                if let TypeInner::Array {
                    base,
                    size: ArraySize::Dynamic,
                    stride,
                } = self.module.types[member.ty].inner
                {
                    // Only its address is ever used.
                    writeln!(
                        out,
                        "    {} {member_name}[1];",
                        self.element_name(base, stride)?
                    )?;
                    end = *span;
                    continue;
                }
                let ty = self.type_name(member.ty)?;
                writeln!(out, "    {ty} {member_name};")?;
                parameters.push(format!("{ty} m{i}"));
                write!(assignments, " r.{member_name} = m{i};")?;
                end = member.offset + self.layouter[member.ty].size;
            }
            pad(&mut out, end, *span)?;
            writeln!(
                out,
                "    static WGSL_FN {name} make({}) {{ {name} r;{assignments} return r; }}",
                parameters.join(", ")
            )?;
            writeln!(out, "}};")?;
        }
        Ok(out)
    }
}
