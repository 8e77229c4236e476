//! All-to-all of counted rows between ranks of one device.

use super::Lowering;
use crate::comm::{Collective, CollectiveKind};
use crate::kernels::exchange_rows;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Collectives of one device by the same counts, which say after a run what was sent.
#[derive(Debug)]
pub struct CountedRows {
    /// Whose recording has the counts.
    pub device: usize,
    /// `(R, R)` u32, kept.
    pub counts: Tensor,
    /// What every rank has done.
    pub collectives: Vec<Collective>,
}

impl Lowering<'_> {
    /// A copy for each pair of ranks.
    pub(super) fn all_to_all_counted(
        &mut self,
        parts: &[(usize, &Collective)],
        inputs: &[Option<Tensor>],
    ) -> Result<()> {
        let device = self.devices[parts[0].0];
        for (to, c) in parts {
            let CollectiveKind::AllToAllCounted { back } = c.kind else {
                continue;
            };
            let output = self.output(*to, c)?;
            let counts = c.counts.as_ref().map(|counts| self.map(*to, counts));
            let counts = counts.ok_or_else(|| Error::Invalid("a rank has no counts".into()))?;
            let (ranks, room) = (c.group.len(), output.shape[1]);
            for ((_, from), input) in parts.iter().zip(inputs) {
                let Some(input) = input else { continue };
                let (me, other) = (c.group.me, from.group.me);
                let at = if back {
                    me * ranks + other
                } else {
                    other * ranks + me
                };
                let inner = output.len() / (ranks * room).max(1);
                let params = exchange_rows::params(inner, me * room, other * room, room, at);
                let bindings = [input, &counts, &output].map(|t| Some(t.clone()));
                self.push(device, &exchange_rows::KERNEL, params, bindings.into())?;
            }
            self.count_rows(device, &counts, c);
        }
        Ok(())
    }

    /// Notes a rank's part, so that what it sends is counted when the counts are known.
    fn count_rows(&mut self, device: usize, counts: &Tensor, collective: &Collective) {
        self.lowered.recordings[device].keep(counts);
        let noted = &mut self.lowered.counted;
        let same = |n: &&mut CountedRows| n.device == device && n.counts.shares_memory(counts);
        match noted.iter_mut().find(same) {
            Some(noted) => noted.collectives.push(collective.clone()),
            None => noted.push(CountedRows {
                device,
                counts: counts.clone(),
                collectives: vec![collective.clone()],
            }),
        }
    }
}
