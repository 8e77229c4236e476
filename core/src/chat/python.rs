//! What templates expect of Python: its methods, its JSON, its clock.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Serde, Value as Jinja, ValueKind};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::Value;

/// What a template raised.
#[derive(Debug)]
pub(super) struct Raised(pub String);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// A local date and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    /// The year, such as 2026.
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 60.
    pub second: u8,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

impl DateTime {
    /// Day of the week, Sunday is 0. Source: Sakamoto's method.
    fn weekday(&self) -> usize {
        const SHIFT: [i64; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let month = usize::from(self.month.clamp(1, 12));
        let year = i64::from(self.year) - i64::from(month < 3);
        let sum = year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        (sum + SHIFT[month - 1] + i64::from(self.day)).rem_euclid(7) as usize
    }

    /// Python's `strftime` in the C locale, without time zones and week numbers.
    fn format(&self, format: &str) -> String {
        let mut out = String::new();
        let mut chars = format.chars();
        let month = MONTHS[usize::from(self.month.clamp(1, 12)) - 1];
        let day = DAYS[self.weekday()];
        let hour12 = (self.hour + 11) % 12 + 1;
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut directive = chars.next();
            let unpadded = directive == Some('-');
            if unpadded {
                directive = chars.next();
            }
            let width = if unpadded { 1 } else { 2 };
            // Writing to a String cannot fail.
            let _ = match directive {
                Some('Y') => write!(out, "{:04}", self.year),
                Some('y') => write!(out, "{:0width$}", self.year.rem_euclid(100)),
                Some('m') => write!(out, "{:0width$}", self.month),
                Some('d') => write!(out, "{:0width$}", self.day),
                Some('e') => write!(out, "{:2}", self.day),
                Some('H') => write!(out, "{:0width$}", self.hour),
                Some('I') => write!(out, "{hour12:0width$}"),
                Some('M') => write!(out, "{:0width$}", self.minute),
                Some('S') => write!(out, "{:0width$}", self.second),
                Some('p') => write!(out, "{}", if self.hour < 12 { "AM" } else { "PM" }),
                Some('B') => write!(out, "{month}"),
                Some('b' | 'h') => write!(out, "{}", &month[..3]),
                Some('A') => write!(out, "{day}"),
                Some('a') => write!(out, "{}", &day[..3]),
                Some('F') => write!(out, "{:04}-{:02}-{:02}", self.year, self.month, self.day),
                Some('T') => write!(
                    out,
                    "{:02}:{:02}:{:02}",
                    self.hour, self.minute, self.second
                ),
                Some('%') => write!(out, "%"),
                Some(other) => write!(out, "%{other}"),
                None => write!(out, "%"),
            };
        }
        out
    }
}

/// The function `strftime_now`.
pub(super) fn strftime_now(now: DateTime) -> Jinja {
    Jinja::from_function(move |format: &str| now.format(format))
}

/// Adds all that does not depend on the call.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<Jinja, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message.clone())
                .with_source(Raised(message)))
        },
    );
    // None is not iterable in Python, and templates ask before they count.
    environment.add_test("iterable", |value: &Jinja| {
        matches!(
            value.kind(),
            ValueKind::Undefined
                | ValueKind::String
                | ValueKind::Seq
                | ValueKind::Map
                | ValueKind::Iterable
        )
    });
    environment.add_filter("tojson", tojson);
    environment.add_filter("from_json", from_json);
}

fn from_json(text: &str) -> Result<Jinja, Error> {
    let value: Value = serde_json::from_str(text)
        .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("from_json: {e}")))?;
    Ok(Jinja::from(Serde(value)))
}

/// `json.dumps` as transformers calls it: `ensure_ascii` is off, nothing is escaped for HTML.
fn tojson(value: &Jinja, indent: Option<usize>, options: Kwargs) -> Result<String, Error> {
    let wrong = |what: &str| Error::new(ErrorKind::InvalidOperation, format!("tojson: {what}"));
    let named: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort: Option<bool> = options.get("sort_keys")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    let indent = named.or(indent);
    if indent.is_some_and(|n| n > 32) {
        return Err(wrong("indent is over 32"));
    }
    let (item, key) = match separators.as_deref() {
        None if indent.is_some() => (",", ": "),
        None => (", ", ": "),
        Some([item, key]) => (item.as_str(), key.as_str()),
        Some(_) => return Err(wrong("separators are not two texts")),
    };
    let style = Style {
        item,
        key,
        indent,
        ascii: ascii.unwrap_or(false),
        sort: sort.unwrap_or(false),
    };
    let json = serde_json::to_value(value).map_err(|e| wrong(&e.to_string()))?;
    let mut out = String::new();
    style.write(&json, 0, &mut out);
    Ok(out)
}

