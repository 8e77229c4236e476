//! Expressions, and the places that pointers name.

use naga::{
    AddressSpace, ArraySize, BinaryOperator, Constant, Expression, Handle, Literal,
    RelationalFunction, Scalar, ScalarKind, SwizzleComponent, Type, TypeInner, UnaryOperator,
};

use crate::function::{Body, int};
use crate::types::{plain, suffix};
use crate::writer::Writer;
use crate::{BoundsPolicy, Result, unsupported};

const COMPONENTS: [&str; 4] = ["x", "y", "z", "w"];

/// How long what is indexed is.
enum Length {
    Known(u32),
    /// Name of a variable.
    Runtime(String),
}

fn literal(literal: Literal) -> Result<String> {
    Ok(match literal {
        Literal::F64(v) => format!("({v:?})"),
        Literal::F32(v) => format!("({v:?}f)"),
        Literal::F16(v) => format!("WGSL_F16({}, ({:?}f))", v.to_bits(), v.to_f32()),
        Literal::U32(v) => format!("{v}u"),
        Literal::I32(v) if v < 0 => format!("({})", int(v)),
        Literal::I32(v) => int(v),
        Literal::U64(v) => format!("{v}ull"),
        Literal::I64(i64::MIN) => "(-9223372036854775807ll - 1)".to_string(),
        Literal::I64(v) => format!("({v}ll)"),
        Literal::Bool(v) => v.to_string(),
        other => return unsupported(format!("literal {other:?}")),
    })
}

impl Writer<'_> {
    pub(crate) fn constant_name(&self, handle: Handle<Constant>) -> String {
        let name = self.module.constants[handle].name.as_deref();
        format!("{}_c{}", plain(name, "constant"), handle.index())
    }

    /// A constant expression of the module.
    pub(crate) fn constant_expression(&self, handle: Handle<Expression>) -> Result<String> {
        match &self.module.global_expressions[handle] {
            Expression::Literal(value) => literal(*value),
            Expression::Constant(constant) => self.constant(*constant),
            Expression::ZeroValue(ty) => Ok(format!("{}{{}}", self.type_name(*ty)?)),
            Expression::Compose { ty, components } => {
                let mut parts = Vec::new();
                for part in components {
                    parts.push(self.constant_expression(*part)?);
                }
                let inner = |i: usize| match &self.module.global_expressions[components[i]] {
                    Expression::Literal(_) => None,
                    Expression::Compose { ty, .. } | Expression::ZeroValue(ty) => {
                        Some(&self.module.types[*ty].inner)
                    }
                    Expression::Constant(c) => {
                        Some(&self.module.types[self.module.constants[*c].ty].inner)
                    }
                    _ => None,
                };
                let vectors =
                    (0..parts.len()).any(|i| matches!(inner(i), Some(TypeInner::Vector { .. })));
                self.compose(*ty, &parts, vectors)
            }
            Expression::Splat { size, value } => Ok(format!(
                "wgsl::splat<{}>({})",
                *size as u8,
                self.constant_expression(*value)?
            )),
            other => unsupported(format!("constant {other:?}")),
        }
    }

    /// A named constant: scalars and vectors are written where they are used.
    pub(crate) fn constant(&self, handle: Handle<Constant>) -> Result<String> {
        let constant = &self.module.constants[handle];
        match self.module.types[constant.ty].inner {
            TypeInner::Scalar(_) | TypeInner::Vector { .. } => {
                self.constant_expression(constant.init)
            }
            _ => Ok(self.constant_name(handle)),
        }
    }

    /// A value from its parts; `vectors`: are some of them vectors?
    pub(crate) fn compose(
        &self,
        ty: Handle<Type>,
        parts: &[String],
        vectors: bool,
    ) -> Result<String> {
        let name = self.type_name(ty)?;
        let braced = |open: &str, between: &str, close: &str| {
            format!("{name}{open}{}{close}", parts.join(between))
        };
        Ok(match &self.module.types[ty].inner {
            TypeInner::Vector { .. } if vectors => {
                let cat = |all: String, part: &String| format!("wgsl::cat({all}, {part})");
                match parts.split_first() {
                    Some((first, rest)) => rest.iter().fold(first.clone(), cat),
                    None => return unsupported("a vector of nothing"),
                }
            }
            TypeInner::Vector { .. } => braced("{", ", ", "}"),
            TypeInner::Array { base, stride, .. } => match self.is_padded(*base, *stride) {
                true => braced("{{{", "}, {", "}}}"),
                false => braced("{{", ", ", "}}"),
            },
            TypeInner::Matrix {
                rows: naga::VectorSize::Tri,
                ..
            } => braced("{{{{", "}, {", "}}}}"),
            TypeInner::Matrix { .. } => braced("{{{", ", ", "}}}"),
            TypeInner::Struct { .. } => format!("{name}::make({})", parts.join(", ")),
            other => return unsupported(format!("a value of {other:?}")),
        })
    }
}

