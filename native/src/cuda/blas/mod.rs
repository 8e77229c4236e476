//! Products of f16 and bf16 matrices by NVIDIA's cuBLASLt, where there is one.
//!
//! Everything it needs is made when a recording is prepared: descriptors and an algorithm for each shape, once, and a
//! workspace. A product is then one call that only queues, so that it can be captured into a graph.

mod library;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use cudarc::driver::CudaContext;
use cudarc::driver::sys::{CUdeviceptr, CUstream};

use library::{Found, Library, Opaque};

/// Most that an algorithm may have, in bytes: what NVIDIA advises for 9.0, and for others.
fn most_workspace(capability: (i32, i32)) -> u64 {
    match capability >= (9, 0) {
        true => 32 << 20,
        false => 4 << 20,
    }
}

/// To so many bytes an allocation is aligned, and more does not count.
const ALIGNED: u64 = 256;

/// Numbers of `library_types.h`, `cublas_api.h` and `cublasLt.h`.
mod number {
    use std::ffi::c_int;

    pub const R_32F: c_int = 0;
    pub const R_16F: c_int = 2;
    pub const R_16BF: c_int = 14;
    pub const COMPUTE_32F: c_int = 68;
    pub const DESC_TRANSA: c_int = 3;
    pub const OP_T: i32 = 1;
    pub const PREFERENCE_WORKSPACE: c_int = 1;
    /// Of A, then B, C and D.
    pub const PREFERENCE_ALIGNMENT: c_int = 5;
    pub const NOT_SUPPORTED: c_int = 15;
}

/// `y[t, n] = sum_k weight[n, k] x[t, k]`, of f32 sums, and what `y` is added to. Rows lie as many elements apart as `strides` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Weight and x are bf16, not f16.
    pub brain: bool,
    /// Rows of the weight.
    pub rows: u32,
    /// Of x and y.
    pub tokens: u32,
    /// Elements of a row of weight and x.
    pub inner: u32,
    /// Of weight, x and y.
    pub strides: [u32; 3],
    /// Is there a residual, with y's stride?
    pub residual: bool,
    /// Bytes to which weight, x and y, with the residual, are aligned.
    pub aligned: [u32; 3],
}

/// Where a matrix begins.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// A binding of the kernel; `None`: the workspace.
    pub binding: Option<usize>,
    /// Bytes.
    pub offset: u64,
}

impl Place {
    /// Bytes to which it is aligned.
    pub fn aligned(self) -> u32 {
        let lowest = 1 << self.offset.trailing_zeros().min(63);
        ALIGNED.min(lowest) as u32
    }
}

/// A product of a call.
#[derive(Clone, Debug)]
pub struct Matmul {
    /// Sizes and types.
    pub shape: Shape,
    /// Its matrices.
    pub weight: Place,
    /// See [`Shape`].
    pub x: Place,
    /// See [`Shape`].
    pub y: Place,
    /// Added.
    pub residual: Option<Place>,
}

impl Shape {
    /// Bytes from the first element to the last of weight, x and y; `None` when nobody could have so many.
    pub fn extents(&self) -> Option<[u64; 3]> {
        let extent = |rows: u32, length: u32, stride: u32, bytes: u64| {
            let last = u64::from(rows.checked_sub(1)?).checked_mul(stride.into())?;
            last.checked_add(length.into())?.checked_mul(bytes)
        };
        let [w, x, y] = self.strides;
        Some([
            extent(self.rows, self.inner, w, 2)?,
            extent(self.tokens, self.inner, x, 2)?,
            extent(self.tokens, self.rows, y, 4)?,
        ])
    }
}

/// cuBLASLt for one device.
pub struct Blas {
    library: &'static Library,
    handle: Opaque,
    /// By shape; `None` where there is no algorithm.
    plans: RefCell<HashMap<Shape, Option<Rc<Plan>>>>,
    most: u64,
    /// Outlives all that is made of it.
    context: Arc<CudaContext>,
}

impl Blas {
    /// For the device of `context`.
    ///
    /// # Errors
    ///
    /// In words, when there is no library, or it does not want to.
    pub fn open(context: &Arc<CudaContext>, capability: (i32, i32)) -> Result<Self, String> {
        let library = Library::find()?;
        context.bind_to_thread().map_err(super::words)?;
        let mut handle = ptr::null_mut();
        // SAFETY: writes one pointer.
        library.check("cublasLtCreate", unsafe { (library.create)(&mut handle) })?;
        Ok(Blas {
            library,
            handle,
            plans: RefCell::default(),
            most: most_workspace(capability),
            context: Arc::clone(context),
        })
    }

    /// Of the library.
    pub fn version(&self) -> String {
        self.library.version()
    }

