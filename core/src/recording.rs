//! What one rank does in one step: a list of dispatches over device buffers and scratch memory, and
//! of collectives between them.
//!
//! A recording is made once and run many times: what changes from step to step (position, token)
//! lives in buffers. Scratch memory is planned when the recording is prepared: two scratch tensors
//! that are never alive at once share a buffer.

mod fuse;

use std::fmt;
use std::rc::Rc;

use crate::comm::{Collective, Placement};
use crate::device::{Buffer, Limits};
use crate::kernels::{Access, Kernel, Params, Variant, expert_count};
use crate::tensor::{Storage, Tensor};
use crate::weights::source::LocalFuture;
use crate::{DType, Error, Result};

/// One kernel call.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// Which kernel.
    pub kernel: &'static Kernel,
    /// Shapes, constants and switches.
    pub params: Params,
    /// One entry per [`Kernel::bindings`]; `None` for an optional binding that is not used.
    pub bindings: Vec<Option<Tensor>>,
    /// Name of the variant to run; `None` for the device's first choice.
    pub variant: Option<&'static str>,
}

impl Dispatch {
    /// The tensors that it writes.
    pub fn written(&self) -> impl Iterator<Item = &Tensor> {
        let bindings = self.kernel.bindings.iter().zip(&self.bindings);
        let written = bindings.filter(|(binding, _)| binding.access == Access::Write);
        written.filter_map(|(_, tensor)| tensor.as_ref())
    }

    /// The variant that a device with these limits runs.
    ///
    /// # Errors
    ///
    /// The reason why there is none.
    pub fn choose(&self, limits: &Limits) -> std::result::Result<Variant, String> {
        let mut variants = (self.kernel.variants)(&self.params, limits).into_iter();
        let found = match self.variant {
            Some(name) => variants.find(|v| v.name == name),
            None => variants.next(),
        };
        let name = self.kernel.name;
        let found = found.ok_or_else(|| {
            let variant = self.variant.unwrap_or("any");
            format!("{name}: no variant {variant} here")
        })?;
        let most = limits.max_workgroups;
        match found.workgroups.iter().all(|n| *n <= most) {
            true => Ok(found),
            false => Err(format!(
                "{name}: {:?} workgroups, the device allows {most} in a dimension",
                found.workgroups
            )),
        }
    }
}

/// Uniform arguments of dispatches, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedArgs {
    /// All of them.
    pub bytes: Vec<u8>,
    /// Offset and size of each dispatch's, if it has some.
    pub places: Vec<Option<(u64, u64)>>,
}

impl PackedArgs {
    /// Those of `dispatches`, at multiples of `align` bytes.
    pub fn new(dispatches: &[&Dispatch], align: usize) -> Self {
        let mut packed = PackedArgs::default();
        for dispatch in dispatches {
            if dispatch.kernel.uniforms.is_empty() {
                packed.places.push(None);
                continue;
            }
            let start = packed.bytes.len().next_multiple_of(align);
            packed.bytes.resize(start, 0);
            let args = dispatch.kernel.args(&dispatch.params);
            packed.places.push(Some((start as u64, args.len() as u64)));
            packed.bytes.extend_from_slice(&args);
        }
        packed
    }
}

/// One entry of a recording.
#[derive(Clone, Debug)]
pub enum Item {
    /// A kernel call.
    Dispatch(Dispatch),
    /// Communication with other ranks.
    Collective(Collective),
    /// The calls up to the next [`Item::EndPaged`] run once in each round of these.
    Paged(Paged),
    /// See [`Item::Paged`].
    EndPaged,
}

impl Item {
    /// The tensors it reads or writes.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let (dispatch, collective, paged) = match self {
            Item::Dispatch(d) => (Some(d.bindings.iter().flatten()), None, None),
            Item::Collective(c) => (
                None,
                Some(c.input.iter().chain(&c.output).chain(&c.counts)),
                None,
            ),
            Item::Paged(p) => (None, None, Some(&p.ids)),
            Item::EndPaged => (None, None, None),
        };
        dispatch
            .into_iter()
            .flatten()
            .chain(collective.into_iter().flatten())
            .chain(paged)
    }
}

