//! Many answers at once: in each step a token of every answer, and as much of new prompts as there is room for.
//!
//! Continuous batching (Orca, OSDI 2022, section 4) over a cache in pages (arXiv:2309.06180), with prompts in chunks between
//! the other answers' tokens (arXiv:2308.16369). Prompts that begin alike share pages; a page that several use, or may use
//! again, is never written: who goes on behind a part of it gets a copy. Where pages run out the answer begun last gives
//! its own back and is computed again later.

mod pages;
mod queue;
mod sequence;

use super::ranks::{Pool, Row};
use super::recovery::Losses;
use super::{GenerateOptions, Generated, Logprobs, Session, StopReason};
use crate::kernels::pages::PAGE;
use crate::{Error, Result};
use pages::Pages;
use queue::Queue;
use sequence::Sequence;

/// Settings of a [`Batch`].
#[derive(Clone, Debug)]
pub struct BatchOptions {
    /// Most answers that are made at the same time; others wait.
    pub max_sequences: usize,
    /// Tokens that the cache has room for, of all answers together; `None`: one whole context, or 256 for each answer if that
    /// is more.
    pub cache_tokens: Option<usize>,
    /// Most tokens of a step; no more than [`SessionOptions::prefill_chunk`](super::SessionOptions::prefill_chunk).
    pub step_tokens: usize,
}

impl Default for BatchOptions {
    fn default() -> Self {
        BatchOptions {
            max_sequences: 64,
            cache_tokens: None,
            step_tokens: 256,
        }
    }
}

/// One of a batch's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request(pub u64);

/// What happens to an answer.
#[derive(Debug)]
pub enum BatchEvent<'a> {
    /// It has been begun, for the first time.
    Started {
        /// Tokens of the prompt.
        prompt: usize,
        /// Of these, in the cache already.
        reused: usize,
    },
    /// A new token and the text that has become certain.
    Token {
        /// Its id.
        id: u32,
        /// New text; empty while a character or a possible stop text is incomplete.
        text: &'a str,
        /// How likely it was, with [`GenerateOptions::logprobs`].
        logprobs: Option<&'a Logprobs>,
    },
    /// It has ended; nothing more comes.
    Done(Result<Generated>),
}

/// What a batch has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchCounts {
    /// Steps.
    pub steps: u64,
    /// Tokens that were computed.
    pub computed: u64,
    /// Tokens of prompts that were in the cache already.
    pub reused: u64,
    /// Tokens that were chosen.
    pub generated: u64,
    /// Times that an answer gave its pages back, to be computed again.
    pub preempted: u64,
}

