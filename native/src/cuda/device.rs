//! One GPU.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DevicePtr, DriverError, sys,
};
use cudarc::nvrtc::Ptx;
use naga_cuda::{BoundsPolicy, Output, SUBGROUP_SIZE};
use shardlight::device::{
    Buffer, Device, DeviceInfo, Entry, Layout, Ledger, Limits, Prepared, Purpose,
};
use shardlight::profile::{Clock, Measured};
use shardlight::recording::{Dispatch, Recording};
use shardlight::weights::source::LocalFuture;
use shardlight::{Error, Result};

use super::blas::{Blas, Matmul, Plan};
use super::compile::Compiler;
use super::prepared::{CudaPrepared, Failed, Shared};
use super::staging::{Download, Upload};
use super::timer::Timer;
use super::tuned::{self, Gpu, Kernels, Memory, Tuned};
use super::{driver, info, refused, unusable, words};

/// A GPU behind CUDA's driver.
///
/// All work is on one stream, in the order in which it is queued.
pub struct CudaDevice {
    info: DeviceInfo,
    limits: Limits,
    ledger: Ledger,
    compiler: Compiler,
    /// Which ones.
    choice: Kernels,
    /// What multiplies for prompts, or why it does not; `None` when it shall not.
    blas: Option<std::result::Result<Rc<Blas>, String>>,
    gpu: Gpu,
    kernels: RefCell<HashMap<String, Shared>>,
    staging: RefCell<(Upload, Download)>,
    /// Why it cannot go on.
    lost: RefCell<Option<String>>,
    /// Kernels compiled and found compiled.
    compiled: Cell<(usize, usize)>,
    /// While calls are measured.
    timer: RefCell<Option<Timer>>,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
}

/// A kernel on the device.
pub(super) struct Compiled {
    pub(super) function: CudaFunction,
    pub(super) bindings: Vec<naga_cuda::Binding>,
    pub(super) workgroup_size: [u32; 3],
    _entry: Entry,
}

/// What a call queues.
pub(super) struct Chosen {
    pub(super) step: Step,
    pub(super) memory: Memory,
}

pub(super) enum Step {
    /// Blocks of a kernel.
    Kernel(Shared, [u32; 3]),
    /// A product by cuBLASLt, whose own workspace lies so many bytes behind the start.
    Product(Matmul, Rc<Plan>, u64),
}

struct CudaBuffer {
    memory: CudaSlice<u8>,
    address: sys::CUdeviceptr,
}

impl CudaDevice {
    /// Opens a device by its number.
    ///
    /// # Errors
    ///
    /// [`Error::Device`]: no driver, no such device, no NVRTC, or warps of another size than [`SUBGROUP_SIZE`].
    pub fn open(number: usize, bounds: BoundsPolicy, choice: Kernels) -> Result<Self> {
        driver()?;
        let count = CudaContext::device_count().map_err(|e| refused("cuda", e))?;
        if number >= count.max(0) as usize {
            return Err(unusable(format!(
                "there are {count} CUDA devices, numbered from 0, and no {number}"
            )));
        }
        let info = info(number as i32)?;
        let said = |e| refused(&info.name, e);
        let context = CudaContext::new(number).map_err(said)?;
        // SAFETY: one stream does everything in order: there is nothing to track.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(said)?;
        use sys::CUdevice_attribute as A;
        let attribute = |which| context.attribute(which).map_err(said);
        let warp = attribute(A::CU_DEVICE_ATTRIBUTE_WARP_SIZE)?;
        if warp != SUBGROUP_SIZE as i32 {
            return Err(unusable(format!(
                "{}: has warps of {warp}, kernels are written for {SUBGROUP_SIZE}",
                info.name
            )));
        }
        let capability = context.compute_capability().map_err(said)?;
        let shared = A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let gpu = Gpu {
            capability,
            multiprocessors: attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
            shared: attribute(shared)? as u32,
        };
        let total = context.total_mem().map_err(said)? as u64;
        let limits = Limits {
            kind: info.kind,
            layout: Layout::Planar,
            // Elements of 4 bytes are counted in 32 bits.
            max_binding_bytes: total.min(u64::from(u32::MAX) * 4) & !255,
            max_workgroup_size: attribute(A::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)? as u32,
            max_workgroup_bytes: attribute(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK)?
                as u32,
            max_workgroups: 65535,
            subgroup: Some((SUBGROUP_SIZE, SUBGROUP_SIZE)),
            f16: true,
            packed_dot: true,
        };
        let blas = match choice {
            Kernels::Generated | Kernels::Own => None,
            Kernels::Tuned | Kernels::CublasLt => {
                Some(Blas::open(&context, capability).map(Rc::new))
            }
        };
        if let (Kernels::CublasLt, Some(Err(reason))) = (choice, &blas) {
            return Err(unusable(format!("{}: {reason}", info.name)));
        }
        let upload = Upload::new(&context).map_err(said)?;
        let download = Download::new(&context).map_err(said)?;
        Ok(CudaDevice {
            compiler: Compiler::new(&info.name, capability, bounds)?,
            info,
            limits,
            ledger: Ledger::default(),
            choice,
            blas,
            gpu,
            kernels: RefCell::default(),
            staging: RefCell::new((upload, download)),
            lost: RefCell::new(None),
            compiled: Cell::new((0, 0)),
            timer: RefCell::new(None),
            stream,
            context,
        })
    }