/// Calls whose weights the host brings into device memory while the step runs.
#[derive(Clone)]
pub struct Paged {
    /// Who brings them.
    pub by: Rc<dyn Paging>,
    /// What is needed, u32: read back before the first round.
    pub ids: Tensor,
}

impl fmt::Debug for Paged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paged").field("ids", &self.ids).finish()
    }
}

/// Brings what calls need into device memory, in as many rounds as there is room for.
pub trait Paging {
    /// A buffer that it writes before each round.
    fn written(&self) -> Option<Tensor>;

    /// Takes what is needed; gives the number of rounds.
    fn begin(&self, ids: &[u32]) -> usize;

    /// Queues what a round needs.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a file cannot be read, [`Error::DeviceLost`].
    fn page(&self, round: usize) -> LocalFuture<'_, Result<()>>;

    /// Queues what will probably be needed next; called while the device computes the last round.
    ///
    /// # Errors
    ///
    /// As [`Paging::page`].
    fn ahead(&self) -> LocalFuture<'_, Result<()>>;
}

/// A list of dispatches, collectives and what the host does between them.
#[derive(Clone, Debug)]
pub struct Recording {
    items: Vec<Item>,
    /// Bytes of each scratch tensor.
    scratch: Vec<u64>,
    /// Scratch tensors that somebody reads after the run.
    kept: Vec<usize>,
    /// Layers with experts, and those of each token `(T, k)`.
    routes: Vec<(usize, Tensor)>,
    /// `(layers, E)` u32: how often each expert was chosen.
    route_counts: Option<Tensor>,
    placement: Rc<Placement>,
}

impl Default for Recording {
    fn default() -> Self {
        Recording::new()
    }
}

/// Which buffer each scratch tensor uses, and how big each buffer is.
#[derive(Debug, PartialEq, Eq)]
pub struct ScratchPlan {
    /// Bytes of each buffer.
    pub buffers: Vec<u64>,
    /// Buffer of each scratch tensor.
    pub slot: Vec<usize>,
}

impl Recording {
    /// An empty recording of a rank that holds everything.
    pub fn new() -> Self {
        Recording::of(Rc::new(Placement::alone()))
    }

    /// An empty recording of this rank.
    pub fn of(placement: Rc<Placement>) -> Self {
        Recording {
            items: Vec::new(),
            scratch: Vec::new(),
            kept: Vec::new(),
            routes: Vec::new(),
            route_counts: None,
            placement,
        }
    }

    /// Which rank it is of.
    pub fn placement(&self) -> &Rc<Placement> {
        &self.placement
    }

    /// A tensor that lives from its first use to its last within one run.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the size overflows.
    pub fn scratch(&mut self, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let len = shape.iter().try_fold(1usize, |a, b| a.checked_mul(*b));
        let bytes = len.and_then(|len| dtype.bytes(len)).ok_or_else(|| {
            Error::Invalid(format!("scratch tensor of shape {shape:?} overflows"))
        })?;
        let slot = self.scratch_bytes(bytes.next_multiple_of(16).max(16) as u64);
        Ok(Tensor::new(Storage::Scratch(slot), dtype, shape))
    }

    /// The same by size; gives its number.
    pub(crate) fn scratch_bytes(&mut self, bytes: u64) -> usize {
        self.scratch.push(bytes);
        self.scratch.len() - 1
    }

    /// Bytes of each scratch tensor.
    pub(crate) fn scratch_sizes(&self) -> &[u64] {
        &self.scratch
    }

    /// Numbers of the scratch tensors that are read after the run.
    pub(crate) fn kept(&self) -> &[usize] {
        &self.kept
    }

