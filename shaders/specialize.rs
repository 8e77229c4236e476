//! Turns a kernel's file into one concrete WGSL text.
//!
//! | in the file | what the host does |
//! |---|---|
//! | `const NAME: u32 = 1u;` | replaces the right-hand side when [`Specialization::constants`] names it |
//! | `alias name = f32;` | replaces the type when [`Specialization::aliases`] names it |
//! | `#import reduce` | the text of `shared/reduce.wgsl`, once |
//! | `#import q8_0 as gate` | the same with every identifier prefix `self_` renamed to `gate_` |
//! | `#import $GATE as gate` | the file that [`Specialization::formats`] names for `GATE` |
//! | `#if NAME` / `#if !NAME` / `#else` / `#endif` | keeps lines by [`Specialization::flags`] |
//!
//! `enable` lines belong to the host ([`Specialization::enables`]): naga and browsers want
//! different ones. Naming something that the file does not declare is an error, so a constant can
//! never be set in vain.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

/// A value for a module-scope `const`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Constant {
    /// `u32`
    U32(u32),
    /// `f32`; must be finite.
    F32(f32),
}

impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Constant::U32(v) => write!(f, "{v}u"),
            Constant::F32(v) => write!(f, "{v:?}f"),
        }
    }
}

/// What the host decides about a kernel's text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Specialization {
    /// `const` values by name.
    pub constants: BTreeMap<String, Constant>,
    /// `alias` types by name.
    pub aliases: BTreeMap<String, String>,
    /// File to import for each `$NAME`.
    pub formats: BTreeMap<String, String>,
    /// Names for which `#if` keeps its lines.
    pub flags: BTreeSet<String>,
    /// `enable` lines to put first: `f16`, `subgroups` (browsers only).
    pub enables: Vec<&'static str>,
}

/// Why a text could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecializeError {
    kernel: String,
    reason: String,
}

impl fmt::Display for SpecializeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.wgsl: {}", self.kernel, self.reason)
    }
}

impl std::error::Error for SpecializeError {}

/// Makes the text of kernel `name` for `spec`.
///
/// # Errors
///
/// An unknown kernel or import, an unbalanced `#if`, an `enable` in a file, or a constant, alias
/// or format that no file of this kernel declares.
pub fn specialize(name: &str, spec: &Specialization) -> Result<String, SpecializeError> {
    let fail = |reason: String| SpecializeError {
        kernel: name.to_string(),
        reason,
    };
    let source = crate::kernel(name).ok_or_else(|| fail("no such kernel".to_string()))?;
    expand(source, spec).map_err(fail)
}

fn expand(source: &str, spec: &Specialization) -> Result<String, String> {
    let mut out = Expansion {
        spec,
        text: String::new(),
        imported: BTreeSet::new(),
        used: BTreeSet::new(),
    };
    for name in &spec.enables {
        let _ = writeln!(out.text, "enable {name};");
    }
    out.file(source, 0)?;
    let named = (spec.constants.keys().map(|n| ("const", n)))
        .chain(spec.aliases.keys().map(|n| ("alias", n)))
        .chain(spec.formats.keys().map(|n| ("format", n)));
    for (kind, name) in named {
        if !out.used.contains(&(kind, name.clone())) {
            return Err(format!("declares no {kind} {name}"));
        }
    }
    Ok(out.text)
}

struct Expansion<'a> {
    spec: &'a Specialization,
    text: String,
    imported: BTreeSet<(String, String)>,
    used: BTreeSet<(&'static str, String)>,
}