    /// Chooses kernels as for a device of so many multiprocessors, so that tests reach all of them.
    #[must_use]
    pub fn with_multiprocessors(mut self, count: u32) -> Self {
        self.gpu.multiprocessors = count;
        self
    }

    /// Which kernels it runs: `tuned, cuBLASLt 13.0.2`.
    pub fn kernels(&self) -> String {
        let choice = self.choice.name();
        match &self.blas {
            None => choice.to_owned(),
            Some(Ok(blas)) => format!("{choice}, cuBLASLt {}", blas.version()),
            Some(Err(_)) => format!("{choice} without cuBLASLt"),
        }
    }

    /// Why a cuBLASLt that is there is not used.
    pub fn refused_products(&self) -> Option<&str> {
        let reason = self.blas.as_ref()?.as_ref().err()?;
        (!reason.starts_with("no ")).then_some(reason)
    }

    /// How many kernels were compiled, and how many were found in the cache.
    pub fn compiled(&self) -> (usize, usize) {
        self.compiled.get()
    }

    pub(super) fn error(&self, reason: impl Into<String>) -> Error {
        Error::Device {
            device: self.info.name.clone(),
            reason: reason.into(),
        }
    }

    /// What the driver says of queued work, at some later call; the device may be lost by it.
    fn lose(&self, error: DriverError) -> Error {
        let reason = words(error);
        if !ends_context(error.0) {
            return self.error(reason);
        }
        self.lost.borrow_mut().get_or_insert(reason.clone());
        Error::DeviceLost {
            device: self.info.name.clone(),
            reason,
        }
    }

    fn check(&self) -> Result<()> {
        match &*self.lost.borrow() {
            None => Ok(()),
            Some(reason) => Err(Error::DeviceLost {
                device: self.info.name.clone(),
                reason: reason.clone(),
            }),
        }
    }

