//! What the kernels of an answer take, and what they reach of what the device can.

use std::rc::Rc;

use serde_json::{Value, json};

use crate::plan::{Cost, When, cost};
use crate::recording::Dispatch;
use crate::trace::{Place, Trace};

/// Seconds since some moment that stays the same.
pub type Clock = fn() -> f64;

/// How an answer is measured.
#[derive(Clone, Copy, Debug)]
pub struct Profiling {
    /// The host's clock.
    pub clock: Clock,
    /// Most calls that are kept one by one, for a timeline; sums have all of them.
    pub spans: usize,
}

/// One call of a kernel, as a device has measured it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The call.
    pub dispatch: Rc<Dispatch>,
    /// Seconds on the device's own clock.
    pub begin: f64,
    /// Seconds it took.
    pub seconds: f64,
}

/// What the host did between kernels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HostWork {
    /// `communication` between devices, `paging` of experts; waiting for the kernels before it is part of it.
    pub name: &'static str,
    /// Seconds on the host's clock.
    pub begin: f64,
    /// Seconds it took.
    pub seconds: f64,
    /// Bytes that were sent.
    pub bytes: u64,
}

/// What a step is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the prompt.
    Prefill,
    /// Writing the answer: computing a token, and choosing the next one.
    Decode,
}

impl Stage {
    /// `prefill` or `decode`.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Prefill => "prefill",
            Stage::Decode => "decode",
        }
    }
}

/// What an answer took, by kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// The stages that there were, in their order.
    pub stages: Vec<StageTime>,
    /// Kernels by stage, those that took longest first.
    pub kernels: Vec<KernelTime>,
    /// The first calls one by one, in the order of their ends on each lane.
    pub spans: Vec<Span>,
    /// Calls that came after those.
    pub left_out: u64,
    /// Devices, and behind them the host.
    pub lanes: Vec<String>,
}

/// All steps of a stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageTime {
    /// Which one.
    pub stage: Stage,
    /// How many.
    pub steps: u64,
    /// Tokens that were computed.
    pub tokens: u64,
    /// Seconds from the begin of each step until its result was there; kernels that are not measured overlap more.
    pub seconds: f64,
}

/// All calls of a kernel in a stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelTime {
    /// When.
    pub stage: Stage,
    /// Its name, or what the host did ([`HostWork::name`]).
    pub kernel: &'static str,
    /// How often.
    pub calls: u64,
    /// In total; devices that work at once are added up.
    pub seconds: f64,
    /// What its calls have computed and moved.
    pub cost: Cost,
}

/// One call.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// When.
    pub stage: Stage,
    /// Place in [`Profile::lanes`].
    pub lane: usize,
    /// Its name.
    pub name: &'static str,
    /// Seconds since the answer began.
    pub begin: f64,
    /// Seconds it took.
    pub seconds: f64,
    /// Types and shapes of what is bound: `f32[1, 576] q4_1[1536, 576]`.
    pub shapes: String,
    /// What it has computed and moved.
    pub cost: Cost,
}

/// A step that has been done.
pub(crate) struct Step {
    pub(crate) stage: Stage,
    /// Its tokens, and those in the cache before it.
    pub(crate) tokens: usize,
    pub(crate) position: usize,
    /// Seconds since the answer began.
    pub(crate) begin: f64,
    pub(crate) seconds: f64,
}

