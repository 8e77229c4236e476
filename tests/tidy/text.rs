//! What may stand in a file, whatever its language. Words that a rule forbids are put together here from
//! parts, so that this file keeps the rules too.

use crate::{assert_finds, assert_holds, source::File};

/// Findings for every line of the files in `place` on which `bad` says what is wrong.
fn lines(
    files: &[File],
    place: impl Fn(&File) -> bool,
    bad: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| place(file)) {
        for (number, line) in file.text.lines().enumerate() {
            findings.extend(bad(line).map(|what| file.finding(number, &what)));
        }
    }
    findings
}

fn is_lock(file: &File) -> bool {
    file.path.ends_with("Cargo.lock") || file.path.ends_with("package-lock.json")
}

fn is_recorded(file: &File) -> bool {
    file.path.starts_with("tests/data/")
}

fn files_are_short(files: &[File]) -> Vec<String> {
    let written = files
        .iter()
        .filter(|file| !is_lock(file) && !is_recorded(file));
    let long = written.filter(|file| file.text.lines().count() > 800);
    long.map(|file| file.finding(800, "a file has at most 800 lines"))
        .collect()
}

#[test]
fn no_file_is_longer_than_800_lines() {
    assert_holds(files_are_short);
    let (fits, long) = ("x\n".repeat(800), "x\n".repeat(801));
    let sample = [
        ("a.rs", &*fits),
        ("b.rs", &*long),
        ("Cargo.lock", &*long),
        ("tests/data/c.json", &*long),
    ];
    assert_finds(files_are_short, &sample, &["b.rs:801"]);
}

fn names_no_registry(files: &[File]) -> Vec<String> {
    let hosts: &[&[&str]] = &[
        &["index", "crates", "io"],
        &["static", "crates", "io"],
        &["//crates", "io"],
        &["static", "rust-lang", "org"],
        &["registry", "npmjs", "org"],
        &["registry", "yarnpkg", "com"],
        &["cdn", "jsdelivr", "net"],
        &["unpkg", "com"],
        &["pypi", "org"],
        &["pythonhosted", "org"],
        &["huggingface", "co"],
        &["//hf", "co"],
        &["deb", "debian", "org"],
        &["security", "debian", "org"],
        &["snapshot", "debian", "org"],
        &["archive", "ubuntu", "com"],
        &["proxy", "golang", "org"],
    ];
    let hosts: Vec<String> = hosts.iter().map(|parts| parts.join(".")).collect();
    // Cargo writes its registry's name into every lock.
    let mut findings = lines(
        files,
        |file| !file.path.ends_with("Cargo.lock"),
        |line| {
            let host = hosts.iter().find(|host| line.contains(*host))?;
            Some(format!(
                "`{host}`: the machine's settings say which registry is used"
            ))
        },
    );
    findings.extend(lines(
        files,
        |file| file.path.ends_with("package-lock.json"),
        |line| {
            line.contains("\"resolved\"")
                .then(|| "a lock without addresses: npm's omit-lockfile-registry-resolved".into())
        },
    ));
    findings
}

#[test]
fn no_registry_host_is_written_down() {
    assert_holds(names_no_registry);
    let host = ["registry", "npmjs", "org"].join(".");
    let text = format!("x\nsee {host}/left-pad\n");
    let sample = [
        ("README.md", &*text),
        ("Cargo.lock", &*text),
        (
            "www/package-lock.json",
            "{\n  \"resolved\": \"https://mirror.example/x.tgz\"\n",
        ),
    ];
    assert_finds(
        names_no_registry,
        &sample,
        &["README.md:2", "www/package-lock.json:2"],
    );
}

fn no_lint_is_switched_off(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        for (number, attribute) in attributes(&file.code()) {
            let lint = attribute.replace(char::is_whitespace, "");
            let conditional = lint.starts_with("cfg_attr(");
            if lint.starts_with("allow(") || conditional && lint.contains(",allow(") {
                findings.push(file.finding(
                    number,
                    "`#[expect(lint, reason = \"…\")]` instead of `allow`",
                ));
            }
            let expects = lint.starts_with("expect(") || conditional && lint.contains(",expect(");
            if expects && !lint.contains("reason=") {
                findings.push(file.finding(number, "`expect` without a reason"));
            }
        }
    }
    findings.extend(lines(
        files,
        |file| file.path.ends_with("Cargo.toml"),
        |line| {
            line.contains("\"allow\"")
                .then(|| "a lint is switched off".into())
        },
    ));
    findings
}

/// The insides of `#[…]` and `#![…]`, with their line.
fn attributes(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices('#') {
        let rest = code[at + 1..].trim_start_matches('!');
        let Some(inside) = rest.strip_prefix('[') else {
            continue;
        };
        let mut depth = 1;
        let end = inside.find(|c| {
            depth += i32::from(c == '[') - i32::from(c == ']');
            depth == 0
        });
        let line = code[..at].matches('\n').count();
        found.push((line, inside[..end.unwrap_or(inside.len())].trim_start()));
    }
    found
}