    /// Keeps a scratch tensor's memory to itself from its first use to the end, so that it can be
    /// read after the run.
    pub fn keep(&mut self, tensor: &Tensor) {
        if let Storage::Scratch(slot) = tensor.storage {
            self.kept.push(slot);
        }
    }

    /// What is recorded after this adds the choices of its routers to `counts`, `(layers, E)` u32, or to nothing.
    pub fn count_routes(&mut self, counts: Option<&Tensor>) {
        self.route_counts = counts.cloned();
    }

    /// Notes the experts `(T, k)` u32 that a layer's tokens go to.
    pub fn note_route(&mut self, layer: usize, experts: &Tensor) {
        self.routes.push((layer, experts.clone()));
        if let Some(counts) = &self.route_counts {
            let count = counts.cols();
            self.items.push(Item::Dispatch(Dispatch {
                kernel: &expert_count::KERNEL,
                params: expert_count::params(experts.len(), count, layer * count, true),
                bindings: vec![Some(experts.clone()), Some(counts.clone())],
                variant: None,
            }));
        }
    }

    /// What was noted of this recording's own layers, in their order.
    pub fn routes(&self) -> &[(usize, Tensor)] {
        &self.routes
    }

    /// Appends a call of `kernel`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the bindings are not those of the kernel.
    pub fn push(
        &mut self,
        kernel: &'static Kernel,
        params: Params,
        bindings: Vec<Option<Tensor>>,
    ) -> Result<()> {
        if bindings.len() != kernel.bindings.len() {
            return Err(Error::Invalid(format!(
                "{}: {} bindings given, expected {}",
                kernel.name,
                bindings.len(),
                kernel.bindings.len()
            )));
        }
        for (binding, tensor) in kernel.bindings.iter().zip(&bindings) {
            if tensor.is_none() && !binding.optional {
                return Err(Error::Invalid(format!(
                    "{}: binding {} is missing",
                    kernel.name, binding.name
                )));
            }
        }
        self.items.push(Item::Dispatch(Dispatch {
            kernel,
            params,
            bindings,
            variant: None,
        }));
        Ok(())
    }

    /// Appends a rank's part in a collective; nothing if it is alone in the group.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the shapes do not fit the kind.
    pub fn communicate(&mut self, collective: Collective) -> Result<()> {
        crate::comm::host::check(&collective)?;
        self.items.push(Item::Collective(collective));
        Ok(())
    }

    /// The calls until [`Recording::end_paged`] run once in each round of these.
    pub fn begin_paged(&mut self, paged: Paged) {
        self.items.push(Item::Paged(paged));
    }

    /// Ends what [`Recording::begin_paged`] began.
    pub fn end_paged(&mut self) {
        self.items.push(Item::EndPaged);
    }

    /// Appends an item whose tensors are this recording's.
    pub(crate) fn push_item(&mut self, item: Item) {
        self.items.push(item);
    }

    /// Appends all of another recording; gives what is added to its scratch tensors' numbers.
    pub(crate) fn append(&mut self, other: Recording) -> usize {
        let offset = self.scratch.len();
        self.scratch.extend(other.scratch);
        self.kept
            .extend(other.kept.iter().map(|slot| slot + offset));
        let moved = |tensor: &mut Tensor| {
            if let Storage::Scratch(slot) = &mut tensor.storage {
                *slot += offset;
            }
        };
        for mut item in other.items {
            match &mut item {
                Item::Dispatch(d) => d.bindings.iter_mut().flatten().for_each(moved),
                Item::Collective(c) => (c.input.iter_mut().chain(&mut c.output))
                    .chain(&mut c.counts)
                    .for_each(moved),
                Item::Paged(p) => std::iter::once(&mut p.ids).for_each(moved),
                Item::EndPaged => {}
            }
            self.items.push(item);
        }
        offset
    }

