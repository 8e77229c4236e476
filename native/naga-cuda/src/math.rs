//! Built-in functions.

use naga::{Expression, Handle, MathFunction, TypeInner};

use crate::function::Body;
use crate::{Result, unsupported};

impl Body<'_> {
    /// A call of a built-in function; `result` is the call's own expression.
    pub(crate) fn math(
        &self,
        fun: MathFunction,
        arguments: &[Handle<Expression>],
        result: Handle<Expression>,
    ) -> Result<String> {
        use MathFunction as Fun;
        let mut texts = Vec::new();
        for argument in arguments {
            texts.push(self.expression(*argument)?);
        }
        let name = match fun {
            Fun::Abs => "abs",
            Fun::Min => "min",
            Fun::Max => "max",
            Fun::Clamp => "clamp",
            Fun::Saturate => "saturate",
            Fun::Cos => "cos",
            Fun::Cosh => "cosh",
            Fun::Sin => "sin",
            Fun::Sinh => "sinh",
            Fun::Tan => "tan",
            Fun::Tanh => "tanh",
            Fun::Acos => "acos",
            Fun::Asin => "asin",
            Fun::Atan => "atan",
            Fun::Atan2 => "atan2",
            Fun::Asinh => "asinh",
            Fun::Acosh => "acosh",
            Fun::Atanh => "atanh",
            Fun::Radians => "radians",
            Fun::Degrees => "degrees",
            Fun::Ceil => "ceil",
            Fun::Floor => "floor",
            Fun::Round => "round",
            Fun::Fract => "fract",
            Fun::Trunc => "trunc",
            // They give a struct of the module's.
            Fun::Modf | Fun::Frexp => {
                let ty = self.expression_type(result)?;
                let name = if fun == Fun::Modf { "modf" } else { "frexp" };
                return Ok(format!("wgsl::{name}<{ty}>({})", texts.join(", ")));
            }
            Fun::Ldexp => "ldexp",
            Fun::Exp => "exp",
            Fun::Exp2 => "exp2",
            Fun::Log => "log",
            Fun::Log2 => "log2",
            Fun::Pow => "pow",
            Fun::Dot => "dot",
            Fun::Dot4I8Packed => "dot4_i8",
            Fun::Dot4U8Packed => "dot4_u8",
            Fun::Cross => "cross",
            Fun::Distance => "distance",
            Fun::Length => "length",
            Fun::Normalize => "normalize",
            Fun::FaceForward => "face_forward",
            Fun::Reflect => "reflect",
            Fun::Refract => "refract",
            Fun::Sign => "sign",
            Fun::Fma => "fma",
            Fun::Mix => "mix",
            Fun::Step => "step",
            Fun::SmoothStep => "smoothstep",
            Fun::Sqrt => "sqrt",
            Fun::InverseSqrt => "inverse_sqrt",
            Fun::Transpose => "transpose",
            Fun::Determinant => "determinant",
            Fun::QuantizeToF16 => "quantize_to_f16",
            Fun::CountTrailingZeros => "count_trailing_zeros",
            Fun::CountLeadingZeros => "count_leading_zeros",
            Fun::CountOneBits => "count_one_bits",
            Fun::ReverseBits => "reverse_bits",
            Fun::ExtractBits => "extract_bits",
            Fun::InsertBits => "insert_bits",
            Fun::FirstTrailingBit => "first_trailing_bit",
            Fun::FirstLeadingBit => "first_leading_bit",
            Fun::Pack4x8snorm => "pack4_snorm",
            Fun::Pack4x8unorm => "pack4_unorm",
            Fun::Pack2x16snorm => "pack2_snorm",
            Fun::Pack2x16unorm => "pack2_unorm",
            Fun::Pack2x16float => "pack2_f16",
            Fun::Pack4xI8 => "pack4_i8",
            Fun::Pack4xU8 => "pack4_u8",
            Fun::Pack4xI8Clamp => "pack4_i8_clamp",
            Fun::Pack4xU8Clamp => "pack4_u8_clamp",
            Fun::Unpack4x8snorm => "unpack4_snorm",
            Fun::Unpack4x8unorm => "unpack4_unorm",
            Fun::Unpack2x16snorm => "unpack2_snorm",
            Fun::Unpack2x16unorm => "unpack2_unorm",
            Fun::Unpack2x16float => "unpack2_f16",
            Fun::Unpack4xI8 => "unpack4_i8",
            Fun::Unpack4xU8 => "unpack4_u8",
            Fun::Outer | Fun::Inverse => return unsupported(format!("{fun:?}")),
        };
        // C++ deduces one type for all: a vector's scalar partner is spread, except where the prelude takes it.
        let vector = arguments.iter().find_map(|a| match self.inner(*a) {
            TypeInner::Vector { size, .. } => Some(*size as u8),
            _ => None,
        });
        if let (Some(n), Fun::Min | Fun::Max | Fun::Clamp) = (vector, fun) {
            for (text, argument) in texts.iter_mut().zip(arguments) {
                if matches!(self.inner(*argument), TypeInner::Scalar(_)) {
                    *text = format!("wgsl::splat<{n}>({text})");
                }
            }
        }
        Ok(format!("wgsl::{name}({})", texts.join(", ")))
    }
}
