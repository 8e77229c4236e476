//! Every kernel's cases, in every variant, on every device there is, against the kernel's f64
//! reference.
//!
//! `SHARDLIGHT_KERNEL=name` runs one kernel only. `SHARDLIGHT_REQUIRE_VULKAN=1` makes a missing
//! Vulkan adapter a failure.

use std::env;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{available_parallelism, scope};

use pollster::block_on;
use shardlight::device::Device;
use shardlight::device::cpu::CpuDevice;
use shardlight::device::wgpu::adapters;
use shardlight::kernels::HostArray;
use shardlight_tests::conformance::{GUARD, MARK, Report, compare, reference, selected};

#[test]
fn cpu_results_match_the_references() {
    let mut report = Report::default();
    let device = CpuDevice::new();
    for kernel in selected() {
        for case in (kernel.cases)() {
            let want = reference(kernel, &case);
            report.add(&device, kernel, &case, None, &want);
        }
    }
    report.finish();
}

#[test]
fn gpu_results_match_the_references() {
    let found: Vec<_> = block_on(adapters()).into_iter().map(|a| a.info).collect();
    if env::var("SHARDLIGHT_REQUIRE_VULKAN").is_ok_and(|v| v == "1") {
        let vulkan = found.iter().any(|info| info.backend == "vulkan");
        assert!(vulkan, "no Vulkan adapter among {found:?}");
    }
    if found.is_empty() {
        println!("no GPU adapter: nothing was run");
    }
    for index in 0..found.len() {
        // Most of the time goes into the driver's compiler, which works in the calling thread.
        let threads = available_parallelism().map_or(1, |n| n.get().min(8));
        let next = AtomicUsize::new(0);
        let selected = selected();
        let work = || {
            let mut report = Report::default();
            let again = || open(index);
            let mut device = again();
            while let Some(kernel) = selected.get(next.fetch_add(1, Ordering::Relaxed)) {
                report.add_variants(&mut device, &again, kernel);
            }
            report
        };
        let report = scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let reports =
                (workers.into_iter()).map(|w| w.join().unwrap_or_else(|p| resume_unwind(p)));
            reports.fold(Report::default(), Report::and)
        });
        report.finish();
    }
}

fn open(index: usize) -> Rc<dyn Device> {
    let adapter = block_on(adapters()).into_iter().nth(index);
    let device = block_on(adapter.expect("adapters do not disappear").open());
    Rc::new(device.expect("the adapter opens"))
}

#[test]
fn a_wrong_element_is_told_with_its_place() {
    let array = HostArray::zeros(&[2, 3]);
    let mut values = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let want: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
    let bytes = |values: &[f32]| -> Vec<u8> {
        let words = values.iter().flat_map(|v| v.to_le_bytes());
        words.chain([MARK; GUARD]).collect()
    };
    assert_eq!(compare(&array, &bytes(&values), &want, 1e-9), Ok(()));
    values[4] = 0.0;
    let told = compare(&array, &bytes(&values), &want, 1e-9).unwrap_err();
    assert_eq!(told, "NMSE 2.7e-1 > 1e-9; first at [1, 1]: want 5, got 0");
    values[4] = f32::NAN;
    assert!(compare(&array, &bytes(&values), &want, 1e-9).is_err());
    values[4] = 5.0;
    let mut spilled = bytes(&values);
    spilled[24] = 0;
    let told = compare(&array, &spilled, &want, 1e-9).unwrap_err();
    assert_eq!(told, "byte 0 beyond the end was written");
}
