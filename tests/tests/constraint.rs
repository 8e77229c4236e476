//! Answers of a given form, and how likely their tokens were.

use std::ops::ControlFlow;
use std::rc::Rc;

use serde_json::{Value, json};
use shardlight::builtin::{TINY, TINY_NAME};
use shardlight::comm::{LocalComm, Mesh, Placement, World};
use shardlight::constraint::{Constraint, Form, Grammar, Matcher, Words};
use shardlight::device::Device;
use shardlight::sampler::Sampling;
use shardlight::session::{Event, GenerateOptions, Generated, Session, SessionOptions, StopReason};
use shardlight::shard::Split;
use shardlight::weights::{BytesSource, ModelFiles};
use shardlight::{Error, Result};
use shardlight_tests::devices;

const PROMPT: &str = "Once upon a time there was a little girl who";

/// The built-in model, shared among `tp` ranks of one device.
fn load(device: &Rc<dyn Device>, tp: usize) -> Session {
    let source = Rc::new(BytesSource::new(TINY_NAME, TINY));
    let files = pollster::block_on(ModelFiles::open(vec![source])).expect("it opens");
    let mesh = Mesh {
        tp,
        ..Mesh::default()
    };
    let ranks = (0..tp).map(|rank| {
        let placement = Placement::new(mesh, rank, Split::even(tp), false).expect("a placement");
        (placement, Rc::clone(device))
    });
    let world = World::new(ranks.collect(), Rc::new(LocalComm)).expect("a world");
    let options = SessionOptions {
        context_length: Some(256),
        ..SessionOptions::default()
    };
    let quiet = &mut |_| ControlFlow::Continue(());
    pollster::block_on(Session::load(files, world, options, quiet)).expect("it loads")
}

fn constraint(session: &Session, form: &Form) -> Rc<dyn Constraint> {
    let tokenizer = session.tokenizer().expect("a tokenizer");
    let vocabulary = Words::from(tokenizer).vocabulary().expect("a vocabulary");
    Rc::new(Grammar::new(&vocabulary, form).expect("a grammar"))
}

fn generate(session: &mut Session, options: &GenerateOptions) -> Result<Generated> {
    let tokenizer = session.tokenizer().expect("a tokenizer");
    let tokens = tokenizer.encode(PROMPT, true, true)?;
    session.reset();
    let quiet = &mut |_: Event<'_>| ControlFlow::Continue(());
    pollster::block_on(session.generate(&tokens, options, quiet))
}

fn drawn(seed: u64, top_k: usize) -> Sampling {
    Sampling {
        temperature: 1.5,
        top_k,
        top_p: 1.0,
        min_p: 0.0,
        repeat_penalty: 1.2,
        seed,
        ..Sampling::default()
    }
}

fn samplings() -> Vec<Sampling> {
    let mut all = vec![Sampling::default()];
    for seed in 0..4 {
        all.push(drawn(seed, 40));
        // More than are chosen on a device.
        all.push(drawn(seed, 0));
    }
    all
}

/// Whatever is drawn, on whatever device and however shared: JSON of the schema; greedily, the same.
#[test]
fn answers_are_what_the_schema_says_on_every_device() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 12 },
            "kind": { "enum": ["girl", "boy", "dog"] },
            "age": { "type": "integer", "minimum": 1, "maximum": 99 },
            "friends": { "type": "array", "items": { "type": "boolean" }, "maxItems": 3 },
        },
        "required": ["name", "kind", "age", "friends"],
        "additionalProperties": false,
    });
    let form = Form::JsonSchema(schema.to_string());
    let mut found: Vec<Vec<Generated>> = Vec::new();
    let mut different = std::collections::BTreeSet::new();
    for device in devices() {
        for tp in [1, 2] {
            let mut session = load(&device, tp);
            let constraint = constraint(&session, &form);
            let answers = samplings().into_iter().map(|sampling| {
                let options = GenerateOptions {
                    max_tokens: 200,
                    sampling,
                    constraint: Some(Rc::clone(&constraint)),
                    ..GenerateOptions::default()
                };
                let made = generate(&mut session, &options).expect("an answer");
                assert_eq!(made.stop, StopReason::Eos, "{}", made.text);
                let value: Value = serde_json::from_str(&made.text).expect(&made.text);
                let object = value.as_object().expect("an object");
                assert_eq!(object.len(), 4, "{value}");
                assert!(object["name"].as_str().expect("text").chars().count() <= 12);
                assert!(["girl", "boy", "dog"].contains(&object["kind"].as_str().expect("text")));
                assert!((1..=99).contains(&object["age"].as_i64().expect("a number")));
                let friends = object["friends"].as_array().expect("a list");
                assert!(friends.len() <= 3 && friends.iter().all(Value::is_boolean));
                different.insert(made.text.clone());
                made
            });
            found.push(answers.collect());
        }
    }
    assert!(found.len() >= 4, "CPU and Vulkan, whole and split");
    // Draws may fall between two tokens by a last bit of the logits.
    for other in &found[1..] {
        assert_eq!(other[0], found[0][0]);
    }
    assert!(different.len() >= 5, "{different:?}");
    println!(
        "constraint: {} layouts, {} answers, {} texts",
        found.len(),
        found.len() * found[0].len(),
        different.len()
    );
}

