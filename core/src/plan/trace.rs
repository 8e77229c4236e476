//! A timeline in the format that Chrome's tracing page and Perfetto read (Trace Event Format, JSON object).

use serde_json::{Value, json};

use super::simulate::Timeline;

/// The timeline with a lane for each rank, hosts as processes; times in microseconds.
pub fn trace(timeline: &Timeline, ranks_per_host: usize) -> Value {
    let host = |rank: usize| rank / ranks_per_host.max(1);
    let mut events = Vec::new();
    let mut named = None;
    for rank in 0..timeline.lanes.len() {
        if named != Some(host(rank)) {
            named = Some(host(rank));
            let args = json!({ "name": format!("host {}", host(rank)) });
            events.push(
                json!({ "name": "process_name", "ph": "M", "pid": host(rank), "args": args }),
            );
        }
        let args = json!({ "name": format!("rank {rank}") });
        events.push(json!({
            "name": "thread_name", "ph": "M", "pid": host(rank), "tid": rank, "args": args,
        }));
    }
    for event in &timeline.events {
        events.push(json!({
            "name": event.name,
            "cat": event.kind,
            "ph": "X",
            "ts": event.start * 1e6,
            "dur": event.seconds * 1e6,
            "pid": host(event.rank),
            "tid": event.rank,
        }));
    }
    json!({ "displayTimeUnit": "ns", "traceEvents": events })
}

#[cfg(test)]
mod tests {
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
