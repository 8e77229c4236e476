//! A plan's timeline as a file.

use serde_json::Value;

use super::simulate::Timeline;
use crate::trace::{Place, Trace};

/// The timeline with a lane for each rank, hosts as processes; times in microseconds.
pub fn trace(timeline: &Timeline, ranks_per_host: usize) -> Value {
    let place = |rank: usize| Place {
        group: rank / ranks_per_host.max(1),
        lane: rank,
    };
    let mut trace = Trace::default();
    let mut named = None;
    for rank in 0..timeline.lanes.len() {
        let at = place(rank);
        if named != Some(at.group) {
            named = Some(at.group);
            trace.group(at.group, &format!("host {}", at.group));
        }
        trace.lane(at, &format!("rank {rank}"));
    }
    for event in &timeline.events {
        let at = place(event.rank);
        trace.span(at, event.name, event.kind, event.start, event.seconds, None);
    }
    trace.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::simulate::{Event, Lane};

    #[test]
    fn every_rank_has_a_lane_and_times_are_microseconds() {
        let event = Event {
            rank: 2,
            name: "matvec",
            kind: "compute",
            start: 1e-3,
            seconds: 2e-6,
        };
        let timeline = Timeline {
            lanes: vec![Lane::default(); 3],
            events: vec![event],
        };
        let text = trace(&timeline, 2).to_string();
        let read: Value = serde_json::from_str(&text).unwrap();
        let events = read["traceEvents"].as_array().unwrap();
        let lanes: Vec<_> = events
            .iter()
            .filter(|e| e["name"] == "thread_name")
            .collect();
        assert_eq!(lanes.len(), 3);
        assert_eq!(lanes[2]["args"]["name"], "rank 2");
        let last = events.last().unwrap();
        assert_eq!(
            (&last["ph"], &last["pid"], &last["tid"]),
            (&json!("X"), &json!(1), &json!(2))
        );
        assert_eq!(
            (last["ts"].as_f64(), last["dur"].as_f64()),
            (Some(1000.0), Some(2.0))
        );
    }
}
