//! wasm-bindgen surface of Shardlight: it converts between JavaScript's values and the core's, and decides nothing.

#![deny(unsafe_code)]

mod browser;
mod constraint;
mod device;
mod error;
mod experts;
mod fit;
mod hash;
mod memory;
mod op;
mod options;
mod shards;
mod source;
mod threads;
mod tools;

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::rc::Rc;

use js_sys::{Float32Array, Function};
use serde::Serialize;
use serde_json::Value;
use shardlight::chat::{Message, Options};
use shardlight::comm::{Opened, Process};
use shardlight::constraint::Constraint;
use shardlight::profile::Profile;
use shardlight::session::{
    Conversation, Event, ExpertStatistics, Logprobs, Phase, Pooling, Session, StopReason,
};
use shardlight::tokenizer::Tokenizer;
use shardlight::weights::ModelFiles;
use shardlight::{Error, Result};
use shardlight_tools::{Format, Request, ToolChoice, Tools};
use wasm_bindgen::prelude::*;

use constraint::{Form, TokenLogprobs};
use error::Failure;
use experts::{ExpertCache, Statistics};
use options::{Device, Generate, Load, Prompt, from_js, options_from_js, to_js};
use shards::{Shard, counted};
use threads::Thread;
use tools::Calls;

/// Makes a panic (a bug of ours) an error that says what and where; without this it is a trap, `unreachable`.
#[wasm_bindgen(start)]
fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let what = info.payload_as_str().unwrap_or("a panic without a message");
        let place = info
            .location()
            .map(|at| format!(" at {}:{}", at.file(), at.line()));
        let place = place.unwrap_or_default();
        let text = format!(
            "internal: {what}{place}; this is a bug, please report it, and load the model again"
        );
        wasm_bindgen::throw_val(error::with_code(&text, "internal"));
    }));
}

/// Every device, in the order in which `auto` prefers them: an array of `{name, backend, kind, driver}`.
///
/// # Errors
///
/// Never in practice: the list is always JSON.
#[wasm_bindgen]
pub async fn devices() -> Result<JsValue, Failure> {
    let list = shardlight::device::list().await;
    Ok(to_js(&list.iter().map(Device::from).collect::<Vec<_>>())?)
}

/// Puts a model onto a device.
///
/// `source` is an address, `"opfs:NAME"`, a `File` or `Blob`, `{ name, handle }` with a `FileSystemSyncAccessHandle`, bytes,
/// or an array of these.
/// `options` may have `device` (`auto`, `cpu`, `gpu`), `contextLength`, `kv` (`f16`, `f32`, `q8_0`), `prefillChunk`,
/// `expertCache` (bytes of device memory for experts, which then stay where `source` is until tokens need them),
/// `expertStatistics` (count how often each expert is chosen), and for shards `tp`, `pp`, `ep`, `sequenceParallel`,
/// `devices` (names, given to the ranks in turn) and `split` (`even`, `auto`
/// or a share for each rank).
/// `thread` makes this one of several ranks (`options.tp` of them) that each have a Worker and share memory; all are
/// asked the same then.
/// `on_progress(phase, done, total)` is told how far `upload` (bytes) and `compile` are; it returns `true` to stop.
///
/// # Errors
///
/// The core's, as one line with a `code`.
#[wasm_bindgen]
pub async fn load(
    source: JsValue,
    options: JsValue,
    on_progress: Option<Function>,
    thread: Option<Thread>,
) -> Result<WebSession, Failure> {
    let options: Load = options_from_js(&options)?;
    let sharding = options.sharding()?;
    let begin = browser::milliseconds();
    let files = ModelFiles::open(source::sources(&source).await?).await?;
    let name = files.name().to_string();
    let seconds = || browser::milliseconds() / 1e3;
    let Opened { world, no_gpu } = match &thread {
        None => sharding.open(0, &seconds, &device::yielding).await?,
        Some(thread) => {
            let (rank, ranks) = thread.place();
            if sharding.mesh.world_size() != ranks {
                let reason = format!(
                    "{} on {ranks} threads: threads are tensor-parallel ranks",
                    sharding.mesh
                );
                return Err(Error::Invalid(reason).into());
            }
            let here = Process {
                rank,
                communicator: Rc::new(thread.clone()),
                gather: &|number| thread.gather(number),
            };
            sharding
                .open_rank(here, &seconds, &device::yielding)
                .await?
        }
    };
    let devices = world.devices().to_vec();
    let session = options.session();
    let mut thrown = None;
    let loaded = Session::load(files, world, session, &mut |progress| {
        let Some(function) = &on_progress else {
            return ControlFlow::Continue(());
        };
        let phase = match progress.phase {
            Phase::Upload => "upload",
            Phase::Compile => "compile",
        };
        let (done, total) = (progress.done as f64, progress.total as f64);
        let answer = function.call3(&JsValue::NULL, &phase.into(), &done.into(), &total.into());
        go_on(answer, &mut thrown)
    })
    .await;
    fail(thrown)?;
    let loaded = loaded?;
    let statistics = loaded.expert_statistics().cloned();
    Ok(WebSession {
        session: Cell::new(Some(loaded)),
        cancelled: Cell::new(false),
        closed: Cell::new(false),
        on_device: RefCell::default(),
        devices,
        statistics: RefCell::new(statistics),
        name,
        no_gpu,
        thread,
        load_ms: browser::milliseconds() - begin,
    })
}

