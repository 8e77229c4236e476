//! One answer of a batch: its tokens, where their keys and values are, and its text.

use std::rc::Rc;

use super::pages::{Before, Page, Pages};
use super::{BatchEvent, Request};
use crate::Result;
use crate::kernels::pages::PAGE;
use crate::session::choose::Chooser;
use crate::session::written::Written;
use crate::session::{GenerateOptions, Generated, StopReason};
use crate::tokenizer::Tokenizer;

/// See the [module](self).
pub(super) struct Sequence {
    pub(super) request: Request,
    pub(super) options: GenerateOptions,
    /// The prompt and what has been said.
    pub(super) tokens: Vec<u32>,
    /// So many of them have keys and values in the cache.
    pub(super) computed: usize,
    pub(super) pages: Vec<Page>,
    /// Pages that are known to hold what they hold, and what they are to pages behind them.
    known: usize,
    last: Before,
    pub(super) chooser: Chooser,
    written: Written,
    pub(super) started: bool,
    pub(super) cancelled: bool,
}

impl Sequence {
    pub(super) fn new(
        request: Request,
        prompt: &[u32],
        options: GenerateOptions,
        tokenizer: Option<Rc<Tokenizer>>,
    ) -> Result<Self> {
        Ok(Sequence {
            request,
            tokens: prompt.to_vec(),
            computed: 0,
            pages: Vec::new(),
            known: 0,
            last: 0,
            chooser: Chooser::new(&options)?,
            written: Written::new(tokenizer, &options),
            options,
            started: false,
            cancelled: false,
        })
    }

    /// Goes on behind `pages`, which are full and its own from now on.
    pub(super) fn begin(&mut self, pages: Vec<Page>, last: Before) {
        (self.known, self.last) = (pages.len(), last);
        self.computed = pages.len() * PAGE;
        self.pages = pages;
    }

    /// `n` more of its tokens are in the cache.
    pub(super) fn advance(&mut self, n: usize, pages: &mut Pages) {
        self.computed += n;
        while (self.known + 1) * PAGE <= self.computed {
            let at = self.known * PAGE;
            let tokens = &self.tokens[at..at + PAGE];
            self.last = pages.know(self.pages[self.known], self.last, tokens);
            self.known += 1;
        }
    }

    /// Gives its pages back; what they hold can be found until their room is needed.
    pub(super) fn release(&mut self, pages: &mut Pages) {
        let tail = self.known * PAGE;
        if self.known < self.pages.len() && tail < self.computed {
            pages.know(
                self.pages[self.known],
                self.last,
                &self.tokens[tail..self.computed],
            );
        }
        // The last one first, which then goes first.
        self.pages
            .iter()
            .rev()
            .for_each(|page| pages.release(*page));
        self.lose_pages();
    }

    /// Its pages are gone.
    pub(super) fn lose_pages(&mut self) {
        self.pages.clear();
        self.lose_known();
    }

    /// Nothing can be said of what its pages hold.
    pub(super) fn lose_known(&mut self) {
        (self.computed, self.known, self.last) = (0, 0, 0);
    }

    /// Token `id` comes next: tells it, and why the answer ends with it, if it does.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Invalid`] for a token that the form of the answer does not allow.
    pub(super) fn say(
        &mut self,
        id: u32,
        context: usize,
        on_event: &mut dyn FnMut(Request, BatchEvent<'_>),
    ) -> Result<Option<StopReason>> {
        let logprobs = self.chooser.logprobs.take();
        if self.written.ends_with(id) {
            return Ok(Some(StopReason::Eos));
        }
        let text = self.written.push(id, logprobs);
        let event = BatchEvent::Token {
            id,
            text: &text,
            logprobs: self.options.logprobs.and(self.written.last_logprobs()),
        };
        on_event(self.request, event);
        if self.written.is_stopped() {
            return Ok(Some(StopReason::StopString));
        }
        if self.chooser.accept(id)? {
            return Ok(Some(StopReason::Eos));
        }
        if self.written.tokens().len() >= self.options.max_tokens {
            return Ok(Some(StopReason::Length));
        }
        if self.tokens.len() >= context {
            return Ok(Some(StopReason::Context));
        }
        self.tokens.push(id);
        Ok(None)
    }

    /// The answer; tells text that was held back.
    pub(super) fn finish(
        mut self,
        stop: StopReason,
        on_event: &mut dyn FnMut(Request, BatchEvent<'_>),
    ) -> Generated {
        let rest = self.written.rest();
        if !rest.is_empty()
            && let Some(&id) = self.written.tokens().last()
        {
            let event = BatchEvent::Token {
                id,
                text: &rest,
                logprobs: None,
            };
            on_event(self.request, event);
        }
        self.written.into_generated(stop)
    }
}
