//! One conversation: a model on a device, its cache, and what has been said.

mod stop;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::rc::Rc;

use crate::chat::ChatTemplate;
use crate::device::{Buffer, Device, Prepared};
use crate::kv_cache::{KvCache, KvDType};
use crate::models::{self, Model, ModelConfig};
use crate::recording::Recording;
use crate::sampler::{Candidate, Sampler, Sampling, candidates};
use crate::tensor::Tensor;
use crate::tokenizer::Tokenizer;
use crate::weights::{Loader, ModelFiles};
use crate::{DType, Error, Result};
use stop::StopText;

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
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            context_length: None,
            kv: KvDType::default(),
            prefill_chunk: 256,
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
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions {
            max_tokens: 512,
            sampling: Sampling::default(),
            stop: Vec::new(),
        }
    }
}

/// What happens while generating.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    },
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model said so.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Its tokens, the one that ended it left out.
    pub tokens: Vec<u32>,
    /// The token that ended it, when the model did.
    pub end: Option<u32>,
    /// Its text.
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
}

/// A model on a device, and one conversation with it.
pub struct Session {
    device: Rc<dyn Device>,
    model: Box<dyn Model>,
    tokenizer: Option<Rc<Tokenizer>>,
    template: Option<ChatTemplate>,
    cache: KvCache,
    /// Tokens whose keys and values are in the cache.
    past: Vec<u32>,
    chunk: usize,
    buffers: Buffers,
    steps: Steps,
}

/// Small device buffers that recordings share.
struct Buffers {
    /// Position of the first token of a step: uniform, 16 bytes.
    step: Buffer,
    /// Tokens of a prefill step.
    tokens: Buffer,
    /// The token that a decode step takes, and that the greedy one leaves.
    next: Buffer,
    /// Logits of the last token, `(V,)`.
    logits: Buffer,
    values: Buffer,
    ids: Buffer,
    penalised: Buffer,
}

/// Recordings that were made ready.
#[derive(Default)]
struct Steps {
    /// By number of tokens, and whether the last token's logits are computed.
    prefill: HashMap<(usize, bool), Prepared>,
    greedy: Option<Prepared>,
    decode: Option<Prepared>,
    argmax: Option<Prepared>,
    top_k: HashMap<usize, Prepared>,
}

impl Session {
    /// Puts a model onto a device.
    ///
    /// `progress` may end the loading by breaking.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] for tensors that are missing or misshapen, [`Error::Invalid`] for a
    /// context that the model does not allow, [`Error::OutOfMemory`], [`Error::Cancelled`].
    pub async fn load(
        files: ModelFiles,
        device: Rc<dyn Device>,
        options: SessionOptions,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Session> {
        let config = &files.config;
        let max = config.max_position_embeddings;
        let context = options.context_length.unwrap_or(max.min(DEFAULT_CONTEXT));
        if context == 0 || context > max {
            return Err(Error::Invalid(format!(
                "context of {context} tokens, this model allows 1 to {max}"
            )));
        }
        if let Some(tokenizer) = &files.tokenizer
            && tokenizer.vocab_size() > config.vocab_size
        {
            return Err(Error::format(
                files.name(),
                format_args!(
                    "tokenizer has {} tokens, the embedding {} rows",
                    tokenizer.vocab_size(),
                    config.vocab_size
                ),
            ));
        }
        let model = {
            let mut report = |done, total| match progress(Progress {
                phase: Phase::Upload,
                done,
                total,
            }) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(Error::Cancelled),
            };
            let mut loader = Loader::new(&files, device.as_ref(), &mut report);
            models::load(&mut loader, context).await?
        };
        let cache = KvCache::new(device.as_ref(), model.config(), context, options.kv).await?;
        let vocab = model.config().vocab_size;
        let chunk = options.prefill_chunk.clamp(1, context);
        let buffers = Buffers {
            step: device.alloc(16, "step").await?,
            tokens: device.alloc(4 * chunk as u64, "tokens").await?,
            next: device.alloc(16, "next token").await?,
            logits: device.alloc(4 * vocab as u64, "logits").await?,
            values: device.alloc(4 * MOST_TOP_K as u64, "top-k values").await?,
            ids: device.alloc(4 * MOST_TOP_K as u64, "top-k ids").await?,
            penalised: device.alloc(4 * vocab as u64, "penalised tokens").await?,
        };
        let mut session = Session {
            device,
            model,
            tokenizer: files.tokenizer.map(Rc::new),
            template: files.template,
            cache,
            past: Vec::new(),
            chunk,
            buffers,
            steps: Steps::default(),
        };
        session.compile(progress).await?;
        Ok(session)
    }

