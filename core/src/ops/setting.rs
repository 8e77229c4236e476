//! Numbers and switches of operators: their kinds, defaults and texts.

use std::collections::BTreeMap;
use std::fmt;

use super::Op;
use crate::{Error, Result};

/// A number or switch of an operator.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// Its kind and default.
    pub kind: Kind,
    /// What it does.
    pub doc: &'static str,
}

/// Kinds of settings, with their defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A whole number; `None` when leaving it out means something of its own.
    Int(Option<i64>),
    /// A number; `None` likewise.
    Float(Option<f64>),
    /// A switch.
    Bool(bool),
    /// One of these words.
    Choice(&'static str, &'static [&'static str]),
    /// Whole numbers.
    Ints(&'static [i64]),
}

impl Setting {
    /// A whole number.
    pub const fn int(name: &'static str, default: i64, doc: &'static str) -> Self {
        let kind = Kind::Int(Some(default));
        Setting { name, kind, doc }
    }

    /// A whole number that may be left out.
    pub const fn maybe_int(name: &'static str, doc: &'static str) -> Self {
        let kind = Kind::Int(None);
        Setting { name, kind, doc }
    }

    /// A number.
    pub const fn float(name: &'static str, default: f64, doc: &'static str) -> Self {
        let kind = Kind::Float(Some(default));
        Setting { name, kind, doc }
    }

    /// A number that may be left out.
    pub const fn maybe_float(name: &'static str, doc: &'static str) -> Self {
        let kind = Kind::Float(None);
        Setting { name, kind, doc }
    }

    /// A switch.
    pub const fn flag(name: &'static str, default: bool, doc: &'static str) -> Self {
        let kind = Kind::Bool(default);
        Setting { name, kind, doc }
    }

    /// One of `words`.
    pub const fn choice(
        name: &'static str,
        default: &'static str,
        words: &'static [&'static str],
        doc: &'static str,
    ) -> Self {
        let kind = Kind::Choice(default, words);
        Setting { name, kind, doc }
    }

    /// Whole numbers.
    pub const fn ints(name: &'static str, default: &'static [i64], doc: &'static str) -> Self {
        let kind = Kind::Ints(default);
        Setting { name, kind, doc }
    }

    /// Reads a value's text: `3`, `1e-5`, `true`, a word, `1,2`.
    ///
    /// # Errors
    ///
    /// The kind of value that is wanted.
    pub fn parse(&self, text: &str) -> std::result::Result<Value, String> {
        let text = text.trim();
        let wanted = |what: &str| format!("{text:?} is not {what}");
        match self.kind {
            Kind::Int(_) => text
                .parse()
                .map(Value::Int)
                .map_err(|_| wanted("a whole number")),
            Kind::Float(_) => match text.parse::<f64>() {
                Ok(x) if !x.is_nan() => Ok(Value::Float(x)),
                _ => Err(wanted("a number")),
            },
            Kind::Bool(_) => match text {
                "true" | "True" | "1" => Ok(Value::Bool(true)),
                "false" | "False" | "0" => Ok(Value::Bool(false)),
                _ => Err(wanted("true or false")),
            },
            Kind::Choice(_, words) => match words.iter().find(|w| **w == text) {
                Some(word) => Ok(Value::Word(word)),
                None => Err(wanted(&format!("one of {}", words.join(", ")))),
            },
            Kind::Ints(_) => {
                let list = text
                    .trim_start_matches(['[', '('])
                    .trim_end_matches([']', ')']);
                let numbers = list.split(',').map(str::trim).filter(|t| !t.is_empty());
                let numbers: std::result::Result<_, _> = numbers.map(str::parse).collect();
                numbers
                    .map(Value::Ints)
                    .map_err(|_| wanted("a list of whole numbers such as 1,2"))
            }
        }
    }
}

impl fmt::Display for Kind {
    /// The default's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Int(Some(v)) => write!(f, "{v}"),
            Kind::Float(Some(v)) if *v != 0.0 && v.abs() < 1e-3 => write!(f, "{v:e}"),
            Kind::Float(Some(v)) => write!(f, "{v}"),
            Kind::Int(None) | Kind::Float(None) => f.write_str("none"),
            Kind::Bool(v) => write!(f, "{v}"),
            Kind::Choice(word, words) => write!(f, "{word} of {}", words.join("|")),
            Kind::Ints(list) => {
                let list: Vec<String> = list.iter().map(i64::to_string).collect();
                f.write_str(if list.is_empty() { "none" } else { "" })?;
                f.write_str(&list.join(","))
            }
        }
    }
}

/// A setting's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Int(i64),
    Float(f64),
    Bool(bool),
    Word(&'static str),
    Ints(Vec<i64>),
}