    /// The last item that names a scratch tensor: the one that makes it, if nobody has read it yet.
    pub(crate) fn maker(&self, slot: usize) -> Option<usize> {
        self.items.iter().rposition(|item| {
            item.tensors()
                .any(|t| matches!(t.storage, Storage::Scratch(s) if s == slot))
        })
    }

    /// A call, to change it.
    pub(crate) fn dispatch_mut(&mut self, item: usize) -> Option<&mut Dispatch> {
        match self.items.get_mut(item) {
            Some(Item::Dispatch(dispatch)) => Some(dispatch),
            _ => None,
        }
    }

    /// Calls and collectives in order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The calls in order.
    pub fn dispatches(&self) -> impl Iterator<Item = &Dispatch> {
        self.items.iter().filter_map(|item| match item {
            Item::Dispatch(dispatch) => Some(dispatch),
            _ => None,
        })
    }

    /// The calls between collectives and what the host does; a device runs one such segment at a time.
    pub fn segments(&self) -> Vec<Vec<&Dispatch>> {
        let mut segments = vec![Vec::new()];
        for item in &self.items {
            match item {
                Item::Dispatch(dispatch) => {
                    if let Some(last) = segments.last_mut() {
                        last.push(dispatch);
                    }
                }
                Item::Collective(_) | Item::Paged(_) | Item::EndPaged => segments.push(Vec::new()),
            }
        }
        segments
    }

    /// Where calls that run in rounds begin and end among the items.
    fn paged_ranges(&self) -> Vec<(usize, usize)> {
        let at = |paged: fn(&Item) -> bool| {
            let items = self.items.iter().enumerate();
            items.filter(move |(_, item)| paged(item)).map(|(i, _)| i)
        };
        let begins = at(|item| matches!(item, Item::Paged(_)));
        begins
            .zip(at(|item| matches!(item, Item::EndPaged)))
            .collect()
    }

    /// Runs this variant of the last call instead of the device's first choice; for tests and
    /// tuning.
    pub fn force_variant(&mut self, variant: &'static str) {
        if let Some(Item::Dispatch(last)) = self.items.last_mut() {
            last.variant = Some(variant);
        }
    }

    /// Shares memory between scratch tensors that are never alive at once.
    pub fn plan_scratch(&self) -> ScratchPlan {
        const NEVER: usize = usize::MAX;
        let mut first = vec![NEVER; self.scratch.len()];
        let mut last = vec![0; self.scratch.len()];
        for (i, item) in self.items.iter().enumerate() {
            for tensor in item.tensors() {
                if let Storage::Scratch(s) = tensor.storage {
                    first[s] = first[s].min(i);
                    last[s] = i;
                }
            }
        }
        // What comes into calls that run several times, or leaves them, lives all that time.
        for (begin, end) in self.paged_ranges() {
            for s in 0..self.scratch.len() {
                if first[s] < begin && (begin..end).contains(&last[s]) {
                    last[s] = end;
                }
                if (begin..end).contains(&first[s]) && last[s] > end {
                    first[s] = begin;
                }
            }
        }
        for &s in &self.kept {
            last[s] = NEVER;
        }
        let mut order: Vec<usize> = (0..self.scratch.len()).collect();
        order.sort_by_key(|&s| first[s]);
        let mut buffers: Vec<u64> = Vec::new();
        let mut free_after: Vec<usize> = Vec::new();
        let mut slot = vec![0; self.scratch.len()];
        for s in order {
            // What nobody uses any more needs no memory.
            if first[s] == NEVER && last[s] != NEVER && !buffers.is_empty() {
                continue;
            }
            // Best fit among the free buffers: the smallest that is large enough, else the largest.
            let bytes = self.scratch[s];
            let free =
                (0..buffers.len()).filter(|&b| first[s] != NEVER && free_after[b] < first[s]);
            let best = free.min_by_key(|&b| (buffers[b] < bytes, buffers[b].abs_diff(bytes)));
            let b = best.unwrap_or_else(|| {
                buffers.push(0);
                free_after.push(0);
                buffers.len() - 1
            });
            buffers[b] = buffers[b].max(bytes);
            free_after[b] = last[s];
            slot[s] = b;
        }
        ScratchPlan { buffers, slot }
    }
}

