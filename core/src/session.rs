//! A model on its ranks' devices, caches, and what has been said.

pub mod batch;
mod choose;
mod embed;
mod fork;
mod likelihood;
mod profile;
mod ranks;
mod recovery;
mod statistics;
mod stop;
mod written;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::rc::Rc;

use crate::chat::ChatTemplate;
use crate::comm::World;
use crate::constraint::Constraint;
use crate::device::{Device, DeviceInfo, MemoryUse};
use crate::expert_cache::ExpertCacheUse;
use crate::kv_cache::KvDType;
use crate::models::ModelConfig;
use crate::profile::{Profile, Profiling, Stage};
use crate::sampler::Sampling;
use crate::tokenizer::Tokenizer;
use crate::weights::ModelFiles;
use crate::{Error, Result};
pub use choose::Logprobs;
pub use embed::Pooling;
pub use fork::Conversation;
use fork::Parked;
use profile::Profiler;
use ranks::Ranks;
pub use ranks::ShardInfo;
use recovery::Answering;
pub use statistics::ExpertStatistics;
use written::Written;

/// Context length when none is asked for (if the model allows it).
pub const DEFAULT_CONTEXT: usize = 4096;

/// Most candidates that are chosen on the device; more need all logits.
const MOST_TOP_K: usize = 128;

/// Rows of logits that are computed at once when all positions' are wanted.
const LOGIT_ROWS: usize = 32;

/// Settings of a session.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// S: tokens of context; `None` for the model's own, at most [`DEFAULT_CONTEXT`].
    pub context_length: Option<usize>,
    /// Element type of the cache.
    pub kv: KvDType,
    /// Tokens of a prompt that are computed at once.
    pub prefill_chunk: usize,
    /// Experts stay in the model's files and are brought to this many bytes of memory of each device when
    /// tokens need them; `None`: all are loaded.
    pub expert_cache: Option<u64>,
    /// Counts how often each expert is chosen: one more small read a step.
    pub expert_statistics: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            context_length: None,
            kv: KvDType::default(),
            prefill_chunk: 256,
            expert_cache: None,
            expert_statistics: false,
        }
    }
}

/// What [`Session::load`] is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Moving weights to the device; counts bytes.
    Upload,
    /// Compiling kernels; counts recordings.
    Compile,
}

/// How far a phase is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which phase.
    pub phase: Phase,
    /// Done so far.
    pub done: u64,
    /// In total.
    pub total: u64,
}

/// What is asked of [`Session::generate`].
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// The form that the answer has.
    pub constraint: Option<Rc<dyn Constraint>>,
    /// Tells how likely each token was, and so many of the most likely ones; all logits are then read from the
    /// device.
    pub logprobs: Option<usize>,
    /// Control tokens whose texts are part of the answer, as those around calls of functions; others
    /// leave no text.
    pub show: Vec<String>,
    /// Measures what each kernel takes, which slows the answer down.
    pub profile: Option<Profiling>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions {
            max_tokens: 512,
            sampling: Sampling::default(),
            stop: Vec::new(),
            constraint: None,
            logprobs: None,
            show: Vec::new(),
            profile: None,
        }
    }
}

