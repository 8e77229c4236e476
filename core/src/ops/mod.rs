//! Operators: kernels and layers by name, on named tensors. [`all`] lists them; the command
//! `shardlight op`, JavaScript's `op`, conformance tests and documentation come from that list.
//!
//! An operator's file holds its interface as data, and a function that pushes dispatches; formulas
//! live in kernels and in [`nn`](crate::nn). The gradient of operator `f` is operator
//! `f_backward`: inputs of `f` and `dy`, outputs `d_x` for each input `x`; or, where `f` gives several losses,
//! `d_x_loss` for the gradient of the output `loss` by `x`.

mod activation;
mod array;
mod attention;
mod basic;
mod call;
mod check;
mod conv;
mod expert_parallel;
mod linear;
mod loss;
mod megatron_router;
mod mlp;
mod moe;
mod nested_moe;
mod noisy_router;
mod norm;
mod parallel;
mod position;
mod quantized;
mod random;
mod recurrent;
mod router;
mod sampling;
mod setting;
mod shape;
mod shards;
mod sizes;
mod softmax;
mod switch_router;
mod transformer_ffn;
mod vocab_parallel;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::json;

use crate::weights::source::LocalFuture;
use crate::{Error, Result};

pub use array::{Array, ElementType, TensorFile};
pub use call::{Call, Check, Ran, Ready, prepare, run};
pub use check::{Compared, check, nmse};
pub use setting::{Kind, Setting, Settings};
pub use sizes::{MlpSize, mlp_sizes};

/// Every operator, by domain.
static OPS: &[&[Op]] = &[
    activation::OPS,
    attention::OPS,
    basic::OPS,
    conv::OPS,
    expert_parallel::OPS,
    linear::OPS,
    loss::OPS,
    megatron_router::OPS,
    mlp::OPS,
    moe::OPS,
    nested_moe::OPS,
    noisy_router::OPS,
    norm::OPS,
    parallel::OPS,
    position::OPS,
    quantized::OPS,
    random::OPS,
    recurrent::OPS,
    router::OPS,
    sampling::OPS,
    shards::OPS,
    softmax::OPS,
    switch_router::OPS,
    transformer_ffn::OPS,
    vocab_parallel::OPS,
];

/// Every operator.
pub fn all() -> impl Iterator<Item = &'static Op> {
    OPS.iter().flat_map(|ops| ops.iter())
}

/// The operator called `name`, by its own name or one that recorded files use.
///
/// # Errors
///
/// [`Error::Unsupported`] naming those there are.
pub fn find(name: &str) -> Result<&'static Op> {
    let named = all().find(|op| op.name == name);
    named
        .or_else(|| all().find(|op| op.kinds.contains(&name)))
        .ok_or_else(|| Error::Unsupported {
            what: format!("no operator is called {name:?}"),
            supported: all().map(|op| op.name).collect::<Vec<_>>().join(", "),
        })
}

/// An operator's interface and how it is recorded.
#[derive(Clone, Copy)]
pub struct Op {
    /// The field's name, in snake case.
    pub name: &'static str,
    /// Other names: those of recorded files and of other libraries.
    pub kinds: &'static [&'static str],
    /// Rows of the table of systems that it implements.
    pub systems: &'static [&'static str],
    /// Formula and source, in a line or two.
    pub summary: &'static str,
    /// What it takes.
    pub inputs: &'static [Input],
    /// Numbers and switches.
    pub settings: &'static [Setting],
    /// What it gives.
    pub outputs: &'static [Output],
    /// Largest normalised mean squared error of a float output against an exact one.
    pub bound: f64,
    /// Pushes the dispatches.
    pub record: for<'c, 'd> fn(&'c mut Call<'d>) -> LocalFuture<'c, Result<()>>,
    /// Small calls, each input and setting used in at least one, for tests and documentation.
    pub examples: fn() -> Vec<Example>,
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Op {
    /// The input that a gradient is by, and the output that it is of if its name says so: `d_x` is by `x`,
    /// `d_x_aux` by `x` of `aux`.
    pub fn gradient_of(&self, gradient: &str) -> Option<(&'static Input, Option<&'static Output>)> {
        let rest = gradient.strip_prefix("d_")?;
        let of = |input: &'static Input| {
            let rest = rest.strip_prefix(input.name)?;
            if rest.is_empty() {
                return Some((input, None));
            }
            let output = rest.strip_prefix('_')?;
            let output = self.outputs.iter().find(|o| o.name == output)?;
            Some((input, Some(output)))
        };
        self.inputs.iter().find_map(of)
    }

    /// The interface as JSON: `{name, also, systems, summary, inputs, settings, outputs, bound}`.
    pub fn describe(&self) -> serde_json::Value {
        let inputs = self.inputs.iter().map(
            |i| json!({ "name": i.name, "shape": i.shape, "optional": i.optional, "doc": i.doc }),
        );
        let settings = self.settings.iter().map(|s| {
            let default = match s.kind {
                Kind::Int(default) => json!(default),
                Kind::Float(default) => json!(default),
                Kind::Bool(default) => json!(default),
                Kind::Choice(default, _) => json!(default),
                Kind::Ints(default) => json!(default),
            };
            let mut setting = json!({ "name": s.name, "default": default, "doc": s.doc });
            if let Kind::Choice(_, words) = s.kind {
                setting["choices"] = json!(words);
            }
            setting
        });
        let outputs = self.outputs.iter();
        let outputs = outputs.map(|o| json!({ "name": o.name, "shape": o.shape, "doc": o.doc }));
        json!({
            "name": self.name,
            "also": self.kinds,
            "systems": self.systems,
            "summary": self.summary,
            "inputs": inputs.collect::<Vec<_>>(),
            "settings": settings.collect::<Vec<_>>(),
            "outputs": outputs.collect::<Vec<_>>(),
            "bound": self.bound,
        })
    }
}

