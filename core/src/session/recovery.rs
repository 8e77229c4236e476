//! The next token of an answer, and how an answer goes on when a device is lost.
//!
//! A driver's reset takes the weights and the cache with it, but not what was said. The device is opened anew, the weights are
//! read again from the model's files, the prompt is computed in its chunks and the answer so far token by token,
//! as the first time, so that the bits are the same and the text goes on as it would have. The sampler, text that is
//! held back and whatever else steers the answer have never been on the device.

use std::ops::ControlFlow;

use super::choose::Chooser;
use super::{Event, GenerateOptions, Parked, Session, StopReason};
use crate::profile::Stage;
use crate::{Error, Result};

/// Times that a device may be lost within one answer.
const MOST_LOSSES: usize = 3;

type OnEvent<'a> = &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>;

/// An answer that is being made.
pub(super) struct Answering<'a> {
    prompt: &'a [u32],
    pub(super) options: &'a GenerateOptions,
    pub(super) chooser: Chooser,
    losses: Losses,
}

/// Losses of a device so far, and the last one until it is opened anew.
#[derive(Default)]
pub(super) struct Losses {
    count: usize,
    last: Option<Error>,
}

impl<'a> Answering<'a> {
    pub(super) fn new(prompt: &'a [u32], options: &'a GenerateOptions) -> Result<Self> {
        Ok(Answering {
            prompt,
            options,
            chooser: Chooser::new(options)?,
            losses: Losses::default(),
        })
    }
}

impl Session {
    /// The token after the prompt and those `made` so far.
    pub(super) async fn next(
        &mut self,
        answer: &mut Answering<'_>,
        made: &[u32],
        on_event: OnEvent<'_>,
    ) -> Result<ControlFlow<StopReason, u32>> {
        let mut lost = false;
        loop {
            let result = match self.bring_back(&mut answer.losses, on_event).await {
                Ok(()) => self.attempt(answer, made, lost, on_event).await,
                Err(Error::Cancelled) => return Ok(ControlFlow::Break(StopReason::Cancelled)),
                Err(error) => Err(error),
            };
            match result {
                Err(error) => {
                    let reason = &error.to_string();
                    self.lose(error, &mut answer.losses)?;
                    lost = true;
                    if on_event(Event::DeviceLost { reason }).is_break() {
                        return Ok(ControlFlow::Break(StopReason::Cancelled));
                    }
                }
                Ok(next) => {
                    if lost && on_event(Event::Recovered).is_break() {
                        return Ok(ControlFlow::Break(StopReason::Cancelled));
                    }
                    return Ok(next);
                }
            }
        }
    }

    /// Logits after `tokens`: of the last position `(V,)`, or of all `(T, V)`. Forgets the
    /// conversation.
    ///
    /// # Errors
    ///
    /// As [`Session::generate`].
    pub async fn logits(&mut self, tokens: &[u32], all: bool) -> Result<Vec<f32>> {
        self.check_prompt(tokens)?;
        self.recovering(async |session: &mut Session| session.try_logits(tokens, all).await)
            .await
    }

    /// What `compute` gives without a conversation: again from the start if a device is lost meanwhile.
    pub(super) async fn recovering(
        &mut self,
        compute: impl AsyncFn(&mut Session) -> Result<Vec<f32>>,
    ) -> Result<Vec<f32>> {
        let quiet = &mut |_: Event<'_>| ControlFlow::Continue(());
        let mut losses = Losses::default();
        loop {
            self.reset();
            let result = match self.bring_back(&mut losses, quiet).await {
                Ok(()) => compute(self).await,
                Err(error) => Err(error),
            };
            match result {
                Err(error) => self.lose(error, &mut losses)?,
                computed => return computed,
            }
        }
    }

    /// Gives back what is on the devices if `error` is a loss that can be recovered from; else that is the error.
    pub(super) fn lose(&mut self, error: Error, losses: &mut Losses) -> Result<()> {
        // Other processes would wait for this one.
        let alone = self.world().communicator().name() == "local";
        if !matches!(error, Error::DeviceLost { .. }) || !alone || losses.count == MOST_LOSSES {
            return Err(error);
        }
        losses.count += 1;
        self.losses += 1;
        losses.last = Some(error);
        self.past.clear();
        self.ranks.clear();
        self.parked.values_mut().for_each(Parked::lose);
        Ok(())
    }

    /// Puts the model onto its devices again, if it is not there.
    pub(super) async fn bring_back(
        &mut self,
        losses: &mut Losses,
        on_event: OnEvent<'_>,
    ) -> Result<()> {
        if !self.ranks.is_empty() {
            return Ok(());
        }
        let mut report = |progress| on_event(Event::Reload(progress));
        let lost = losses.last.take();
        let (files, options) = (&self.files, &self.options);
        let done = self
            .ranks
            .reload(files, options, lost.is_some(), &mut report);
        let why = match done.await {
            Ok(true) => return Ok(()),
            Ok(false) => "it cannot be opened again; start the program again".to_string(),
            Err(error @ (Error::DeviceLost { .. } | Error::Cancelled)) => return Err(error),
            Err(error) if lost.is_none() => return Err(error),
            Err(error) => format!("it could not be loaded again: {error}"),
        };
        // Once more would end the same.
        losses.count = MOST_LOSSES;
        Err(match lost {
            Some(Error::DeviceLost { device, reason }) => Error::DeviceLost {
                device,
                reason: format!("{reason}; {why}"),
            },
            _ => Error::Invalid(why),
        })
    }

    /// Computes what the cache lacks, and chooses.
    async fn attempt(
        &mut self,
        answer: &mut Answering<'_>,
        made: &[u32],
        again: bool,
        on_event: OnEvent<'_>,
    ) -> Result<ControlFlow<StopReason, u32>> {
        const CANCELLED: ControlFlow<StopReason, u32> = ControlFlow::Break(StopReason::Cancelled);
        let (prompt, all) = (answer.prompt, answer.prompt.len() + made.len());
        if made.is_empty() {
            if self.prefill(prompt, on_event).await?.is_break() {
                return Ok(CANCELLED);
            }
            if answer.options.max_tokens == 0 {
                return Ok(ControlFlow::Break(StopReason::Length));
            }
        } else if again {
            let replayed = &mut |event: Event<'_>| match event {
                Event::Prefill { done, .. } => on_event(Event::Replay { done, total: all }),
                other => on_event(other),
            };
            if self.prefill(prompt, replayed).await?.is_break() {
                return Ok(CANCELLED);
            }
        }
        let (begin, mut computed) = (self.begin_step(), 0);
        for id in &made[self.past.len() - prompt.len()..] {
            if answer.chooser.on_device {
                if again {
                    self.ranks.set_next(*id)?;
                }
                self.ranks.greedy(self.past.len()).await?;
            } else {
                self.ranks.decode(*id, self.past.len()).await?;
            }
            self.past.push(*id);
            computed += 1;
            let done = self.past.len();
            if again && on_event(Event::Replay { done, total: all }).is_break() {
                return Ok(CANCELLED);
            }
        }
        let next = if !answer.chooser.on_device {
            let (chooser, options) = (&mut answer.chooser, answer.options);
            self.ranks.pick(chooser, options, &self.past).await?
        } else if made.is_empty() {
            self.pick_greedy().await?
        } else {
            self.read_next().await?
        };
        self.end_step(Stage::Decode, begin, computed).await?;
        Ok(ControlFlow::Continue(next))
    }
}
