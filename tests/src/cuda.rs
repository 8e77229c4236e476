//! CUDA's driver and compiler, as tests need them: with a device, or with what stands in for one.

use std::env;

use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use libloading::Library;
use naga_cuda::{BoundsPolicy, Output};
use shardlight::device::Backend;
use shardlight_cli::cuda::{BACKEND, Compiler};

/// Is there a device? Says so if not.
///
/// # Panics
///
/// When `SHARDLIGHT_REQUIRE_CUDA` is 1 and there is none.
pub fn there() -> bool {
    let found = BACKEND.list();
    let there = found.as_ref().is_ok_and(|devices| !devices.is_empty());
    let wanted = env::var("SHARDLIGHT_REQUIRE_CUDA").is_ok_and(|v| v == "1");
    assert!(there || !wanted, "no CUDA device: {found:?}");
    if !there {
        println!("nothing was run: {found:?}");
    }
    there
}

/// Launches, launches of graphs, allocations, ... of the driver that stands in for NVIDIA's.
pub fn counters() -> Option<[u64; 8]> {
    // SAFETY: the function writes eight numbers; a real driver has none of that name.
    unsafe {
        let driver = Library::new("libcuda.so.1").ok()?;
        let read = driver
            .get::<unsafe extern "C" fn(*mut u64)>(b"shardlight_cuda_host_counters")
            .ok()?;
        let mut out = [0; 8];
        read(out.as_mut_ptr());
        Some(out)
    }
}

/// Groups, messages and bytes sent, of what stands in for NCCL.
pub fn nccl_counters() -> Option<[u64; 3]> {
    // SAFETY: the function writes three numbers; NVIDIA's library has none of that name.
    unsafe {
        let library = Library::new("libnccl.so.2").ok()?;
        let read = library
            .get::<unsafe extern "C" fn(*mut u64)>(b"shardlight_nccl_host_counters")
            .ok()?;
        let mut out = [0; 3];
        read(out.as_mut_ptr());
        Some(out)
    }
}

/// Products queued, algorithms asked for and objects alive, of what stands in for cuBLASLt.
pub fn product_counters() -> Option<[u64; 3]> {
    // SAFETY: the function writes three numbers; NVIDIA's library has none of that name.
    unsafe {
        let library = Library::new("libcublasLt.so.13").ok()?;
        let read = library
            .get::<unsafe extern "C" fn(*mut u64)>(b"shardlight_cublaslt_host_counters")
            .ok()?;
        let mut out = [0; 3];
        read(out.as_mut_ptr());
        Some(out)
    }
}

/// Are there so many devices, for ranks with one each? Says so if not.
///
/// # Panics
///
/// When `SHARDLIGHT_REQUIRE_CUDA` is 1 and the driver is one that stands in for NVIDIA's, which has as many as one likes.
pub fn several(wanted: usize) -> bool {
    if !there() {
        return false;
    }
    let found = BACKEND.list().map_or(0, |devices| devices.len());
    let required = env::var("SHARDLIGHT_REQUIRE_CUDA").is_ok_and(|v| v == "1");
    assert!(
        found >= wanted || !required || counters().is_none(),
        "{found} CUDA devices; set SHARDLIGHT_CUDA_HOST_DEVICES={wanted}"
    );
    if found < wanted {
        println!("nothing was run: {found} CUDA devices, {wanted} are needed");
    }
    found >= wanted
}

/// Runs a kernel with a read-only binding `x`, whose array has `count` elements, and a written one of `words` words.
///
/// # Panics
///
/// With the text when it does not compile or run.
pub fn launch(output: &Output, blocks: u32, x: &[u32], count: u32, words: usize) -> Vec<u32> {
    let context = CudaContext::new(0).expect("a device");
    let capability = context.compute_capability().expect("a capability");
    let compiler = Compiler::new("test", capability, BoundsPolicy::Check);
    let compiler = compiler.unwrap_or_else(|e| panic!("{e}"));
    let code = compiler.compile(&output.source);
    let code = code.unwrap_or_else(|e| panic!("{e}\n{}", output.source));
    let stream = context.default_stream();
    let module = context
        .load_module(Ptx::from_binary(code))
        .expect("the module loads");
    let function = module.load_function(&output.entry).expect("the kernel");
    let input = stream.clone_htod(x).expect("memory");
    let mut result = stream.alloc_zeros::<u32>(words).expect("memory");
    let lengths = [count, words as u32];
    let [bx, by, bz] = output.workgroup_size;
    let config = LaunchConfig {
        grid_dim: (blocks, 1, 1),
        block_dim: (bx, by, bz),
        shared_mem_bytes: 0,
    };
    let mut launch = stream.launch_builder(&function);
    launch
        .arg(&input)
        .arg(&mut result)
        .arg(&lengths[0])
        .arg(&lengths[1]);
    // SAFETY: the kernel's parameters are those of its two bindings, which are as long as it is told.
    unsafe { launch.launch(config) }.expect("the launch");
    let result = stream.clone_dtoh(&result);
    result.unwrap_or_else(|e| panic!("{e}\n{}", output.source))
}