type OnEvent<'a> = &'a mut dyn FnMut(Request, BatchEvent<'_>);

/// A model that makes many answers at once.
pub struct Batch {
    session: Session,
    options: BatchOptions,
    pool: Pool,
    pages: Pages,
    /// In the order in which they were begun.
    running: Vec<Sequence>,
    queue: Queue,
    last_request: u64,
    losses: Losses,
    /// Losses of the session that this knows of.
    lost: u32,
    counts: BatchCounts,
}

impl Batch {
    /// Gives a session's model a cache for many answers. The session's own conversations stay as they are.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`]; [`Error::Invalid`] for sizes of 0, a cache of less than two pages, one that does not fit a
    /// binding, for several processes, and with statistics of experts.
    pub async fn new(session: Session, mut options: BatchOptions) -> Result<Batch> {
        if options.max_sequences == 0 || options.step_tokens == 0 {
            return Err(Error::Invalid(format!(
                "a batch of {} answers, {} tokens a step: both must be 1 or more",
                options.max_sequences, options.step_tokens
            )));
        }
        if session.world().communicator().name() != "local" {
            return Err(Error::Unsupported {
                what: "many answers at once on several processes".into(),
                supported: "one process, which may have several devices".into(),
            });
        }
        if session.expert_statistics().is_some() {
            return Err(Error::Unsupported {
                what: "statistics of experts where many answers are made at once".into(),
                supported: "one answer at a time".into(),
            });
        }
        options.step_tokens = options.step_tokens.min(session.ranks.chunk());
        options.max_sequences = options.max_sequences.min(options.step_tokens);
        let (pool, pages) = Batch::cache(&session, &options).await?;
        let lost = session.losses;
        Ok(Batch {
            session,
            options,
            pool,
            pages,
            running: Vec::new(),
            queue: Queue::default(),
            last_request: 0,
            losses: Losses::default(),
            lost,
            counts: BatchCounts::default(),
        })
    }

    async fn cache(session: &Session, options: &BatchOptions) -> Result<(Pool, Pages)> {
        let (context, most) = (session.context_length(), options.max_sequences);
        let tokens = options.cache_tokens.unwrap_or(context.max(256 * most));
        // The first page belongs to nobody.
        let count = tokens.div_ceil(PAGE).checked_add(1);
        let count = count.filter(|count| *count > 2 && *count <= u32::MAX as usize / PAGE);
        let count = count.ok_or_else(|| {
            Error::Invalid(format!(
                "a cache of {tokens} tokens: expected {} to {}",
                PAGE + 1,
                u32::MAX as usize - PAGE
            ))
        })?;
        let lists = most.saturating_mul(context.div_ceil(PAGE).min(count));
        let sizes = [options.step_tokens, most];
        let pool = session.ranks.pool(count * PAGE, sizes, lists).await?;
        Ok((pool, Pages::new(count)))
    }

    /// The model: its tokenizer, template, shapes, devices.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The same, for what is not an answer, as embeddings.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Asks for an answer to the prompt `tokens`. Answers are begun in the order in which they were asked for.
    ///
    /// # Errors
    ///
    /// As [`Session::generate`] for what can be seen of the prompt and the options; [`Error::Unsupported`] for a profile.
    pub fn add(&mut self, tokens: &[u32], options: GenerateOptions) -> Result<Request> {
        self.add_of(0, tokens, options)
    }

    /// The same for one of several clients, whose answers are begun in turn.
    ///
    /// # Errors
    ///
    /// Those of [`Batch::add`].
    pub fn add_of(
        &mut self,
        client: u64,
        tokens: &[u32],
        options: GenerateOptions,
    ) -> Result<Request> {
        options.sampling.check()?;
        self.session.check_prompt(tokens)?;
        if options.profile.is_some() {
            return Err(Error::Unsupported {
                what: "a profile where many answers are made at once".into(),
                supported: "one answer at a time".into(),
            });
        }
        let room = self.pages.count() * PAGE;
        if tokens.len() > room {
            return Err(Error::ContextExceeded {
                prompt: tokens.len(),
                context: room,
                max: self.session.config().max_position_embeddings,
            });
        }
        let request = Request(self.last_request + 1);
        let tokenizer = self.session.shared_tokenizer();
        let sequence = Sequence::new(request, tokens, options, tokenizer)?;
        self.queue.add(client, sequence);
        self.last_request = request.0;
        Ok(request)
    }

    /// Ends an answer in the next step; one that is unknown or has ended is no fault.
    pub fn cancel(&mut self, request: Request) {
        let all = self.running.iter_mut().chain(self.queue.iter_mut());
        for sequence in all.filter(|s| s.request == request) {
            sequence.cancelled = true;
        }
    }

    /// Answers that have not been begun, or wait to go on.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Answers that are being made.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Tokens that the cache holds for answers that are being made, and those it has room for.
    pub fn cache_use(&self) -> (usize, usize) {
        let used = self.running.iter().map(|s| s.computed).sum();
        (used, self.pages.count() * PAGE)
    }

    /// What has been done so far.
    pub fn counts(&self) -> BatchCounts {
        self.counts
    }

    /// Computes one step, and tells what has come of it. False when nothing is left to do.
    ///
    /// # Errors
    ///
    /// Those of a device. All answers that were being made have ended with it then; those that wait can still be made.
    pub async fn step(&mut self, on_event: OnEvent<'_>) -> Result<bool> {
        self.end_cancelled(on_event);
        let result = match self.bring_back().await {
            Ok(()) => self.try_step(on_event).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => self.losses = Losses::default(),
            Err(error) => {
                if let Err(error) = self.session.lose(error, &mut self.losses) {
                    let reason = error.to_string();
                    for sequence in std::mem::take(&mut self.running) {
                        let error = Error::Invalid(format!("the answer could not go on: {reason}"));
                        self.end(sequence, Err(error), false, on_event);
                    }
                    return Err(error);
                }
            }
        }
        Ok(!(self.running.is_empty() && self.queue.is_empty()))
    }

    /// Puts the model onto its devices again, and a new cache, if one was lost.
    async fn bring_back(&mut self) -> Result<()> {
        let quiet = &mut |_: super::Event<'_>| std::ops::ControlFlow::Continue(());
        self.session.bring_back(&mut self.losses, quiet).await?;
        if self.lost != self.session.losses {
            for mut sequence in self.running.drain(..).rev() {
                sequence.lose_pages();
                self.queue.put_back(sequence);
            }
            (self.pool, self.pages) = Batch::cache(&self.session, &self.options).await?;
            self.lost = self.session.losses;
        }
        Ok(())
    }

    async fn try_step(&mut self, on_event: OnEvent<'_>) -> Result<()> {
        self.admit(on_event).await?;
        let (shares, full) = self.share_step();
        for sequence in full {
            self.end(sequence, Ok(StopReason::Context), true, on_event);
        }
        if shares.is_empty() {
            return Ok(());
        }
        // Those whose last token is computed come first: only these have logits.
        let (mut heads, mut rows, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for (sequence, n) in shares.iter().enumerate().filter(|(_, n)| **n > 0) {
            let s = &self.running[sequence];
            for position in s.computed..s.computed + n {
                let token = s.tokens[position];
                let row = Row {
                    token,
                    position,
                    sequence,
                };
                if position + 1 == s.tokens.len() {
                    heads.push(sequence);
                    rows.push(row);
                } else {
                    rest.push(row);
                }
            }
        }
        rows.append(&mut rest);
        let lists: Vec<&[u32]> = self.running.iter().map(|s| &s.pages[..]).collect();
        let ranks = &mut self.session.ranks;
        ranks
            .batch(&mut self.pool, &rows, &lists, heads.len())
            .await?;
        self.counts.steps += 1;
        self.counts.computed += rows.len() as u64;
        for (s, n) in self.running.iter_mut().zip(shares) {
            s.advance(n, &mut self.pages);
        }
        self.choose(&heads, on_event).await
    }

    /// Begins answers that wait, as many as there is room for.
    async fn admit(&mut self, on_event: OnEvent<'_>) -> Result<()> {
        while self.running.len() < self.options.max_sequences {
            let Some(next) = self.queue.peek() else {
                break;
            };
            // The last token is computed in any case: its logits are needed.
            let known = self.pages.find(&next.tokens[..next.tokens.len() - 1]);
            let idle = known.pages.iter().filter(|page| self.pages.is_idle(**page));
            let needed = next.tokens.len().div_ceil(PAGE) - known.pages.len();
            // One more for each that goes on, so that nobody is sent away at once.
            let room = self.pages.available() - idle.count();
            if !self.running.is_empty() && room < needed + self.running.len() {
                break;
            }
            let Some(mut sequence) = self.queue.next() else {
                break;
            };
            known.pages.iter().for_each(|page| self.pages.share(*page));
            let part = known.part.filter(|_| room > 0);
            sequence.begin(known.pages, known.last);
            if let Some((page, rows)) = part {
                self.pages.share(page);
                let own = self.pages.take();
                self.pages.release(page);
                if let Some(own) = own {
                    let ranks = &mut self.session.ranks;
                    let copied = ranks.copy_page(&self.pool, [page, own], rows).await;
                    sequence.pages.push(own);
                    if *copied.as_ref().unwrap_or(&false) {
                        sequence.computed += rows;
                    }
                    if let Err(error) = copied {
                        self.running.push(sequence);
                        return Err(error);
                    }
                }
            }
            if !sequence.started {
                sequence.started = true;
                let reused = sequence.computed;
                self.counts.reused += reused as u64;
                let event = BatchEvent::Started {
                    prompt: sequence.tokens.len(),
                    reused,
                };
                on_event(sequence.request, event);
            }
            if sequence.options.max_tokens == 0 {
                self.end(sequence, Ok(StopReason::Length), true, on_event);
                continue;
            }
            self.running.push(sequence);
        }
        Ok(())
    }

    /// How many tokens each answer gets of the next step, with pages for them; and those that the cache has no room for.
    fn share_step(&mut self) -> (Vec<usize>, Vec<Sequence>) {
        let mut full = Vec::new();
        let mut shares = vec![0; self.running.len()];
        let mut left = self.options.step_tokens;
        // First those that are being answered, so that no prompt makes them wait.
        for answering in [true, false] {
            let mut i = 0;
            while i < self.running.len() {
                let s = &self.running[i];
                let pending = s.tokens.len() - s.computed;
                let n = pending.min(left);
                if (pending == 1) != answering || n == 0 || shares[i] > 0 {
                    i += 1;
                    continue;
                }
                let end = s.computed + n;
                match self.make_room(i, end) {
                    true => {
                        shares[i] = n;
                        left -= n;
                        i += 1;
                    }
                    // The last one, and there is no other: it cannot go on.
                    false if self.running.len() == 1 => {
                        full.push(self.running.remove(i));
                    }
                    // It has been sent away itself.
                    false => {
                        let mut sequence = self.running.remove(i);
                        sequence.release(&mut self.pages);
                        self.counts.preempted += 1;
                        self.queue.put_back(sequence);
                    }
                }
                left += shares.drain(self.running.len()..).sum::<usize>();
            }
        }
        (shares, full)
    }

    /// Gives answer `i` pages for `tokens` tokens. Those begun later are sent away for it; false when there is none.
    fn make_room(&mut self, i: usize, tokens: usize) -> bool {
        while self.running[i].pages.len() < tokens.div_ceil(PAGE) {
            if let Some(page) = self.pages.take() {
                self.running[i].pages.push(page);
                continue;
            }
            if self.running.len() == i + 1 {
                return false;
            }
            if let Some(mut sequence) = self.running.pop() {
                sequence.release(&mut self.pages);
                self.counts.preempted += 1;
                self.queue.put_back(sequence);
            }
        }
        true
    }

    /// Chooses the next token of the answers `heads`, whose logits are there.
    async fn choose(&mut self, heads: &[usize], on_event: OnEvent<'_>) -> Result<()> {
        let context = self.session.context_length();
        let ranks = &mut self.session.ranks;
        let likeliest = ranks.batch_best(&self.pool, heads.len()).await?;
        let mut ended: Vec<(usize, Result<StopReason>)> = Vec::new();
        for ((row, i), best) in heads.iter().enumerate().zip(likeliest) {
            let s = &mut self.running[*i];
            let chosen = match best {
                None => Err(Error::Numeric(format!(
                    "the model gave logits that are not numbers at position {}; try another device or an f32 cache",
                    s.computed
                ))),
                Some(best) if s.chooser.on_device => Ok(best),
                Some(_) => {
                    ranks.take_row(&mut self.pool, row).await?;
                    let picked = ranks.pick(&mut s.chooser, &s.options, &s.tokens).await;
                    match picked {
                        Err(error @ Error::DeviceLost { .. }) => return Err(error),
                        picked => picked,
                    }
                }
            };
            self.counts.generated += 1;
            match chosen.and_then(|id| s.say(id, context, on_event)) {
                Ok(None) => {}
                Ok(Some(stop)) => ended.push((*i, Ok(stop))),
                Err(error) => ended.push((*i, Err(error))),
            }
        }
        ended.sort_by_key(|(i, _)| *i);
        for (i, stop) in ended.into_iter().rev() {
            let sequence = self.running.remove(i);
            // What led to no numbers may be in its pages.
            let sound = stop.is_ok();
            self.end(sequence, stop, sound, on_event);
        }
        Ok(())
    }

    fn end_cancelled(&mut self, on_event: OnEvent<'_>) {
        let (ended, running) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|s| s.cancelled);
        self.running = running;
        let ended: Vec<Sequence> = ended;
        for sequence in ended.into_iter().chain(self.queue.take_cancelled()) {
            self.end(sequence, Ok(StopReason::Cancelled), true, on_event);
        }
    }

    /// Ends an answer; others may use its pages if what they hold is `sound`.
    fn end(
        &mut self,
        mut sequence: Sequence,
        stop: Result<StopReason>,
        sound: bool,
        on_event: OnEvent<'_>,
    ) {
        if !sound {
            sequence
                .pages
                .iter()
                .for_each(|page| self.pages.forget(*page));
            sequence.lose_known();
        }
        sequence.release(&mut self.pages);
        let request = sequence.request;
        let done = stop.map(|stop| sequence.finish(stop, on_event));
        on_event(request, BatchEvent::Done(done));
    }
}