struct Style<'a> {
    item: &'a str,
    key: &'a str,
    indent: Option<usize>,
    ascii: bool,
    sort: bool,
}

impl Style<'_> {
    fn write(&self, value: &Value, depth: usize, out: &mut String) {
        match value {
            Value::Null => out.push_str("null"),
            Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Value::Number(n) => out.push_str(&number(n)),
            Value::String(s) => self.string(s, out),
            Value::Array(items) => {
                let write = |item: &Value, out: &mut String| self.write(item, depth + 1, out);
                self.list('[', items.iter(), ']', depth, out, write);
            }
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                if self.sort {
                    entries.sort_by_key(|e| e.0);
                }
                let write = |(key, value): (&String, &Value), out: &mut String| {
                    self.string(key, out);
                    out.push_str(self.key);
                    self.write(value, depth + 1, out);
                };
                self.list('{', entries.into_iter(), '}', depth, out, write);
            }
        }
    }

    fn list<T>(
        &self,
        open: char,
        items: impl ExactSizeIterator<Item = T>,
        close: char,
        depth: usize,
        out: &mut String,
        write: impl Fn(T, &mut String),
    ) {
        let line = |depth: usize, out: &mut String| {
            if let Some(width) = self.indent {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', width * depth));
            }
        };
        let empty = items.len() == 0;
        out.push(open);
        for (i, item) in items.enumerate() {
            if i > 0 {
                out.push_str(self.item);
            }
            line(depth + 1, out);
            write(item, out);
        }
        if !empty {
            line(depth, out);
        }
        out.push(close);
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a String cannot fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// A number as Python writes it: `1.0`, `1e+16`, `1e-05`.
fn number(n: &serde_json::Number) -> String {
    let Some(x) = n.as_f64().filter(|_| n.is_f64()) else {
        return n.to_string();
    };
    let digits = format!("{x:e}");
    let (mantissa, exponent) = digits.split_once('e').unwrap_or((&digits, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let text = x.to_string();
        if text.contains('.') {
            text
        } else {
            text + ".0"
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.abs())
    }
}

/// The template without the `generation` tags, which mark the assistant's text
/// for training and do nothing here.
pub(super) fn drop_generation_tags(source: &str) -> String {
    let mut out = source.to_owned();
    for (name, instead) in [("generation", "if true"), ("endgeneration", "endif")] {
        for open in ["{%", "{%-", "{%+"] {
            for close in ["%}", "-%}", "+%}"] {
                out = out.replace(
                    &format!("{open} {name} {close}"),
                    &format!("{open} {instead} {close}"),
                );
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_python_does() {
        let now = DateTime {
            year: 2026,
            month: 1,
            day: 5,
            hour: 15,
            minute: 4,
            second: 9,
        };
        assert_eq!(now.format("%Y-%m-%d %d %b %Y"), "2026-01-05 05 Jan 2026");
        assert_eq!(
            now.format("%A %a %B %-d %e %I:%M:%S %p %H %y %%"),
            "Monday Mon January 5  5 03:04:09 PM 15 26 %"
        );
    }

    #[test]
    fn numbers_are_written_as_python_does() {
        for (json, python) in [
            ("1", "1"),
            ("1.0", "1.0"),
            ("0.1", "0.1"),
            ("1e16", "1e+16"),
            ("123456789012345.0", "123456789012345.0"),
            ("1e-5", "1e-05"),
            ("0.0001", "0.0001"),
            ("-2.5e-10", "-2.5e-10"),
            ("18446744073709551615", "18446744073709551615"),
        ] {
            let value: Value = serde_json::from_str(json).unwrap();
            let Value::Number(n) = value else {
                panic!("{json} is a number")
            };
            assert_eq!(number(&n), python);
        }
    }
}
