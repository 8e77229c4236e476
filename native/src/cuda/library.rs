//! NVIDIA's libraries that we declare ourselves and look for at run time.
//!
//! cudarc has declarations of them too, but panics where one is missing.

use std::env;
use std::ffi::OsString;

/// A library that stays: its threads may outlive whoever uses it.
pub struct Opened {
    library: &'static libloading::Library,
    /// By this name it was found.
    pub file: OsString,
}

/// Opens the first of `names` that is there, or what the environment variable `variable` names instead.
///
/// # Errors
///
/// In words, when there is none: `what` is its name for people.
pub fn open(what: &str, variable: &str, names: &[&str]) -> Result<Opened, String> {
    let load = |file: OsString| {
        // SAFETY: NVIDIA's own library, or what the user has named.
        let library = unsafe { libloading::Library::new(&file) }?;
        Ok::<_, libloading::Error>(Opened {
            library: Box::leak(Box::new(library)),
            file,
        })
    };
    if let Some(file) = env::var_os(variable).filter(|name| !name.is_empty()) {
        return load(file.clone()).map_err(|e| format!("{variable} = {}: {e}", file.display()));
    }
    let mut found = names.iter().filter_map(|name| load(name.into()).ok());
    found
        .next()
        .ok_or_else(|| format!("no {what} library ({}) found", names[0]))
}

impl Opened {
    /// One of its functions.
    ///
    /// # Safety
    ///
    /// `F` is a pointer to a function of the type that the library's header declares.
    ///
    /// # Errors
    ///
    /// In words, when the library has none of this name.
    pub unsafe fn function<F: Copy>(&self, name: &str) -> Result<F, String> {
        // SAFETY: the caller's promise.
        let found = unsafe { self.library.get::<F>(name) };
        let found = found.map_err(|e| format!("{} is too old: {e}", self.file.display()))?;
        Ok(*found)
    }
}
