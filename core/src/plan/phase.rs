//! One phase, prefill or decode: from the recordings of each kind of rank to times and bytes.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::Serialize;

use super::cost::{Cost, When, cost};
use super::devices::{DeviceSpec, Peak};
use super::layout::{Layout, group_of};
use super::links;
use super::simulate::{Program, Span, Step, Timeline, simulate};
use crate::Result;
use crate::comm::{Collective, CollectiveKind, Placement, Sent};
use crate::recording::{Item, Recording};

/// Times and bytes of prefill or decode.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Phase {
    /// Tokens that one replica computes.
    pub tokens: usize,
    /// Seconds until the last rank is done.
    pub seconds: f64,
    /// Of all replicas together.
    pub tokens_per_second: f64,
    /// Floating-point operations of all ranks.
    pub flops: f64,
    /// Bytes of device memory that all ranks read and write.
    pub bytes: f64,
    /// Tokens of a step of one replica, to which `collectives` belong.
    pub step_tokens: usize,
    /// What all ranks send in one step.
    pub collectives: Vec<Sending>,
    /// Share of the time in which a rank computes; mean of all.
    pub compute: f64,
    /// Share in which it moves bytes.
    pub communication: f64,
    /// Share in which it waits for others.
    pub waiting: f64,
    /// Longest time that a rank computes, over the mean.
    pub imbalance: f64,
    /// Seconds that one rank with the same device would need, had it room for the model.
    pub alone: f64,
    /// `alone / seconds`.
    pub speedup: f64,
    /// Ranks that share the work of a replica: what Amdahl's law allows at most.
    pub ideal: usize,
    /// Part of the work that does not get faster with ranks, by Karp and Flatt's metric
    /// (doi:10.1145/78607.78614).
    pub serial: f64,
}

/// What all ranks send by one kind of collective.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sending {
    /// What MPI and NCCL call it.
    pub name: &'static str,
    /// Calls, one for each rank.
    pub calls: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Steps of one phase.
pub struct Steps<'a> {
    /// How ranks are arranged.
    pub layout: &'a Layout,
    /// Their device.
    pub device: &'a DeviceSpec,
    /// Which units compute products.
    pub peak: Peak,
    /// Kind of each rank.
    pub kinds: &'a [usize],
    /// Place of a rank of each kind, and what it does.
    pub recordings: &'a [(Placement, &'a Recording)],
    /// Sequences among which a step's tokens are divided.
    pub sequences: usize,
}

