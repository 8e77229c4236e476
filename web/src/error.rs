//! The core's errors as JavaScript's: an `Error` whose `code` programs can tell apart.

use js_sys::Reflect;
use shardlight::Error;
use wasm_bindgen::prelude::*;

/// What is thrown.
pub struct Failure(JsValue);

impl Failure {
    /// What a function of the caller's threw, as it is.
    pub fn thrown(value: JsValue) -> Self {
        Failure(value)
    }

    /// `what` was disposed of.
    pub fn closed(what: &str) -> Self {
        Failure(with_code(&format!("the {what} was closed"), "closed"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure(with_code(&error.to_string(), code(&error)))
    }
}

impl From<Failure> for JsValue {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

/// An `Error` with this message and `code`.
pub fn with_code(message: &str, code: &str) -> JsValue {
    let error = JsValue::from(js_sys::Error::new(message));
    // Nothing refuses a property of an object that was just made.
    let _ = Reflect::set(&error, &"code".into(), &code.into());
    error
}

/// `ErrorCode` of www/src/errors.ts.
fn code(error: &Error) -> &'static str {
    match error {
        Error::Format { .. } => "format",
        Error::Io { .. } => "io",
        Error::Unsupported { .. } => "unsupported",
        Error::Invalid(_) => "invalid",
        Error::ContextExceeded { .. } => "context_exceeded",
        Error::Device { .. } => "device",
        Error::OutOfMemory { .. } => "out_of_memory",
        Error::DeviceLost { .. } => "device_lost",
        Error::Communication { .. } => "communication",
        Error::Numeric(_) => "numeric",
        Error::Cancelled => "cancelled",
        _ => "internal",
    }
}