    pub(super) fn allocate(&self, bytes: u64, purpose: Purpose, label: &str) -> Result<Buffer> {
        self.check()?;
        let size = bytes.max(16).next_multiple_of(16);
        let out_of_memory = || Error::OutOfMemory {
            device: self.info.name.clone(),
            bytes,
            what: label.to_string(),
        };
        let length = usize::try_from(size).map_err(|_| out_of_memory())?;
        let memory = self.stream.alloc_zeros::<u8>(length);
        let memory = memory.map_err(|e| match e.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => out_of_memory(),
            _ => self.lose(e),
        })?;
        let address = memory.device_ptr(&self.stream).0;
        let memory = CudaBuffer { memory, address };
        Ok(self.ledger.buffer(memory, bytes, size, purpose))
    }

    fn buffer<'a>(&self, buffer: &'a Buffer) -> Result<&'a CudaBuffer> {
        let found = buffer.downcast::<CudaBuffer>();
        found.ok_or_else(|| self.error("the buffer belongs to another device"))
    }

    /// Address and size of a buffer.
    pub(super) fn place(&self, buffer: &Buffer) -> Result<(sys::CUdeviceptr, u64)> {
        let found = self.buffer(buffer)?;
        Ok((found.address, found.memory.len() as u64))
    }

    /// The address `offset` bytes into a buffer that has `bytes` more.
    fn range(
        &self,
        buffer: &Buffer,
        offset: u64,
        bytes: u64,
        what: &str,
    ) -> Result<sys::CUdeviceptr> {
        let (address, size) = self.place(buffer)?;
        let fits = offset.checked_add(bytes).is_some_and(|end| end <= size);
        match fits && offset.is_multiple_of(4) && bytes.is_multiple_of(4) {
            true => Ok(address + offset),
            false => Err(Error::Invalid(format!(
                "{what} of bytes {offset} + {bytes}, the buffer has {size}"
            ))),
        }
    }

    pub(super) fn upload(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check()?;
        let to = self.range(buffer, offset, bytes.len() as u64, "write")?;
        self.context.bind_to_thread().map_err(|e| self.lose(e))?;
        let (upload, _) = &mut *self.staging.borrow_mut();
        // SAFETY: the range was checked; memory is freed in the stream's order, after the copy.
        unsafe { upload.copy(&self.stream, to, bytes) }.map_err(|e| self.lose(e))
    }

    /// Which GPU it is, on whatever host or in whatever process.
    pub(super) fn uuid(&self) -> Result<[u8; 16]> {
        let uuid = self
            .context
            .uuid()
            .map_err(|e| refused(&self.info.name, e))?;
        Ok(uuid.bytes.map(|byte| byte as u8))
    }

    /// Makes it the device of this thread's calls, and gives the stream of all its work.
    pub(super) fn bind_to_thread(&self) -> Result<sys::CUstream> {
        self.check()?;
        self.context.bind_to_thread().map_err(|e| self.lose(e))?;
        Ok(self.stream.cu_stream())
    }

    /// Waits for all that is queued.
    pub(super) fn synchronize(&self) -> Result<()> {
        self.check()?;
        self.stream.synchronize().map_err(|e| self.lose(e))
    }

    /// Address of `bytes` bytes from `offset` on.
    pub(super) fn address(
        &self,
        buffer: &Buffer,
        offset: u64,
        bytes: u64,
    ) -> Result<sys::CUdeviceptr> {
        let (address, size) = self.place(buffer)?;
        match offset.checked_add(bytes).is_some_and(|end| end <= size) {
            true => Ok(address + offset),
            false => Err(Error::Invalid(format!(
                "bytes {offset} + {bytes} of a buffer that has {size}"
            ))),
        }
    }

    /// Queues a copy of `rows` rows of `width` bytes, whose first bytes are `pitch.0` apart at `from` and `pitch.1` at
    /// `to`.
    ///
    /// # Safety
    ///
    /// Both are memory of this device that lives until the stream has done the copy.
    pub(super) unsafe fn copy_rows(
        &self,
        from: sys::CUdeviceptr,
        to: sys::CUdeviceptr,
        pitch: (usize, usize),
        (rows, width): (usize, usize),
    ) -> Result<()> {
        if rows == 0 || width == 0 || from == to {
            return Ok(());
        }
        let stream = self.bind_to_thread()?;
        let device = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE;
        let copy = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: device,
            srcHost: std::ptr::null(),
            srcDevice: from,
            srcArray: std::ptr::null_mut(),
            srcPitch: pitch.0,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: device,
            dstHost: std::ptr::null_mut(),
            dstDevice: to,
            dstArray: std::ptr::null_mut(),
            dstPitch: pitch.1,
            WidthInBytes: width,
            Height: rows,
        };
        // SAFETY: the caller's promise.
        let copied = unsafe {
            match rows {
                1 => sys::cuMemcpyDtoDAsync_v2(to, from, width, stream),
                _ => sys::cuMemcpy2DAsync_v2(&copy, stream),
            }
        };
        copied.result().map_err(|e| self.lose(e))
    }

    /// What runs a call, one after the other: kernels written by hand, if there are some and none of WGSL's variants is
    /// asked for.
    pub(super) fn choose(&self, dispatch: &Dispatch) -> Result<Vec<Chosen>> {
        let (kernel, params) = (dispatch.kernel, &dispatch.params);
        if self.choice != Kernels::Generated && dispatch.variant.is_none() {
            if let Some(chosen) = self.multiplied(dispatch)? {
                return Ok(chosen);
            }
            if let Some(tuned) = tuned::find(kernel, params, &self.gpu) {
                let launches = tuned.before.as_deref().into_iter().chain([&tuned]);
                return launches.map(|tuned| self.chosen(tuned)).collect();
            }
        }
        let variant = dispatch.choose(&self.limits).map_err(|e| self.error(e))?;
        let key = kernel.pipeline_key(params, &variant);
        let output = || {
            let wgsl = kernel.wgsl(params, &variant, false)?;
            self.compiler.translate(&wgsl)
        };
        let compiled = self.compile(&key, &output, 0)?;
        Ok(vec![Chosen {
            step: Step::Kernel(compiled, variant.workgroups),
            memory: Memory::default(),
        }])
    }

    /// By cuBLASLt, if it has an algorithm for each product of the call.
    fn multiplied(&self, dispatch: &Dispatch) -> Result<Option<Vec<Chosen>>> {
        let Some(Ok(blas)) = &self.blas else {
            return Ok(None);
        };
        let found = tuned::multiplied(dispatch.kernel, &dispatch.params, &self.gpu);
        let Some(found) = found else {
            return Ok(None);
        };
        let mut products = Vec::new();
        for product in found.products {
            let plan = match (blas.plan(&product.shape), self.choice) {
                (Ok(Some(plan)), _) => plan,
                (Err(e), Kernels::CublasLt) => return Err(self.error(e)),
                // There are our own kernels.
                (Ok(None) | Err(_), _) => return Ok(None),
            };
            let memory = Memory {
                workspace: found.room.saturating_add(plan.workspace),
                ..Memory::default()
            };
            products.push(Chosen {
                step: Step::Product(product, plan, found.room),
                memory,
            });
        }
        let mut chosen = vec![self.chosen(&found.before)?];
        chosen.append(&mut products);
        if let Some(after) = &found.after {
            chosen.push(self.chosen(after)?);
        }
        Ok(Some(chosen))
    }

    /// What multiplies for [`Step::Product`].
    pub(super) fn blas(&self) -> Option<&Rc<Blas>> {
        self.blas.as_ref()?.as_ref().ok()
    }

    fn chosen(&self, tuned: &Tuned) -> Result<Chosen> {
        let output = || Ok(tuned.output.clone());
        let compiled = self.compile(&tuned.key, &output, tuned.memory.shared)?;
        Ok(Chosen {
            step: Step::Kernel(compiled, tuned.grid),
            memory: tuned.memory,
        })
    }

    /// The kernel that `key` names, whose text is `output`.
    fn compile(
        &self,
        key: &str,
        output: &dyn Fn() -> std::result::Result<Output, String>,
        shared: u32,
    ) -> Result<Shared> {
        if let Some(found) = self.kernels.borrow().get(key) {
            return Ok(Rc::clone(found));
        }
        let fails = |e: String| self.error(format!("kernel {key} does not compile: {e}"));
        let output = output().map_err(fails)?;
        let mut code = self.compiler.code(&output.source).map_err(fails)?;
        let mut module = self.context.load_module(Ptx::from_binary(code.image));
        if module.is_err() && code.cached {
            // The file was damaged.
            self.compiler.forget(&output.source);
            code = self.compiler.code(&output.source).map_err(fails)?;
            module = self.context.load_module(Ptx::from_binary(code.image));
        }
        let said = |e: DriverError| fails(words(e));
        let function = module
            .map_err(said)?
            .load_function(&output.entry)
            .map_err(said)?;
        // Static memory counts too.
        if shared > 0 {
            use sys::CUfunction_attribute as A;
            let most = A::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, shared as i32).map_err(said)?;
        }
        let (made, found) = self.compiled.get();
        self.compiled.set(match code.cached {
            true => (made, found + 1),
            false => (made + 1, found),
        });
        let compiled = Rc::new(Compiled {
            function,
            bindings: output.bindings,
            workgroup_size: output.workgroup_size,
            _entry: self.ledger.pipeline(),
        });
        let mut kernels = self.kernels.borrow_mut();
        kernels.insert(key.to_string(), Rc::clone(&compiled));
        Ok(compiled)
    }
}

