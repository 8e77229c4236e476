//! What we call of cuBLASLt, found at run time.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use cudarc::driver::sys::CUstream;

use super::super::library;

/// The library that distributions and PyPI's `nvidia-cublas` have; those before have what we need since 12.0.
#[cfg(not(windows))]
const LIBRARIES: &[&str] = &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"];
#[cfg(windows)]
const LIBRARIES: &[&str] = &["cublasLt64_13.dll", "cublasLt64_12.dll"];

/// Where it is named if it does not lie where libraries do.
const CUBLASLT: &str = "SHARDLIGHT_CUBLASLT";

/// The oldest with heuristics for 9.0.
const OLDEST: usize = 120_000;

/// Something that the library made.
pub type Opaque = *mut c_void;

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    pub algorithm: [u64; 8],
    pub workspace: usize,
    pub state: c_int,
    pub waves: f32,
    reserved: [c_int; 4],
}

type Create = unsafe extern "C" fn(*mut Opaque) -> c_int;
type Destroy = unsafe extern "C" fn(Opaque) -> c_int;
type Set = unsafe extern "C" fn(Opaque, c_int, *const c_void, usize) -> c_int;

/// The library; it stays.
pub struct Library {
    pub create: Create,
    pub destroy: Destroy,
    pub desc_create: unsafe extern "C" fn(*mut Opaque, c_int, c_int) -> c_int,
    pub desc_destroy: Destroy,
    pub desc_set: Set,
    pub layout_create: unsafe extern "C" fn(*mut Opaque, c_int, u64, u64, i64) -> c_int,
    pub layout_destroy: Destroy,
    pub preference_create: Create,
    pub preference_destroy: Destroy,
    pub preference_set: Set,
    pub heuristic: unsafe extern "C" fn(
        Opaque,
        Opaque,
        Opaque,
        Opaque,
        Opaque,
        Opaque,
        Opaque,
        c_int,
        *mut Found,
        *mut c_int,
    ) -> c_int,
    pub matmul: unsafe extern "C" fn(
        Opaque,
        Opaque,
        *const c_void,
        *const c_void,
        Opaque,
        *const c_void,
        Opaque,
        *const c_void,
        *const c_void,
        Opaque,
        *mut c_void,
        Opaque,
        *const [u64; 8],
        *mut c_void,
        usize,
        CUstream,
    ) -> c_int,
    status: unsafe extern "C" fn(c_int) -> *const c_char,
    version: usize,
}

impl Library {
    /// Looks for it, once.
    ///
    /// # Errors
    ///
    /// In words, when it is not there or too old.
    pub fn find() -> Result<&'static Library, String> {
        static FOUND: OnceLock<Result<Library, String>> = OnceLock::new();
        FOUND
            .get_or_init(Library::open)
            .as_ref()
            .map_err(Clone::clone)
    }

    fn open() -> Result<Self, String> {
        let library = library::open("cuBLASLt", CUBLASLT, LIBRARIES)?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field that it becomes has the type of `cublasLt.h`.
                unsafe { library.function($name) }?
            };
        }
        let version: unsafe extern "C" fn() -> usize = function!("cublasLtGetVersion");
        // SAFETY: it has no arguments.
        let version = unsafe { version() };
        if version < OLDEST {
            return Err(format!(
                "{} is cuBLASLt {}, at least {} is needed",
                library.file.display(),
                words(version),
                words(OLDEST)
            ));
        }
        Ok(Library {
            create: function!("cublasLtCreate"),
            destroy: function!("cublasLtDestroy"),
            desc_create: function!("cublasLtMatmulDescCreate"),
            desc_destroy: function!("cublasLtMatmulDescDestroy"),
            desc_set: function!("cublasLtMatmulDescSetAttribute"),
            layout_create: function!("cublasLtMatrixLayoutCreate"),
            layout_destroy: function!("cublasLtMatrixLayoutDestroy"),
            preference_create: function!("cublasLtMatmulPreferenceCreate"),
            preference_destroy: function!("cublasLtMatmulPreferenceDestroy"),
            preference_set: function!("cublasLtMatmulPreferenceSetAttribute"),
            heuristic: function!("cublasLtMatmulAlgoGetHeuristic"),
            matmul: function!("cublasLtMatmul"),
            status: function!("cublasLtGetStatusString"),
            version,
        })
    }

    /// `13.0.2`.
    pub fn version(&self) -> String {
        words(self.version)
    }

    /// What a status means, behind the call that gave it.
    pub fn check(&self, what: &str, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: any number may be asked for.
        let text = unsafe { (self.status)(code) };
        let text = match text.is_null() {
            true => code.to_string(),
            // SAFETY: a constant of the library's.
            false => unsafe { CStr::from_ptr(text) }
                .to_string_lossy()
                .into_owned(),
        };
        Err(format!("{what}: {text}"))
    }
}

/// From 12.0 on versions are five decimal places of a minor one and a patch; before there were as many.
fn words(version: usize) -> String {
    format!(
        "{}.{}.{}",
        version / 10_000,
        version / 100 % 100,
        version % 100
    )
}