/// A model on a device, and conversations with it.
#[wasm_bindgen]
pub struct WebSession {
    /// Taken out while it answers.
    session: Cell<Option<Session>>,
    cancelled: Cell<bool>,
    closed: Cell<bool>,
    /// Told of losses.
    on_device: RefCell<Option<Function>>,
    devices: Vec<Rc<dyn shardlight::device::Device>>,
    /// As of the last step: they can be asked for while it answers.
    statistics: RefCell<Option<ExpertStatistics>>,
    name: String,
    no_gpu: Option<String>,
    /// What joins it to the other ranks, if each has a Worker.
    thread: Option<Thread>,
    load_ms: f64,
}

#[wasm_bindgen]
impl WebSession {
    /// Answers `prompt`: text (a user's message, or with `raw` text to continue) or an array of messages.
    ///
    /// `options` may have `maxTokens`, `temperature`, `topK`, `topP`, `minP`, `repeatPenalty`, `repeatLastN`, `seed`,
    /// `stop` (texts), `raw`, `tools`, `toolChoice`, `parallelToolCalls`, and `logprobs` (how many of the most likely tokens to
    /// tell of). `on_token(text, id, more)` is told each token, and `{toolCalls, logprobs}` where there are some; it returns
    /// `true` to stop. `constraint` is a `Constraint` of web/grammar. `conversation` is what `fork` gave, or 0.
    /// Gives `{text, tokens, stop, promptTokens, timings, device}`, with a cache of experts `expertCache`, with
    /// `tools` `toolCalls`, and with the option `profile` what kernels took, `{stages, kernels}`.
    ///
    /// # Errors
    ///
    /// The core's, as one line with a `code`; what `on_token` throws.
    pub async fn generate(
        &self,
        prompt: JsValue,
        options: JsValue,
        on_token: Option<Function>,
        constraint: Option<Form>,
        conversation: Option<u32>,
    ) -> Result<JsValue, Failure> {
        let prompt: Prompt = from_js("prompt", &prompt)?;
        let options: Generate = options_from_js(&options)?;
        let mut session = self.take_for(conversation).await?;
        self.cancelled.set(false);
        let answer = self.answer(&mut session, prompt, options, on_token, constraint);
        let answer = answer.await;
        self.put_back(session);
        answer
    }

