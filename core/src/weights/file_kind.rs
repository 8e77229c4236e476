//! Tells model files, and what is often saved in their place, by the first bytes.

use crate::weights::WeightSource;
use crate::{Error, Result};

/// Bytes [`FileKind::detect`] looks at; it also works with fewer.
pub const HEAD: usize = 512;

/// What a file is, judged by its first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// GGUF, little endian.
    Gguf,
    /// Safetensors: a length, then JSON.
    Safetensors,
    /// Something else, described for an error message.
    Other(String),
}

impl FileKind {
    /// Judges a file of `len` bytes by its first bytes `head` (at most [`HEAD`] are looked at).
    pub fn detect(head: &[u8], len: u64) -> FileKind {
        let head = &head[..head.len().min(HEAD)];
        let other = |what: &str| FileKind::Other(what.into());
        let start = head.trim_ascii_start().to_ascii_lowercase();
        if head.starts_with(b"GGUF") {
            // The magic is the same in big-endian files, the version after it is not.
            return match head.get(4..8) {
                Some([0, 0, _, _]) if head[6..8] != [0, 0] => {
                    other("big-endian GGUF; convert the model again for a little-endian machine")
                }
                _ if len < 24 => FileKind::Other(format!("{len} bytes, not a model")),
                _ => FileKind::Gguf,
            };
        }
        if head.starts_with(b"FUGG") {
            return other("big-endian GGUF; convert the model again for a little-endian machine");
        }
        if head.starts_with(b"version https://git-lfs") {
            let text = String::from_utf8_lossy(head);
            let size = text.lines().find_map(|line| line.strip_prefix("size "));
            let size = size.and_then(|n| n.trim().parse::<u64>().ok());
            let of = size.map_or(String::new(), |n| format!(" to {n} bytes"));
            return FileKind::Other(format!(
                "a Git LFS pointer{of}, not the model itself; run git lfs pull or download the file"
            ));
        }
        if [
            b"<!doctype".as_slice(),
            b"<html",
            b"<head",
            b"<?xml",
            b"<body",
        ]
        .iter()
        .any(|tag| start.starts_with(tag))
        {
            return other(
                "an HTML or XML page, not a model; the download gave a web page, check the address",
            );
        }
        if len < 24 && !start.starts_with(b"{") && !looks_like_safetensors(head) {
            return FileKind::Other(format!("{len} bytes, not a model"));
        }
        if looks_like_safetensors(head) {
            return FileKind::Safetensors;
        }
        for (magic, what) in MAGICS {
            if head.starts_with(magic) {
                return other(what);
            }
        }
        if start.starts_with(b"{") || start.starts_with(b"[") {
            return other("a JSON file, not a model");
        }
        if head.iter().all(|&b| b == 0) {
            return other("starts with zeros, not a model; the download is incomplete");
        }
        let magic: Vec<String> = head.iter().take(4).map(|b| format!("{b:02x}")).collect();
        FileKind::Other(format!(
            "starts with bytes {}, which is neither GGUF nor safetensors",
            magic.join(" ")
        ))
    }

    /// Reads the first bytes of `source` and judges them.
    ///
    /// # Errors
    ///
    /// Those of [`WeightSource::read`].
    pub async fn of(source: &dyn WeightSource) -> Result<FileKind> {
        let mut head = vec![0; source.len().min(HEAD as u64) as usize];
        source.read(0, &mut head).await?;
        Ok(FileKind::detect(&head, source.len()))
    }

    /// [`Error::Format`] unless this is `wanted`.
    pub(crate) fn expect(&self, wanted: &FileKind, file: &str) -> Result<()> {
        if self == wanted {
            return Ok(());
        }
        Err(Error::format(
            file,
            match self {
                FileKind::Gguf => "a GGUF file, expected safetensors",
                FileKind::Safetensors => "a safetensors file, expected GGUF",
                FileKind::Other(what) => what,
            },
        ))
    }
}

/// Other formats by magic number.
const MAGICS: &[(&[u8], &str)] = &[
    (
        b"PK\x03\x04",
        "a ZIP archive (PyTorch checkpoint, wheel or download), not GGUF or safetensors; unpack or convert it",
    ),
    (b"PK\x05\x06", "an empty ZIP archive, not a model"),
    (b"\x1f\x8b", "a gzip archive, not a model; unpack it"),
    (
        b"\x28\xb5\x2f\xfd",
        "a zstd archive, not a model; unpack it",
    ),
    (b"ggml", "an old GGML file; convert it to GGUF"),
    (b"lmgg", "an old GGML file; convert it to GGUF"),
    (b"fmgg", "an old GGML file; convert it to GGUF"),
    (b"tjgg", "an old GGJT file; convert it to GGUF"),
    (b"algg", "an old GGLA adapter; convert it to GGUF"),
    (
        b"\x80\x02",
        "a Python pickle, not GGUF or safetensors; convert it",
    ),
];

fn looks_like_safetensors(head: &[u8]) -> bool {
    match head.first_chunk::<8>() {
        // Header lengths are far below 2^40; 8 bytes of text read as a number are above it.
        Some(n) => u64::from_le_bytes(*n) < 1 << 40 && head.get(8) == Some(&b'{'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(head: &[u8]) -> String {
        match FileKind::detect(head, head.len() as u64) {
            FileKind::Other(what) => what,
            kind => format!("{kind:?}"),
        }
    }

    #[test]
    fn other_files_are_named() {
        assert_eq!(what(b""), "0 bytes, not a model");
        assert_eq!(what(b"GGUF\x03\0\0\0"), "8 bytes, not a model");
        assert_eq!(
            what(b"\n <!DOCTYPE html><html><head>"),
            "an HTML or XML page, not a model; the download gave a web page, check the address"
        );
        assert_eq!(
            what(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 98765\n"),
            "a Git LFS pointer to 98765 bytes, not the model itself; run git lfs pull or download the file"
        );
        assert_eq!(
            what(b"PK\x03\x04aaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
            "a ZIP archive (PyTorch checkpoint, wheel or download), not GGUF or safetensors; unpack or convert it"
        );
        assert_eq!(
            what(b"GGUF\0\0\0\x03aaaaaaaaaaaaaaaaaaaaaaaaaaa"),
            "big-endian GGUF; convert the model again for a little-endian machine"
        );
        assert_eq!(
            what(&[0; 600]),
            "starts with zeros, not a model; the download is incomplete"
        );
        assert_eq!(
            what(b"RIFFaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
            "starts with bytes 52 49 46 46, which is neither GGUF nor safetensors"
        );
        assert_eq!(what(b"\x02\0\0\0\0\0\0\0{}"), "Safetensors");
    }
}
