//! Ctrl-C.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::job;

const IDLE: u8 = 0;
const ANSWERING: u8 = 1;
const ASKED: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(IDLE);

/// Takes over Ctrl-C: while an [`Answer`] is under way the first one asks it to stop, and any other
/// ends the program with exit code 130. In a [`job`] there is no stopping halfway: ranks would not stop
/// after the same token, so the job ends.
pub fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        job::abort(130);
        let asked = STATE.compare_exchange(ANSWERING, ASKED, Ordering::SeqCst, Ordering::SeqCst);
        if asked.is_err() {
            std::process::exit(130);
        }
    })?;
    Ok(())
}

/// Something that Ctrl-C stops instead of the program, until this is dropped.
pub struct Answer(());

impl Answer {
    /// Begins it.
    pub fn begin() -> Self {
        STATE.store(ANSWERING, Ordering::SeqCst);
        Answer(())
    }

    /// Whether Ctrl-C was pressed since [`Answer::begin`].
    pub fn interrupted(&self) -> bool {
        STATE.load(Ordering::SeqCst) == ASKED
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        STATE.store(IDLE, Ordering::SeqCst);
    }
}