    async fn answer(
        &self,
        session: &mut Session,
        prompt: Prompt,
        options: Generate,
        on_token: Option<Function>,
        constraint: Option<Form>,
    ) -> Result<JsValue, Failure> {
        let (tools, choice) = options.tools()?.unzip();
        let messages = match prompt {
            Prompt::Text(text) if !options.raw => {
                Prompt::Messages(vec![Message::new("user", &text)])
            }
            other => other,
        };
        let (tokens, form) = match messages {
            Prompt::Text(text) => (tokenizer(session)?.encode(&text, true, true)?, None),
            Prompt::Messages(messages) => render(session, &messages, tools.as_ref())?,
        };
        let demanded = choice.is_some_and(|choice| choice != ToolChoice::Auto);
        let mut calls = Calls::new(form.zip(tools.as_ref()), &options, demanded, &tokens);
        let mut timings = Timings {
            load_ms: self.load_ms,
            ..Timings::default()
        };
        let begin = browser::milliseconds();
        let (mut thrown, mut lost) = (None, None);
        let (mut last, mut prompt_tokens, mut lost_at) = (begin, 0, begin);
        let on_device = self.on_device.borrow().clone();
        let tell_device = |what: &str, value: JsValue, thrown: &mut _| match &on_device {
            Some(f) => match f.call2(&JsValue::NULL, &what.into(), &value) {
                Ok(_) => ControlFlow::Continue(()),
                Err(e) => go_on(Err(e), thrown),
            },
            None => ControlFlow::Continue(()),
        };
        let mut options = options.options(form);
        options.constraint = constraint.map(|of| Rc::new(of) as Rc<dyn Constraint>);
        let names = session.shared_tokenizer();
        let likely =
            |id: u32, of: Option<&Logprobs>| Some(TokenLogprobs::new(names.as_deref()?, id, of?));
        let generated = session
            .generate(&tokens, &options, &mut |event| {
                match self.ends() {
                    Ok(false) => {}
                    Ok(true) => return ControlFlow::Break(()),
                    Err(e) => {
                        lost = Some(e);
                        return ControlFlow::Break(());
                    }
                }
                match event {
                    Event::DeviceLost { reason } => {
                        lost_at = browser::milliseconds();
                        tell_device("lost", reason.into(), &mut thrown)
                    }
                    Event::Reload(_) | Event::Replay { .. } => ControlFlow::Continue(()),
                    Event::Recovered => {
                        let ms = browser::milliseconds() - lost_at;
                        tell_device("recovered", ms.into(), &mut thrown)
                    }
                    Event::Experts(statistics) => {
                        self.statistics.replace(Some(statistics.clone()));
                        ControlFlow::Continue(())
                    }
                    Event::Prefill { total, reused, .. } => {
                        last = browser::milliseconds();
                        prompt_tokens = total;
                        timings.prefill_tokens = total - reused;
                        timings.prefill_ms = last - begin;
                        ControlFlow::Continue(())
                    }
                    Event::Token { id, text, logprobs } => {
                        last = browser::milliseconds();
                        if timings.first_token_ms == 0.0 {
                            timings.first_token_ms = last - begin;
                        }
                        calls.last = id;
                        let (text, made) = calls.push(text);
                        let end = calls.is_done();
                        let more = More {
                            tool_calls: made,
                            logprobs: likely(id, logprobs),
                        };
                        let told = tell(&on_token, &text, id, more, &mut thrown);
                        if end { ControlFlow::Break(()) } else { told }
                    }
                }
            })
            .await;
        fail(thrown)?;
        if let Some(error) = lost {
            return Err(error.into());
        }
        let mut generated = generated?;
        if calls.is_done() {
            generated.stop = StopReason::StopString;
        }
        let (text, made) = calls.finish();
        if !(text.is_empty() && made.is_empty()) {
            let mut thrown = None;
            let more = More {
                tool_calls: made,
                logprobs: None,
            };
            let _ = tell(&on_token, &text, calls.last, more, &mut thrown);
            fail(thrown)?;
        }
        // The first token comes out of the prefill.
        timings.decode_tokens = generated.tokens.len().saturating_sub(1);
        timings.decode_ms = last - begin - timings.first_token_ms;
        let each = generated.tokens.iter().zip(&generated.logprobs);
        let logprobs = each.filter_map(|(id, of)| likely(*id, Some(of))).collect();
        Ok(to_js(&Answer {
            text: calls.said,
            logprobs: options.logprobs.map(|_| logprobs),
            tokens: generated.tokens,
            stop: generated.stop.name(),
            prompt_tokens,
            timings,
            device: session.device().info().into(),
            expert_cache: session.expert_cache().as_ref().map(ExpertCache::from),
            tool_calls: tools.is_some().then_some(calls.made),
            profile: generated.profile.as_ref().map(Profile::summary),
        })?)
    }

    /// `[bytes, ends, eos]`, what `Tokens` of web/grammar is made of.
    ///
    /// # Errors
    ///
    /// For a model without a tokenizer.
    pub fn words(&self) -> Result<js_sys::Array, Failure> {
        self.with(|session| Ok(constraint::words(tokenizer(session)?)))
    }