/// A tensor that an operator takes.
///
/// `shape` is a pattern: axis letters (`N K`), a number of them (`2F C` has twice F rows), a
/// literal number, `...` for any leading axes (the same wherever it stands), or `any`.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// Its name.
    pub name: &'static str,
    /// Its shape's pattern.
    pub shape: &'static str,
    /// May it be left out?
    pub optional: bool,
    /// What it is, where the name does not say.
    pub doc: &'static str,
}

impl Input {
    /// An input that must be there.
    pub const fn new(name: &'static str, shape: &'static str, doc: &'static str) -> Self {
        Input {
            name,
            shape,
            optional: false,
            doc,
        }
    }

    /// An input that may be left out.
    pub const fn optional(name: &'static str, shape: &'static str, doc: &'static str) -> Self {
        Input {
            name,
            shape,
            optional: true,
            doc,
        }
    }
}

/// A tensor that an operator gives.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Its name.
    pub name: &'static str,
    /// Its shape's pattern, as an [`Input`]'s.
    pub shape: &'static str,
    /// What it is, and when it is there.
    pub doc: &'static str,
}

impl Output {
    /// An output.
    pub const fn new(name: &'static str, shape: &'static str, doc: &'static str) -> Self {
        Output { name, shape, doc }
    }
}

/// A call with small inputs.
#[derive(Clone, Debug, Default)]
pub struct Example {
    /// Inputs by name.
    pub inputs: Vec<(&'static str, Array)>,
    /// Settings that are not the default.
    pub settings: Vec<(&'static str, &'static str)>,
}

impl Example {
    /// A call without inputs and settings.
    pub fn new() -> Self {
        Example::default()
    }

    /// Adds an input.
    pub fn input(mut self, name: &'static str, array: Array) -> Self {
        self.inputs.push((name, array));
        self
    }

    /// Adds an input of random numbers of about unit size, other ones for each name.
    pub fn random(self, name: &'static str, shape: &[usize]) -> Self {
        let seed = name.bytes().fold(self.inputs.len() as u64, |seed, b| {
            seed.wrapping_mul(31).wrapping_add(u64::from(b))
        });
        let len = shape.iter().product();
        let values = crate::kernels::case::random(seed, len);
        // Outliers belong to the kernels' own cases; gradients are checked by small steps here.
        let values: Vec<f32> = values.iter().map(|x| (0.9 * x).clamp(-2.5, 2.5)).collect();
        self.input(name, Array::f32(shape, &values))
    }

    /// Sets a setting.
    pub fn set(mut self, name: &'static str, value: &'static str) -> Self {
        self.settings.push((name, value));
        self
    }

    /// Inputs and settings as [`run`] takes them.
    pub fn call(&self) -> (BTreeMap<String, Array>, BTreeMap<String, String>) {
        let inputs = self.inputs.iter();
        let settings = self.settings.iter();
        (
            inputs.map(|(n, a)| (n.to_string(), a.clone())).collect(),
            settings
                .map(|(n, v)| (n.to_string(), v.to_string()))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_in_snake_case() {
        let mut seen = BTreeSet::new();
        for op in all() {
            let snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(op.name.chars().all(snake), "{}", op.name);
            for name in [op.name].iter().chain(op.kinds) {
                assert!(seen.insert(*name), "{name} names two operators");
            }
        }
    }

    #[test]
    fn a_gradient_has_the_inputs_of_its_operator() {
        for op in all() {
            let Some(forward) = op.name.strip_suffix("_backward") else {
                continue;
            };
            let forward = find(forward).unwrap_or_else(|e| panic!("{}: {e}", op.name));
            for output in op.outputs {
                assert!(
                    forward.gradient_of(output.name).is_some(),
                    "{}: {}",
                    op.name,
                    output.name
                );
            }
        }
    }

    #[test]
    fn examples_use_every_input_and_name_only_what_there_is() {
        for op in all() {
            let examples = (op.examples)();
            assert!(!examples.is_empty(), "{} has no example", op.name);
            let used: BTreeSet<_> = examples
                .iter()
                .flat_map(|e| &e.inputs)
                .map(|i| i.0)
                .collect();
            let all: BTreeSet<_> = op.inputs.iter().map(|i| i.name).collect();
            assert_eq!(used, all, "{}", op.name);
            for (name, value) in examples.iter().flat_map(|e| &e.settings) {
                let setting = op.settings.iter().find(|s| s.name == *name);
                let setting = setting.unwrap_or_else(|| panic!("{}: setting {name}", op.name));
                setting
                    .parse(value)
                    .unwrap_or_else(|e| panic!("{}: {name}: {e}", op.name));
            }
        }
    }
}
