//! What we call of NCCL, found at run time.
//!
//! cudarc has declarations of it, but looks for `libnccl.so` and its like, which only development packages have; ten
//! functions are soon declared.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use cudarc::driver::sys::{CUdeviceptr, CUstream};

use super::super::library;

/// The library that distributions and PyPI's `nvidia-nccl-cu13` have.
const LIBRARY: &str = "libnccl.so.2";

/// Where it is named if it does not lie where libraries do.
const NCCL: &str = "SHARDLIGHT_NCCL";

/// `ncclUint8`.
const BYTES: c_int = 1;

/// By which the ranks of a communicator find each other.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UniqueId(pub [u8; 128]);

/// `ncclComm_t`: a rank of a communicator.
pub type Handle = *mut c_void;

/// The library; it stays.
pub struct Library {
    get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    comm_init_rank: unsafe extern "C" fn(*mut Handle, c_int, UniqueId, c_int) -> c_int,
    comm_destroy: unsafe extern "C" fn(Handle) -> c_int,
    comm_abort: unsafe extern "C" fn(Handle) -> c_int,
    comm_get_async_error: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    send: unsafe extern "C" fn(*const c_void, usize, c_int, c_int, Handle, CUstream) -> c_int,
    recv: unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, Handle, CUstream) -> c_int,
    get_error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    get_last_error: unsafe extern "C" fn(Handle) -> *const c_char,
}

/// What NCCL said.
pub type Result<T> = std::result::Result<T, String>;

impl Library {
    /// Looks for it, once.
    ///
    /// # Errors
    ///
    /// In words, when it is not there.
    pub fn find() -> Result<&'static Library> {
        static FOUND: OnceLock<Result<Library>> = OnceLock::new();
        FOUND
            .get_or_init(Library::open)
            .as_ref()
            .map_err(Clone::clone)
    }

    fn open() -> Result<Self> {
        let library = library::open("NCCL", NCCL, &[LIBRARY])?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field that it becomes has the type of `nccl.h`.
                unsafe { library.function($name) }?
            };
        }
        Ok(Library {
            get_unique_id: function!("ncclGetUniqueId"),
            comm_init_rank: function!("ncclCommInitRank"),
            comm_destroy: function!("ncclCommDestroy"),
            comm_abort: function!("ncclCommAbort"),
            comm_get_async_error: function!("ncclCommGetAsyncError"),
            group_start: function!("ncclGroupStart"),
            group_end: function!("ncclGroupEnd"),
            send: function!("ncclSend"),
            recv: function!("ncclRecv"),
            get_error_string: function!("ncclGetErrorString"),
            get_last_error: function!("ncclGetLastError"),
        })
    }

    fn check(&self, what: &str, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let text = |text: *const c_char| match text.is_null() {
            true => String::new(),
            // SAFETY: NCCL gives texts that end in a zero and stay until the next error.
            false => unsafe { CStr::from_ptr(text) }
                .to_string_lossy()
                .into_owned(),
        };
        // SAFETY: any number may be asked for.
        let meaning = text(unsafe { (self.get_error_string)(code) });
        // SAFETY: the last error of any communicator.
        let detail = text(unsafe { (self.get_last_error)(ptr::null_mut()) });
        let detail = detail.lines().map(str::trim).find(|line| !line.is_empty());
        Err(match detail {
            Some(detail) => format!("{what}: {meaning}: {detail}"),
            None => format!("{what}: {meaning}"),
        })
    }

    /// An id for a new communicator.
    ///
    /// # Errors
    ///
    /// What NCCL says.
    pub fn unique_id(&self) -> Result<UniqueId> {
        let mut id = UniqueId([0; 128]);
        // SAFETY: writes 128 bytes.
        self.check("ncclGetUniqueId", unsafe { (self.get_unique_id)(&mut id) })?;
        Ok(id)
    }

    /// Calls of `calls` take effect together.
    ///
    /// # Errors
    ///
    /// The first one that failed.
    pub fn group(&self, calls: impl FnOnce() -> Result<()>) -> Result<()> {
        // SAFETY: the group is ended below, whatever `calls` does.
        self.check("ncclGroupStart", unsafe { (self.group_start)() })?;
        let called = calls();
        // SAFETY: it was begun above.
        let ended = self.check("ncclGroupEnd", unsafe { (self.group_end)() });
        called.and(ended)
    }

    /// Queues the making of rank `rank` of `ranks` on the device of this thread, in a group; `handle` is written when that
    /// ends.
    ///
    /// # Safety
    ///
    /// `handle` is there until then.
    pub unsafe fn init_rank(
        &self,
        handle: *mut Handle,
        ranks: usize,
        id: UniqueId,
        rank: usize,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        let code = unsafe { (self.comm_init_rank)(handle, ranks as c_int, id, rank as c_int) };
        self.check("ncclCommInitRank", code)
    }

    /// Queues a send of device memory, in a group.
    ///
    /// # Safety
    ///
    /// `handle` is of a communicator that is there, `stream` of its device; the memory lives until the stream has done it.
    pub unsafe fn send(
        &self,
        (from, bytes): (CUdeviceptr, u64),
        to: usize,
        handle: Handle,
        stream: CUstream,
    ) -> Result<()> {
        let from = from as *const c_void;
        // SAFETY: the caller's promise.
        let code = unsafe { (self.send)(from, bytes as usize, BYTES, to as c_int, handle, stream) };
        self.check("ncclSend", code)
    }

    /// Queues a receive into device memory, in a group.
    ///
    /// # Safety
    ///
    /// As [`Library::send`].
    pub unsafe fn receive(
        &self,
        (into, bytes): (CUdeviceptr, u64),
        from: usize,
        handle: Handle,
        stream: CUstream,
    ) -> Result<()> {
        let into = into as *mut c_void;
        // SAFETY: the caller's promise.
        let code =
            unsafe { (self.recv)(into, bytes as usize, BYTES, from as c_int, handle, stream) };
        self.check("ncclRecv", code)
    }

    /// Has anything gone wrong since it was queued?
    ///
    /// # Safety
    ///
    /// `handle` is of a communicator that is there.
    ///
    /// # Errors
    ///
    /// What has.
    pub unsafe fn health(&self, handle: Handle) -> Result<()> {
        let mut code = 0;
        // SAFETY: the caller's promise; it writes one integer.
        let asked = unsafe { (self.comm_get_async_error)(handle, &mut code) };
        self.check("ncclCommGetAsyncError", asked)?;
        self.check("NCCL", code)
    }

    /// Ends a rank of a communicator: in good order, or at once.
    ///
    /// # Safety
    ///
    /// `handle` is of one that is there, and used no more.
    pub unsafe fn end(&self, handle: Handle, at_once: bool) {
        // SAFETY: the caller's promise.
        let code = unsafe {
            match at_once {
                true => (self.comm_abort)(handle),
                false => (self.comm_destroy)(handle),
            }
        };
        // Nobody is left who could do something about it.
        let _ = self.check("ncclCommDestroy", code);
    }
}