/// Finds the buffer behind a tensor of a prepared recording.
pub fn resolve<'a>(tensor: &'a Tensor, plan: &ScratchPlan, pool: &'a [Buffer]) -> &'a Buffer {
    match &tensor.storage {
        Storage::Buffer(buffer) => buffer,
        Storage::Scratch(s) => &pool[plan.slot[*s]],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::norm;

    fn norm_of(r: &mut Recording, x: &Tensor, w: &Tensor) -> Tensor {
        let y = r.scratch(DType::F32, &[1, 64]).unwrap();
        let params = Params::new().u32("T", 1).u32("FIRST", 0);
        let mut bindings = vec![Some(x.clone()), Some(w.clone()), None, None];
        bindings.extend([Some(y.clone()), None, None, None]);
        r.push(&norm::KERNEL, params, bindings).unwrap();
        y
    }

    #[test]
    fn a_chain_of_scratch_tensors_needs_two_buffers() {
        let mut r = Recording::new();
        let mut x = r.scratch(DType::F32, &[1, 64]).unwrap();
        let w = Tensor::new(Storage::Buffer(Buffer::new((), 256)), DType::F32, &[64]);
        for _ in 0..5 {
            x = norm_of(&mut r, &x, &w);
        }
        let plan = r.plan_scratch();
        assert_eq!(plan.buffers, [256, 256]);
        assert_eq!(plan.slot, [0, 1, 0, 1, 0, 1]);
    }

    struct Nothing;

    impl Paging for Nothing {
        fn written(&self) -> Option<Tensor> {
            None
        }

        fn begin(&self, _: &[u32]) -> usize {
            1
        }

        fn page(&self, _: usize) -> LocalFuture<'_, Result<()>> {
            Box::pin(std::future::ready(Ok(())))
        }

        fn ahead(&self) -> LocalFuture<'_, Result<()>> {
            Box::pin(std::future::ready(Ok(())))
        }
    }

    #[test]
    fn what_calls_in_rounds_read_and_leave_lives_through_all_rounds() {
        let mut r = Recording::new();
        let w = Tensor::new(Storage::Buffer(Buffer::new((), 256)), DType::F32, &[64]);
        let x = norm_of(&mut r, &w, &w);
        let ids = r.scratch(DType::U32, &[1]).unwrap();
        let by = Rc::new(Nothing);
        r.begin_paged(Paged { by, ids });
        let h = norm_of(&mut r, &x, &w);
        let y = norm_of(&mut r, &h, &w);
        r.end_paged();
        norm_of(&mut r, &y, &w);
        let plan = r.plan_scratch();
        let [x, h, y] = [x, h, y].map(|t| match t.storage {
            Storage::Scratch(slot) => plan.slot[slot],
            Storage::Buffer(_) => usize::MAX,
        });
        assert!(x != h && x != y && h != y, "{x} {h} {y}");
        assert_eq!(
            r.segments().iter().map(Vec::len).collect::<Vec<_>>(),
            [1, 2, 1]
        );
    }

    #[test]
    fn a_kept_tensor_is_not_overwritten() {
        let mut r = Recording::new();
        let x = r.scratch(DType::F32, &[1, 64]).unwrap();
        let w = Tensor::new(Storage::Buffer(Buffer::new((), 256)), DType::F32, &[64]);
        let y = norm_of(&mut r, &x, &w);
        r.keep(&y);
        let z = norm_of(&mut r, &y, &w);
        norm_of(&mut r, &z, &w);
        let plan = r.plan_scratch();
        let used_by_y = plan.slot.iter().filter(|b| **b == plan.slot[1]).count();
        assert_eq!(used_by_y, 1);
    }
}
