//! Discrete-event simulation of ranks that compute and meet.
//!
//! A rank runs its steps in order. A collective begins when the last of its group has come, and ends for all
//! at once; a message leaves its sender as fast as the link takes it and arrives a latency later (LogGP,
//! doi:10.1006/jpdc.1996.1346).

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use super::links::Link;
use crate::comm::communication;
use crate::{Error, Result};

/// What a rank does next. Groups are places in its list of [`Ranks::groups`].
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Dispatches in a row: of these spans of the [`Program`].
    Compute(Range<usize>),
    /// A collective with a group.
    Meet {
        /// What it is called.
        name: &'static str,
        /// With whom.
        group: usize,
        /// Messages one after the other.
        messages: u64,
        /// Bytes that this rank sends.
        bytes: u64,
    },
    /// A message to a rank of a group.
    Send {
        /// Whose.
        group: usize,
        /// Places after this rank's own.
        ahead: usize,
        /// Its length.
        bytes: u64,
    },
    /// Waits for a message.
    Receive {
        /// From whose.
        group: usize,
        /// Places before this rank's own.
        behind: usize,
    },
}

/// One dispatch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Name of the kernel.
    pub name: &'static str,
    /// How long it takes.
    pub seconds: f64,
}

/// What ranks of one kind do in one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// In order.
    pub steps: Vec<Step>,
    /// Dispatches of all [`Step::Compute`].
    pub spans: Vec<Span>,
}

impl Program {
    /// Appends a dispatch.
    pub fn compute(&mut self, span: Span) {
        let at = self.spans.len();
        self.spans.push(span);
        match self.steps.last_mut() {
            Some(Step::Compute(range)) => range.end = at + 1,
            _ => self.steps.push(Step::Compute(at..at + 1)),
        }
    }

    /// Seconds of all dispatches.
    pub fn seconds(&self) -> f64 {
        self.spans.iter().map(|span| span.seconds).sum()
    }
}

/// Ranks that meet, and what joins them.
#[derive(Clone, Debug)]
pub struct Members {
    /// World ranks.
    pub ranks: Vec<usize>,
    /// What joins them.
    pub link: Link,
}

/// Who there is.
#[derive(Clone, Debug)]
pub struct Ranks {
    /// Program of each rank.
    pub program: Vec<usize>,
    /// Groups of each rank, and its place in each.
    pub groups: Vec<Vec<(usize, usize)>>,
    /// All groups.
    pub members: Vec<Members>,
}

/// What became of one rank, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lane {
    /// Computing.
    pub compute: f64,
    /// Moving bytes.
    pub communication: f64,
    /// Waiting for other ranks.
    pub waiting: f64,
    /// When it was done.
    pub end: f64,
}

/// Something that a rank did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// Who.
    pub rank: usize,
    /// Kernel or collective.
    pub name: &'static str,
    /// `compute`, `communication`, `waiting`.
    pub kind: &'static str,
    /// Seconds from the start.
    pub start: f64,
    /// How long.
    pub seconds: f64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    /// Of each rank.
    pub lanes: Vec<Lane>,
    /// What they did, if asked for.
    pub events: Vec<Event>,
}

impl Timeline {
    /// When the last rank is done, in seconds.
    pub fn seconds(&self) -> f64 {
        self.lanes.iter().map(|lane| lane.end).fold(0.0, f64::max)
    }
}

/// Those of a group who have come to a collective, and when.
#[derive(Default)]
struct Meeting {
    arrived: Vec<(usize, f64)>,
    name: &'static str,
    messages: u64,
    bytes: u64,
}

/// Messages from one rank to another.
#[derive(Default)]
struct Channel {
    /// When each arrives that nobody has taken yet.
    sent: VecDeque<f64>,
    /// Since when the receiver waits.
    waiting: Option<f64>,
}

struct Simulation<'a> {
    programs: &'a [Program],
    ranks: &'a Ranks,
    /// Seconds of each step of each program that computes.
    computing: Vec<Vec<f64>>,
    trace: bool,
    at: Vec<usize>,
    /// Ranks that can go on, and their time.
    ready: Vec<(usize, f64)>,
    meetings: Vec<Meeting>,
    /// By sender and receiver.
    channels: HashMap<(usize, usize), Channel>,
    timeline: Timeline,
}

