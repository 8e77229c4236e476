//! Ranks of one process on different devices: staged through host memory.

use super::{Collective, CollectiveKind, Communicator, Part, Reduce, communication};
use super::{counted, host};
use crate::tensor::Tensor;
use crate::weights::source::LocalFuture;
use crate::{Error, Result};

/// Communication between the devices of one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalComm;

impl Communicator for LocalComm {
    fn name(&self) -> &'static str {
        "local"
    }

    fn perform<'a>(&'a self, parts: &'a [Part<'a>]) -> LocalFuture<'a, Result<Vec<u64>>> {
        Box::pin(async move {
            let counted = |p: &Part<'_>| p.collective.counts.is_some();
            if parts.iter().any(counted) {
                return counted::perform(parts).await;
            }
            let mut inputs = Vec::with_capacity(parts.len());
            for part in parts {
                inputs.push(match (part.input, &part.collective.input) {
                    (Some(buffer), Some(tensor)) => {
                        part.device.read(buffer, 0, tensor.bytes()).await?
                    }
                    _ => Vec::new(),
                });
            }
            let outputs = exchange(parts, &inputs)?;
            for (part, bytes) in parts.iter().zip(&outputs) {
                if let (Some(buffer), Some(_)) = (part.output, &part.collective.output) {
                    part.device.write(buffer, 0, bytes)?;
                }
            }
            Ok(parts.iter().map(|p| p.collective.bytes_sent()).collect())
        })
    }
}

/// The part of the rank at a place of the group.
fn at(parts: &[Part<'_>], place: usize) -> Result<usize> {
    let found = parts.iter().position(|p| p.collective.group.me == place);
    found.ok_or_else(|| {
        let group = parts.first().map(|p| &p.collective.group.ranks);
        let rank = group.and_then(|g| g.get(place)).copied();
        communication(
            rank.unwrap_or(place),
            "is not in this process; run it under MPI",
        )
    })
}

fn output<'a>(part: &Part<'a>) -> Result<&'a Tensor> {
    let tensor = part.collective.output.as_ref();
    tensor.ok_or_else(|| Error::Invalid("a collective has no output".into()))
}

fn exchange(parts: &[Part<'_>], inputs: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let ranks = parts.first().map_or(0, |p| p.collective.group.len());
    let mut found = Vec::with_capacity(parts.len());
    // Reductions are the same for every rank.
    let mut reduced: Option<Vec<u8>> = None;
    for part in parts {
        let Collective { kind, group, .. } = part.collective;
        found.push(match kind {
            CollectiveKind::AllReduce(how) => {
                let sum = reduction(*how, parts, inputs, ranks, &mut reduced)?;
                sum.to_vec()
            }
            CollectiveKind::ReduceScatter { reduce, lens } => {
                let sum = reduction(*reduce, parts, inputs, ranks, &mut reduced)?;
                let row = sum.len() / lens.iter().sum::<usize>().max(1);
                sum[host::pieces(lens, row).swap_remove(group.me)].to_vec()
            }
            CollectiveKind::AllGather { axis, lens } => {
                let of = |place| Ok(inputs[at(parts, place)?].as_slice());
                let pieces: Vec<&[u8]> = (0..ranks).map(of).collect::<Result<_>>()?;
                host::gather(output(part)?, *axis, lens, &pieces)
            }
            CollectiveKind::Broadcast { root } => inputs[at(parts, *root)?].clone(),
            CollectiveKind::AllToAll { receives, .. } => {
                let mut rows = Vec::with_capacity(output(part)?.bytes() as usize);
                for (place, receive) in receives.iter().enumerate() {
                    let from = at(parts, place)?;
                    let CollectiveKind::AllToAll { sends, .. } = &parts[from].collective.kind
                    else {
                        return Err(mismatch(parts));
                    };
                    if sends[group.me] != *receive {
                        return Err(mismatch(parts));
                    }
                    let row = inputs[from].len() / sends.iter().sum::<usize>().max(1);
                    let piece = host::pieces(sends, row).swap_remove(group.me);
                    rows.extend_from_slice(&inputs[from][piece]);
                }
                rows
            }
            // Not of bytes that are here already.
            CollectiveKind::AllToAllCounted { .. } => return Err(mismatch(parts)),
            CollectiveKind::Receive { from } => inputs[at(parts, *from)?].clone(),
            CollectiveKind::Send { .. } => Vec::new(),
        });
    }
    Ok(found)
}

fn mismatch(parts: &[Part<'_>]) -> Error {
    let kinds: Vec<_> = parts.iter().map(|p| &p.collective.kind).collect();
    Error::Invalid(format!("ranks do not agree on a collective: {kinds:?}"))
}

fn reduction<'a>(
    how: Reduce,
    parts: &[Part<'_>],
    inputs: &[Vec<u8>],
    ranks: usize,
    reduced: &'a mut Option<Vec<u8>>,
) -> Result<&'a [u8]> {
    if reduced.is_none() {
        let dtype = (parts[0].collective.input.as_ref()).map_or(crate::DType::F32, |t| t.dtype);
        let mut sum = inputs[at(parts, 0)?].clone();
        for place in 1..ranks {
            let input = &inputs[at(parts, place)?];
            if input.len() != sum.len() {
                return Err(mismatch(parts));
            }
            host::reduce(how, dtype, &mut sum, input)?;
        }
        *reduced = Some(sum);
    }
    Ok(reduced.as_deref().unwrap_or_default())
}