impl Expansion<'_> {
    fn file(&mut self, source: &str, depth: usize) -> Result<(), String> {
        if depth > 8 {
            return Err("imports are nested more than 8 deep".to_string());
        }
        // One entry per open #if: are its lines kept?
        let mut open: Vec<bool> = Vec::new();
        for line in source.lines() {
            let word = line.trim();
            if let Some(flag) = word.strip_prefix("#if ") {
                let (flag, wanted) = match flag.trim().strip_prefix('!') {
                    Some(flag) => (flag, false),
                    None => (flag.trim(), true),
                };
                open.push(self.spec.flags.contains(flag) == wanted);
            } else if word == "#else" {
                let last = open.last_mut().ok_or("#else without #if")?;
                *last = !*last;
            } else if word == "#endif" {
                open.pop().ok_or("#endif without #if")?;
            } else if open.iter().all(|kept| *kept) {
                self.line(line, word, depth)?;
            }
        }
        if open.is_empty() {
            Ok(())
        } else {
            Err("#if without #endif".to_string())
        }
    }

    fn line(&mut self, line: &str, word: &str, depth: usize) -> Result<(), String> {
        if let Some(import) = word.strip_prefix("#import ") {
            return self.import(import.trim(), depth);
        }
        if word.starts_with('#') {
            return Err(format!("unknown directive {word}"));
        }
        if word.starts_with("enable ") {
            return Err(format!("{word} belongs to the host"));
        }
        if let Some((head, name)) = declaration(line, "const ", ':') {
            if let Some(value) = self.spec.constants.get(name) {
                self.used.insert(("const", name.to_string()));
                let _ = writeln!(self.text, "{head} = {value};");
                return Ok(());
            }
        } else if let Some((_, name)) = declaration(line, "alias ", '=')
            && let Some(value) = self.spec.aliases.get(name)
        {
            self.used.insert(("alias", name.to_string()));
            let _ = writeln!(self.text, "alias {name} = {value};");
            return Ok(());
        }
        self.text.push_str(line);
        self.text.push('\n');
        Ok(())
    }

    fn import(&mut self, import: &str, depth: usize) -> Result<(), String> {
        let (file, prefix) = match import.split_once(" as ") {
            Some((file, prefix)) => (file.trim(), prefix.trim()),
            None => (import, ""),
        };
        let file = match file.strip_prefix('$') {
            Some(name) => {
                self.used.insert(("format", name.to_string()));
                let format = self.spec.formats.get(name);
                format.ok_or_else(|| format!("no format given for ${name}"))?
            }
            None => file,
        };
        if !self.imported.insert((file.to_string(), prefix.to_string())) {
            return Ok(());
        }
        let source = crate::shared(file).ok_or_else(|| format!("no shared file {file}.wgsl"))?;
        if prefix.is_empty() {
            self.file(source, depth + 1)
        } else {
            self.file(&rename(source, prefix), depth + 1)
        }
    }
}

/// `const NAME: type = …;` at module scope gives (`const NAME: type`, `NAME`).
fn declaration<'a>(line: &'a str, keyword: &str, end: char) -> Option<(&'a str, &'a str)> {
    let rest = line.strip_prefix(keyword)?;
    let name = rest[..rest.find(end)?].trim();
    let head = line[..line.find('=')?].trim_end();
    Some((head, name))
}

/// Replaces the identifier prefix `self_` by `prefix_`.
fn rename(source: &str, prefix: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("self_") {
        let inside = rest[..at]
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || c == '_');
        out.push_str(&rest[..at]);
        out.push_str(if inside { "self" } else { prefix });
        out.push('_');
        rest = &rest[at + "self_".len()..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Specialization {
        Specialization::default()
    }

    #[test]
    fn constants_and_aliases_are_replaced() {
        let mut s = spec();
        s.constants.insert("N".into(), Constant::U32(7));
        s.constants.insert("EPS".into(), Constant::F32(1e-5));
        s.aliases.insert("elem".into(), "f16".into());
        s.enables.push("f16");
        let text = "const N: u32 = 1u; // rows\nconst EPS: f32 = 0.0;\nalias elem = f32;\n";
        assert_eq!(
            expand(text, &s).unwrap(),
            "enable f16;\nconst N: u32 = 7u;\nconst EPS: f32 = 1e-5f;\nalias elem = f16;\n"
        );
    }

    #[test]
    fn naming_what_is_not_declared_is_an_error() {
        let mut s = spec();
        s.constants.insert("M".into(), Constant::U32(7));
        let e = expand("const N: u32 = 1u;\n", &s).unwrap_err();
        assert_eq!(e, "declares no const M");
    }

    #[test]
    fn conditions_nest() {
        let mut s = spec();
        s.flags.insert("A".into());
        let text = "#if A\n#if !B\n1\n#else\n2\n#endif\n#else\n3\n#endif\n";
        assert_eq!(expand(text, &s).unwrap(), "1\n");
        assert!(expand("#if A\n", &s).is_err());
        assert!(expand("#endif\n", &s).is_err());
    }

    #[test]
    fn enable_in_a_file_is_an_error() {
        assert!(expand("enable f16;\n", &spec()).is_err());
    }

    #[test]
    fn import_prefix_renames_whole_identifiers_only() {
        let text = "fn self_load() { myself_x(self_K); }";
        assert_eq!(rename(text, "w"), "fn w_load() { myself_x(w_K); }");
    }
}
