//! Products by cuBLASLt, or by what stands in for it (tests/cuda-host), whose `SHARDLIGHT_CUBLASLT_HOST` makes it an old or a
//! broken one.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::rc::Rc;

use pollster::block_on;
use shardlight::DType;
use shardlight::builtin;
use shardlight::device::Device;
use shardlight::kernels::{Case, KERNELS, Kernel};
use shardlight::recording::Recording;
use shardlight_cli::cuda::tuned::{self, Multiplied};
use shardlight_cli::cuda::{BoundsPolicy, CudaDevice, Kernels};
use shardlight_tests::conformance::{Report, reference, selected, upload};
use shardlight_tests::cuda::{counters, product_counters, there};
use shardlight_tests::program;

use super::{H200, PROMPT};

/// What the library that stands in for cuBLASLt shall do wrong.
const HOST: &str = "SHARDLIGHT_CUBLASLT_HOST";

fn open() -> Result<Rc<dyn Device>, shardlight::Error> {
    let device = CudaDevice::open(0, BoundsPolicy::Check, Kernels::CublasLt)?;
    Ok(Rc::new(device))
}

/// A device with cuBLASLt. Says so if there is none, which may only be with NVIDIA's driver.
fn device() -> Option<Rc<dyn Device>> {
    if !there() {
        return None;
    }
    match open() {
        Ok(device) => Some(device),
        Err(e) => {
            println!("nothing was run: {e}");
            assert!(counters().is_none(), "{e}");
            None
        }
    }
}

/// Cases that cuBLASLt is asked for.
fn cases(kernel: &'static Kernel) -> Vec<(Case, Multiplied)> {
    let all = (kernel.cases)().into_iter();
    let found = all.filter_map(|case| {
        let found = tuned::multiplied(kernel, &case.params, &H200)?;
        Some((case, found))
    });
    found.collect()
}

/// Products queued, algorithms asked for, and objects alive.
fn products() -> [u64; 3] {
    product_counters().unwrap_or_default()
}

#[test]
fn products_by_cublaslt_give_what_the_references_give() {
    let Some(device) = device() else { return };
    let (mut report, mut kernels, mut asked) = (Report::default(), 0, 0);
    let [queued, ..] = products();
    for kernel in selected() {
        let cases = cases(kernel);
        kernels += usize::from(!cases.is_empty());
        for (mut case, found) in cases {
            let want = reference(kernel, &case);
            case.bound = case.bound.max(found.error);
            asked += found.products.len();
            report.add(device.as_ref(), kernel, &case, None, &want);
        }
    }
    let queued = products()[0] - queued;
    println!(
        "cublaslt: {kernels} kernels, {} cases, {asked} products, {queued} by what stands in for it",
        report.cases
    );
    let wanted = asked as u64;
    match env::var(HOST).as_deref() {
        Ok("none") => assert_eq!(queued, 0),
        // Alone.
        Ok(_) => assert_eq!(queued, wanted),
        Err(_) => assert!(product_counters().is_none() || queued >= wanted),
    }
    report.finish();
    drop(device);
}

/// A kernel's case that cuBLASLt is asked for.
fn case_of(name: &str, weights: DType) -> (&'static Kernel, Case) {
    let kernel = KERNELS.iter().copied().find(|k| k.name == name);
    let kernel = kernel.expect("there is one of this name");
    let mut found = cases(kernel).into_iter().map(|(case, _)| case);
    let of = |case: &Case| case.arrays[1].as_ref().is_some_and(|w| w.dtype == weights);
    (kernel, found.find(of).expect("it has such a case"))
}

