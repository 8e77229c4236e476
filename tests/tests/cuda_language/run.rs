//! One shader with an input `x` and an output `y` of 32-bit words.

use std::ffi::CString;
use std::{env, ptr};

use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::{Ptx, sys};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga_cuda::{BoundsPolicy, Options};

/// Is there a driver to run on?
pub fn driver() -> bool {
    // SAFETY: they only look for the libraries.
    let there = unsafe { cudarc::driver::sys::is_culib_present() && sys::is_culib_present() };
    let wanted = env::var("SHARDLIGHT_REQUIRE_CUDA").is_ok_and(|v| v == "1");
    assert!(there || !wanted, "no CUDA driver and NVRTC");
    if !there {
        println!("no CUDA driver and NVRTC: nothing was run");
    }
    there
}

/// A shader: declarations, and the body of an entry point with `lane` and bindings `x` and `y`.
pub struct Shader<'a> {
    pub declarations: &'a str,
    pub threads: u32,
    pub blocks: u32,
    pub body: &'a str,
    pub bounds: BoundsPolicy,
}

impl<'a> Shader<'a> {
    pub fn new(body: &'a str) -> Self {
        Shader {
            declarations: "",
            threads: 1,
            blocks: 1,
            body,
            bounds: BoundsPolicy::Check,
        }
    }

    pub fn with(self, declarations: &'a str) -> Self {
        Shader {
            declarations,
            ..self
        }
    }

    pub fn threads(self, threads: u32) -> Self {
        Shader { threads, ..self }
    }

    /// The output of `words` words for this input.
    pub fn run(&self, x: &[u32], words: usize) -> Vec<u32> {
        let Shader {
            declarations,
            threads,
            body,
            ..
        } = self;
        let (extensions, declarations) = match declarations.split_once("---") {
            Some((extensions, rest)) => (extensions, rest),
            None => ("", *declarations),
        };
        let wgsl = format!(
            "{extensions}
            @group(0) @binding(0) var<storage, read> x: array<u32>;
            @group(0) @binding(1) var<storage, read_write> y: array<u32>;
            {declarations}
            @compute @workgroup_size({threads}) fn main(
                @builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) group: vec3<u32>,
                @builtin(subgroup_invocation_id) sub_lane: u32, @builtin(subgroup_id) sub: u32,
            ) {{ {body} }}"
        );
        self.run_text(&wgsl, x, x.len() as u32, words)
    }

    /// The output of a whole text, whose `x` ends in `count` elements.
    pub fn run_text(&self, wgsl: &str, x: &[u32], count: u32, words: usize) -> Vec<u32> {
        let module = naga::front::wgsl::parse_str(wgsl)
            .unwrap_or_else(|e| panic!("{}", e.emit_to_string(wgsl)));
        let info = Validator::new(ValidationFlags::all(), Capabilities::all())
            .validate(&module)
            .unwrap_or_else(|e| panic!("{}", e.emit_to_string(wgsl)));
        let options = Options {
            bounds: self.bounds,
            ..Options::new("main")
        };
        let output = naga_cuda::write(&module, &info, &options).unwrap_or_else(|e| panic!("{e}"));
        let cubin = compile(&output.source);
        let context = CudaContext::new(0).expect("a device");
        let stream = context.default_stream();
        let module = context
            .load_module(Ptx::from_binary(cubin))
            .expect("the module loads");
        let function = module.load_function(&output.entry).expect("the kernel");
        let input = stream.clone_htod(x).expect("memory");
        let mut result = stream.alloc_zeros::<u32>(words).expect("memory");
        let lengths = [count, words as u32];
        let config = LaunchConfig {
            grid_dim: (self.blocks, 1, 1),
            block_dim: (self.threads, 1, 1),
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
        stream
            .clone_dtoh(&result)
            .unwrap_or_else(|e| panic!("{e}\n{}", output.source))
    }
}

fn compile(source: &str) -> Vec<u8> {
    let text = CString::new(source).expect("no zeros");
    let context = CudaContext::new(0).expect("a device");
    let (major, minor) = context.compute_capability().expect("a capability");
    let options = [
        format!("--gpu-architecture=sm_{major}{minor}"),
        "--std=c++17".to_string(),
    ];
    let options: Vec<CString> = options
        .iter()
        .map(|o| CString::new(o.as_str()).expect("no zeros"))
        .collect();
    let options: Vec<_> = options.iter().map(|o| o.as_ptr()).collect();
    let mut program = ptr::null_mut();
    // SAFETY: as NVRTC's documentation has it: create, compile, read the log or the code, destroy.
    unsafe {
        let made = sys::nvrtcCreateProgram(
            &mut program,
            text.as_ptr(),
            c"main.cu".as_ptr(),
            0,
            ptr::null(),
            ptr::null(),
        );
        assert_eq!(made, sys::nvrtcResult::NVRTC_SUCCESS);
        let compiled = sys::nvrtcCompileProgram(program, options.len() as i32, options.as_ptr());
        let (mut size, mut bytes) = (0, Vec::new());
        if compiled != sys::nvrtcResult::NVRTC_SUCCESS {
            sys::nvrtcGetProgramLogSize(program, &mut size);
            bytes.resize(size, 0u8);
            sys::nvrtcGetProgramLog(program, bytes.as_mut_ptr().cast());
            panic!("{}\n{source}", String::from_utf8_lossy(&bytes));
        }
        sys::nvrtcGetCUBINSize(program, &mut size);
        bytes.resize(size, 0u8);
        sys::nvrtcGetCUBIN(program, bytes.as_mut_ptr().cast());
        sys::nvrtcDestroyProgram(&mut program);
        bytes
    }
}

/// The bits of floats.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The bits of integers.
pub fn words(values: &[i32]) -> Vec<u32> {
    values.iter().map(|v| *v as u32).collect()
}

/// Floats from their bits.
pub fn floats(words: &[u32]) -> Vec<f32> {
    words.iter().map(|w| f32::from_bits(*w)).collect()
}
