//! The CUDA device: every kernel's cases against their references, every text through NVRTC, models.
//!
//! Where there is no NVIDIA GPU, `cargo xtest cuda` puts tests/cuda-host in the driver's place, which runs kernels on the
//! CPU, and names the real NVRTC in `SHARDLIGHT_REAL_NVRTC` for compiling. `SHARDLIGHT_REQUIRE_CUDA=1` makes a missing
//! driver a failure.

mod products;

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::process::Command;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{available_parallelism, scope};

use pollster::block_on;
use shardlight::builtin;
use shardlight::comm::{Mesh, Sharding};
use shardlight::device::{Device, DeviceKind, Layout, Limits, register};
use shardlight::kernels::{Case, KERNELS, Kernel};
use shardlight::profile::Profiling;
use shardlight::session::{Event, GenerateOptions, Session, SessionOptions};
use shardlight::weights::{BytesSource, ModelFiles};
use shardlight_cli::cuda::tuned::{self, Gpu, Tuned};
use shardlight_cli::cuda::{BACKEND, BoundsPolicy, Compiler, CudaDevice, Kernels};
use shardlight_tests::conformance::{Report, reference, selected};
use shardlight_tests::cuda::{counters, there};
use shardlight_tests::golden::greedy;
use shardlight_tests::program;

fn open() -> Rc<dyn Device> {
    // An index beyond the end is a mistake of the kernel's, which no adapter shows.
    Rc::new(
        CudaDevice::open(0, BoundsPolicy::Check, Kernels::Generated)
            .unwrap_or_else(|e| panic!("{e}")),
    )
}

/// Calls `work` for each of `items` in as many threads as there are cores; adds up what it gives.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&AtomicUsize) -> R + Sync) -> Vec<R> {
    let threads = available_parallelism()
        .map_or(1, |n| n.get().min(8))
        .min(items.len().max(1));
    let next = AtomicUsize::new(0);
    scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&next))).collect();
        let join =
            |w: std::thread::ScopedJoinHandle<'_, R>| w.join().unwrap_or_else(|p| resume_unwind(p));
        workers.into_iter().map(join).collect()
    })
}

/// Kernels whose every case and variant gives what the reference gives.
fn execute(selected: &[&'static Kernel]) -> usize {
    let parts = in_parallel(selected, |next| {
        let (mut report, mut executed) = (Report::default(), 0);
        let mut device = open();
        while let Some(kernel) = selected.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (cases, failures) = (report.cases, report.failures.len());
            report.add_variants(&mut device, &open, kernel);
            executed += usize::from(report.failures.len() == failures && report.cases > cases);
        }
        (report, executed)
    });
    let executed = parts.iter().map(|(_, n)| n).sum();
    let all = parts.into_iter().map(|(report, _)| report);
    all.fold(Report::default(), Report::and).finish();
    executed
}

fn open_tuned(gpu: &Gpu) -> Rc<dyn Device> {
    let device = CudaDevice::open(0, BoundsPolicy::Check, Kernels::Own);
    let device = device.unwrap_or_else(|e| panic!("{e}"));
    Rc::new(device.with_multiprocessors(gpu.multiprocessors))
}

const H200: Gpu = Gpu {
    capability: (9, 0),
    multiprocessors: 132,
    shared: 227 << 10,
};

/// A GPU that cases fill, as a large one is filled by models.
const SMALL: Gpu = Gpu {
    multiprocessors: 1,
    ..H200
};

/// Cases for which there is a kernel written by hand, each with those for the two GPUs that differ.
fn tuned_cases(kernel: &'static Kernel) -> Vec<(Case, Gpu, Tuned)> {
    let mut found = Vec::new();
    for case in (kernel.cases)() {
        let mut keys = BTreeSet::new();
        for gpu in [H200, SMALL] {
            let tuned = tuned::find(kernel, &case.params, &gpu);
            if let Some(tuned) = tuned.filter(|t| keys.insert(t.key.clone())) {
                found.push((case.clone(), gpu, tuned));
            }
        }
    }
    found
}

/// Runs these cases; gives the number of kernels that have some.
fn execute_tuned(selected: &[&'static Kernel]) -> usize {
    let parts = in_parallel(selected, |next| {
        let (mut report, mut executed) = (Report::default(), 0);
        let mut devices = [H200, SMALL].map(|gpu| (gpu, open_tuned(&gpu)));
        while let Some(kernel) = selected.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (cases, failures) = (report.cases, report.failures.len());
            for (mut case, gpu, tuned) in tuned_cases(kernel) {
                let want = reference(kernel, &case);
                case.bound = case.bound.max(tuned.error);
                let of = |(one, _): &&mut (Gpu, _)| *one == gpu;
                let device = devices.iter_mut().find(of);
                let (_, device) = device.expect("there is one for each");
                if !report.add(device.as_ref(), kernel, &case, None, &want) {
                    *device = open_tuned(&gpu);
                }
            }
            executed += usize::from(report.failures.len() == failures && report.cases > cases);
        }
        (report, executed)
    });
    let executed = parts.iter().map(|(_, n)| n).sum();
    let all = parts.into_iter().map(|(report, _)| report);
    all.fold(Report::default(), Report::and).finish();
    executed
}