/// Is this an error after which the driver refuses all work of the process on this device?
fn ends_context(result: sys::CUresult) -> bool {
    use sys::CUresult as E;
    matches!(
        result,
        E::CUDA_ERROR_DEINITIALIZED
            | E::CUDA_ERROR_DEVICE_UNAVAILABLE
            | E::CUDA_ERROR_INVALID_CONTEXT
            | E::CUDA_ERROR_ECC_UNCORRECTABLE
            | E::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | E::CUDA_ERROR_ILLEGAL_ADDRESS
            | E::CUDA_ERROR_LAUNCH_TIMEOUT
            | E::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | E::CUDA_ERROR_ASSERT
            | E::CUDA_ERROR_HARDWARE_STACK_ERROR
            | E::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | E::CUDA_ERROR_MISALIGNED_ADDRESS
            | E::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | E::CUDA_ERROR_INVALID_PC
            | E::CUDA_ERROR_LAUNCH_FAILED
            | E::CUDA_ERROR_UNKNOWN
    )
}

impl Device for CudaDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn alloc<'a>(
        &'a self,
        bytes: u64,
        purpose: Purpose,
        label: &'a str,
    ) -> LocalFuture<'a, Result<Buffer>> {
        Box::pin(async move { self.allocate(bytes, purpose, label) })
    }

    fn write(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        self.upload(buffer, offset, bytes)
    }

    fn flush(&self) -> LocalFuture<'_, Result<()>> {
        // Writes were copied into memory of our own.
        Box::pin(async { self.check() })
    }

    fn read<'a>(
        &'a self,
        buffer: &'a Buffer,
        offset: u64,
        bytes: u64,
    ) -> LocalFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            self.check()?;
            let from = self.range(buffer, offset, bytes, "read")?;
            self.context.bind_to_thread().map_err(|e| self.lose(e))?;
            let mut data = vec![0; bytes as usize];
            let (_, download) = &mut *self.staging.borrow_mut();
            // SAFETY: the range was checked.
            unsafe { download.copy(&self.stream, from, &mut data) }.map_err(|e| self.lose(e))?;
            Ok(data)
        })
    }

    fn prepare<'a>(&'a self, recording: &'a Recording) -> LocalFuture<'a, Result<Prepared>> {
        Box::pin(async move {
            self.check()?;
            self.bind(recording)
        })
    }

    fn measure(&self, clock: Option<Clock>) -> Result<()> {
        self.timer.replace(clock.map(|_| Timer::default()));
        Ok(())
    }

    fn measured(&self) -> LocalFuture<'_, Result<Vec<Measured>>> {
        Box::pin(async {
            self.check()?;
            match &mut *self.timer.borrow_mut() {
                Some(timer) => timer.take().map_err(|e| self.lose(e)),
                None => Ok(Vec::new()),
            }
        })
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }

    fn run_segment(&self, prepared: &Prepared, segment: usize) -> Result<()> {
        self.check()?;
        let prepared = prepared.downcast::<CudaPrepared>();
        let prepared =
            prepared.ok_or_else(|| self.error("the recording was prepared for another device"))?;
        let run = match &mut *self.timer.borrow_mut() {
            Some(timer) => prepared.run_timed(&self.stream, segment, timer),
            None => prepared.run(&self.stream, segment),
        };
        run.map_err(|e| match e {
            Failed::Driver(e) => self.lose(e),
            Failed::Product(reason) => self.error(reason),
        })
    }
}
