//! From WGSL to code of the device: naga, `naga-cuda`, NVRTC, and a cache of what it made.

use std::ffi::{CStr, CString};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, ptr};

use cudarc::nvrtc::sys::{self, nvrtcProgram, nvrtcResult};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga_cuda::{BoundsPolicy, Options, Output};
use sha2::{Digest, Sha256};
use shardlight::Result;

use super::unusable;
use crate::models::Cache;

/// Where the library is named if it does not lie where libraries do.
const NVRTC: &str = "SHARDLIGHT_NVRTC";

/// NVRTC for one kind of device.
#[derive(Debug)]
pub struct Compiler {
    bounds: BoundsPolicy,
    /// `--gpu-architecture=…`
    architecture: String,
    /// What the code depends on beside its text: device, NVRTC's version.
    made_for: String,
    /// Where code is kept; `None` if it cannot be.
    folder: Option<PathBuf>,
}

/// What NVRTC made of a text.
#[derive(Debug)]
pub struct Code {
    /// A cubin, or PTX that ends in a zero.
    pub image: Vec<u8>,
    /// Was it in the cache?
    pub cached: bool,
}

impl Compiler {
    /// For a device of this name and compute capability.
    ///
    /// # Errors
    ///
    /// [`shardlight::Error::Device`] when there is no NVRTC.
    pub fn new(device: &str, capability: (i32, i32), bounds: BoundsPolicy) -> Result<Self> {
        find_library()?;
        let mut version = (0, 0);
        // SAFETY: writes two integers.
        let asked = unsafe { sys::nvrtcVersion(&mut version.0, &mut version.1) };
        check(asked, "its version")?;
        Ok(Compiler {
            bounds,
            architecture: architecture(capability, &architectures()?),
            made_for: format!("{device}, NVRTC {}.{}", version.0, version.1),
            folder: Cache::open().ok().map(|cache| cache.cuda()),
        })
    }

    /// The CUDA C++ of a kernel's WGSL.
    ///
    /// # Errors
    ///
    /// What is wrong with it, which is a mistake of ours.
    pub fn translate(&self, wgsl: &str) -> std::result::Result<Output, String> {
        let module = naga::front::wgsl::parse_str(wgsl).map_err(|e| e.emit_to_string(wgsl))?;
        let info = Validator::new(ValidationFlags::all(), Capabilities::all())
            .validate(&module)
            .map_err(|e| e.emit_to_string(wgsl))?;
        let options = Options {
            bounds: self.bounds,
            ..Options::new("main")
        };
        naga_cuda::write(&module, &info, &options).map_err(|e| e.to_string())
    }

    /// The code of a text, from the cache if it is there.
    ///
    /// # Errors
    ///
    /// The compiler's first words.
    pub fn code(&self, source: &str) -> std::result::Result<Code, String> {
        let kept = self.folder.as_ref().map(|f| f.join(self.key(source)));
        if let Some(image) = kept.as_deref().and_then(read) {
            return Ok(Code {
                image,
                cached: true,
            });
        }
        let image = self.compile(source)?;
        if let Some(path) = &kept {
            // A folder that cannot be written only costs compiling again.
            let _ = keep(path, &image);
        }
        Ok(Code {
            image,
            cached: false,
        })
    }

    /// Forgets the code of a text: it was damaged.
    pub fn forget(&self, source: &str) {
        if let Some(folder) = &self.folder {
            let _ = fs::remove_file(folder.join(self.key(source)));
        }
    }