#[test]
fn an_answer_ends_with_its_form_and_the_next_one_begins_anew() {
    for device in devices() {
        let mut session = load(&device, 1);
        let form = Form::Regex("(yes|no), (she|he) (was|had)\\.".into());
        let options = GenerateOptions {
            constraint: Some(constraint(&session, &form)),
            ..GenerateOptions::default()
        };
        let first = generate(&mut session, &options).expect("an answer");
        let again = generate(&mut session, &options).expect("an answer");
        assert_eq!(first, again);
        assert!(
            first.text.ends_with('.') && first.text.contains(", "),
            "{}",
            first.text
        );
        assert_eq!((first.stop, first.end), (StopReason::Eos, None));
        let length = GenerateOptions {
            max_tokens: 2,
            ..options.clone()
        };
        assert_eq!(
            generate(&mut session, &length).expect("an answer").stop,
            StopReason::Length
        );
        // Without it, the model says what it would.
        let free = generate(
            &mut session,
            &GenerateOptions {
                max_tokens: 8,
                ..GenerateOptions::default()
            },
        );
        assert!(!free.expect("an answer").text.contains("yes"));
    }
}

/// A constraint that fails after some tokens.
#[derive(Debug)]
struct Failing(&'static str);

struct FailingMatcher(&'static str, u32);

impl Constraint for Failing {
    fn start(&self) -> Result<Box<dyn Matcher>> {
        match self.0 {
            "start" => Err(Error::Invalid("start".into())),
            what => Ok(Box::new(FailingMatcher(what, 0))),
        }
    }
}

impl Matcher for FailingMatcher {
    fn mask(&mut self, mask: &mut [u32]) -> Result<()> {
        self.1 += 1;
        match (self.0, self.1) {
            ("mask", 3) => return Err(Error::Invalid("mask".into())),
            ("nothing", 3) => mask.fill(0),
            _ => mask.fill(u32::MAX),
        }
        Ok(())
    }

    fn accept(&mut self, _: u32) -> Result<bool> {
        match (self.0, self.1) {
            ("accept", 3) => Err(Error::Invalid("accept".into())),
            _ => Ok(false),
        }
    }
}

#[test]
fn a_constraint_that_fails_ends_the_answer_and_nothing_else() {
    for device in devices() {
        let mut session = load(&device, 1);
        let plain = GenerateOptions {
            max_tokens: 6,
            ..GenerateOptions::default()
        };
        let whole = generate(&mut session, &plain).expect("an answer");
        for (what, line) in [
            ("start", "start"),
            ("mask", "mask"),
            ("accept", "accept"),
            (
                "nothing",
                "no token of the model can continue an answer of this form",
            ),
        ] {
            let options = GenerateOptions {
                constraint: Some(Rc::new(Failing(what))),
                ..plain.clone()
            };
            let error = generate(&mut session, &options).expect_err(what);
            assert_eq!(error.to_string(), line);
            assert_eq!(generate(&mut session, &plain).expect("an answer"), whole);
        }
        // One that allows everything changes nothing.
        let options = GenerateOptions {
            constraint: Some(Rc::new(Failing("never"))),
            ..plain.clone()
        };
        assert_eq!(generate(&mut session, &options).expect("an answer"), whole);
    }
}

#[test]
fn a_lost_device_changes_no_answer_of_a_form() {
    for device in devices().into_iter().filter(|d| d.info().kind.is_gpu()) {
        let mut session = load(&device, 1);
        let form = Form::Regex("[a-z]{3,8}( [a-z]{2,8}){6}".into());
        let options = GenerateOptions {
            sampling: drawn(3, 40),
            constraint: Some(constraint(&session, &form)),
            ..GenerateOptions::default()
        };
        let whole = generate(&mut session, &options).expect("an answer");
        session.reset();
        let tokens = session
            .tokenizer()
            .expect("one")
            .encode(PROMPT, true, true)
            .expect("tokens");
        let (mut count, mut recovered) = (0, 0);
        let lost = Rc::clone(&session.world().devices()[0]);
        let mut hear = |event: Event<'_>| {
            match event {
                Event::Token { .. } => {
                    count += 1;
                    if count == 4 {
                        lost.destroy();
                    }
                }
                Event::Recovered => recovered += 1,
                _ => {}
            }
            ControlFlow::Continue(())
        };
        let made = session.generate(&tokens, &options, &mut hear);
        assert_eq!(pollster::block_on(made).expect("an answer"), whole);
        assert_eq!(recovered, 1);
        session.destroy();
    }
}

#[test]
fn logprobs_are_those_of_the_models_logits() {
    for device in devices() {
        for tp in [1, 2] {
            let mut session = load(&device, tp);
            let options = GenerateOptions {
                max_tokens: 5,
                sampling: drawn(5, 40),
                logprobs: Some(4),
                ..GenerateOptions::default()
            };
            let made = generate(&mut session, &options).expect("an answer");
            let same = GenerateOptions {
                logprobs: None,
                ..options
            };
            let without = generate(&mut session, &same).expect("an answer");
            assert_eq!((&made.tokens, &made.text), (&without.tokens, &without.text));
            assert_eq!((made.logprobs.len(), without.logprobs.len()), (5, 0));
            let tokenizer = session.tokenizer().expect("a tokenizer");
            let mut tokens = tokenizer.encode(PROMPT, true, true).expect("tokens");
            for (id, told) in made.tokens.iter().zip(&made.logprobs) {
                let logits = pollster::block_on(session.logits(&tokens, false)).expect("logits");
                let sum: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
                let log = |id: u32| (f64::from(logits[id as usize]) - sum.ln()) as f32;
                assert!(
                    (told.logprob - log(*id)).abs() < 1e-3,
                    "{told:?} {}",
                    log(*id)
                );
                assert_eq!(told.top.len(), 4);
                for (id, logprob) in &told.top {
                    assert!((logprob - log(*id)).abs() < 1e-3);
                    assert!(
                        logits
                            .iter()
                            .filter(|l| **l > logits[*id as usize] + 1e-3)
                            .count()
                            < 4
                    );
                }
                tokens.push(*id);
            }
        }
    }
}
