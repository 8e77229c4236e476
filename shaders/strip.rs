//! Takes comments, indentation and empty lines out of a WGSL text, while Rust compiles.

/// Bytes that are left of `text`.
pub const fn length(text: &str) -> usize {
    run(text.as_bytes(), &mut [])
}

/// What is left of `text`; `N` is its [`length`].
pub const fn strip<const N: usize>(text: &str) -> [u8; N] {
    let mut short = [0; N];
    assert!(run(text.as_bytes(), &mut short) == N);
    short
}

/// Writes what is left of `text` to `out` where that has room, and gives its length. WGSL has no strings, and our files no
/// comments of the kind that `/*` begins.
const fn run(text: &[u8], out: &mut [u8]) -> usize {
    let (mut at, mut length) = (0, 0);
    while at < text.len() {
        while at < text.len() && text[at] == b' ' {
            at += 1;
        }
        // From the first to the last character that is neither space nor comment.
        let (start, mut end) = (at, at);
        while at < text.len() && text[at] != b'\n' {
            if text[at] == b'/' && at + 1 < text.len() && text[at + 1] == b'/' {
                while at < text.len() && text[at] != b'\n' {
                    at += 1;
                }
                break;
            }
            at += 1;
            if text[at - 1] != b' ' {
                end = at;
            }
        }
        at += 1;
        if start == end {
            continue;
        }
        let mut from = start;
        while from <= end {
            if length < out.len() {
                out[length] = if from < end { text[from] } else { b'\n' };
            }
            length += 1;
            from += 1;
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_indentation_and_empty_lines_go_and_nothing_else() {
        const TEXT: &str = "// µ: a header\n\nfn f() {  // why\n    let a = b / c;\n#if X\n  \n}//";
        const SHORT: [u8; length(TEXT)] = strip(TEXT);
        assert_eq!(
            str::from_utf8(&SHORT),
            Ok("fn f() {\nlet a = b / c;\n#if X\n}\n")
        );
        for (name, text) in crate::KERNELS.iter().chain(crate::SHARED) {
            assert!(!text.contains("/*"), "{name}");
            let lines = text
                .lines()
                .map(|l| l.split("//").next().unwrap_or(l).trim());
            let expected: String = lines
                .filter(|l| !l.is_empty())
                .flat_map(|l| [l, "\n"])
                .collect();
            let mut short = vec![0; length(text)];
            run(text.as_bytes(), &mut short);
            assert_eq!(str::from_utf8(&short), Ok(&*expected), "{name}");
        }
    }
}
