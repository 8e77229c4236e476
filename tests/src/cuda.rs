//! CUDA's driver and compiler, as tests need them: with a device, or with what stands in for one.

use std::env;
use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::forget;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};

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
    let wanted = env::var("SHARDLIGHT_REQUIRE_CUDA").is_ok_and(|v| v == "1");
    assert!(!wanted || found.is_ok(), "{found:?}");
    if let Err(e) = &found {
        println!("nothing was run: {e}");
    }
    found.is_ok_and(|devices| !devices.is_empty())
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

/// NVIDIA's compiler beside the one that stands in for it.
#[derive(Debug)]
pub struct Nvrtc(Library);

impl Nvrtc {
    /// The library that `SHARDLIGHT_REAL_NVRTC` names.
    ///
    /// # Panics
    ///
    /// When it does not load.
    pub fn open() -> Option<Self> {
        let path = PathBuf::from(env::var_os("SHARDLIGHT_REAL_NVRTC")?);
        let folder = path.parent().expect("a file lies in a folder");
        let load = |path: &Path| {
            // SAFETY: NVIDIA's own libraries.
            let library = unsafe { Library::new(path) };
            library.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        // It looks for this one by its name only.
        forget(load(&folder.join("libnvrtc-builtins.so.13.0")));
        Some(Nvrtc(load(&path)))
    }

    /// Compiles CUDA C++ for an architecture.
    ///
    /// # Errors
    ///
    /// The compiler's log.
    pub fn compile(&self, source: &str, architecture: &str) -> Result<(), String> {
        let source = CString::new(source).map_err(|e| e.to_string())?;
        let architecture = format!("--gpu-architecture={architecture}");
        let architecture = CString::new(architecture).map_err(|e| e.to_string())?;
        let options = [
            architecture.as_ptr(),
            c"--std=c++17".as_ptr(),
            c"-w".as_ptr(),
        ];
        type Create = unsafe extern "C" fn(
            *mut *mut c_void,
            *const c_char,
            *const c_char,
            c_int,
            *const c_void,
            *const c_void,
        ) -> c_int;
        type Compile = unsafe extern "C" fn(*mut c_void, c_int, *const *const c_char) -> c_int;
        type Size = unsafe extern "C" fn(*mut c_void, *mut usize) -> c_int;
        type Log = unsafe extern "C" fn(*mut c_void, *mut c_char) -> c_int;
        type Destroy = unsafe extern "C" fn(*mut *mut c_void) -> c_int;
        // SAFETY: the functions' types are those of NVRTC's documentation; the program is destroyed once.
        unsafe {
            let function = |e: libloading::Error| e.to_string();
            let create = self
                .0
                .get::<Create>(b"nvrtcCreateProgram")
                .map_err(function)?;
            let compile = self
                .0
                .get::<Compile>(b"nvrtcCompileProgram")
                .map_err(function)?;
            let log_size = self
                .0
                .get::<Size>(b"nvrtcGetProgramLogSize")
                .map_err(function)?;
            let log = self.0.get::<Log>(b"nvrtcGetProgramLog").map_err(function)?;
            let destroy = self
                .0
                .get::<Destroy>(b"nvrtcDestroyProgram")
                .map_err(function)?;
            let mut program = null_mut();
            let made = create(
                &mut program,
                source.as_ptr(),
                c"main.cu".as_ptr(),
                0,
                null(),
                null(),
            );
            if made != 0 {
                return Err(format!("nvrtcCreateProgram: {made}"));
            }
            let compiled = compile(program, 3, options.as_ptr());
            let mut size = 0;
            log_size(program, &mut size);
            let mut text = vec![0u8; size];
            log(program, text.as_mut_ptr().cast());
            destroy(&mut program);
            match compiled {
                0 => Ok(()),
                _ => Err(String::from_utf8_lossy(&text).into_owned()),
            }
        }
    }
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