/// The settings of one call: those that were given, defaults for the others.
#[derive(Debug)]
pub struct Settings {
    op: &'static Op,
    given: BTreeMap<&'static str, Value>,
}

impl Settings {
    /// Reads texts by name.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] naming operator, setting, and what was expected.
    pub fn read(op: &'static Op, texts: &BTreeMap<String, String>) -> Result<Self> {
        let mut given = BTreeMap::new();
        for (name, text) in texts {
            let Some(setting) = op.settings.iter().find(|s| s.name == name) else {
                let known: Vec<_> = op.settings.iter().map(|s| s.name).collect();
                let known = match known.is_empty() {
                    true => "it has none".into(),
                    false => format!("there are {}", known.join(", ")),
                };
                return Err(Error::Invalid(format!(
                    "{}: unknown setting {name:?}; {known}",
                    op.name
                )));
            };
            let value = setting
                .parse(text)
                .map_err(|e| Error::Invalid(format!("{}: setting {name}: {e}", op.name)))?;
            given.insert(setting.name, value);
        }
        Ok(Settings { op, given })
    }

    fn kind(&self, name: &str) -> Kind {
        let setting = self.op.settings.iter().find(|s| s.name == name);
        let setting = setting.unwrap_or_else(|| panic!("{} declares no {name}", self.op.name));
        setting.kind
    }

    /// Was it given?
    pub fn is_set(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// A whole number; `None` when it was left out and has no default.
    ///
    /// # Panics
    ///
    /// This and the others: when the operator declares no such setting of that kind.
    pub fn maybe_int(&self, name: &str) -> Option<i64> {
        match (self.given.get(name), self.kind(name)) {
            (Some(Value::Int(v)), _) => Some(*v),
            (None, Kind::Int(default)) => default,
            _ => panic!("{}: {name} is no whole number", self.op.name),
        }
    }

    /// A whole number.
    pub fn int(&self, name: &str) -> i64 {
        self.maybe_int(name).expect("has a default")
    }

    /// A whole number that must not be negative or huge.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`].
    pub fn size(&self, name: &str) -> Result<usize> {
        let value = self.int(name);
        u32::try_from(value).map(|v| v as usize).map_err(|_| {
            Error::Invalid(format!(
                "{}: setting {name} is {value}, expected 0 to 4294967295",
                self.op.name
            ))
        })
    }

    /// A number; `None` when it was left out and has no default.
    pub fn maybe_float(&self, name: &str) -> Option<f64> {
        match (self.given.get(name), self.kind(name)) {
            (Some(Value::Float(v)), _) => Some(*v),
            (None, Kind::Float(default)) => default,
            _ => panic!("{}: {name} is no number", self.op.name),
        }
    }

    /// A number.
    pub fn float(&self, name: &str) -> f64 {
        self.maybe_float(name).expect("has a default")
    }

    /// A switch.
    pub fn flag(&self, name: &str) -> bool {
        match (self.given.get(name), self.kind(name)) {
            (Some(Value::Bool(v)), _) => *v,
            (None, Kind::Bool(default)) => default,
            _ => panic!("{}: {name} is no switch", self.op.name),
        }
    }

    /// One of the words.
    pub fn choice(&self, name: &str) -> &'static str {
        match (self.given.get(name), self.kind(name)) {
            (Some(Value::Word(v)), _) => v,
            (None, Kind::Choice(default, _)) => default,
            _ => panic!("{}: {name} is no choice", self.op.name),
        }
    }

    /// Whole numbers.
    pub fn ints(&self, name: &str) -> Vec<i64> {
        match (self.given.get(name), self.kind(name)) {
            (Some(Value::Ints(v)), _) => v.clone(),
            (None, Kind::Ints(default)) => default.to_vec(),
            _ => panic!("{}: {name} is no list", self.op.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_python_and_of_people_are_read() {
        let parse = |s: Setting, text| s.parse(text);
        let eps = Setting::float("eps", 1e-5, "");
        assert_eq!(parse(eps, "1e-05"), Ok(Value::Float(1e-5)));
        assert_eq!(eps.kind.to_string(), "1e-5");
        assert!(parse(eps, "nan").is_err());
        let bias = Setting::flag("bias", true, "");
        assert_eq!(parse(bias, "False"), Ok(Value::Bool(false)));
        let pads = Setting::ints("pads", &[0, 0], "");
        assert_eq!(parse(pads, "[1, 2]"), Ok(Value::Ints(vec![1, 2])));
        assert_eq!(
            parse(pads, "1;2").unwrap_err(),
            "\"1;2\" is not a list of whole numbers such as 1,2"
        );
        let side = Setting::choice("side", "left", &["left", "right"], "");
        assert_eq!(
            parse(side, "up").unwrap_err(),
            "\"up\" is not one of left, right"
        );
    }
}
