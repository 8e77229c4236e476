//! All-to-all of as many rows as a tensor on the device says: [`CollectiveKind::AllToAllCounted`].

use super::{Collective, CollectiveKind, Part, communication};
use crate::{Error, Result};

/// What one rank gives and gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Bytes that it sends to each rank.
    pub sends: Vec<usize>,
    /// Bytes that it gets from each.
    pub receives: Vec<usize>,
    /// Bytes between the first rows of two ranks in its input and output.
    pub room: usize,
    /// Its place in the group.
    me: usize,
}

impl Counted {
    /// By the counts `(R, R)`.
    ///
    /// # Errors
    ///
    /// [`Error::Communication`] for a count that there is no room for.
    pub fn new(collective: &Collective, counts: &[u32]) -> Result<Self> {
        let (group, ranks) = (&collective.group, collective.group.len());
        let (CollectiveKind::AllToAllCounted { back }, Some(input)) =
            (&collective.kind, &collective.input)
        else {
            return Err(Error::Invalid(format!(
                "{:?} has no counts",
                collective.kind
            )));
        };
        let most = input.shape[1];
        let row = input.bytes() as usize / (ranks * most).max(1);
        let bytes = |from: usize, to: usize| {
            let (a, b) = if *back { (to, from) } else { (from, to) };
            let rows = counts.get(a * ranks + b).copied().unwrap_or(u32::MAX) as usize;
            if rows > most {
                let reason = format!("sends {rows} rows, and there is room for {most}");
                return Err(communication(group.ranks[from], reason));
            }
            Ok(rows * row)
        };
        Ok(Counted {
            sends: (0..ranks)
                .map(|to| bytes(group.me, to))
                .collect::<Result<_>>()?,
            receives: (0..ranks)
                .map(|from| bytes(from, group.me))
                .collect::<Result<_>>()?,
            room: most * row,
            me: group.me,
        })
    }

    /// The same by what the device has.
    ///
    /// # Errors
    ///
    /// Those of [`Counted::new`] and of [`Device::read`](crate::device::Device::read).
    pub async fn read(part: &Part<'_>) -> Result<Self> {
        let (Some(buffer), Some(counts)) = (part.counts, &part.collective.counts) else {
            return Err(Error::Invalid("an all_to_all has no counts".into()));
        };
        let bytes = part.device.read(buffer, 0, counts.bytes()).await?;
        Counted::new(part.collective, &words(&bytes))
    }

    /// Bytes that the rank sends to others.
    pub fn bytes_sent(&self) -> u64 {
        let others = self
            .sends
            .iter()
            .enumerate()
            .filter(|(to, _)| *to != self.me);
        others.map(|(_, bytes)| *bytes as u64).sum()
    }

    /// The rows for each rank, one after the other.
    ///
    /// # Errors
    ///
    /// As [`Device::read`](crate::device::Device::read).
    pub async fn rows(&self, part: &Part<'_>) -> Result<Vec<u8>> {
        let mut rows = Vec::with_capacity(self.sends.iter().sum());
        for (to, bytes) in self.sends.iter().enumerate() {
            if let (Some(buffer), 1..) = (part.input, *bytes) {
                let at = (to * self.room) as u64;
                rows.extend(part.device.read(buffer, at, *bytes as u64).await?);
            }
        }
        Ok(rows)
    }

    /// Writes the rows of each rank, one after the other in `rows`, to where they belong.
    ///
    /// # Errors
    ///
    /// As [`Device::write`](crate::device::Device::write).
    pub fn write(&self, part: &Part<'_>, rows: &[u8]) -> Result<()> {
        let mut first = 0;
        for (from, bytes) in self.receives.iter().enumerate() {
            if let (Some(buffer), 1..) = (part.output, *bytes) {
                let at = (from * self.room) as u64;
                part.device.write(buffer, at, &rows[first..first + bytes])?;
                first += bytes;
            }
        }
        Ok(())
    }
}

/// Counts out of a device's bytes.
pub(super) fn words(bytes: &[u8]) -> Vec<u32> {
    bytemuck::allocation::pod_collect_to_vec(bytes)
}

/// Performs it for all of its ranks, which are in this process; gives the bytes that each has sent.
pub(super) async fn perform(parts: &[Part<'_>]) -> Result<Vec<u64>> {
    let mut ranks = Vec::with_capacity(parts.len());
    for part in parts {
        let counted = Counted::read(part).await?;
        let rows = counted.rows(part).await?;
        ranks.push((counted, rows));
    }
    for (part, (counted, _)) in parts.iter().zip(&ranks) {
        let mut rows = Vec::with_capacity(counted.receives.iter().sum());
        for (from, bytes) in counted.receives.iter().enumerate() {
            let sender = parts.iter().position(|p| p.collective.group.me == from);
            let (sender, given) = &ranks[sender.ok_or_else(|| {
                let rank = part.collective.group.ranks[from];
                communication(rank, "is not in this process; run it under MPI")
            })?];
            let first: usize = sender.sends[..counted.me].iter().sum();
            if sender.sends[counted.me] != *bytes {
                return Err(Error::Invalid(format!(
                    "all_to_all: rank {from} of the group sends {} bytes, rank {} expects {bytes}",
                    sender.sends[counted.me], counted.me
                )));
            }
            rows.extend_from_slice(&given[first..first + bytes]);
        }
        counted.write(part, &rows)?;
    }
    Ok(ranks
        .iter()
        .map(|(counted, _)| counted.bytes_sent())
        .collect())
}
