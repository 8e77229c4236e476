//! The repository's files, and just enough of a lexer to read Rust without its comments and strings.

use std::{path::Path, process::Command};

/// A text file of the repository.
pub struct File {
    /// From the repository's root, with forward slashes.
    pub path: String,
    /// As it lies on disk.
    pub text: String,
}

/// Every text file that is committed or about to be: git knows which are ignored.
pub fn repository() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let list = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(&root)
        .output()
        .expect("git must be installed: it lists the repository's files");
    assert!(
        list.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&list.stderr)
    );
    let paths = String::from_utf8(list.stdout).expect("file names are UTF-8");
    let paths = paths.split('\0').filter(|path| !path.is_empty());
    // A deleted file is still listed until the deletion is committed; binary files have no lines to check.
    let files = paths.filter_map(|path| {
        let text = std::fs::read_to_string(root.join(path)).ok()?;
        Some(File {
            path: path.to_owned(),
            text,
        })
    });
    files.collect()
}

impl File {
    /// Whether this is Rust source below a folder ("core/src/").
    pub fn is_rust_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder) && self.path.ends_with(".rs")
    }

    /// The text with comments and the insides of strings blanked; lines keep their numbers.
    /// It understands Rust, and WGSL, which has no strings.
    pub fn code(&self) -> String {
        blank_comments_and_strings(&self.text)
    }

    /// What a rule says about a line (counted from 0) of this file.
    pub fn finding(&self, line: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.path, line + 1)
    }

    /// Crates that a Cargo.toml depends on, with their line; `dev` ones only if asked for.
    pub fn dependencies(&self, dev: bool) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let mut in_section = false;
        for (number, line) in self.text.lines().enumerate() {
            let line = line.trim();
            if let Some(section) = line.strip_prefix('[') {
                let section = section.trim_end_matches(']');
                let wanted = dev || !section.contains("dev-dependencies");
                in_section = wanted && section.ends_with("dependencies");
                // [dependencies.name]
                if wanted && let Some((_, name)) = section.split_once("dependencies.") {
                    found.push((number, name.to_owned()));
                }
            } else if in_section && !line.starts_with('#') && line.contains('=') {
                let end = line.find(['.', '=', ' ']).unwrap_or(line.len());
                found.push((number, line[..end].trim_matches('"').to_owned()));
            }
        }
        found
    }

    /// Every path of Rust source, `use` groups written out, with its line: `std::fs::File`.
    pub fn paths(&self) -> Vec<(usize, String)> {
        let code = self.code();
        let tokens = tokens(&code);
        let mut found = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let imports = at > 0 && matches!(tokens[at - 1].1, "use" | "crate");
            let (next, paths) = read_path(&tokens, at, "");
            if next > at {
                // One name alone is a variable or a type, unless it is imported.
                found.extend(
                    paths
                        .into_iter()
                        .filter(|(_, path)| imports || path.contains("::")),
                );
            }
            at = next.max(at + 1);
        }
        found
    }
}

type Token<'a> = (usize, &'a str);