    /// The JSON schema of the call that `options` of `generate` demand (`toolChoice`), if they do.
    ///
    /// # Errors
    ///
    /// As `generate`, for `tools` and `toolChoice`.
    #[wasm_bindgen(js_name = callSchema)]
    pub fn call_schema(&self, options: JsValue) -> Result<Option<String>, Failure> {
        let options: Generate = options_from_js(&options)?;
        self.with(|session| {
            let Some((tools, choice)) = options.tools()? else {
                return Ok(None);
            };
            let (_, format) = render(session, &[Message::new("user", "")], Some(&tools))?;
            let schema = format.and_then(|format| tools.schema(&choice, format.arguments));
            Ok(schema.map(|schema| schema.to_string()))
        })
    }

    /// `heard(what, value)` is told when an answer finds that a device was `lost` (why, in words), and when it goes on, the device
    /// having `recovered` (after so many milliseconds).
    #[wasm_bindgen(js_name = onDevice)]
    pub fn on_device(&self, heard: Option<Function>) {
        self.on_device.replace(heard);
    }

    /// What is taken of the memory of each device: an array of `{device, weights, tables, kv, activations, experts,
    /// staging, total, peak, mapped, pipelines}`, bytes but for the last one. Also while an answer is being written, and
    /// after `dispose`.
    ///
    /// # Errors
    ///
    /// Never in practice: the answer is always JSON.
    pub fn memory(&self) -> Result<JsValue, Failure> {
        Ok(memory::of(&self.devices)?)
    }

    /// For tests: what a driver's reset does. The answer that is being written, or the next one, finds it lost.
    #[wasm_bindgen(js_name = destroyDevice)]
    pub fn destroy_device(&self) {
        self.devices.iter().for_each(|device| device.destroy());
    }

    /// Gives back all memory, on devices and of wasm; an answer that is being written ends first. All methods but
    /// `memory` then fail with the code `closed`.
    pub fn dispose(&self) {
        self.closed.set(true);
        self.cancelled.set(true);
        self.on_device.replace(None);
        if let Some(session) = self.session.take() {
            session.destroy();
        }
    }

    /// Ends the answer that is being written; `generate` then gives what there is.
    pub fn cancel(&self) {
        self.cancelled.set(true);
    }

    /// Forgets what was said in a conversation.
    ///
    /// # Errors
    ///
    /// While an answer is being written.
    pub fn reset(&self, conversation: Option<u32>) -> Result<(), Failure> {
        self.with(|session| session.forget(numbered(conversation)))
    }

    /// Another conversation that begins as a copy of this one; gives its number.
    ///
    /// # Errors
    ///
    /// The core's, as one line with a `code`; while an answer is being written.
    pub async fn fork(&self, conversation: Option<u32>) -> Result<u32, Failure> {
        let mut session = self.take_for(conversation).await?;
        let forked = session.fork().await;
        self.put_back(session);
        Ok(forked?.0)
    }

    /// Ends a conversation that `fork` gave, and frees its memory.
    ///
    /// # Errors
    ///
    /// When there is none of this number, and while an answer is being written.
    pub async fn end(&self, conversation: u32) -> Result<(), Failure> {
        let mut session = self.take()?;
        let ended = session.end(Conversation(conversation)).await;
        self.put_back(session);
        Ok(ended?)
    }