    /// Compiles the kernels that every answer needs, so that the first one does not wait.
    async fn compile(
        &mut self,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        for done in 0..=2 {
            let phase = Phase::Compile;
            if progress(Progress {
                phase,
                done,
                total: 2,
            })
            .is_break()
            {
                return Err(Error::Cancelled);
            }
            match done {
                0 => {
                    self.greedy().await?;
                }
                1 => {
                    self.prefill_step(self.chunk, true).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The device it runs on.
    pub fn device(&self) -> &dyn Device {
        self.device.as_ref()
    }

    /// Shapes and constants of the model.
    pub fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    /// The tokenizer, if the model's files have one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_deref()
    }

    /// The chat template, if the model's files have one.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// S: tokens of context.
    pub fn context_length(&self) -> usize {
        self.cache.capacity()
    }

    /// Tokens whose keys and values are in the cache.
    pub fn past(&self) -> &[u32] {
        &self.past
    }

    /// Forgets the conversation.
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
    /// is then forgotten), [`Error::DeviceLost`].
    pub async fn generate(
        &mut self,
        tokens: &[u32],
        options: &GenerateOptions,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Generated> {
        options.sampling.check()?;
        let result = self.answer(tokens, options, on_event).await;
        if result.is_err() {
            // What the cache holds is uncertain after a fault.
            self.past.clear();
        }
        result
    }

    async fn answer(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Generated> {
        self.check_prompt(prompt)?;
        let mut text = StopText::new(&options.stop);
        let mut made: Vec<u32> = Vec::new();
        let mut end = None;
        let mut tail = String::new();
        let stop = 'stop: {
            if self.prefill(prompt, on_event).await?.is_break() {
                break 'stop StopReason::Cancelled;
            }
            if options.max_tokens == 0 {
                break 'stop StopReason::Length;
            }
            let mut sampler = Sampler::new(options.sampling.clone());
            let device_picks =
                options.sampling.is_greedy() && options.sampling.repeat_penalty == 1.0;
            let mut id = if device_picks {
                self.pick_greedy().await?
            } else {
                self.pick(&mut sampler, &options.sampling).await?
            };
            let tokenizer = self.tokenizer.clone();
            let mut decoder = TextOf::new(tokenizer.as_deref());
            loop {
                if tokenizer.as_ref().is_some_and(|t| t.is_eos(id)) {
                    end = Some(id);
                    break 'stop StopReason::Eos;
                }
                made.push(id);
                let piece = decoder.push(id);
                let new = text.push(&piece);
                let cancelled = on_event(Event::Token { id, text: &new }).is_break();
                if text.is_stopped() {
                    break 'stop StopReason::StopString;
                }
                if cancelled {
                    break 'stop StopReason::Cancelled;
                }
                if made.len() >= options.max_tokens {
                    tail = decoder.finish();
                    break 'stop StopReason::Length;
                }
                if self.past.len() >= self.cache.capacity() {
                    tail = decoder.finish();
                    break 'stop StopReason::Context;
                }
                id = self
                    .decode(id, device_picks, &mut sampler, &options.sampling)
                    .await?;
            }
        };
        let mut rest = text.push(&tail);
        rest.push_str(&text.finish());
        if !rest.is_empty()
            && let Some(&id) = made.last()
        {
            // Text that was held back for a stop text that did not come.
            let _ = on_event(Event::Token { id, text: &rest });
        }
        Ok(Generated {
            tokens: made,
            end,
            text: text.into_text(),
            stop,
        })
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
        if prompt.len() > self.cache.capacity() {
            return Err(Error::ContextExceeded {
                prompt: prompt.len(),
                context: self.cache.capacity(),
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
            let n = self.chunk.min(total - done);
            let chunk = &prompt[done..done + n];
            self.set_position(done)?;
            let bytes = bytemuck::cast_slice(chunk);
            self.device.write(&self.buffers.tokens, 0, bytes)?;
            let step = self.prefill_step(n, done + n == total).await?;
            self.device.run(&step)?;
            self.past.extend_from_slice(chunk);
            // Wait, so that cancelling works and submits stay short.
            self.device.flush().await?;
        }
    }

    /// Computes one token and chooses the next.
    async fn decode(
        &mut self,
        id: u32,
        device_picks: bool,
        sampler: &mut Sampler,
        sampling: &Sampling,
    ) -> Result<u32> {
        self.set_position(self.past.len())?;
        let step = if device_picks {
            self.greedy().await?
        } else {
            self.device
                .write(&self.buffers.next, 0, &id.to_le_bytes())?;
            self.decode_step().await?
        };
        self.device.run(&step)?;
        self.past.push(id);
        if device_picks {
            self.read_next().await
        } else {
            self.pick(sampler, sampling).await
        }
    }

    fn set_position(&self, position: usize) -> Result<()> {
        let bytes = (position as u32).to_le_bytes();
        self.device.write(&self.buffers.step, 0, &bytes)
    }

    /// The largest logit's token, found on the device and left in `next`.
    async fn pick_greedy(&mut self) -> Result<u32> {
        if self.steps.argmax.is_none() {
            let mut r = Recording::new();
            r.argmax(&self.logits_tensor(), &self.next_tensor())?;
            self.steps.argmax = Some(self.device.prepare(&r).await?);
        }
        if let Some(step) = &self.steps.argmax {
            self.device.run(step)?;
        }
        self.read_next().await
    }

    async fn read_next(&self) -> Result<u32> {
        let bytes = self.device.read(&self.buffers.next, 0, 4).await?;
        match words(&bytes)[..] {
            [u32::MAX] | [] => Err(Error::Numeric(format!(
                "the model gave logits that are not numbers at position {}; try another device \
                 or an f32 cache",
                self.past.len()
            ))),
            [id, ..] => Ok(id),
        }
    }

    /// Penalty and top-k on the device, the rest here.
    async fn pick(&mut self, sampler: &mut Sampler, sampling: &Sampling) -> Result<u32> {
        if sampling.repeat_penalty != 1.0 && sampling.repeat_last_n > 0 {
            let from = self.past.len().saturating_sub(sampling.repeat_last_n);
            let mut ids = self.past[from..].to_vec();
            ids.sort_unstable();
            ids.dedup();
            let bytes = bytemuck::cast_slice(&ids);
            self.device.write(&self.buffers.penalised, 0, bytes)?;
            let mut r = Recording::new();
            let tensor = Tensor::of(self.buffers.penalised.clone(), DType::U32, &[ids.len()]);
            r.repeat_penalty(&tensor, &self.logits_tensor(), sampling.repeat_penalty)?;
            let step = self.device.prepare(&r).await?;
            self.device.run(&step)?;
        }
        let vocab = self.config().vocab_size;
        let k = match sampling.top_k {
            _ if sampling.is_greedy() => 1,
            0 => vocab,
            k => k.min(vocab),
        };
        let mut found = if k <= MOST_TOP_K {
            self.read_top_k(k).await?
        } else {
            let bytes = 4 * vocab as u64;
            let bytes = self.device.read(&self.buffers.logits, 0, bytes).await?;
            candidates(&floats(&bytes))
        };
        sampler.choose(&mut found)
    }

    async fn read_top_k(&mut self, k: usize) -> Result<Vec<Candidate>> {
        if !self.steps.top_k.contains_key(&k) {
            let mut r = Recording::new();
            let values = Tensor::of(self.buffers.values.clone(), DType::F32, &[k]);
            let ids = Tensor::of(self.buffers.ids.clone(), DType::U32, &[k]);
            r.top_k(&self.logits_tensor(), &values, &ids)?;
            let step = self.device.prepare(&r).await?;
            self.steps.top_k.insert(k, step);
        }
        self.device.run(&self.steps.top_k[&k])?;
        let bytes = 4 * k as u64;
        let values = self.device.read(&self.buffers.values, 0, bytes).await?;
        let ids = self.device.read(&self.buffers.ids, 0, bytes).await?;
        let pairs = floats(&values).into_iter().zip(words(&ids));
        Ok(pairs.map(|(logit, id)| Candidate { id, logit }).collect())
    }

    /// Logits after `tokens`: of the last position `(V,)`, or of all `(T, V)`. Forgets the
    /// conversation.
    ///
    /// # Errors
    ///
    /// As [`Session::generate`].
    pub async fn logits(&mut self, tokens: &[u32], all: bool) -> Result<Vec<f32>> {
        self.check_prompt(tokens)?;
        self.reset();
        if !all {
            let quiet = &mut |_: Event<'_>| ControlFlow::Continue(());
            let _ = self.prefill(tokens, quiet).await?;
            let bytes = 4 * self.config().vocab_size as u64;
            let bytes = self.device.read(&self.buffers.logits, 0, bytes).await?;
            return Ok(floats(&bytes));
        }
        let vocab = self.config().vocab_size;
        let mut found = Vec::with_capacity(tokens.len() * vocab);
        for chunk in tokens.chunks(LOGIT_ROWS.min(self.chunk)) {
            self.set_position(self.past.len())?;
            let bytes = bytemuck::cast_slice(chunk);
            self.device.write(&self.buffers.tokens, 0, bytes)?;
            let mut r = Recording::new();
            let (model, cache) = (&self.model, &self.cache);
            let input = self.tokens_tensor(chunk.len());
            let hidden = model.forward(&mut r, &input, &self.step_tensor(), cache)?;
            let logits = r.scratch(DType::F32, &[chunk.len(), vocab])?;
            r.keep(&logits);
            model.head(&mut r, &hidden, 0, &logits)?;
            let step = self.device.prepare(&r).await?;
            self.device.run(&step)?;
            let buffer = step.tensor(&logits);
            let buffer = buffer.ok_or_else(|| Error::Invalid("logits were not kept".into()))?;
            let bytes = 4 * (chunk.len() * vocab) as u64;
            found.extend(floats(&self.device.read(buffer, 0, bytes).await?));
            self.past.extend_from_slice(chunk);
        }
        Ok(found)
    }

    fn step_tensor(&self) -> Tensor {
        Tensor::of(self.buffers.step.clone(), DType::U32, &[4])
    }

    fn tokens_tensor(&self, n: usize) -> Tensor {
        Tensor::of(self.buffers.tokens.clone(), DType::U32, &[n])
    }

    fn next_tensor(&self) -> Tensor {
        Tensor::of(self.buffers.next.clone(), DType::U32, &[1])
    }

    fn logits_tensor(&self) -> Tensor {
        let vocab = self.config().vocab_size;
        Tensor::of(self.buffers.logits.clone(), DType::F32, &[1, vocab])
    }

    /// All layers for `n` tokens, and the last one's logits if asked for.
    async fn prefill_step(&mut self, n: usize, head: bool) -> Result<Prepared> {
        if let Some(step) = self.steps.prefill.get(&(n, head)) {
            return Ok(step.clone());
        }
        let mut r = Recording::new();
        let tokens = self.tokens_tensor(n);
        let hidden = (self.model).forward(&mut r, &tokens, &self.step_tensor(), &self.cache)?;
        if head {
            self.model
                .head(&mut r, &hidden, n - 1, &self.logits_tensor())?;
        }
        let step = self.device.prepare(&r).await?;
        // Whole chunks come again and again, other lengths rarely.
        if n == self.chunk {
            self.steps.prefill.insert((n, head), step.clone());
        }
        Ok(step)
    }

    /// One token from `next`, its logits, and the next token into `next`.
    async fn greedy(&mut self) -> Result<Prepared> {
        if let Some(step) = &self.steps.greedy {
            return Ok(step.clone());
        }
        let step = self.one_token(true).await?;
        self.steps.greedy = Some(step.clone());
        Ok(step)
    }

    /// One token from `next` and its logits.
    async fn decode_step(&mut self) -> Result<Prepared> {
        if let Some(step) = &self.steps.decode {
            return Ok(step.clone());
        }
        let step = self.one_token(false).await?;
        self.steps.decode = Some(step.clone());
        Ok(step)
    }

    async fn one_token(&self, pick: bool) -> Result<Prepared> {
        let mut r = Recording::new();
        let (next, step) = (self.next_tensor(), self.step_tensor());
        let hidden = self.model.forward(&mut r, &next, &step, &self.cache)?;
        let logits = self.logits_tensor();
        self.model.head(&mut r, &hidden, 0, &logits)?;
        if pick {
            r.argmax(&logits, &next)?;
        }
        self.device.prepare(&r).await
    }
}

/// Text of tokens one by one; without a tokenizer there is none.
struct TextOf<'a>(Option<crate::tokenizer::Decoder<'a>>);

impl<'a> TextOf<'a> {
    fn new(tokenizer: Option<&'a Tokenizer>) -> Self {
        TextOf(tokenizer.map(|t| t.decoder(true)))
    }

    fn push(&mut self, id: u32) -> String {
        self.0.as_mut().map(|d| d.push(id)).unwrap_or_default()
    }

    fn finish(self) -> String {
        self.0.map(|d| d.finish()).unwrap_or_default()
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytemuck::allocation::pod_collect_to_vec(bytes)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytemuck::allocation::pod_collect_to_vec(bytes)
}