/// What happens while generating.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// Tokens of the prompt computed so far. `reused` of them were in the cache.
    Prefill {
        /// Computed, reused ones included.
        done: usize,
        /// Length of the prompt.
        total: usize,
        /// Taken from the cache.
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
    /// Which experts were chosen so far; after each step, with [`SessionOptions::expert_statistics`].
    Experts(&'a ExpertStatistics),
    /// A device was lost; the answer waits until it has been opened anew.
    DeviceLost {
        /// Which one, and what the driver said.
        reason: &'a str,
    },
    /// How far the model is being loaded again.
    Reload(Progress),
    /// How much of the prompt and of the answer so far has been computed again.
    Replay {
        /// Tokens.
        done: usize,
        /// In total.
        total: usize,
    },
    /// The answer goes on.
    Recovered,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model said so, or nothing more can come in an answer of this form.
    Eos,
    /// As many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
    /// One of the stop texts came.
    StopString,
    /// The caller said so.
    Cancelled,
}

impl StopReason {
    /// The name that `--json` prints.
    pub fn name(self) -> &'static str {
        match self {
            StopReason::Eos => "eos",
            StopReason::Length => "length",
            StopReason::Context => "context",
            StopReason::StopString => "stop",
            StopReason::Cancelled => "cancelled",
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// Its tokens, the one that ended it left out.
    pub tokens: Vec<u32>,
    /// The token that ended it, when the model did.
    pub end: Option<u32>,
    /// How likely each of them was, with [`GenerateOptions::logprobs`].
    pub logprobs: Vec<Logprobs>,
    /// Its text.
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
    /// What its kernels took, with [`GenerateOptions::profile`].
    pub profile: Option<Profile>,
}

/// A model on its ranks' devices, and conversations with it, of which one goes on at a time.
pub struct Session {
    ranks: Ranks,
    tokenizer: Option<Rc<Tokenizer>>,
    template: Option<ChatTemplate>,
    /// Tokens whose keys and values are in the cache.
    past: Vec<u32>,
    /// What weights are read from, again when a device was lost.
    files: ModelFiles,
    options: SessionOptions,
    profiler: Option<Profiler>,
    conversation: Conversation,
    parked: HashMap<Conversation, Parked>,
    last_conversation: u32,
    /// How often a device was lost.
    losses: u32,
}

/// What of a device's memory a session takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// The device.
    pub device: DeviceInfo,
    /// Bytes by purpose.
    pub used: MemoryUse,
}

impl Session {
    /// Puts a model onto the devices of `world`'s ranks; [`World::single`] is one device.
    ///
    /// `progress` may end the loading by breaking.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] for tensors that are missing or misshapen, [`Error::Invalid`] for a
    /// context that the model does not allow or that cannot be split, [`Error::OutOfMemory`],
    /// [`Error::Cancelled`].
    pub async fn load(
        mut files: ModelFiles,
        world: World,
        options: SessionOptions,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Session> {
        if let Some(tokenizer) = &files.tokenizer
            && tokenizer.vocab_size() > files.config.vocab_size
        {
            return Err(Error::format(
                files.name(),
                format_args!(
                    "tokenizer has {} tokens, the embedding {} rows",
                    tokenizer.vocab_size(),
                    files.config.vocab_size
                ),
            ));
        }
        let ranks = Ranks::load(&files, world, &options, progress).await?;
        // The names of a whole vocabulary, which the tokenizer has.
        files.metadata = None;
        Ok(Session {
            ranks,
            tokenizer: files.tokenizer.take().map(Rc::new),
            template: files.template.take(),
            past: Vec::new(),
            files,
            options,
            profiler: None,
            conversation: Conversation::default(),
            parked: HashMap::new(),
            last_conversation: 0,
            losses: 0,
        })
    }

    /// The device of the first rank.
    pub fn device(&self) -> &dyn Device {
        self.ranks.world().device(0).as_ref()
    }

    /// The ranks, their devices, and what they have told each other.
    pub fn world(&self) -> &World {
        self.ranks.world()
    }

    /// What of the devices' memory is taken.
    pub fn memory(&self) -> Vec<DeviceMemory> {
        let devices = self.world().devices().iter();
        let memory = |device: &Rc<dyn Device>| DeviceMemory {
            device: device.info().clone(),
            used: device.ledger().used(),
        };
        devices.map(memory).collect()
    }

    /// Gives everything back at once, and the devices with it.
    pub fn destroy(self) {
        let devices = self.world().devices().to_vec();
        drop(self);
        devices.iter().for_each(|device| device.destroy());
    }

    /// What each rank of this process holds.
    pub fn shards(&self) -> Vec<ShardInfo> {
        let mut shards = self.ranks.shards();
        for shard in &mut shards {
            shard.cache_bytes *= 1 + self.parked.len() as u64;
        }
        shards
    }

    /// What the cache of experts has and has done, of all ranks of this process, if there is one.
    pub fn expert_cache(&self) -> Option<ExpertCacheUse> {
        self.ranks.expert_cache()
    }

    /// How often each expert was chosen since the model was loaded; `None` without
    /// [`SessionOptions::expert_statistics`], and for a model without experts.
    pub fn expert_statistics(&self) -> Option<&ExpertStatistics> {
        self.ranks.expert_statistics()
    }

    /// Shapes and constants of the model.
    pub fn config(&self) -> &ModelConfig {
        self.ranks.config()
    }

    /// The tokenizer, if the model's files have one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_deref()
    }

    /// The same, to be used while the session answers.
    pub fn shared_tokenizer(&self) -> Option<Rc<Tokenizer>> {
        self.tokenizer.clone()
    }

    /// The chat template, if the model's files have one.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// S: tokens of context.
    pub fn context_length(&self) -> usize {
        self.ranks.context()
    }

    /// Tokens of this conversation whose keys and values are in the cache.
    pub fn past(&self) -> &[u32] {
        &self.past
    }

    /// Forgets this conversation.
    pub fn reset(&mut self) {
        self.past.clear();
    }

    /// Answers the prompt `tokens`. What it has in common with the conversation so far is not
    /// computed again. `on_event` may end the answer by breaking.
    ///
    /// # Errors
    ///
    /// [`Error::ContextExceeded`] when the prompt does not fit, [`Error::Invalid`] for an empty
    /// prompt or an unknown token, [`Error::Numeric`] for logits that are not numbers (the cache
    /// is then forgotten), [`Error::DeviceLost`] when that happens too often within an answer, or the device or the model's files
    /// are not there again: the next call tries once more. [`Error::Device`] when a device cannot be measured.
    pub async fn generate(
        &mut self,
        tokens: &[u32],
        options: &GenerateOptions,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Generated> {
        options.sampling.check()?;
        self.begin_profile(options)?;
        let mut result = self.answer(tokens, options, on_event).await;
        let profile = self.end_profile()?;
        if let Ok(generated) = &mut result {
            generated.profile = profile;
        }
        if let Err(Error::Numeric(_)) = &result
            && let Some(error) = self.unrouted().await?
        {
            result = Err(error);
        }
        if result.is_err() {
            // What the cache holds is uncertain after a fault.
            self.past.clear();
        }
        result
    }

    /// Why there are no numbers, if it is a router: computes the conversation again.
    async fn unrouted(&mut self) -> Result<Option<Error>> {
        if self.config().moe.is_none() {
            return Ok(None);
        }
        let past = std::mem::take(&mut self.past);
        for (i, tokens) in past.chunks(self.ranks.chunk()).enumerate() {
            let first = i * self.ranks.chunk();
            if let Some((layer, token)) = self.ranks.unrouted(tokens, first).await? {
                return Ok(Some(Error::Numeric(format!(
                    "layer {layer}: the router's logits of token {} at position {} are not numbers, so it goes to \
                     no expert; try another device or an f32 cache, or the file is damaged",
                    tokens[token],
                    first + token
                ))));
            }
        }
        Ok(None)
    }

    async fn answer(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Generated> {
        self.check_prompt(prompt)?;
        let mut written = Written::new(self.tokenizer.clone(), options);
        let stop = 'stop: {
            let mut answer = Answering::new(prompt, options)?;
            loop {
                let id = match self.next(&mut answer, written.tokens(), on_event).await? {
                    ControlFlow::Continue(id) => id,
                    ControlFlow::Break(stop) => break 'stop stop,
                };
                if !written.tokens().is_empty() && self.tell_experts(on_event).is_break() {
                    break 'stop StopReason::Cancelled;
                }
                if written.ends_with(id) {
                    break 'stop StopReason::Eos;
                }
                let new = written.push(id, answer.chooser.logprobs.take());
                let event = Event::Token {
                    id,
                    text: &new,
                    logprobs: options.logprobs.and(written.last_logprobs()),
                };
                let cancelled = on_event(event).is_break();
                if written.is_stopped() {
                    break 'stop StopReason::StopString;
                }
                if cancelled {
                    break 'stop StopReason::Cancelled;
                }
                if answer.chooser.accept(id)? {
                    break 'stop StopReason::Eos;
                }
                if written.tokens().len() >= options.max_tokens {
                    break 'stop StopReason::Length;
                }
                if self.past.len() >= self.ranks.context() {
                    break 'stop StopReason::Context;
                }
            }
        };
        let rest = written.rest();
        if !rest.is_empty()
            && let Some(&id) = written.tokens().last()
        {
            let event = Event::Token {
                id,
                text: &rest,
                logprobs: None,
            };
            let _ = on_event(event);
        }
        Ok(written.into_generated(stop))
    }

    fn check_prompt(&self, prompt: &[u32]) -> Result<()> {
        if prompt.is_empty() {
            return Err(Error::Invalid("the prompt is empty".into()));
        }
        let vocab = self.config().vocab_size;
        if let Some(id) = prompt.iter().find(|id| **id as usize >= vocab) {
            return Err(Error::Invalid(format!(
                "token {id} is not in the vocabulary of {vocab}"
            )));
        }
        if prompt.len() > self.ranks.context() {
            return Err(Error::ContextExceeded {
                prompt: prompt.len(),
                context: self.ranks.context(),
                max: self.config().max_position_embeddings,
            });
        }
        Ok(())
    }

    /// Computes what of `prompt` is not in the cache; the last token's logits are then there.
    async fn prefill(
        &mut self,
        prompt: &[u32],
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let same = self.past.iter().zip(prompt).take_while(|(a, b)| a == b);
        // At least the last token is computed: its logits are needed.
        let reused = same.count().min(prompt.len() - 1);
        self.past.truncate(reused);
        let total = prompt.len();
        loop {
            let done = self.past.len();
            let event = Event::Prefill {
                done,
                total,
                reused,
            };
            if on_event(event).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if done == total {
                return Ok(ControlFlow::Continue(()));
            }
            let n = self.ranks.chunk().min(total - done);
            let chunk = &prompt[done..done + n];
            let begin = self.begin_step();
            self.ranks.prefill(chunk, done, done + n == total).await?;
            self.past.extend_from_slice(chunk);
            self.end_step(Stage::Prefill, begin, n).await?;
            if self.tell_experts(on_event).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    fn tell_experts(
        &self,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match self.expert_statistics() {
            Some(statistics) => on_event(Event::Experts(statistics)),
            None => ControlFlow::Continue(()),
        }
    }

    async fn try_logits(&mut self, tokens: &[u32], all: bool) -> Result<Vec<f32>> {
        if !all {
            let quiet = &mut |_: Event<'_>| ControlFlow::Continue(());
            let _ = self.prefill(tokens, quiet).await?;
            return self.ranks.logits().await;
        }
        let mut found = Vec::with_capacity(tokens.len() * self.config().vocab_size);
        for chunk in tokens.chunks(LOGIT_ROWS.min(self.ranks.chunk())) {
            found.extend(self.ranks.all_logits(chunk, self.past.len()).await?);
            self.past.extend_from_slice(chunk);
        }
        Ok(found)
    }
}