/// Runs every rank's program to its end.
///
/// # Errors
///
/// [`Error::Communication`] naming a rank that would wait for ever, and [`Error::Invalid`] when ranks of a
/// group do not meet in the same collective.
pub fn simulate(programs: &[Program], ranks: &Ranks, trace: bool) -> Result<Timeline> {
    let n = ranks.program.len();
    let compute = |program: &Program| -> Vec<f64> {
        let seconds = |step: &Step| match step {
            Step::Compute(range) => program.spans[range.clone()].iter().map(|s| s.seconds).sum(),
            _ => 0.0,
        };
        program.steps.iter().map(seconds).collect()
    };
    let mut simulation = Simulation {
        programs,
        ranks,
        computing: programs.iter().map(compute).collect(),
        trace,
        at: vec![0; n],
        ready: (0..n).map(|rank| (rank, 0.0)).collect(),
        meetings: ranks.members.iter().map(|_| Meeting::default()).collect(),
        channels: HashMap::new(),
        timeline: Timeline {
            lanes: vec![Lane::default(); n],
            events: Vec::new(),
        },
    };
    while let Some((rank, now)) = simulation.ready.pop() {
        simulation.step(rank, now)?;
    }
    simulation.finish()
}

impl Simulation<'_> {
    fn step(&mut self, rank: usize, now: f64) -> Result<()> {
        let kind = self.ranks.program[rank];
        let program = &self.programs[kind];
        let Some(step) = program.steps.get(self.at[rank]) else {
            self.timeline.lanes[rank].end = now;
            return Ok(());
        };
        match *step {
            Step::Compute(ref spans) => {
                let seconds = self.computing[kind][self.at[rank]];
                self.timeline.lanes[rank].compute += seconds;
                if self.trace {
                    let mut at = now;
                    for span in &program.spans[spans.clone()] {
                        self.event(rank, span.name, "compute", at, span.seconds);
                        at += span.seconds;
                    }
                }
                self.next(rank, now + seconds);
            }
            Step::Meet {
                name,
                group,
                messages,
                bytes,
            } => {
                let (group, _) = self.ranks.groups[rank][group];
                let meeting = &mut self.meetings[group];
                if !meeting.arrived.is_empty() && meeting.name != name {
                    return Err(Error::Invalid(format!(
                        "rank {rank} comes to {name}, rank {} to {}",
                        meeting.arrived[0].0, meeting.name
                    )));
                }
                meeting.name = name;
                meeting.arrived.push((rank, now));
                meeting.messages = meeting.messages.max(messages);
                meeting.bytes = meeting.bytes.max(bytes);
                if meeting.arrived.len() == self.ranks.members[group].ranks.len() {
                    self.meet(group);
                }
            }
            Step::Send {
                group,
                ahead,
                bytes,
            } => {
                let (group, place) = self.ranks.groups[rank][group];
                let members = &self.ranks.members[group];
                let to = members.ranks.get(place + ahead).copied();
                let to = to.ok_or_else(|| communication(rank, "sends beyond its group"))?;
                let busy = members.link.seconds(0, bytes);
                let arrival = now + busy + members.link.latency;
                self.timeline.lanes[rank].communication += busy;
                self.event(rank, "send", "communication", now, busy);
                let channel = self.channels.entry((rank, to)).or_default();
                channel.sent.push_back(arrival);
                if let Some(since) = channel.waiting.take() {
                    self.ready.push((to, since));
                }
                self.next(rank, now + busy);
            }
            Step::Receive { group, behind } => {
                let (group, place) = self.ranks.groups[rank][group];
                let from = place.checked_sub(behind);
                let from =
                    from.ok_or_else(|| communication(rank, "receives from before its group"))?;
                let from = self.ranks.members[group].ranks[from];
                let channel = self.channels.entry((from, rank)).or_default();
                match channel.sent.pop_front() {
                    Some(arrival) => {
                        let wait = (arrival - now).max(0.0);
                        self.timeline.lanes[rank].waiting += wait;
                        self.event(rank, "receive", "waiting", now, wait);
                        self.next(rank, now + wait);
                    }
                    None => channel.waiting = Some(now),
                }
            }
        }
        Ok(())
    }

    fn next(&mut self, rank: usize, time: f64) {
        self.at[rank] += 1;
        self.ready.push((rank, time));
    }

    /// All have come.
    fn meet(&mut self, group: usize) {
        let meeting = std::mem::take(&mut self.meetings[group]);
        let start = meeting
            .arrived
            .iter()
            .map(|(_, at)| *at)
            .fold(0.0, f64::max);
        let link = &self.ranks.members[group].link;
        let seconds = link.seconds(meeting.messages, meeting.bytes);
        for (rank, since) in meeting.arrived {
            let lane = &mut self.timeline.lanes[rank];
            lane.waiting += start - since;
            lane.communication += seconds;
            self.event(rank, meeting.name, "waiting", since, start - since);
            self.event(rank, meeting.name, "communication", start, seconds);
            self.next(rank, start + seconds);
        }
    }

    fn event(
        &mut self,
        rank: usize,
        name: &'static str,
        kind: &'static str,
        start: f64,
        seconds: f64,
    ) {
        if self.trace && seconds > 0.0 {
            self.timeline.events.push(Event {
                rank,
                name,
                kind,
                start,
                seconds,
            });
        }
    }

    fn finish(self) -> Result<Timeline> {
        if let Some(meeting) = self.meetings.iter().find(|m| !m.arrived.is_empty()) {
            let (rank, _) = meeting.arrived[0];
            let reason = format!("waits in {} for ranks that do not come", meeting.name);
            return Err(communication(rank, reason));
        }
        for ((from, to), channel) in &self.channels {
            if channel.waiting.is_some() {
                let reason = format!("waits for a message that rank {from} does not send");
                return Err(communication(*to, reason));
            }
            if !channel.sent.is_empty() {
                let reason = format!("sends a message that rank {to} does not receive");
                return Err(communication(*from, reason));
            }
        }
        Ok(self.timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link {
        name: "own",
        latency: 1.0,
        bandwidth: 10.0,
        source: "test",
    };

    fn program(parts: &[(f64, Option<Step>)]) -> Program {
        let mut program = Program::default();
        for (seconds, step) in parts {
            let name = "matvec";
            let seconds = *seconds;
            program.compute(Span { name, seconds });
            program.steps.extend(step.clone());
        }
        program
    }

    fn reduce(bytes: u64) -> Option<Step> {
        Some(Step::Meet {
            name: "all_reduce",
            group: 0,
            messages: 2,
            bytes,
        })
    }

    const SEND: Step = Step::Send {
        group: 0,
        ahead: 1,
        bytes: 10,
    };

    const RECEIVE: Step = Step::Receive {
        group: 0,
        behind: 1,
    };

    /// All in one group, rank i with program i.
    fn run(programs: &[Program]) -> Result<Timeline> {
        let n = programs.len();
        let ranks = Ranks {
            program: (0..n).collect(),
            groups: (0..n).map(|rank| vec![(0, rank)]).collect(),
            members: vec![Members {
                ranks: (0..n).collect(),
                link: LINK,
            }],
        };
        simulate(programs, &ranks, true)
    }

    #[test]
    fn a_collective_waits_for_the_slowest() {
        let first = program(&[(1.0, reduce(20)), (1.0, None)]);
        let second = program(&[(3.0, reduce(10)), (0.5, None)]);
        let end = run(&[first, second]).unwrap();
        // From 3 on: two messages of latency 1, the larger part's 20 bytes at 10 a second.
        assert_eq!(end.seconds(), 3.0 + 4.0 + 1.0);
        let lane = |compute, waiting, end| Lane {
            compute,
            communication: 4.0,
            waiting,
            end,
        };
        assert_eq!(end.lanes, [lane(2.0, 2.0, 8.0), lane(3.5, 0.0, 7.5)]);
        let of_first = end.events.iter().filter(|e| e.rank == 0);
        assert_eq!(of_first.map(|e| e.seconds).sum::<f64>(), 8.0);
    }

    #[test]
    fn micro_batches_overlap_in_a_pipeline() {
        let first = program(&[(2.0, Some(SEND)), (2.0, Some(SEND)), (2.0, Some(SEND))]);
        let mut second = Program::default();
        for _ in 0..3 {
            second.steps.push(RECEIVE);
            let (name, seconds) = ("matvec", 2.0);
            second.compute(Span { name, seconds });
        }
        let end = run(&[first, second]).unwrap();
        // Messages arrive at 4, 7 and 10; each is computed by the next arrival.
        assert_eq!(end.seconds(), 12.0);
        assert_eq!(end.lanes[1].waiting, 4.0 + 1.0 + 1.0);
        assert_eq!(end.lanes[0].end, 9.0);
    }

    #[test]
    fn a_rank_that_would_wait_for_ever_is_named() {
        let told = |programs: &[Program]| run(programs).unwrap_err().to_string();
        let works = program(&[(1.0, None)]);
        assert_eq!(
            told(&[program(&[(1.0, reduce(1))]), works.clone()]),
            "rank 0: waits in all_reduce for ranks that do not come"
        );
        assert_eq!(
            told(&[works.clone(), program(&[(1.0, Some(RECEIVE))])]),
            "rank 1: waits for a message that rank 0 does not send"
        );
        let sends = program(&[(1.0, Some(SEND))]);
        assert_eq!(
            told(&[sends.clone(), works]),
            "rank 0: sends a message that rank 1 does not receive"
        );
        assert_eq!(
            told(&[Program::default(), sends]),
            "rank 1: sends beyond its group"
        );
        assert_eq!(
            told(&[program(&[(1.0, Some(RECEIVE))])]),
            "rank 0: receives from before its group"
        );
    }

    #[test]
    fn ranks_that_meet_in_different_collectives_are_told() {
        let gather = Step::Meet {
            name: "all_gather",
            group: 0,
            messages: 1,
            bytes: 1,
        };
        let told = run(&[
            program(&[(1.0, reduce(1))]),
            program(&[(1.0, Some(gather))]),
        ]);
        let told = told.unwrap_err().to_string();
        assert!(
            told.contains("all_gather") && told.contains("all_reduce"),
            "{told}"
        );
    }
}