/// Of an H200, for the choice of variants.
fn limits() -> Limits {
    Limits {
        kind: DeviceKind::DiscreteGpu,
        layout: Layout::Planar,
        max_binding_bytes: 4 << 30,
        max_workgroup_size: 1024,
        max_workgroup_bytes: 48 << 10,
        max_workgroups: 65535,
        subgroup: Some((32, 32)),
        f16: true,
        packed_dot: true,
    }
}

/// Kernels of which NVRTC makes code: each variant with each set of its switches and each of its formats, not with all pairs
/// of these, since a switch is the same text for any format; sizes are numbers only.
fn compile(selected: &[&'static Kernel]) -> usize {
    // An H200's own code, and PTX, which devices get that NVRTC does not know.
    let compiler = |capability| {
        let compiler = Compiler::new("test", capability, BoundsPolicy::Unchecked);
        compiler.unwrap_or_else(|e| panic!("{e}"))
    };
    let compilers = [compiler((9, 0)), compiler((99, 0))];
    let failures = Mutex::new(Vec::new());
    let counts = in_parallel(selected, |next| {
        let (mut kernels, mut texts) = (0, 0);
        while let Some(kernel) = selected.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (mut seen, mut good) = (BTreeSet::new(), true);
            for case in (kernel.cases)() {
                for variant in (kernel.variants)(&case.params, &limits()) {
                    let spec = kernel.specialization(&case.params, &variant, false);
                    let first = seen.is_empty();
                    let switches = seen.insert(format!("{} with {:?}", variant.name, spec.flags));
                    let formats = seen.insert(format!("{} of {:?}", variant.name, spec.formats));
                    if !switches && !formats {
                        continue;
                    }
                    let wgsl = kernel.wgsl(&case.params, &variant, false);
                    let wgsl = wgsl.expect("it is specialised");
                    // PTX of the first only: what makes it is the first half of what makes code.
                    let wanted = if first { 2 } else { 1 };
                    let made = compilers[0].translate(&wgsl).and_then(|output| {
                        let compilers = compilers.iter().take(wanted);
                        let mut codes = compilers.map(|c| c.compile(&output.source));
                        codes.try_for_each(|code| code.map(|_| ()))
                    });
                    texts += 1;
                    if let Err(e) = made {
                        good = false;
                        let mut failures = failures.lock().expect("no thread panics here");
                        failures.push(format!(
                            "{} {} {}: {e}",
                            kernel.name, variant.name, case.params
                        ));
                    }
                }
            }
            let launches = |(case, _, tuned): (Case, Gpu, Tuned)| {
                let before = tuned.before.clone().map(|tuned| *tuned);
                before
                    .into_iter()
                    .chain([tuned])
                    .map(move |t| (case.params.clone(), t))
            };
            let around = |case: Case| {
                let found = tuned::multiplied(kernel, &case.params, &H200);
                let texts = found.map(|f| [Some(f.before), f.after]);
                let texts = texts.into_iter().flatten().flatten();
                texts.map(move |t| (case.params.clone(), t))
            };
            let tuned = tuned_cases(kernel).into_iter().flat_map(launches);
            let around = (kernel.cases)().into_iter().flat_map(around);
            for (params, tuned) in tuned.chain(around) {
                // Sizes are numbers only.
                let class = |line: &&str| line.starts_with("#define ") && !line.ends_with('u');
                let class: Vec<&str> = tuned.output.source.lines().filter(class).collect();
                if !seen.insert(class.join(" ")) {
                    continue;
                }
                texts += 1;
                if let Err(e) = compilers[0].compile(&tuned.output.source) {
                    good = false;
                    let mut failures = failures.lock().expect("no thread panics here");
                    failures.push(format!("{} {params}: {e}", tuned.output.entry));
                }
            }
            kernels += usize::from(good && !seen.is_empty());
        }
        (kernels, texts)
    });
    let texts: usize = counts.iter().map(|(_, texts)| texts).sum();
    println!("NVRTC: {texts} texts as code of sm_90a, one of each kernel as PTX too");
    let failures = failures.into_inner().expect("no thread panics here");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    counts.iter().map(|(kernels, _)| kernels).sum()
}