fn tokens(code: &str) -> Vec<Token<'_>> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if word(first) {
                rest.find(|c| !word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            found.push((number, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    found
}

/// Reads one path that starts at a token, and every path of the group it may end in.
/// Returns where the next token is, and the paths behind `prefix`.
fn read_path(tokens: &[Token<'_>], start: usize, prefix: &str) -> (usize, Vec<(usize, String)>) {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.1);
    let is_word = |at: usize| text(at).starts_with(|c: char| c.is_alphabetic() || c == '_');
    let mut at = start;
    let mut path = prefix.to_owned();
    loop {
        if text(at) == "{" && (path.ends_with("::") || !prefix.is_empty()) {
            let mut found = Vec::new();
            at += 1;
            while at < tokens.len() && text(at) != "}" {
                let (next, paths) = read_path(tokens, at, &path);
                found.extend(paths);
                at = next.max(at + 1);
            }
            return (at + 1, found);
        }
        if !is_word(at) {
            break;
        }
        path.push_str(text(at));
        at += 1;
        if text(at) != "::" {
            break;
        }
        path.push_str("::");
        at += 1;
    }
    if text(at) == "as" && is_word(at + 1) {
        at += 2;
    }
    let line = tokens.get(start).map_or(0, |token| token.0);
    let found = if path == prefix {
        Vec::new()
    } else {
        vec![(line, path)]
    };
    (at, found)
}

fn blank_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let starts = |at: usize, what: &str| {
        what.chars()
            .enumerate()
            .all(|(i, c)| chars.get(at + i) == Some(&c))
    };
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let after_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        let end = if starts(at, "//") {
            (at..chars.len())
                .find(|&i| chars[i] == '\n')
                .unwrap_or(chars.len())
        } else if starts(at, "/*") {
            end_of_block_comment(&chars, at)
        } else if chars[at] == '"' {
            end_of_string(&chars, at)
        } else if chars[at] == 'r' && !after_word
            || chars[at] == 'r' && at > 0 && chars[at - 1] == 'b'
        {
            end_of_raw_string(&chars, at)
        } else if chars[at] == '\'' {
            end_of_char(&chars, at)
        } else {
            at
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        // Newlines stay for the line numbers, quotes so that `include_str!("")` still reads as a call.
        out.extend(
            chars[at..end]
                .iter()
                .map(|&c| if c == '\n' || c == '"' { c } else { ' ' }),
        );
        at = end;
    }
    out
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// `start` itself if no raw string starts there.
fn end_of_raw_string(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return start;
    }
    let closes = |at: usize| {
        chars[at] == '"'
            && chars[at + 1..]
                .iter()
                .take(hashes)
                .filter(|&&c| c == '#')
                .count()
                == hashes
    };
    (open + 1..chars.len())
        .find(|&at| closes(at))
        .map_or(chars.len(), |at| at + 1 + hashes)
}

/// `start` itself if this is a lifetime.
fn end_of_char(chars: &[char], start: usize) -> usize {
    if chars.get(start + 1) == Some(&'\\') {
        let close = (start + 3..chars.len()).find(|&i| chars[i] == '\'');
        return close.map_or(chars.len(), |at| at + 1);
    }
    if chars.get(start + 2) == Some(&'\'') {
        start + 3
    } else {
        start
    }
}

#[cfg(test)]
mod tests {
    use super::File;

    fn rust(text: &str) -> File {
        File {
            path: "x.rs".into(),
            text: text.into(),
        }
    }

    #[test]
    fn comments_and_strings_are_blanked_and_code_is_kept() {
        let text = "a /* b /* c */ d */ e // f\n\"g\\\"h\" i r#\"j\"k\"# l 'm' '\\'' n<'o> for";
        let code = rust(text).code();
        let words: Vec<&str> = code
            .split([' ', '"', '\n', '<', '>', '\''])
            .filter(|word| !word.is_empty())
            .collect();
        assert_eq!(words, ["a", "e", "i", "l", "n", "o", "for"]);
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn paths_are_written_out_of_groups() {
        let file = rust(
            "use std::{\n    fs::{self, File}, sync::Arc as A};\nlet x = y.std + ::a::b(c);\nuse wgpu;\nmod wgpu;",
        );
        let paths: Vec<String> = file
            .paths()
            .into_iter()
            .map(|(line, path)| format!("{line} {path}"))
            .collect();
        assert_eq!(
            paths,
            [
                "1 std::fs::self",
                "1 std::fs::File",
                "1 std::sync::Arc",
                "2 a::b",
                "3 wgpu"
            ]
        );
    }

    #[test]
    fn dependencies_are_read_in_every_form() {
        let text = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\n# b = \"1\"\nc = { path = \"c\" }\n\
                    [target.'cfg(unix)'.dependencies]\nd = \"1\"\n[dev-dependencies]\ne = \"1\"\n[dependencies.f]\nversion = \"1\"\n";
        let file = File {
            path: "Cargo.toml".into(),
            text: text.into(),
        };
        let names = |dev| {
            file.dependencies(dev)
                .into_iter()
                .map(|(_, name)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["a", "c", "d", "f"]);
        assert_eq!(names(true), ["a", "c", "d", "e", "f"]);
    }
}
