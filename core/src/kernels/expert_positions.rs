//! The place of each choice of an expert in the expert's queue, which of them the expert has room for,
//! and how many chose each expert.
//!
//! Params: `N` choices, `E` experts, `CAPACITY` of each. Switches: `CHOSEN`, some choices are not made (their
//! position is that of the last choice before them, -1 as u32 if there is none); `AHEAD`, others stand in
//! the queues already, of whom `KEPT_AHEAD` only those that have room; `PRIORITY`, queues are in the order of
//! falling priority, and in that of the choices where it is equal.

use super::argmax::order;
use super::{Access, Binding, Case, HostArray, Kernel, Params, Variant, case, fold};
use crate::device::Limits;
use crate::device::cpu::CpuDispatch;

/// See the [module](self).
pub static KERNEL: Kernel = Kernel {
    name: "expert_positions",
    bindings: &[
        Binding::new("experts", Access::Read),
        Binding::optional("chosen", Access::Read),
        Binding::optional("ahead", Access::Read),
        Binding::optional("priority", Access::Read),
        Binding::new("positions", Access::Write),
        Binding::new("kept", Access::Write),
        Binding::new("assigned", Access::Write),
        Binding::new("dropped", Access::Write),
    ],
    uniforms: &["N", "E", "CAPACITY"],
    variants,
    cpu,
    reference: super::definition(reference),
    cases: super::checks(cases),
};

/// Which optional bindings a call has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    /// Some choices are not made.
    pub chosen: bool,
    /// Others stand in the queues; of them only those that have room if this is `Some(true)`.
    pub ahead: Option<bool>,
    /// Queues are in the order of priority.
    pub priority: bool,
}

/// Parameters of a call.
pub fn params(choices: usize, experts: usize, capacity: u32, given: Given) -> Params {
    Params::new()
        .u32("N", choices as u32)
        .u32("E", experts as u32)
        .u32("CAPACITY", capacity)
        .bool("CHOSEN", given.chosen)
        .bool("AHEAD", given.ahead.is_some())
        .bool("KEPT_AHEAD", given.ahead == Some(true))
        .bool("PRIORITY", given.priority)
}

fn variants(p: &Params, limits: &Limits) -> Vec<Variant> {
    let invocations = p.get("N").max(p.get("E"));
    let groups = fold(invocations.div_ceil(64), limits);
    vec![Variant::new("choices", groups).set("WG", 64)]
}

fn cpu(d: &CpuDispatch<'_>) {
    let p = d.params;
    let (count, capacity) = (p.size("E"), p.get("CAPACITY"));
    let chosen = d.has(1).then(|| d.u32(1));
    let experts = &d.u32(0)[..p.size("N")];
    let start: Vec<u32> = match d.has(2) {
        true if p.is("KEPT_AHEAD") => d.u32(2)[..count]
            .iter()
            .map(|a| *a.min(&capacity))
            .collect(),
        true => d.u32(2)[..count].to_vec(),
        false => vec![0; count],
    };
    let mut queue: Vec<usize> = (0..experts.len()).collect();
    if d.has(3) {
        let priority = d.f32(3);
        queue.sort_by_key(|i| !order(priority[*i]));
    }
    let (mut positions, mut kept) = (d.write::<u32>(4), d.write::<u32>(5));
    let mut counts = vec![0u32; count];
    for i in queue {
        let Some(so_far) = counts.get_mut(experts[i] as usize) else {
            (positions[i], kept[i]) = (u32::MAX, 0);
            continue;
        };
        let made = chosen.as_ref().is_none_or(|c| c[i] != 0);
        *so_far += u32::from(made);
        positions[i] = (start[experts[i] as usize] + *so_far).wrapping_sub(1);
        kept[i] = u32::from(made && positions[i] < capacity);
    }
    let (mut assigned, mut dropped) = (d.write::<u32>(6), d.write::<u32>(7));
    for (e, (assigned, dropped)) in assigned
        .iter_mut()
        .zip(dropped.iter_mut())
        .take(count)
        .enumerate()
    {
        *assigned = counts[e];
        *dropped = counts[e].saturating_sub(capacity.saturating_sub(start[e]));
    }
}

fn reference(p: &Params, arrays: &mut [Vec<f64>]) {
    let (choices, count, capacity) = (p.size("N"), p.size("E"), p.size("CAPACITY") as f64);
    let [
        experts,
        chosen,
        ahead,
        priority,
        positions,
        kept,
        assigned,
        dropped,
    ] = arrays
    else {
        return;
    };
    let made = |i: usize, e: usize| experts[i] == e as f64 && !(p.is("CHOSEN") && chosen[i] == 0.0);
    let start = |e: usize| match (p.is("AHEAD"), p.is("KEPT_AHEAD")) {
        (true, true) => ahead[e].min(capacity),
        (true, false) => ahead[e],
        _ => 0.0,
    };
    let before = |j: usize, i: usize| match p.is("PRIORITY") {
        true => priority[j] > priority[i] || (priority[j] == priority[i] && j < i),
        false => j < i,
    };
    for i in 0..choices {
        let e = experts[i] as usize;
        (positions[i], kept[i]) = (f64::from(u32::MAX), 0.0);
        if e >= count {
            continue;
        }
        let others = (0..choices).filter(|j| before(*j, i) && made(*j, e));
        let place = start(e) + others.count() as f64 + f64::from(u8::from(made(i, e))) - 1.0;
        if place >= 0.0 {
            positions[i] = place;
        }
        kept[i] = f64::from(u8::from(made(i, e) && place < capacity));
    }
    for e in 0..count {
        assigned[e] = (0..choices).filter(|i| made(*i, e)).count() as f64;
        dropped[e] = (assigned[e] - (capacity - start(e)).max(0.0)).max(0.0);
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for ahead in [None, Some(true), Some(false)] {
        for (chosen, priority) in [(false, false), (true, false), (false, true), (true, true)] {
            let given = Given {
                chosen,
                ahead,
                priority,
            };
            cases.push(case_of(46, 8, 6, given));
        }
    }
    let all = Given {
        chosen: true,
        ahead: Some(true),
        priority: true,
    };
    for (choices, experts, capacity) in [(1, 1, 1), (7, 300, 0), (1031, 5, 200)] {
        cases.push(case_of(choices, experts, capacity, Given::default()));
        cases.push(case_of(choices, experts, capacity, all));
    }
    cases
}

fn case_of(choices: usize, experts: usize, capacity: u32, given: Given) -> Case {
    let words = |len: usize, word: &dyn Fn(usize) -> u32| {
        HostArray::u32(&[len], &(0..len).map(word).collect::<Vec<_>>())
    };
    // One choice is of no expert; some priorities are equal.
    let expert = |i: usize| match i {
        5 => u32::MAX,
        i => (i * i * 31 % experts) as u32,
    };
    let mut priority = case::random(3, choices);
    for i in 1..choices / 3 {
        priority[i] = priority[2 * i];
    }
    Case {
        params: params(choices, experts, capacity, given),
        arrays: vec![
            Some(words(choices, &expert)),
            given
                .chosen
                .then(|| words(choices, &|i| u32::from(i % 3 != 0))),
            given
                .ahead
                .map(|_| words(experts, &|e| (e * 7 % 11) as u32)),
            given
                .priority
                .then(|| HostArray::f32(&[choices], &priority)),
            Some(words(choices, &|_| 7)),
            Some(words(choices, &|_| 7)),
            Some(words(experts, &|_| 7)),
            Some(words(experts, &|_| 7)),
        ],
        bound: 0.0,
    }
}
