//! Rules about the source itself, from `ARCHITECTURE.md` and `CONTRIBUTING.md`. Each is a function over files,
//! run on the repository and on a sample that breaks it.

mod imports;
mod source;
mod text;

use source::File;

/// Fails with every finding of a rule in this repository.
fn assert_holds(rule: fn(&[File]) -> Vec<String>) {
    let files = source::repository();
    assert!(files.len() > 20, "git lists only {} files", files.len());
    let findings = rule(&files);
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

/// Fails unless the rule finds exactly these lines (`path:line`) in a sample.
fn assert_finds(rule: fn(&[File]) -> Vec<String>, sample: &[(&str, &str)], places: &[&str]) {
    let file = |&(path, text): &(&str, &str)| File {
        path: path.into(),
        text: text.into(),
    };
    let files: Vec<File> = sample.iter().map(file).collect();
    let findings = rule(&files);
    let found: Vec<&str> = findings
        .iter()
        .map(|finding| finding.split(": ").next().unwrap_or(finding))
        .collect();
    assert_eq!(found, places, "{findings:?}");
}