    /// Token ids of `text`, special tokens in it included.
    ///
    /// # Errors
    ///
    /// Without a tokenizer, and while an answer is being written.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, Failure> {
        self.with(|session| tokenizer(session)?.encode(text, true, true))
    }

    /// The text of `tokens`; bytes that are no character become U+FFFD.
    ///
    /// # Errors
    ///
    /// Without a tokenizer, for a token that it does not know, and while an answer is being written.
    pub fn detokenize(&self, tokens: &[u32]) -> Result<String, Failure> {
        self.with(|session| {
            let tokenizer = tokenizer(session)?;
            let vocab = tokenizer.vocab_size();
            if let Some(id) = tokens.iter().find(|id| **id as usize >= vocab) {
                let reason = format!("token {id}: this model has {vocab}");
                return Err(Error::Invalid(reason));
            }
            Ok(tokenizer.decode(tokens, false))
        })
    }

    /// Logits after `tokens`, one for each token of the vocabulary. Forgets the conversation.
    ///
    /// # Errors
    ///
    /// The core's, as one line with a `code`; while an answer is being written.
    pub async fn logits(
        &self,
        tokens: Vec<u32>,
        conversation: Option<u32>,
    ) -> Result<Float32Array, Failure> {
        let mut session = self.take_for(conversation).await?;
        let logits = session.logits(&tokens, false).await;
        self.put_back(session);
        Ok(Float32Array::from(&logits?[..]))
    }

    /// A vector for `tokens`: their hidden states behind the last norm, by `pooling` (`mean`, `cls`, `last`), and with
    /// `normalize` of length 1. Forgets the conversation.
    ///
    /// # Errors
    ///
    /// The core's, as one line with a `code`; while an answer is being written.
    pub async fn embed(
        &self,
        tokens: Vec<u32>,
        pooling: &str,
        normalize: bool,
        conversation: Option<u32>,
    ) -> Result<Float32Array, Failure> {
        let pooling: Pooling = pooling.parse()?;
        let mut session = self.take_for(conversation).await?;
        let vector = session.embed(&tokens, pooling, normalize).await;
        self.put_back(session);
        Ok(Float32Array::from(&vector?[..]))
    }

    /// What each rank holds: an array of `{rank, tp, pp, device, layers, heads, kvHeads, hidden, vocab, bytes,
    /// replicated, read, cacheBytes}`, where parts are `[first, end]`.
    ///
    /// # Errors
    ///
    /// While an answer is being written.
    pub fn shards(&self) -> Result<JsValue, Failure> {
        self.with(|session| {
            let shards = session.shards();
            to_js(&shards.iter().map(Shard::from).collect::<Vec<_>>())
        })
    }

    /// What all ranks have sent to each other so far: `{all_reduce: {calls, bytes}, …}`.
    ///
    /// # Errors
    ///
    /// While an answer is being written.
    pub fn traffic(&self) -> Result<JsValue, Failure> {
        self.with(|session| to_js(&counted(&session.world().traffic())))
    }

    /// What has been counted since the model was loaded; an answer that is being written counts too. `{experts}`, of
    /// a model with experts that was loaded with `expertStatistics`: `{layers, count, chosen, tokens, cache}`, where
    /// `chosen` has `count` numbers for each of the layers.
    ///
    /// # Errors
    ///
    /// Never in practice: the answer is always JSON.
    pub fn stats(&self) -> Result<JsValue, Failure> {
        Ok(to_js(&Statistics::of(self.statistics.borrow().as_ref()))?)
    }

    /// `{model, architecture, layers, hiddenSize, vocabSize, contextLength, device, noGpu, chat}`.
    ///
    /// # Errors
    ///
    /// While an answer is being written.
    pub fn info(&self) -> Result<JsValue, Failure> {
        self.with(|session| {
            let config = session.config();
            to_js(&Info {
                model: &self.name,
                architecture: &config.architecture,
                layers: config.num_hidden_layers,
                hidden_size: config.hidden_size,
                vocab_size: config.vocab_size,
                context_length: session.context_length(),
                device: session.device().info().into(),
                no_gpu: self.no_gpu.as_deref(),
                chat: session.template().is_some(),
            })
        })
    }

    /// Was the answer cancelled? Ranks in Workers of their own do what the first one was told.
    fn ends(&self) -> Result<bool> {
        let cancelled = self.cancelled.get();
        match &self.thread {
            Some(thread) => thread.first(cancelled),
            None => Ok(cancelled),
        }
    }

    fn take(&self) -> Result<Session, Failure> {
        if self.closed.get() {
            return Err(Failure::closed("model"));
        }
        Ok(self.session.take().ok_or_else(busy)?)
    }

    async fn take_for(&self, conversation: Option<u32>) -> Result<Session, Failure> {
        let mut session = self.take()?;
        match session.switch_to(numbered(conversation)).await {
            Ok(()) => Ok(session),
            Err(error) => {
                self.put_back(session);
                Err(error.into())
            }
        }
    }

    /// After a session has computed.
    fn put_back(&self, session: Session) {
        if self.closed.get() {
            return session.destroy();
        }
        self.statistics
            .replace(session.expert_statistics().cloned());
        self.session.set(Some(session));
    }

    fn with<T>(&self, f: impl FnOnce(&mut Session) -> Result<T>) -> Result<T, Failure> {
        let mut session = self.take()?;
        let result = f(&mut session);
        self.session.set(Some(session));
        Ok(result?)
    }
}

