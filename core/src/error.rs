//! The one error type of the core.

use std::fmt;

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, with numbers and, where there is one, a way out.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model file, its header or its metadata is wrong.
    #[error("{place}: {reason}")]
    Format {
        /// File, and tensor or key inside it.
        place: String,
        /// What is wrong, with numbers.
        reason: String,
    },
    /// Bytes could not be read.
    #[error("{place}: {reason}")]
    Io {
        /// File or address.
        place: String,
        /// What the system said.
        reason: String,
    },
    /// The model, type or option is known but not supported.
    #[error("{what}; supported: {supported}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What there is.
        supported: String,
    },
    /// An argument or a shape does not fit.
    #[error("{0}")]
    Invalid(String),
    /// The prompt and the tokens asked for do not fit the context.
    #[error(
        "prompt has {prompt} tokens and the context {context}; shorten the prompt or raise the context length (this model allows {max})"
    )]
    ContextExceeded {
        /// Tokens of the prompt (with the conversation so far).
        prompt: usize,
        /// Context length of the session.
        context: usize,
        /// The model's own limit.
        max: usize,
    },
    /// No such device, or it cannot be used.
    #[error("device {device}: {reason}")]
    Device {
        /// Name of the device or adapter.
        device: String,
        /// What is wrong.
        reason: String,
    },
    /// The device has no room.
    #[error(
        "device {device}: out of memory while allocating {bytes} bytes for {what}; try a smaller context length or another device"
    )]
    OutOfMemory {
        /// Name of the device or adapter.
        device: String,
        /// Bytes asked for.
        bytes: u64,
        /// What the buffer was for.
        what: String,
    },
    /// The device was lost (driver reset, sleep, unplugged).
    #[error("device {device} was lost: {reason}")]
    DeviceLost {
        /// Name of the device or adapter.
        device: String,
        /// What the driver said.
        reason: String,
    },
    /// A rank is gone, or did something else than the others.
    #[error("rank {rank}: {reason}")]
    Communication {
        /// Which rank, in the world.
        rank: usize,
        /// What happened.
        reason: String,
    },
    /// Logits were not numbers.
    #[error("{0}")]
    Numeric(String),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// A [`Error::Format`] of these two texts.
    pub fn format(place: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Error::Format {
            place: place.to_string(),
            reason: reason.to_string(),
        }
    }

    /// A [`Error::Io`] of these two texts.
    pub fn io(place: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Error::Io {
            place: place.to_string(),
            reason: reason.to_string(),
        }
    }
}