    /// How to multiply matrices of a shape; `None` when the library has no algorithm.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn plan(&self, shape: &Shape) -> Result<Option<Rc<Plan>>, String> {
        if let Some(found) = self.plans.borrow().get(shape) {
            return Ok(found.clone());
        }
        self.context.bind_to_thread().map_err(super::words)?;
        let plan = Plan::new(self, *shape)?.map(Rc::new);
        self.plans.borrow_mut().insert(*shape, plan.clone());
        Ok(plan)
    }

    /// Queues a product.
    ///
    /// # Safety
    ///
    /// `stream` is of this device, and so is what lies at the addresses, as long as [`Shape::extents`] and
    /// [`Plan::workspace`] say, until the stream has done it.
    pub(super) unsafe fn multiply(
        &self,
        plan: &Plan,
        at: &Addresses,
        stream: CUstream,
    ) -> Result<(), String> {
        self.context.bind_to_thread().map_err(super::words)?;
        let one = 1.0f32;
        let beta = if at.residual.is_some() { 1.0f32 } else { 0.0 };
        let float = |value: &f32| ptr::from_ref(value).cast::<c_void>();
        let memory = |address: CUdeviceptr| address as *mut c_void;
        // SAFETY: the caller's promise; descriptors are of this library, the two factors are read before it returns.
        let code = unsafe {
            (self.library.matmul)(
                self.handle,
                plan.desc.0,
                float(&one),
                memory(at.weight),
                plan.weight.0,
                memory(at.x),
                plan.x.0,
                float(&beta),
                memory(at.residual.unwrap_or(at.y)),
                plan.y.0,
                memory(at.y),
                plan.y.0,
                &plan.algorithm,
                memory(at.workspace),
                plan.workspace as usize,
                stream,
            )
        };
        let done = self.library.check("cublasLtMatmul", code);
        done.map_err(|e| format!("{e}; --kernels own goes without cuBLASLt"))
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        self.plans.borrow_mut().clear();
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: it was made by the library and is used no more.
            unsafe { (self.library.destroy)(self.handle) };
        }
    }
}

/// Of one product, in device memory.
pub(super) struct Addresses {
    pub(super) weight: CUdeviceptr,
    pub(super) x: CUdeviceptr,
    pub(super) y: CUdeviceptr,
    pub(super) residual: Option<CUdeviceptr>,
    pub(super) workspace: CUdeviceptr,
}

/// Something that the library made, with what destroys it.
struct Owned(Opaque, unsafe extern "C" fn(Opaque) -> c_int);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once, by functions that belong together.
        unsafe { (self.1)(self.0) };
    }
}

/// How to multiply matrices of one shape.
///
/// To cuBLASLt, whose matrices are by columns, rows are columns: `y^T (rows, tokens) = (weight^T)^T x^T`.
pub struct Plan {
    desc: Owned,
    weight: Owned,
    x: Owned,
    y: Owned,
    algorithm: [u64; 8],
    /// Bytes that it needs, at a multiple of 256.
    pub workspace: u64,
}

impl Plan {
    fn new(blas: &Blas, shape: Shape) -> Result<Option<Self>, String> {
        use number::*;
        let library = blas.library;
        let made = |what: &str, destroy, create: &dyn Fn(*mut Opaque) -> c_int| {
            let mut object = ptr::null_mut();
            library.check(what, create(&mut object))?;
            Ok::<_, String>(Owned(object, destroy))
        };
        let half = if shape.brain { R_16BF } else { R_16F };
        let layout = |kind, length: u32, count: u32, stride: u32| {
            // SAFETY: writes one pointer.
            let create = |to| unsafe {
                (library.layout_create)(to, kind, length.into(), count.into(), stride.into())
            };
            made(
                "cublasLtMatrixLayoutCreate",
                library.layout_destroy,
                &create,
            )
        };
        let [w, x, y] = shape.strides;
        let weight = layout(half, shape.inner, shape.rows, w)?;
        let x = layout(half, shape.inner, shape.tokens, x)?;
        let y = layout(R_32F, shape.rows, shape.tokens, y)?;
        // SAFETY: writes one pointer.
        let create = |to| unsafe { (library.desc_create)(to, COMPUTE_32F, R_32F) };
        let desc = made("cublasLtMatmulDescCreate", library.desc_destroy, &create)?;
        // SAFETY: the attribute is as long as its value.
        library.check("cublasLtMatmulDescSetAttribute", unsafe {
            (library.desc_set)(desc.0, DESC_TRANSA, ptr::from_ref(&OP_T).cast(), 4)
        })?;
        // SAFETY: writes one pointer.
        let create = |to| unsafe { (library.preference_create)(to) };
        let what = "cublasLtMatmulPreferenceCreate";
        let preference = made(what, library.preference_destroy, &create)?;
        let set = |attribute, value: *const c_void, bytes| {
            // SAFETY: the attribute is as long as its value.
            let code = unsafe { (library.preference_set)(preference.0, attribute, value, bytes) };
            library.check("cublasLtMatmulPreferenceSetAttribute", code)
        };
        let most = blas.most;
        set(PREFERENCE_WORKSPACE, ptr::from_ref(&most).cast(), 8)?;
        let [a, b, d] = shape.aligned;
        for (attribute, bytes) in (PREFERENCE_ALIGNMENT..).zip([a, b, d, d]) {
            set(attribute, ptr::from_ref(&bytes).cast(), 4)?;
        }
        let (mut found, mut count) = (Found::default(), 0);
        // SAFETY: everything was made above; writes one result and one number.
        let code = unsafe {
            (library.heuristic)(
                blas.handle,
                desc.0,
                weight.0,
                x.0,
                y.0,
                y.0,
                preference.0,
                1,
                &mut found,
                &mut count,
            )
        };
        if code == NOT_SUPPORTED || (code == 0 && (count == 0 || found.state != 0)) {
            return Ok(None);
        }
        library.check("cublasLtMatmulAlgoGetHeuristic", code)?;
        Ok(Some(Plan {
            desc,
            weight,
            x,
            y,
            algorithm: found.algorithm,
            workspace: found.workspace as u64,
        }))
    }
}
