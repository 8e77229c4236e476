//! Timelines in the format that Chrome's tracing page and Perfetto read (Trace Event Format, JSON object).

use serde_json::{Value, json};

/// A timeline that is being written.
#[derive(Default)]
pub struct Trace(Vec<Value>);

/// A lane of a timeline, and what it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The format's process.
    pub group: usize,
    /// The format's thread.
    pub lane: usize,
}

impl Trace {
    /// Names a group of lanes.
    pub fn group(&mut self, group: usize, name: &str) {
        let args = json!({ "name": name });
        self.0
            .push(json!({ "name": "process_name", "ph": "M", "pid": group, "args": args }));
    }

    /// Names a lane.
    pub fn lane(&mut self, at: Place, name: &str) {
        let args = json!({ "name": name });
        self.0.push(json!({
            "name": "thread_name", "ph": "M", "pid": at.group, "tid": at.lane, "args": args,
        }));
    }

    /// Adds what took `seconds` from `begin` on, in seconds, with an object of whatever else is to be told.
    pub fn span(
        &mut self,
        at: Place,
        name: &str,
        category: &str,
        begin: f64,
        seconds: f64,
        args: Option<Value>,
    ) {
        let mut event = json!({
            "name": name,
            "cat": category,
            "ph": "X",
            "ts": begin * 1e6,
            "dur": seconds * 1e6,
            "pid": at.group,
            "tid": at.lane,
        });
        if let Some(args) = args {
            event["args"] = args;
        }
        self.0.push(event);
    }

    /// The file's content.
    pub fn finish(self) -> Value {
        json!({ "displayTimeUnit": "ns", "traceEvents": self.0 })
    }
}
