//! The few functions of a page or worker that are called here, and their failures as texts.

use js_sys::{Date, Promise};
use shardlight::chat::DateTime;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{MessageChannel, Request};

#[wasm_bindgen]
extern "C" {
    /// Fetches in windows and workers alike.
    #[wasm_bindgen(catch)]
    pub fn fetch(request: &Request) -> Result<Promise, JsValue>;

    /// The folder of the origin private file system.
    #[wasm_bindgen(catch, js_namespace = ["navigator", "storage"], js_name = getDirectory)]
    pub fn opfs() -> Result<Promise, JsValue>;

    /// Milliseconds since the page began.
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    pub fn milliseconds() -> f64;
}

/// What a thrown value says, in one line.
pub fn reason(thrown: &JsValue) -> String {
    let text = match thrown.dyn_ref::<js_sys::Error>() {
        Some(error) => String::from(error.message()),
        None => thrown.as_string().unwrap_or_else(|| format!("{thrown:?}")),
    };
    text.replace('\n', " ")
}

/// Lets the event loop handle what waits, such as a message that says stop.
///
/// A message to oneself, because timers are held back for 4 ms once they are nested.
pub async fn turn() {
    // A channel always exists where modules and workers do; without one there is nobody to yield to.
    let Ok(channel) = MessageChannel::new() else {
        return;
    };
    let port = channel.port1();
    let promise = Promise::new(&mut |resolve, _| {
        port.set_onmessage(Some(&resolve));
        if channel.port2().post_message(&JsValue::NULL).is_err() {
            drop(resolve.call0(&JsValue::NULL));
        }
    });
    drop(JsFuture::from(promise).await);
    // Node does not end while one is open.
    port.close();
}

/// The time where the user is.
pub fn now() -> DateTime {
    let date = Date::new_0();
    DateTime {
        year: date.get_full_year() as i32,
        month: date.get_month() as u8 + 1,
        day: date.get_date() as u8,
        hour: date.get_hours() as u8,
        minute: date.get_minutes() as u8,
        second: date.get_seconds() as u8,
    }
}