#[test]
fn activations_beyond_f16_and_far_below_it_are_multiplied() {
    let Some(device) = device() else { return };
    let mut report = Report::default();
    for (name, weights) in [
        ("matmul", DType::F16),
        ("matmul", DType::BF16),
        ("gated_mlp", DType::F16),
    ] {
        let (kernel, case) = case_of(name, weights);
        let found = tuned::multiplied(kernel, &case.params, &H200).expect("it is asked for");
        for scale in [1e-12f32, 1e-3, 1e5, 1e9] {
            let mut case = case.clone();
            let x = case.arrays[0].as_mut().expect("x is bound");
            let tokens = case.params.get("T") as usize;
            let row = x.bytes.len() / tokens;
            // One of them has another size, which must not be the scale of all.
            for (i, value) in x.bytes.chunks_exact_mut(4).enumerate() {
                let scale = if 4 * i / row == 1 { 1.0 } else { scale };
                let old = f32::from_le_bytes(value.try_into().expect("4 bytes"));
                value.copy_from_slice(&(old * scale).to_le_bytes());
            }
            let want = reference(kernel, &case);
            case.bound = case.bound.max(found.error);
            report.add(device.as_ref(), kernel, &case, None, &want);
        }
    }
    report.finish();
}

#[test]
fn a_token_that_is_no_number_leaves_the_others_alone() {
    let Some(device) = device() else { return };
    let (kernel, mut case) = case_of("matmul", DType::F16);
    let x = case.arrays[0].as_mut().expect("x is bound");
    x.bytes[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let y = repeat(device.as_ref(), kernel, &case, 1).remove(0);
    let at = |n: u32, t: u32| (t * case.params.get("NY") + case.params.get("ROW0") + n) as usize;
    for n in 0..case.params.get("N") {
        assert!(!y[at(n, 0)].is_finite(), "row {n} of the token");
        for t in 1..case.params.get("T") {
            assert!(y[at(n, t)].is_finite(), "row {n} of token {t}");
        }
    }
}

/// Runs a case several times; gives y after each.
fn repeat(
    device: &dyn Device,
    kernel: &'static Kernel,
    case: &Case,
    times: usize,
) -> Vec<Vec<f32>> {
    let mut tensors = Vec::new();
    for (binding, array) in kernel.bindings.iter().zip(&case.arrays) {
        let array = array.as_ref();
        tensors.push(array.map(|a| block_on(upload(device, binding, a)).expect("memory")));
    }
    let bound = tensors.iter().map(|t| t.as_ref().map(|(t, _)| t.clone()));
    let mut recording = Recording::new();
    let pushed = recording.push(kernel, case.params.clone(), bound.collect());
    pushed.unwrap_or_else(|e| panic!("{e}"));
    let prepared = block_on(device.prepare(&recording)).unwrap_or_else(|e| panic!("{e}"));
    let y = kernel.bindings.iter().position(|b| b.name == "y");
    let (_, y) = tensors[y.expect("it has y")].as_ref().expect("y is bound");
    let before = counters();
    let run = |_| {
        device.run(&prepared).unwrap_or_else(|e| panic!("{e}"));
        let bytes = block_on(device.read(y, 0, y.bytes())).unwrap_or_else(|e| panic!("{e}"));
        let float = |b: &[u8]| f32::from_le_bytes(b.try_into().expect("4 bytes"));
        bytes.chunks_exact(4).map(float).collect()
    };
    let all: Vec<Vec<f32>> = (0..times).map(run).collect();
    if let (Some(before), Some(after)) = (before, counters()) {
        // Other tests use the same driver: no fewer than ours.
        assert!(
            after[1] - before[1] >= times.saturating_sub(2) as u64,
            "graphs"
        );
    }
    all
}

#[test]
fn a_product_in_a_graph_gives_the_same_bits() {
    let Some(device) = device() else { return };
    for (name, weights) in [("matmul", DType::F16), ("gated_mlp", DType::BF16)] {
        let (kernel, case) = case_of(name, weights);
        let queued = products()[0];
        let bits = |y: Vec<f32>| y.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let all = repeat(device.as_ref(), kernel, &case, 5);
        let all: Vec<_> = all.into_iter().map(bits).collect();
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{name}");
        if product_counters().is_some() {
            assert!(products()[0] > queued, "{name}");
        }
    }
}

/// This program's test `name` alone, with a library that does something wrong.
fn elsewhere(name: &str, wrong: &str) -> Output {
    let mut child = Command::new(env::current_exe().expect("a test is a program"));
    child.args([&format!("products::{name}"), "--exact", "--nocapture"]);
    child.env(HOST, wrong).output().expect("it starts")
}

#[test]
fn without_an_algorithm_our_own_kernels_run() {
    if device().is_none() || product_counters().is_none() {
        return;
    }
    let name = "products_by_cublaslt_give_what_the_references_give";
    for wrong in ["", "none"] {
        let output = elsewhere(name, wrong);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(said.contains("cublaslt: "), "{said}");
    }
}

#[test]
fn a_product_that_fails_is_told() {
    if device().is_none() || product_counters().is_none() {
        return;
    }
    let output = elsewhere("a_product_in_a_graph_gives_the_same_bits", "fail");
    let told = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success());
    let reason = "cublasLtMatmul: the function failed to launch on the GPU; --kernels own goes without cuBLASLt";
    assert!(
        told.contains(reason) || said.contains(reason),
        "{said}{told}"
    );
}

