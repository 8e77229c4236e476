//! Collectives on bytes in host memory: what ranks without a common device do between read-back and
//! upload.

use std::ops::Range;

use super::{Collective, CollectiveKind, Reduce};
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

/// Elements of `n` whose reduction rank `rank` of `ranks` makes: nearly equal parts, the first ones
/// longer.
pub fn chunk(n: u64, ranks: u64, rank: u64) -> Range<u64> {
    let (each, more) = (n / ranks, n % ranks);
    let start = rank * each + rank.min(more);
    start..start + each + u64::from(rank < more)
}

/// `into = reduce(into, from)`, element by element; f16 is reduced as f32 and rounded.
///
/// # Errors
///
/// [`Error::Unsupported`] for other types than f32, f16 and u32.
pub fn reduce(how: Reduce, dtype: DType, into: &mut [u8], from: &[u8]) -> Result<()> {
    match dtype {
        DType::F32 => each::<4>(into, from, |a, b| {
            how.f32(f32::from_le_bytes(a), f32::from_le_bytes(b))
                .to_le_bytes()
        }),
        DType::F16 => each::<2>(into, from, |a, b| {
            let [a, b] = [a, b].map(|x| half::f16::from_le_bytes(x).to_f32());
            half::f16::from_f32(how.f32(a, b)).to_le_bytes()
        }),
        DType::U32 => each::<4>(into, from, |a, b| {
            let (a, b) = (u32::from_le_bytes(a), u32::from_le_bytes(b));
            match how {
                Reduce::Sum => a.wrapping_add(b),
                Reduce::Max => a.max(b),
            }
            .to_le_bytes()
        }),
        other => {
            return Err(Error::Unsupported {
                what: format!("reduction of {other}"),
                supported: "f32, f16, u32".into(),
            });
        }
    }
    Ok(())
}

fn each<const N: usize>(into: &mut [u8], from: &[u8], f: impl Fn([u8; N], [u8; N]) -> [u8; N]) {
    let (into, _) = into.as_chunks_mut::<N>();
    let (from, _) = from.as_chunks::<N>();
    for (a, b) in into.iter_mut().zip(from) {
        *a = f(*a, *b);
    }
}

/// Bytes before, along and after an axis: `(outer, bytes of one step along it)`.
pub fn strides(tensor: &Tensor, axis: usize) -> (usize, usize) {
    let outer = tensor.shape[..axis].iter().product();
    let inner: usize = tensor.shape[axis + 1..].iter().product();
    (outer, inner * tensor.dtype.block_bytes())
}

/// Joins the ranks' parts along an axis: `output` is this rank's result, `lens` the parts' lengths.
pub fn gather(output: &Tensor, axis: usize, lens: &[usize], parts: &[&[u8]]) -> Vec<u8> {
    let (outer, step) = strides(output, axis);
    let mut joined = Vec::with_capacity(output.bytes() as usize);
    for o in 0..outer {
        for (len, part) in lens.iter().zip(parts) {
            joined.extend_from_slice(&part[o * len * step..][..len * step]);
        }
    }
    joined
}

/// Byte ranges of consecutive pieces of `lens` rows of `row` bytes.
pub fn pieces(lens: &[usize], row: usize) -> Vec<Range<usize>> {
    let mut end = 0;
    let piece = |len: &usize| {
        let start = end;
        end += len * row;
        start..end
    };
    lens.iter().map(piece).collect()
}

/// Checks that the shapes of a collective's tensors are what its kind says.
///
/// # Errors
///
/// [`Error::Invalid`] naming the collective and the shapes.
pub fn check(collective: &Collective) -> Result<()> {
    let Collective {
        kind,
        group,
        input,
        output,
        counts,
    } = collective;
    let rows = |t: &Option<Tensor>| t.as_ref().map(|t| t.shape.first().copied().unwrap_or(1));
    let len = |t: &Option<Tensor>| t.as_ref().map(Tensor::len);
    let ranks = group.len();
    let sound = match kind {
        CollectiveKind::AllReduce(_) => input.is_some() && len(input) == len(output),
        CollectiveKind::AllGather { axis, lens } => match (input, output) {
            (Some(x), Some(y)) => {
                lens.len() == ranks
                    && x.shape.get(*axis) == lens.get(group.me)
                    && y.shape.get(*axis) == Some(&lens.iter().sum())
                    && x.shape[..*axis] == y.shape[..*axis]
                    && x.shape[axis + 1..] == y.shape[axis + 1..]
            }
            _ => false,
        },
        CollectiveKind::ReduceScatter { lens, .. } => {
            lens.len() == ranks
                && rows(input) == Some(lens.iter().sum())
                && rows(output) == lens.get(group.me).copied()
        }
        CollectiveKind::Broadcast { root } => {
            *root < ranks && output.is_some() && (*root != group.me || len(input) == len(output))
        }
        CollectiveKind::AllToAll { sends, receives } => {
            sends.len() == ranks
                && receives.len() == ranks
                && rows(input) == Some(sends.iter().sum())
                && rows(output) == Some(receives.iter().sum())
        }
        CollectiveKind::AllToAllCounted { .. } => {
            let given = counts.as_ref().zip(input.as_ref()).zip(output.as_ref());
            given.is_some_and(|((counts, x), y)| {
                counts.shape == [ranks, ranks]
                    && counts.dtype == DType::U32
                    && x.shape.len() >= 2
                    && x.shape[0] == ranks
                    && x.shape == y.shape
                    && x.dtype.block_len() == 1
            })
        }
        CollectiveKind::Send { to } => *to < ranks && *to != group.me && input.is_some(),
        CollectiveKind::Receive { from } => *from < ranks && *from != group.me && output.is_some(),
    };
    if sound {
        return Ok(());
    }
    let shape = |t: &Option<Tensor>| t.as_ref().map(|t| t.shape.clone());
    Err(Error::Invalid(format!(
        "{kind:?} among {ranks} ranks: {:?} does not give {:?}",
        shape(input),
        shape(output)
    )))
}
