//! Shape patterns: what `N K`, `2F C` and `... C` say about shapes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Lengths of the axes that patterns have named so far.
#[derive(Clone, Debug, Default)]
pub struct Axes {
    named: BTreeMap<String, usize>,
    lead: Option<Vec<usize>>,
}

impl Axes {
    /// Axes of these lengths.
    pub fn of(axes: &[(&str, usize)]) -> Self {
        Axes {
            named: axes.iter().map(|(n, l)| ((*n).to_owned(), *l)).collect(),
            lead: None,
        }
    }

    /// The shape that a pattern of known axes stands for.
    pub fn shape(&self, pattern: &str) -> Option<Vec<usize>> {
        let len = |axis| match parts(axis) {
            (times, "") => Some(times),
            (times, name) => self.named.get(name)?.checked_mul(times),
        };
        pattern.split_whitespace().map(len).collect()
    }

    /// Length of axis `name`.
    pub fn get(&self, name: &str) -> Option<usize> {
        self.named.get(name).copied()
    }

    /// What `...` stands for.
    pub fn lead(&self) -> &[usize] {
        self.lead.as_deref().unwrap_or(&[])
    }

    /// Takes `shape` for `pattern`: names axes that are not named yet, compares the others.
    ///
    /// # Errors
    ///
    /// What was expected, such as `(2F C) = (256 48)`.
    pub fn bind(&mut self, pattern: &str, shape: &[usize]) -> Result<(), String> {
        let mut bound = self.clone();
        if !bound.fits(pattern, shape) {
            return Err(self.expected(pattern));
        }
        *self = bound;
        Ok(())
    }

    fn fits(&mut self, pattern: &str, shape: &[usize]) -> bool {
        if pattern == "any" {
            return true;
        }
        let mut axes: Vec<&str> = pattern.split_whitespace().collect();
        let mut tail = shape;
        if axes.first() == Some(&"...") {
            axes.remove(0);
            let Some(split) = shape.len().checked_sub(axes.len()) else {
                return false;
            };
            let (lead, rest) = shape.split_at(split);
            tail = rest;
            match &self.lead {
                Some(known) if known != lead => return false,
                Some(_) => {}
                None => self.lead = Some(lead.to_vec()),
            }
        }
        if axes.len() != tail.len() {
            return false;
        }
        for (axis, &len) in axes.iter().zip(tail) {
            let (times, name) = parts(axis);
            let fits = match (name, self.named.get(name)) {
                ("", _) => len == times,
                (_, Some(known)) => known.checked_mul(times) == Some(len),
                (_, None) if times > 0 && len.is_multiple_of(times) => {
                    self.named.insert(name.to_string(), len / times);
                    true
                }
                _ => false,
            };
            if !fits {
                return false;
            }
        }
        true
    }

    /// The pattern, and its numbers as far as they are known.
    fn expected(&self, pattern: &str) -> String {
        let mut known = String::new();
        for axis in pattern.split_whitespace() {
            let space = if known.is_empty() { "" } else { " " };
            let (times, name) = parts(axis);
            let _ = match (axis, self.named.get(name)) {
                ("...", _) => match &self.lead {
                    Some(lead) => {
                        let lens: Vec<String> = lead.iter().map(usize::to_string).collect();
                        write!(known, "{space}{}", lens.join(" "))
                    }
                    None => write!(known, "{space}..."),
                },
                (_, Some(len)) => write!(known, "{space}{}", len.saturating_mul(times)),
                _ => write!(known, "{space}{axis}"),
            };
        }
        if known == pattern {
            format!("({pattern})")
        } else {
            format!("({pattern}) = ({known})")
        }
    }
}

/// `2F` as 2 and `F`; `F` as 1 and `F`; `3` as 3 and nothing.
fn parts(axis: &str) -> (usize, &str) {
    let digits = axis.len() - axis.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    (axis[..digits].parse().unwrap_or(1), &axis[digits..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_axes_and_compare_them() {
        let mut axes = Axes::default();
        assert_eq!(axes.bind("... C", &[3, 5, 48]), Ok(()));
        assert_eq!(axes.lead(), [3, 5]);
        assert_eq!(axes.bind("2F C", &[256, 48]), Ok(()));
        assert_eq!(axes.get("F"), Some(128));
        assert_eq!(axes.bind("2F", &[256]), Ok(()));
        assert_eq!(axes.bind("2F", &[255]), Err("(2F) = (256)".into()));
        assert_eq!(axes.bind("D C", &[7, 47]), Err("(D C) = (D 48)".into()));
        assert_eq!(
            axes.bind("... C", &[5, 48]),
            Err("(... C) = (3 5 48)".into())
        );
        assert_eq!(axes.bind("2G", &[7]), Err("(2G)".into()));
        assert_eq!(axes.bind("4", &[4]), Ok(()));
        assert_eq!(axes.bind("any", &[]), Ok(()));
    }
}