/// The first one where none is named.
fn numbered(conversation: Option<u32>) -> Conversation {
    Conversation(conversation.unwrap_or_default())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    model: &'a str,
    architecture: &'a str,
    layers: usize,
    hidden_size: usize,
    vocab_size: usize,
    context_length: usize,
    device: Device,
    no_gpu: Option<&'a str>,
    chat: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    text: String,
    tokens: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<TokenLogprobs>>,
    stop: &'static str,
    prompt_tokens: usize,
    timings: Timings,
    device: Device,
    #[serde(skip_serializing_if = "Option::is_none")]
    expert_cache: Option<ExpertCache>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Value>,
}

/// As the command line's `--json` prints them, in milliseconds.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Timings {
    load_ms: f64,
    prefill_tokens: usize,
    prefill_ms: f64,
    first_token_ms: f64,
    decode_tokens: usize,
    decode_ms: f64,
}

fn busy() -> Error {
    Error::Invalid("an answer is being written; cancel it first".into())
}

fn tokenizer(session: &Session) -> Result<&Tokenizer> {
    let missing = "this model has no tokenizer; give its tokenizer.json with the weights";
    (session.tokenizer()).ok_or_else(|| Error::Invalid(missing.into()))
}

/// Tokens of `messages` in the model's own template, ready for the assistant's answer. A model without a
/// template was not made for conversations: it gets the texts, one a line, to continue.
///
/// With `tools` gives, too, how calls of them are written.
fn render(
    session: &Session,
    messages: &[Message],
    tools: Option<&Tools>,
) -> Result<(Vec<u32>, Option<&'static Format>)> {
    let tokenizer = tokenizer(session)?;
    let Some(template) = session.template() else {
        if tools.is_some() {
            let reason =
                "tools: this model has no chat template, so that it can be told of no functions";
            return Err(Error::Invalid(reason.into()));
        }
        let contents = messages.iter().filter_map(|m| m.0.get("content")?.as_str());
        let texts: Vec<&str> = contents.collect();
        return Ok((tokenizer.encode(&texts.join("\n"), true, false)?, None));
    };
    let text_of = |id: Option<u32>| {
        id.map(|id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned())
            .unwrap_or_default()
    };
    let options = Options {
        add_generation_prompt: true,
        bos_token: text_of(tokenizer.bos()),
        eos_token: text_of(tokenizer.eos_ids().first().copied()),
        now: Some(browser::now()),
        ..Options::default()
    };
    // The template writes the begin-of-sequence token itself where the model wants one.
    let request = Request::new(template, messages, tools, &options)?;
    let control = tokenizer.control_texts();
    let pieces = template.render_pieces(&request.messages, &request.options, &control)?;
    Ok((tokenizer.encode_pieces(&pieces, false)?, request.format))
}

/// What a token may come with: calls that are complete with it, how likely it was.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct More {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<TokenLogprobs>,
}

/// Tells of a token.
fn tell(
    on_token: &Option<Function>,
    text: &str,
    id: u32,
    more: More,
    thrown: &mut Option<JsValue>,
) -> ControlFlow<()> {
    let Some(function) = on_token else {
        return ControlFlow::Continue(());
    };
    let more = match more.tool_calls.is_empty() && more.logprobs.is_none() {
        true => Ok(JsValue::UNDEFINED),
        false => to_js(&more),
    };
    let answer = match more {
        Ok(more) => function.call3(&JsValue::NULL, &text.into(), &id.into(), &more),
        Err(e) => Err(Failure::from(e).into()),
    };
    go_on(answer, thrown)
}

/// `true` from a callback stops; so does what it throws, which is kept.
fn go_on(answer: Result<JsValue, JsValue>, thrown: &mut Option<JsValue>) -> ControlFlow<()> {
    match answer {
        Ok(value) if value.is_truthy() => ControlFlow::Break(()),
        Ok(_) => ControlFlow::Continue(()),
        Err(e) => {
            *thrown = Some(e);
            ControlFlow::Break(())
        }
    }
}

fn fail(thrown: Option<JsValue>) -> Result<(), Failure> {
    match thrown {
        Some(e) => Err(Failure::thrown(e)),
        None => Ok(()),
    }
}