#[test]
fn what_was_made_for_products_is_destroyed() {
    if device().is_none() || product_counters().is_none() {
        return;
    }
    let output = elsewhere("a_device_leaves_nothing_behind", "");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_device_leaves_nothing_behind() {
    // Other tests' devices are counted, too.
    if env::var_os(HOST).is_none() {
        println!("nothing was run: what_was_made_for_products_is_destroyed runs it");
        return;
    }
    let device = device().expect("there is one");
    let (kernel, case) = case_of("matmul", DType::F16);
    repeat(device.as_ref(), kernel, &case, 3);
    assert!(products()[2] > 0);
    drop(device);
    assert_eq!(products()[2], 0);
}

/// `shardlight run` with the libraries of a folder.
fn run(folder: &Path, kernels: &str, wrong: &str) -> Output {
    let mut command = Command::new(program("shardlight"));
    command.args(["run", "-m", builtin::TINY_NAME, "--device", "cuda"]);
    command.args(["--kernels", kernels, "-n", "2", "--json", PROMPT]);
    command.env("LD_LIBRARY_PATH", folder).env(HOST, wrong);
    command.env_remove("SHARDLIGHT_CUBLASLT");
    command.output().expect("it starts")
}

#[test]
fn a_library_that_is_missing_old_or_broken_is_told_and_done_without() {
    if device().is_none() || product_counters().is_none() {
        return;
    }
    let path = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let driver = env::split_paths(&path).find(|f| f.join("libcuda.so.1").is_file());
    let driver = driver.expect("the library that stands in is beside its driver");
    let without = tempfile::tempdir().expect("a folder");
    for name in ["libcuda.so.1", "libnvrtc.so.13"] {
        fs::copy(driver.join(name), without.path().join(name)).expect("it can be copied");
    }
    for (folder, wrong, reason) in [
        (
            without.path(),
            "",
            "no cuBLASLt library (libcublasLt.so.13) found",
        ),
        (
            &driver,
            "old",
            "libcublasLt.so.13 is cuBLASLt 11.11.3, at least 12.0.0 is needed",
        ),
        (
            &driver,
            "refuse",
            "cublasLtCreate: the library was not initialized",
        ),
    ] {
        let output = run(folder, "cublaslt", wrong);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(reason), "{told}");
        assert_eq!(told.trim_end().lines().count(), 1, "{told}");
        let output = run(folder, "tuned", wrong);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        assert_eq!(told.contains(reason), !wrong.is_empty(), "{told}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("tuned without cuBLASLt"), "{said}");
    }
    let output = run(&driver, "tuned", "");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("tuned, cuBLASLt 13.0.2"), "{output:?}");
    let output = run(&driver, "own", "");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && !said.contains("cuBLASLt"),
        "{said}"
    );
}