impl Profile {
    /// Adds a step: what each device has measured, and what the host did, whose clock was `zero` when the answer began.
    pub(crate) fn add(
        &mut self,
        step: &Step,
        devices: Vec<Vec<Measured>>,
        host: &[HostWork],
        zero: f64,
        most: usize,
    ) {
        let found = self.stages.iter_mut().find(|s| s.stage == step.stage);
        match found {
            Some(stage) => {
                stage.steps += 1;
                stage.tokens += step.tokens as u64;
                stage.seconds += step.seconds;
            }
            None => self.stages.push(StageTime {
                stage: step.stage,
                steps: 1,
                tokens: step.tokens as u64,
                seconds: step.seconds,
            }),
        }
        let when = When {
            position: step.position,
            sequences: 1,
        };
        let host_lane = devices.len();
        for (lane, calls) in devices.into_iter().enumerate() {
            // Devices have clocks of their own.
            let first = calls.iter().map(|c| c.begin).fold(f64::INFINITY, f64::min);
            for call in calls {
                let cost = cost(&call.dispatch, when);
                let name = call.dispatch.kernel.name;
                self.count(step.stage, name, call.seconds, cost);
                self.keep(most, || Span {
                    stage: step.stage,
                    lane,
                    name,
                    begin: step.begin + (call.begin - first),
                    seconds: call.seconds,
                    shapes: shapes(&call.dispatch),
                    cost,
                });
            }
        }
        for work in host {
            let cost = Cost {
                flops: 0,
                bytes: work.bytes,
            };
            self.count(step.stage, work.name, work.seconds, cost);
            self.keep(most, || Span {
                stage: step.stage,
                lane: host_lane,
                name: work.name,
                begin: work.begin - zero,
                seconds: work.seconds,
                shapes: String::new(),
                cost,
            });
        }
    }

    fn count(&mut self, stage: Stage, kernel: &'static str, seconds: f64, cost: Cost) {
        let same = |k: &&mut KernelTime| k.stage == stage && k.kernel == kernel;
        match self.kernels.iter_mut().find(same) {
            Some(found) => {
                found.calls += 1;
                found.seconds += seconds;
                found.cost += cost;
            }
            None => self.kernels.push(KernelTime {
                stage,
                kernel,
                calls: 1,
                seconds,
                cost,
            }),
        }
    }

    fn keep(&mut self, most: usize, span: impl FnOnce() -> Span) {
        if self.spans.len() < most {
            self.spans.push(span());
        } else if most > 0 {
            self.left_out += 1;
        }
    }

    /// Sorts kernels by what they took.
    pub(crate) fn finish(&mut self) {
        let order = |k: &KernelTime| k.stage == Stage::Decode;
        let longest = |a: &KernelTime, b: &KernelTime| b.seconds.total_cmp(&a.seconds);
        self.kernels
            .sort_by(|a, b| order(a).cmp(&order(b)).then(longest(a, b)));
    }

    /// Adds another answer's, on the same devices; it comes `later` by so many seconds.
    pub fn append(&mut self, other: Profile, later: f64, most: usize) {
        for stage in other.stages {
            match self.stages.iter_mut().find(|s| s.stage == stage.stage) {
                Some(found) => {
                    found.steps += stage.steps;
                    found.tokens += stage.tokens;
                    found.seconds += stage.seconds;
                }
                None => self.stages.push(stage),
            }
        }
        for kernel in other.kernels {
            let same = |k: &&mut KernelTime| k.stage == kernel.stage && k.kernel == kernel.kernel;
            match self.kernels.iter_mut().find(same) {
                Some(found) => {
                    found.calls += kernel.calls;
                    found.seconds += kernel.seconds;
                    found.cost += kernel.cost;
                }
                None => self.kernels.push(kernel),
            }
        }
        for mut span in other.spans {
            span.begin += later;
            self.keep(most, || span);
        }
        self.left_out += other.left_out;
        self.lanes = other.lanes;
        self.finish();
    }

    /// Without the calls: `{stages: [{stage, steps, tokens, ms}], kernels: [{stage, kernel, calls, ms, bytes, flops}]}`.
    pub fn summary(&self) -> Value {
        let stage = |s: &StageTime| {
            json!({
                "stage": s.stage.name(), "steps": s.steps, "tokens": s.tokens, "ms": s.seconds * 1e3,
            })
        };
        let kernel = |k: &KernelTime| {
            json!({
                "stage": k.stage.name(), "kernel": k.kernel, "calls": k.calls, "ms": k.seconds * 1e3,
                "bytes": k.cost.bytes, "flops": k.cost.flops,
            })
        };
        json!({
            "stages": self.stages.iter().map(stage).collect::<Vec<_>>(),
            "kernels": self.kernels.iter().map(kernel).collect::<Vec<_>>(),
        })
    }