impl Steps<'_> {
    /// What one rank of each kind does at this position.
    fn programs(&self, position: usize) -> Vec<Program> {
        let when = When {
            position,
            sequences: self.sequences,
        };
        let of = |(placement, recording): &(Placement, &Recording)| {
            let mut program = Program::default();
            for item in recording.items() {
                match item {
                    Item::Dispatch(d) => program.compute(Span {
                        name: d.kernel.name,
                        seconds: self.device.seconds(cost(d, when), self.peak),
                    }),
                    Item::Collective(c) => program.steps.push(step(placement, c)),
                    // Reading files is not planned.
                    Item::Paged(_) | Item::EndPaged => {}
                }
            }
            program
        };
        self.recordings.iter().map(of).collect()
    }

    /// Runs the step at this position.
    ///
    /// # Errors
    ///
    /// As [`simulate`].
    pub fn timeline(&self, position: usize, trace: bool) -> Result<Timeline> {
        let ranks = self.layout.ranks(self.kinds.to_vec());
        simulate(&self.programs(position), &ranks, trace)
    }

    /// Share of the first kind's dispatches at this position that move what ranks tell each other: where they
    /// share a device, collectives are dispatches.
    pub fn moving(&self, position: usize) -> f64 {
        let programs = self.programs(position);
        let seconds = |moves: bool| -> f64 {
            let spans = programs.iter().take(1).flat_map(|program| &program.spans);
            let moving = |span: &&Span| !moves || ["all_reduce", "copy"].contains(&span.name);
            spans.filter(moving).map(|span| span.seconds).sum()
        };
        seconds(true) / seconds(false).max(f64::MIN_POSITIVE)
    }

    /// Operations and bytes of all ranks at this position.
    fn cost(&self, position: usize) -> (f64, f64) {
        let when = When {
            position,
            sequences: self.sequences,
        };
        let (mut flops, mut bytes) = (0.0, 0.0);
        for (kind, (_, recording)) in self.recordings.iter().enumerate() {
            let mut sum = Cost::default();
            for dispatch in recording.dispatches() {
                sum += cost(dispatch, when);
            }
            let ranks = self.kinds.iter().filter(|k| **k == kind).count() as f64;
            flops += ranks * sum.flops as f64;
            bytes += ranks * sum.bytes as f64;
        }
        (flops, bytes)
    }

    /// What all ranks send in one step: [`Collective::bytes_sent`] of each.
    pub fn sent(&self) -> Vec<Sending> {
        let mut sent: BTreeMap<&'static str, Sent> = BTreeMap::new();
        // Layers are alike: each collective once, and how often it comes.
        let mut distinct: Vec<Vec<(usize, u64, &Collective)>> = Vec::new();
        for (placement, recording) in self.recordings {
            let mut found: Vec<(usize, u64, &Collective)> = Vec::new();
            let collectives = recording.items().iter().filter_map(|item| match item {
                Item::Collective(c) => Some(c),
                _ => None,
            });
            for c in collectives {
                let group = group_of(placement, &c.group);
                let shape = |c: &Collective| c.input.as_ref().map(|t| (t.dtype, t.len()));
                let same = |f: &&mut (usize, u64, &Collective)| {
                    f.0 == group && f.2.kind == c.kind && shape(f.2) == shape(c)
                };
                match found.iter_mut().find(same) {
                    Some(found) => found.1 += 1,
                    None => found.push((group, 1, c)),
                }
            }
            distinct.push(found);
        }
        for (rank, kind) in self.kinds.iter().enumerate() {
            let groups = self.layout.groups(rank).map(Rc::new);
            for (group, times, collective) in &distinct[*kind] {
                let own = Collective {
                    group: Rc::clone(&groups[*group]),
                    ..(*collective).clone()
                };
                let entry = sent.entry(own.kind.name()).or_default();
                entry.calls += times;
                entry.bytes += times * own.bytes_sent();
            }
        }
        let sending = |(name, Sent { calls, bytes })| Sending { name, calls, bytes };
        sent.into_iter().map(sending).collect()
    }

    /// The whole phase: steps of `step_tokens` tokens, at each position `weight` times; `alone` is what one
    /// rank needs.
    ///
    /// # Errors
    ///
    /// As [`simulate`].
    pub fn phase(
        &self,
        tokens: usize,
        step_tokens: usize,
        steps: &[(usize, f64)],
        alone: Option<f64>,
    ) -> Result<Phase> {
        let mut phase = Phase {
            tokens,
            step_tokens,
            collectives: self.sent(),
            ..Phase::default()
        };
        let mut slowest = 0.0;
        let ranks = self.kinds.len() as f64;
        for (position, weight) in steps {
            let timeline = self.timeline(*position, false)?;
            let mean = |f: fn(&super::simulate::Lane) -> f64| {
                timeline.lanes.iter().map(f).sum::<f64>() / ranks * weight
            };
            let (compute, communication) = (mean(|l| l.compute), mean(|l| l.communication));
            let step = weight * (timeline.seconds() + self.device.submit);
            phase.seconds += step;
            phase.compute += compute;
            phase.communication += communication;
            let longest = timeline.lanes.iter().map(|l| l.compute).fold(0.0, f64::max);
            slowest += longest * weight;
            let (flops, bytes) = self.cost(*position);
            phase.flops += flops * weight;
            phase.bytes += bytes * weight;
        }
        phase.imbalance = if phase.compute > 0.0 {
            slowest / phase.compute
        } else {
            1.0
        };
        phase.compute /= phase.seconds;
        phase.communication /= phase.seconds;
        phase.waiting = (1.0 - phase.compute - phase.communication).max(0.0);
        let replicas = self.layout.mesh.dp as f64;
        phase.tokens_per_second = replicas * tokens as f64 / phase.seconds;
        phase.alone = alone.unwrap_or(phase.seconds);
        phase.speedup = phase.alone / phase.seconds;
        let mesh = &self.layout.mesh;
        // Replicas that exchange tokens share their experts.
        phase.ideal = mesh.tp * mesh.pp * (mesh.ep / mesh.tp).max(1);
        if phase.ideal > 1 {
            let n = phase.ideal as f64;
            phase.serial = (1.0 / phase.speedup - 1.0 / n) / (1.0 - 1.0 / n);
        }
        Ok(phase)
    }
}

/// A rank's part in a collective as a step of the simulation.
fn step(placement: &Placement, c: &Collective) -> Step {
    let group = group_of(placement, &c.group);
    let me = c.group.me;
    match c.kind {
        CollectiveKind::Send { to } => Step::Send {
            group,
            ahead: to.saturating_sub(me),
            bytes: c.bytes_sent(),
        },
        CollectiveKind::Receive { from } => Step::Receive {
            group,
            behind: me.saturating_sub(from),
        },
        _ => Step::Meet {
            name: c.kind.name(),
            group,
            messages: links::messages(&c.kind, c.group.len()),
            bytes: c.bytes_sent(),
        },
    }
}