const REAL_NVRTC: &str = "SHARDLIGHT_REAL_NVRTC";
const COMPILED: &str = "kernels compiled: ";

/// In a process of its own: NVRTC asks a driver that is there for more than one that stands in for it has.
fn compile_elsewhere(nvrtc: &OsStr) -> usize {
    let mut child = Command::new(env::current_exe().expect("a test is a program"));
    child.args(["nvrtc_makes_code_of_every_kernel", "--exact", "--nocapture"]);
    child
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("SHARDLIGHT_REQUIRE_CUDA");
    child.env_remove(REAL_NVRTC).env("SHARDLIGHT_NVRTC", nvrtc);
    let output = child.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{told}");
    for line in said.lines().filter(|line| line.starts_with("NVRTC: ")) {
        println!("{line}");
    }
    let count = said.lines().find_map(|line| line.strip_prefix(COMPILED));
    count.and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[test]
fn nvrtc_makes_code_of_every_kernel() {
    if env::var_os("SHARDLIGHT_NVRTC").is_none() {
        println!("nothing was compiled: SHARDLIGHT_NVRTC names no library");
        return;
    }
    let selected = selected();
    let compiled = compile(&selected);
    println!("{COMPILED}{compiled}");
    assert_eq!(compiled, selected.len());
}

#[test]
fn every_kernel_compiles_and_executes() {
    if !there() {
        return;
    }
    let selected = selected();
    let executed = execute(&selected);
    // On a real device they were compiled to be executed.
    let compiled = env::var_os(REAL_NVRTC).map_or(executed, |nvrtc| compile_elsewhere(&nvrtc));
    println!(
        "cuda: {} kernels, {compiled} compiled, {executed} executed",
        KERNELS.len()
    );
    assert_eq!((compiled, executed), (selected.len(), selected.len()));
}

#[test]
fn kernels_written_by_hand_give_what_the_references_give() {
    if !there() {
        return;
    }
    let selected = selected();
    let written = selected.iter().filter(|k| !tuned_cases(k).is_empty());
    let written = written.count();
    let executed = execute_tuned(&selected);
    println!("tuned: {written} kernels, {executed} executed");
    assert_eq!(executed, written);
}

fn session(name: &str, devices: &[&str], mesh: Mesh) -> Session {
    register(&BACKEND);
    let (_, bytes) = builtin::MODELS
        .iter()
        .find(|(n, _)| *n == name)
        .expect("it is compiled in");
    let files = block_on(ModelFiles::open(vec![Rc::new(BytesSource::new(
        name, *bytes,
    ))]));
    let sharding = Sharding {
        mesh,
        devices: devices
            .iter()
            .map(|d| d.parse().unwrap_or_else(|e| panic!("{e}")))
            .collect(),
        ..Sharding::default()
    };
    let opened =
        block_on(sharding.open(0, &|| 0.0, &|device| device)).unwrap_or_else(|e| panic!("{e}"));
    let quiet = &mut |_| ControlFlow::Continue(());
    let loaded = Session::load(
        files.unwrap_or_else(|e| panic!("{e}")),
        opened.world,
        SessionOptions::default(),
        quiet,
    );
    block_on(loaded).unwrap_or_else(|e| panic!("{e}"))
}

const PROMPT: &str = "Once upon a time";

fn prompt(session: &Session) -> Vec<u32> {
    let tokenizer = session.tokenizer().expect("the file has a tokenizer");
    tokenizer
        .encode(PROMPT, true, false)
        .unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn models_say_what_they_say_on_the_cpu() {
    if !there() {
        return;
    }
    let mesh = |tp, pp| Mesh {
        tp,
        pp,
        ..Mesh::default()
    };
    for name in [builtin::TINY_NAME, builtin::TINY_MOE_NAME] {
        let mut want = session(name, &["cpu"], mesh(1, 1));
        let prompt = prompt(&want);
        let want = greedy(&mut want, &prompt, 24);
        // One device, ranks that share it, ranks of two backends.
        for (devices, mesh) in [
            (&["cuda"][..], mesh(1, 1)),
            (&["cuda"], mesh(2, 1)),
            (&["cuda", "cpu"], mesh(2, 1)),
            (&["cpu", "cuda"], mesh(1, 2)),
        ] {
            let got = greedy(&mut session(name, devices, mesh), &prompt, 24);
            assert_eq!(got, want, "{name} on {devices:?}, {mesh}");
        }
    }
}

#[test]
fn a_decode_step_replays_a_graph_and_allocates_nothing() {
    if !there() {
        return;
    }
    let mut session = session(builtin::TINY_NAME, &["cuda"], Mesh::default());
    let prompt = prompt(&session);
    // Numbers after each token; other tests use the same driver, so the least of several differences is told.
    let mut seen = Vec::new();
    let options = GenerateOptions {
        max_tokens: 40,
        ..GenerateOptions::default()
    };
    let count = &mut |event: Event<'_>| {
        if matches!(event, Event::Token { .. }) {
            seen.extend(counters());
        }
        ControlFlow::Continue(())
    };
    block_on(session.generate(&prompt, &options, count)).unwrap_or_else(|e| panic!("{e}"));
    if seen.is_empty() {
        println!("nothing was counted: this is NVIDIA's own driver");
        return;
    }
    let least = |i: usize| {
        let differences = seen.windows(2).map(|pair| pair[1][i] - pair[0][i]);
        // The first steps capture the graph.
        differences.skip(3).min().unwrap_or(u64::MAX)
    };
    let (launches, graphs, allocations, waits) = (least(0), least(1), least(2), least(7));
    let layers = session.config().num_hidden_layers as u64;
    println!(
        "a token: {launches} kernels in {graphs} graphs, {allocations} allocations, {waits} waits, {layers} layers"
    );
    assert_eq!((allocations, graphs), (0, 1));
    assert!(launches <= 5 * layers + 5, "{launches} kernels");
}

#[test]
fn calls_are_measured_one_by_one_and_answers_stay_the_same() {
    if !there() {
        return;
    }
    let mut session = session(builtin::TINY_NAME, &["cuda"], Mesh::default());
    let prompt = prompt(&session);
    let mut answer = |spans: Option<usize>| {
        let options = GenerateOptions {
            max_tokens: 8,
            profile: spans.map(|spans| Profiling {
                clock: || 0.0,
                spans,
            }),
            ..GenerateOptions::default()
        };
        session.reset();
        let quiet = &mut |_: Event<'_>| ControlFlow::Continue(());
        block_on(session.generate(&prompt, &options, quiet)).unwrap_or_else(|e| panic!("{e}"))
    };
    // Graphs are there before, and are used again behind.
    let plain = answer(None);
    let mut measured = answer(Some(usize::MAX));
    let profile = measured.profile.take().expect("a profile");
    assert_eq!(measured, plain);
    assert_eq!(answer(None), plain);
    let attention = profile.kernels.iter().filter(|k| k.kernel == "attention");
    let calls: u64 = attention.map(|k| k.calls).sum();
    assert_eq!(calls, 8 * session.config().num_hidden_layers as u64);
    let taken: f64 = profile.kernels.iter().map(|k| k.seconds).sum();
    assert!(
        taken > 0.0 && profile.spans.iter().all(|s| s.seconds >= 0.0),
        "{taken}"
    );
    // The clock stands still here, so each step begins at 0.
    let steps = profile.spans.iter().filter(|s| s.begin == 0.0).count();
    assert_eq!(steps, 1 + 8);
}

#[test]
fn without_a_driver_it_says_so() {
    let run = |device: &str| {
        let mut command = Command::new(program("shardlight"));
        command.args([
            "run",
            "-m",
            builtin::TINY_NAME,
            "--device",
            device,
            "-n",
            "4",
            PROMPT,
        ]);
        command
            .env_remove("LD_LIBRARY_PATH")
            .output()
            .expect("it starts")
    };
    let output = run("cuda");
    let told = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        println!("nothing was tested: this machine has a driver");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("cuda: no NVIDIA driver library (libcuda.so.1) found"),
        "{told}"
    );
    assert!(output.stdout.is_empty());
    let output = run("auto");
    assert!(
        output.status.success() && !output.stdout.is_empty(),
        "{output:?}"
    );
}

#[test]
fn a_driver_without_nvrtc_is_told() {
    let path = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let driver = env::split_paths(&path).map(|f| f.join("libcuda.so.1"));
    let Some(driver) = driver.into_iter().find(|file| file.is_file()) else {
        println!("nothing was tested: LD_LIBRARY_PATH holds no driver");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(&driver, folder.path().join("libcuda.so.1")).expect("it can be copied");
    let run = |device: &str| {
        let mut command = Command::new(program("shardlight"));
        command.args([
            "run",
            "-m",
            builtin::TINY_NAME,
            "--device",
            device,
            "-n",
            "4",
            PROMPT,
        ]);
        command
            .env("LD_LIBRARY_PATH", folder.path())
            .env_remove("SHARDLIGHT_NVRTC");
        command.output().expect("it starts")
    };
    let reason = "cuda: no NVRTC library (libnvrtc.so.13) found";
    let output = run("cuda");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(reason), "{told}");
    // `auto` takes what there is, and says why.
    let output = run("auto");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains(reason), "{told}");
}