#[test]
fn no_lint_is_allowed_and_every_expectation_has_a_reason() {
    assert_holds(no_lint_is_switched_off);
    let text = "#[expect(clippy::x, reason = \"[why]\")]\nfn a() { allow(1) }\n#[ allow (dead_code)]\nfn b() {}\n\
                #![cfg_attr(test, allow(dead_code))]\n#[expect(\n    clippy::y\n)]\n// #[allow(x)]\n\"#[allow(x)]\";";
    let sample = [
        ("a.rs", text),
        (
            "Cargo.toml",
            "[workspace.lints.rust]\ndead_code = \"allow\"",
        ),
    ];
    assert_finds(
        no_lint_is_switched_off,
        &sample,
        &["a.rs:3", "a.rs:5", "a.rs:6", "Cargo.toml:2"],
    );
}

fn nothing_is_left_to_do(files: &[File]) -> Vec<String> {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
    ];
    lines(
        files,
        |file| !is_lock(file) && !is_recorded(file),
        |line| {
            let mut all = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let word = all.find(|word| words.contains(word))?;
            Some(format!(
                "`{word}`: do it, or say in an issue what would end it"
            ))
        },
    )
}

#[test]
fn no_note_says_that_work_is_left() {
    assert_holds(nothing_is_left_to_do);
    let text = format!(
        "// {}: later\n# todo 1\n/* {}(me) */\n",
        concat!("TO", "DO"),
        concat!("FIX", "ME")
    );
    assert_finds(
        nothing_is_left_to_do,
        &[("a.rs", &text)],
        &["a.rs:1", "a.rs:3"],
    );
}

fn every_shader_is_listed(files: &[File]) -> Vec<String> {
    let list = files
        .iter()
        .find(|file| file.path == "shaders/lib.rs")
        .map_or("", |file| &file.text);
    let shaders = files
        .iter()
        .filter(|file| file.path.ends_with(".wgsl") && !is_recorded(file));
    let unlisted = shaders.filter(|file| {
        let included = file
            .path
            .strip_prefix("shaders/")
            .map(|path| format!("wgsl!(\"{path}\")"));
        !included.is_some_and(|included| list.contains(&included))
    });
    unlisted
        .map(|file| file.finding(0, "shaders/lib.rs does not include this shader"))
        .collect()
}

#[test]
fn every_wgsl_file_is_in_the_list() {
    assert_holds(every_shader_is_listed);
    let sample = [
        (
            "shaders/lib.rs",
            "const K: &[Source] = &[(\"a\", wgsl!(\"a.wgsl\")), (\"b\", wgsl!(\"shared/b.wgsl\"))];",
        ),
        ("shaders/a.wgsl", ""),
        ("shaders/shared/b.wgsl", ""),
        ("shaders/b.wgsl", ""),
        ("core/src/c.wgsl", ""),
    ];
    assert_finds(
        every_shader_is_listed,
        &sample,
        &["shaders/b.wgsl:1", "core/src/c.wgsl:1"],
    );
}

fn shaders_enable_nothing(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".wgsl")) {
        for (number, line) in file.code().lines().enumerate() {
            if line
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|word| word == "enable")
            {
                findings.push(file.finding(
                    number,
                    "the host writes `enable` lines: naga and browsers want different ones",
                ));
            }
        }
    }
    findings
}

#[test]
fn no_shader_has_an_enable_line() {
    assert_holds(shaders_enable_nothing);
    let sample = [(
        "shaders/a.wgsl",
        "// enable f16;\nenable f16;\nconst enabled: bool = true;\n",
    )];
    assert_finds(shaders_enable_nothing, &sample, &["shaders/a.wgsl:2"]);
}

fn names_no_machine(files: &[File]) -> Vec<String> {
    let folders = ["work", "tmp", "root", "home", "Users"].map(|name| format!("/{name}/"));
    lines(
        files,
        |file| !is_lock(file),
        |line| {
            let starts_path = |at: usize| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "._-~}/$".contains(c))
            };
            let folder = folders
                .iter()
                .find(|folder| line.match_indices(*folder).any(|(at, _)| starts_path(at)))?;
            Some(format!("a path below `{folder}` is on one machine only"))
        },
    )
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    assert_holds(names_no_machine);
    let text = format!(
        "see {0}work/x\nhttps://a.example/home/b\nsrc/home/c\nin `{0}home/me/x`\n$HOME/tmp/x\n",
        '/'
    );
    assert_finds(
        names_no_machine,
        &[("README.md", &text)],
        &["README.md:1", "README.md:4"],
    );
}