    fn key(&self, source: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{} {}\n", self.made_for, self.architecture));
        hash.update(source);
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Compiles without looking into the cache.
    ///
    /// # Errors
    ///
    /// The compiler's first words.
    pub fn compile(&self, source: &str) -> std::result::Result<Vec<u8>, String> {
        let text = CString::new(source).map_err(|e| e.to_string())?;
        let architecture = CString::new(self.architecture.as_str()).map_err(|e| e.to_string())?;
        let options = [
            architecture.as_ptr(),
            c"--std=c++17".as_ptr(),
            c"-w".as_ptr(),
        ];
        let mut program = Program(ptr::null_mut());
        let nothing = ptr::null();
        // SAFETY: all texts end in zeros and live as long as the call.
        let made = unsafe {
            let name = c"main.cu".as_ptr();
            sys::nvrtcCreateProgram(&mut program.0, text.as_ptr(), name, 0, nothing, nothing)
        };
        said(made)?;
        // SAFETY: the program was made above.
        let compiled =
            unsafe { sys::nvrtcCompileProgram(program.0, options.len() as i32, options.as_ptr()) };
        if said(compiled).is_err() {
            let log = program.bytes(sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog)?;
            let log = String::from_utf8_lossy(&log);
            let first: Vec<&str> = log
                .lines()
                .filter(|l| !l.trim().is_empty())
                .take(6)
                .collect();
            return Err(first.join(" "));
        }
        match self.architecture.contains("=sm_") {
            true => program.bytes(sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN),
            false => program.bytes(sys::nvrtcGetPTXSize, sys::nvrtcGetPTX),
        }
    }
}

/// Destroys what NVRTC made.
struct Program(nvrtcProgram);

impl Program {
    fn bytes(
        &self,
        size: unsafe fn(nvrtcProgram, *mut usize) -> nvrtcResult,
        get: unsafe fn(nvrtcProgram, *mut std::ffi::c_char) -> nvrtcResult,
    ) -> std::result::Result<Vec<u8>, String> {
        let mut length = 0;
        // SAFETY: the program lives; it writes one number.
        said(unsafe { size(self.0, &mut length) })?;
        let mut bytes = vec![0u8; length];
        // SAFETY: as many bytes are written as it said before.
        said(unsafe { get(self.0, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made by nvrtcCreateProgram, destroyed once.
            unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
        }
    }
}

fn said(result: nvrtcResult) -> std::result::Result<(), String> {
    match result {
        nvrtcResult::NVRTC_SUCCESS => Ok(()),
        other => {
            // SAFETY: gives a text that lives for ever.
            let text = unsafe { CStr::from_ptr(sys::nvrtcGetErrorString(other)) };
            Err(format!("NVRTC: {}", text.to_string_lossy()))
        }
    }
}

fn check(result: nvrtcResult, what: &str) -> Result<()> {
    said(result).map_err(|e| unusable(format!("{e} when asked for {what}")))
}

/// Capabilities that NVRTC compiles for, `90` for 9.0.
fn architectures() -> Result<Vec<i32>> {
    let mut count = 0;
    // SAFETY: writes one number.
    let asked = unsafe { sys::nvrtcGetNumSupportedArchs(&mut count) };
    check(asked, "the number of its architectures")?;
    let mut all = vec![0; count.max(0) as usize];
    // SAFETY: writes as many numbers as it said before.
    let asked = unsafe { sys::nvrtcGetSupportedArchs(all.as_mut_ptr()) };
    check(asked, "its architectures")?;
    Ok(all)
}

/// Code of the device itself; for one that NVRTC does not know, PTX of the newest that it does.
fn architecture((major, minor): (i32, i32), known: &[i32]) -> String {
    let wanted = major * 10 + minor;
    // wgmma and its like are only in the `a` variant.
    let variant = if wanted == 90 { "a" } else { "" };
    if known.contains(&wanted) {
        return format!("--gpu-architecture=sm_{wanted}{variant}");
    }
    let older = known.iter().copied().filter(|k| *k <= wanted).max();
    format!("--gpu-architecture=compute_{}", older.unwrap_or(wanted))
}

/// Makes sure that NVRTC is there, which without this would panic.
fn find_library() -> Result<()> {
    if let Some(path) = env::var_os(NVRTC).filter(|p| !p.is_empty()) {
        let path = PathBuf::from(path);
        let folder = path.parent().unwrap_or(Path::new("."));
        // NVRTC looks for this one by its name only.
        let parts = fs::read_dir(folder).into_iter().flatten().flatten();
        let builtins = parts.map(|p| p.path()).filter(|p| {
            let name = p
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            name.starts_with("libnvrtc-builtins.so")
        });
        for library in builtins.chain([path.clone()]) {
            // SAFETY: NVIDIA's own libraries, which the user has named.
            let loaded = unsafe { libloading::Library::new(&library) };
            // Never unloaded: from now on it is found under its name.
            std::mem::forget(
                loaded.map_err(|e| unusable(format!("{NVRTC} = {}: {e}", path.display())))?,
            );
        }
    }
    // SAFETY: it only looks for the library.
    match unsafe { sys::is_culib_present() } {
        true => Ok(()),
        false => Err(unusable(format!(
            "no NVRTC library (libnvrtc.so.13) found; pip install nvidia-cuda-nvrtc, and set {NVRTC} to its libnvrtc.so.13"
        ))),
    }
}

/// A file of the cache.
fn read(path: &Path) -> Option<Vec<u8>> {
    fs::read(path).ok().filter(|bytes| !bytes.is_empty())
}

/// Writes a file of the cache as a whole or not at all.
fn keep(path: &Path, image: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(image)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_nvrtc_knows_gets_its_own_code() {
        let known = [75, 80, 86, 90, 100];
        let of = |capability| architecture(capability, &known);
        assert_eq!(of((9, 0)), "--gpu-architecture=sm_90a");
        assert_eq!(of((8, 6)), "--gpu-architecture=sm_86");
        assert_eq!(of((8, 9)), "--gpu-architecture=compute_86");
        assert_eq!(of((12, 1)), "--gpu-architecture=compute_100");
    }

    #[test]
    fn code_is_kept_as_a_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cuda").join("key");
        assert_eq!(read(&path), None);
        keep(&path, b"code").expect("it can be written");
        assert_eq!(read(&path).as_deref(), Some(&b"code"[..]));
        let files = fs::read_dir(path.parent().expect("a folder")).expect("it lists");
        assert_eq!(files.count(), 1);
    }
}