impl Body<'_> {
    /// The text of an expression; of a pointer, an address.
    pub(crate) fn expression(&self, handle: Handle<Expression>) -> Result<String> {
        if let Some(name) = self.named.get(&handle) {
            return Ok(name.clone());
        }
        if self.inner(handle).pointer_space().is_some() {
            return match self.function.expressions[handle] {
                Expression::FunctionArgument(i) => Ok(self.argument_name(i)),
                _ => Ok(format!("&{}", self.place(handle)?)),
            };
        }
        match &self.function.expressions[handle] {
            Expression::Literal(value) => literal(*value),
            Expression::Constant(constant) => self.writer.constant(*constant),
            Expression::ZeroValue(ty) => Ok(format!("{}{{}}", self.writer.type_name(*ty)?)),
            Expression::Compose { ty, components } => {
                let mut parts = Vec::new();
                let mut vectors = false;
                for part in components {
                    parts.push(self.expression(*part)?);
                    vectors |= matches!(self.inner(*part), TypeInner::Vector { .. });
                }
                self.writer.compose(*ty, &parts, vectors)
            }
            Expression::Access { base, index } => {
                let (value, of) = (self.expression(*base)?, self.inner(*base));
                let index = self.index(*index, of, *base)?;
                Ok(match of {
                    TypeInner::Vector { .. } => format!("wgsl::pick({value}, {index})"),
                    _ => format!("{value}[{index}]"),
                })
            }
            Expression::AccessIndex { base, index } => {
                let value = self.expression(*base)?;
                self.part(
                    &value,
                    self.inner(*base),
                    self.info[*base].ty.handle(),
                    *index,
                )
            }
            Expression::Splat { size, value } => Ok(format!(
                "wgsl::splat<{}>({})",
                *size as u8,
                self.expression(*value)?
            )),
            Expression::Swizzle {
                size,
                vector,
                pattern,
            } => {
                let number = |c: &SwizzleComponent| (*c as u8).to_string();
                let chosen: Vec<_> = pattern[..*size as usize].iter().map(number).collect();
                Ok(format!(
                    "wgsl::swizzle<{}>({})",
                    chosen.join(", "),
                    self.expression(*vector)?
                ))
            }
            Expression::FunctionArgument(i) => Ok(self.argument_name(*i)),
            Expression::Load { pointer } => self.load(*pointer),
            Expression::Unary { op, expr } => self.unary(*op, *expr),
            Expression::Binary { op, left, right } => self.binary(*op, *left, *right),
            Expression::Select {
                condition,
                accept,
                reject,
            } => {
                let vector = matches!(self.inner(*condition), TypeInner::Vector { .. });
                let (c, a, r) = (
                    self.expression(*condition)?,
                    self.expression(*accept)?,
                    self.expression(*reject)?,
                );
                Ok(match vector {
                    true => format!("wgsl::select({r}, {a}, {c})"),
                    false => format!("({c} ? {a} : {r})"),
                })
            }
            Expression::Relational { fun, argument } => {
                let argument = self.expression(*argument)?;
                match fun {
                    RelationalFunction::All => Ok(format!("wgsl::all({argument})")),
                    RelationalFunction::Any => Ok(format!("wgsl::any({argument})")),
                    other => unsupported(format!("{other:?}")),
                }
            }
            Expression::Math {
                fun,
                arg,
                arg1,
                arg2,
                arg3,
            } => {
                let arguments = [Some(*arg), *arg1, *arg2, *arg3];
                let arguments: Vec<_> = arguments.into_iter().flatten().collect();
                self.math(*fun, &arguments, handle)
            }
            Expression::As {
                expr,
                kind,
                convert,
            } => {
                let value = self.expression(*expr)?;
                let Some(from) = Writer::scalar_of(self.inner(*expr)) else {
                    return unsupported("a conversion of what is no number");
                };
                if matches!(self.inner(*expr), TypeInner::Matrix { .. }) {
                    return unsupported("a conversion of a matrix");
                }
                let to = Scalar {
                    kind: *kind,
                    width: convert.unwrap_or(from.width),
                };
                let way = if convert.is_some() { "to" } else { "as" };
                Ok(format!("wgsl::{way}_{}({value})", suffix(to)?))
            }
            Expression::ArrayLength(pointer) => match self.length(*pointer)? {
                Length::Runtime(name) => Ok(name),
                Length::Known(n) => Ok(format!("{n}u")),
            },
            Expression::CooperativeLoad { role, data, .. } => {
                let Some(scalar) = Writer::scalar_of(self.inner(handle)) else {
                    return unsupported("a cooperative matrix of no numbers");
                };
                Ok(format!(
                    "wgsl::coop_load<{}, wgsl::COOP_{role:?}, {}>(&{}, {})",
                    self.writer.inner_name(&TypeInner::Scalar(scalar))?,
                    data.row_major,
                    self.place(data.pointer)?,
                    self.expression(data.stride)?
                ))
            }
            Expression::CooperativeMultiplyAdd { a, b, c } => Ok(format!(
                "wgsl::coop_multiply_add({}, {}, {})",
                self.expression(*a)?,
                self.expression(*b)?,
                self.expression(*c)?
            )),
            other => unsupported(format!("expression {other:?}")),
        }
    }

    fn load(&self, pointer: Handle<Expression>) -> Result<String> {
        if let Some((vector, index)) = self.component_in_registers(pointer)? {
            return Ok(format!("wgsl::pick({vector}, {index})"));
        }
        let place = self.place(pointer)?;
        Ok(
            match self
                .inner(pointer)
                .is_atomic_pointer(&self.writer.module.types)
            {
                true => format!("wgsl::atomic_load({place})"),
                false => place,
            },
        )
    }

    /// What a pointer points to: its type, and the type's handle if it has one.
    fn pointee(&self, pointer: Handle<Expression>) -> Option<(TypeInner, Option<Handle<Type>>)> {
        match *self.inner(pointer) {
            TypeInner::Pointer { base, .. } => {
                Some((self.writer.module.types[base].inner.clone(), Some(base)))
            }
            TypeInner::ValuePointer {
                size: Some(size),
                scalar,
                ..
            } => Some((TypeInner::Vector { size, scalar }, None)),
            TypeInner::ValuePointer {
                size: None, scalar, ..
            } => Some((TypeInner::Scalar(scalar), None)),
            _ => None,
        }
    }

    /// A vector that lies in registers, and which of its components a pointer names by a computed number.
    pub(crate) fn component_in_registers(
        &self,
        pointer: Handle<Expression>,
    ) -> Result<Option<(String, String)>> {
        let Expression::Access { base, index } = self.function.expressions[pointer] else {
            return Ok(None);
        };
        let space = self.inner(base).pointer_space();
        let registers = matches!(space, Some(AddressSpace::Function | AddressSpace::Private));
        match self.pointee(base) {
            Some((of @ TypeInner::Vector { .. }, _)) if registers => {
                let index = self.index(index, &of, base)?;
                Ok(Some((self.place(base)?, index)))
            }
            _ => Ok(None),
        }
    }

    /// The text of what a pointer points to.
    pub(crate) fn place(&self, pointer: Handle<Expression>) -> Result<String> {
        match self.function.expressions[pointer] {
            Expression::LocalVariable(variable) => Ok(self.local_name(variable)),
            Expression::FunctionArgument(i) => Ok(format!("(*{})", self.argument_name(i))),
            Expression::GlobalVariable(variable) => {
                let name = self.writer.global_name(variable);
                let global = &self.writer.module.global_variables[variable];
                Ok(match global.binding {
                    Some(_) => match self.writer.module.types[global.ty].inner {
                        TypeInner::Array {
                            size: ArraySize::Dynamic,
                            ..
                        } => name,
                        _ => format!("(*{name})"),
                    },
                    None => name,
                })
            }
            Expression::Access { base, index } => {
                let Some((of, _)) = self.pointee(base) else {
                    return unsupported("an index into what is no pointer");
                };
                let (place, index) = (self.place(base)?, self.index(index, &of, base)?);
                Ok(match of {
                    TypeInner::Vector { .. } => format!("wgsl::at({place}, {index})"),
                    _ => self.element(&place, &of, &index),
                })
            }
            Expression::AccessIndex { base, index } => {
                let Some((of, ty)) = self.pointee(base) else {
                    return unsupported("a part of what is no pointer");
                };
                let place = self.place(base)?;
                match of {
                    TypeInner::Array {
                        size: ArraySize::Dynamic,
                        ..
                    } => {
                        let length = self.length(base)?;
                        let index = self.bounded(format!("{index}u"), &length);
                        Ok(self.element(&place, &of, &index))
                    }
                    _ => self.part(&place, &of, ty, index),
                }
            }
            ref other => unsupported(format!("a pointer from {other:?}")),
        }
    }

    /// An element of an array or column of a matrix.
    fn element(&self, place: &str, of: &TypeInner, index: &str) -> String {
        match *of {
            TypeInner::Array {
                base,
                size: ArraySize::Dynamic,
                stride,
            } if self.writer.is_padded(base, stride) => format!("{place}[{index}].v"),
            _ => format!("{place}[{index}]"),
        }
    }

    /// A part by a number that is known.
    fn part(
        &self,
        value: &str,
        of: &TypeInner,
        ty: Option<Handle<Type>>,
        index: u32,
    ) -> Result<String> {
        match (of, ty) {
            (TypeInner::Vector { .. }, _) => {
                Ok(format!("{value}.{}", COMPONENTS[index as usize % 4]))
            }
            (TypeInner::Matrix { .. } | TypeInner::Array { .. }, _) => {
                Ok(format!("{value}[{index}u]"))
            }
            (TypeInner::Struct { .. }, Some(ty)) => {
                Ok(format!("{value}.{}", self.writer.member_name(ty, index)))
            }
            _ => unsupported(format!("part {index} of {of:?}")),
        }
    }

    /// An index into `of`, which `base` names.
    fn index(
        &self,
        index: Handle<Expression>,
        of: &TypeInner,
        base: Handle<Expression>,
    ) -> Result<String> {
        let signed = Writer::scalar_of(self.inner(index)).map(|s| s.kind) == Some(ScalarKind::Sint);
        let text = match signed {
            true => format!("(u32)({})", self.expression(index)?),
            false => self.expression(index)?,
        };
        if self.writer.options.bounds == BoundsPolicy::Unchecked {
            return Ok(text);
        }
        let length = match *of {
            TypeInner::Vector { size, .. } => Length::Known(size as u32),
            TypeInner::Matrix { columns, .. } => Length::Known(columns as u32),
            TypeInner::Array {
                size: ArraySize::Constant(n),
                ..
            } => Length::Known(n.get()),
            _ => self.length(base)?,
        };
        Ok(self.bounded(text, &length))
    }

    fn bounded(&self, index: String, length: &Length) -> String {
        let n = match length {
            Length::Known(n) => format!("{n}u"),
            Length::Runtime(name) => name.clone(),
        };
        match self.writer.options.bounds {
            BoundsPolicy::Unchecked => index,
            BoundsPolicy::Restrict => format!("wgsl::restrict_index({index}, {n})"),
            BoundsPolicy::Check => format!("wgsl::check_index({index}, {n})"),
        }
    }

    /// Length of the runtime-sized array that a pointer names.
    fn length(&self, pointer: Handle<Expression>) -> Result<Length> {
        match self.function.originating_global(pointer) {
            Some(global) => Ok(Length::Runtime(self.writer.length_name(global))),
            None => unsupported("the length of an array that is no variable"),
        }
    }

    fn unary(&self, op: UnaryOperator, operand: Handle<Expression>) -> Result<String> {
        let (text, inner) = (self.expression(operand)?, self.inner(operand));
        let is_scalar = matches!(inner, TypeInner::Scalar(_));
        let signed = matches!(
            Writer::scalar_of(inner),
            Some(Scalar {
                kind: ScalarKind::Sint,
                ..
            })
        );
        Ok(match op {
            UnaryOperator::Negate if is_scalar && !signed => format!("(-{text})"),
            UnaryOperator::Negate => format!("wgsl::neg({text})"),
            UnaryOperator::LogicalNot if is_scalar => format!("(!{text})"),
            UnaryOperator::LogicalNot => format!("wgsl::logical_not({text})"),
            UnaryOperator::BitwiseNot if is_scalar => format!("(~{text})"),
            UnaryOperator::BitwiseNot => format!("wgsl::bit_not({text})"),
        })
    }

    fn binary(
        &self,
        op: BinaryOperator,
        left: Handle<Expression>,
        right: Handle<Expression>,
    ) -> Result<String> {
        use BinaryOperator as Op;
        let (l, r) = (self.expression(left)?, self.expression(right)?);
        let (l_inner, r_inner) = (self.inner(left), self.inner(right));
        let (name, sign) = match op {
            Op::Add => ("add", "+"),
            Op::Subtract => ("sub", "-"),
            Op::Multiply => ("mul", "*"),
            Op::Divide => ("div", "/"),
            Op::Modulo => ("mod", "%"),
            Op::Equal => ("eq", "=="),
            Op::NotEqual => ("ne", "!="),
            Op::Less => ("lt", "<"),
            Op::LessEqual => ("le", "<="),
            Op::Greater => ("gt", ">"),
            Op::GreaterEqual => ("ge", ">="),
            Op::And => ("bit_and", "&"),
            Op::ExclusiveOr => ("bit_xor", "^"),
            Op::InclusiveOr => ("bit_or", "|"),
            Op::LogicalAnd => ("", "&&"),
            Op::LogicalOr => ("", "||"),
            Op::ShiftLeft => ("shl", "<<"),
            Op::ShiftRight => ("shr", ">>"),
        };
        let matrices = [l_inner, r_inner].map(|i| {
            matches!(
                i,
                TypeInner::Matrix { .. } | TypeInner::CooperativeMatrix { .. }
            )
        });
        let scalars = [l_inner, r_inner].map(|i| matches!(i, TypeInner::Scalar(_)));
        if op == Op::Multiply && matrices != [false; 2] {
            let scaled = scalars != [false; 2];
            let name = if scaled { "mat_scale" } else { "mat_mul" };
            return Ok(format!("wgsl::{name}({l}, {r})"));
        }
        if scalars == [true; 2] {
            let kind = Writer::scalar_of(l_inner).map(|s| s.kind);
            // What C++ defines as WGSL does.
            let same = match op {
                Op::LogicalAnd | Op::LogicalOr => true,
                Op::ShiftLeft | Op::ShiftRight | Op::Modulo => false,
                Op::Divide => kind == Some(ScalarKind::Float),
                Op::Add | Op::Subtract | Op::Multiply => kind != Some(ScalarKind::Sint),
                Op::And | Op::ExclusiveOr | Op::InclusiveOr => kind != Some(ScalarKind::Bool),
                _ => true,
            };
            if same {
                return Ok(format!("({l} {sign} {r})"));
            }
        }
        let spread = |text: String, inner: &TypeInner, other: &TypeInner| match (inner, other) {
            (TypeInner::Scalar(_), TypeInner::Vector { size, .. }) => {
                format!("wgsl::splat<{}>({text})", *size as u8)
            }
            _ => text,
        };
        let (l, r) = (spread(l, l_inner, r_inner), spread(r, r_inner, l_inner));
        Ok(format!("wgsl::{name}({l}, {r})"))
    }
}
