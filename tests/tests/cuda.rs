//! The CUDA device: every kernel's cases against their references, every text through NVRTC, models.
//!
//! Where there is no NVIDIA GPU, `cargo xtest cuda` puts tests/cuda-host in the driver's place, which runs kernels on the
//! CPU, and names the real NVRTC in `SHARDLIGHT_REAL_NVRTC` for compiling. `SHARDLIGHT_REQUIRE_CUDA=1` makes a missing
//! driver a failure.

use std::env;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{available_parallelism, scope};

use shardlight::device::{Backend, Device};
use shardlight::kernels::KERNELS;
use shardlight_cli::cuda::{BACKEND, BoundsPolicy, CudaDevice};
use shardlight_tests::conformance::{Report, selected};

/// Is there a device?
fn there() -> bool {
    let found = BACKEND.list();
    let wanted = env::var("SHARDLIGHT_REQUIRE_CUDA").is_ok_and(|v| v == "1");
    assert!(!wanted || found.is_ok(), "{found:?}");
    if let Err(e) = &found {
        println!("nothing was run: {e}");
    }
    found.is_ok_and(|devices| !devices.is_empty())
}

fn open() -> Rc<dyn Device> {
    // An index beyond the end is a mistake of the kernel's, which no adapter shows.
    Rc::new(CudaDevice::open(0, BoundsPolicy::Check).unwrap_or_else(|e| panic!("{e}")))
}

#[test]
fn results_match_the_references() {
    if !there() {
        return;
    }
    let threads = available_parallelism().map_or(1, |n| n.get().min(8));
    let next = AtomicUsize::new(0);
    let selected = selected();
    let executed = AtomicUsize::new(0);
    let work = || {
        let mut report = Report::default();
        let mut device = open();
        while let Some(kernel) = selected.get(next.fetch_add(1, Ordering::Relaxed)) {
            let failures = report.failures.len();
            report.add_variants(&mut device, &open, kernel);
            if report.failures.len() == failures {
                executed.fetch_add(1, Ordering::Relaxed);
            }
        }
        report
    };
    let report = scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let reports = (workers.into_iter()).map(|w| w.join().unwrap_or_else(|p| resume_unwind(p)));
        reports.fold(Report::default(), Report::and)
    });
    let executed = executed.into_inner();
    println!("cuda: {} kernels, {executed} executed", KERNELS.len());
    report.finish();
    assert_eq!(executed, selected.len());
}