    /// A timeline of the calls that were kept, a lane for each device and one for the host.
    pub fn trace(&self) -> Value {
        let place = |lane| Place { group: 0, lane };
        let mut trace = Trace::default();
        trace.group(0, "shardlight");
        for (lane, name) in self.lanes.iter().enumerate() {
            trace.lane(place(lane), name);
        }
        for span in &self.spans {
            let args = json!({
                "shapes": span.shapes,
                "bytes": span.cost.bytes,
                "flops": span.cost.flops,
            });
            let (category, at) = (span.stage.name(), place(span.lane));
            trace.span(
                at,
                span.name,
                category,
                span.begin,
                span.seconds,
                Some(args),
            );
        }
        trace.finish()
    }
}

/// Types and shapes of what a call binds.
fn shapes(dispatch: &Dispatch) -> String {
    let bound = dispatch.bindings.iter().flatten();
    let each = bound.map(|t| format!("{}{:?}", t.dtype.name(), t.shape));
    each.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::tensor::Tensor;

    fn call(begin: f64, seconds: f64) -> Measured {
        let mut recording = crate::recording::Recording::new();
        let x = recording.scratch(DType::F32, &[2, 8]).unwrap();
        let y = recording.scratch(DType::F32, &[2, 8]).unwrap();
        let out: Tensor = recording.add(&x, &y).unwrap();
        drop(out);
        let dispatch = recording.dispatches().next().unwrap().clone();
        Measured {
            dispatch: Rc::new(dispatch),
            begin,
            seconds,
        }
    }

    fn step(stage: Stage, begin: f64) -> Step {
        Step {
            stage,
            tokens: 2,
            position: 0,
            begin,
            seconds: 1.0,
        }
    }

    #[test]
    fn calls_of_a_kernel_are_added_up_by_stage_and_lie_where_their_step_began() {
        let mut profile = Profile::default();
        let host = HostWork {
            name: "communication",
            begin: 105.5,
            seconds: 0.25,
            bytes: 7,
        };
        profile.add(
            &step(Stage::Prefill, 1.0),
            vec![vec![call(50.0, 0.1), call(50.5, 0.2)], vec![call(9.0, 0.4)]],
            &[host],
            100.0,
            3,
        );
        profile.add(
            &step(Stage::Decode, 6.0),
            vec![vec![call(70.0, 0.3)]],
            &[],
            100.0,
            3,
        );
        profile.finish();
        let sums: Vec<_> = profile
            .kernels
            .iter()
            .map(|k| (k.stage.name(), k.kernel, k.calls, (k.seconds * 1e3).round()))
            .collect();
        assert_eq!(
            sums,
            [
                ("prefill", "add", 3, 700.0),
                ("prefill", "communication", 1, 250.0),
                ("decode", "add", 1, 300.0)
            ]
        );
        // Two read, one written, 16 elements of 4 bytes each, three times.
        assert_eq!(profile.kernels[0].cost.bytes, 3 * 3 * 64);
        let places: Vec<_> = profile.spans.iter().map(|s| (s.lane, s.begin)).collect();
        assert_eq!(places, [(0, 1.0), (0, 1.5), (1, 1.0)]);
        assert_eq!(profile.left_out, 2);
        assert_eq!(profile.spans[0].shapes, "f32[2, 8] f32[2, 8] f32[2, 8]");
        assert_eq!(profile.stages.len(), 2);

        let mut both = profile.clone();
        both.append(profile, 10.0, 5);
        assert_eq!((both.kernels[0].calls, both.stages[0].steps), (6, 2));
        assert_eq!((both.spans.len(), both.left_out), (5, 2 + 2 + 1));
        assert_eq!(both.spans[3].begin, 11.0);
        let events = both.trace()["traceEvents"].as_array().unwrap().len();
        assert_eq!(events, 1 + 5);
    }
}
