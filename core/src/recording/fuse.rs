//! Calls that become part of others: fewer launches, and less that goes through memory.
//!
//! | calls | become |
//! |---|---|
//! | `matvec` of q, k and v, `qkv_append` | `qkv_product` |
//! | `norm`, then `matvec`, `gated_mlp` or `qkv_product` of it | the latter with `NORM` |
//!
//! What a layer computes stays the same; only a norm's factor is multiplied after the sums instead of before.

use super::{Dispatch, Item, Recording};
use crate::device::{DeviceKind, Limits};
use crate::kernels::{
    Binding, Kernel, Params, gated_mlp, matvec, norm, qkv_append, qkv_product, with_norm,
};
use crate::tensor::{Storage, Tensor};

/// More tokens than this are multiplied in tiles, for which a norm would be computed again by each.
const FEW_TOKENS: u32 = 4;

impl Recording {
    /// The same recording in fewer calls, for a device of these limits.
    pub fn fuse(mut self, limits: &Limits) -> Self {
        self.absorb(Self::merged_qkv);
        // Where an invocation has rows to itself each of them would multiply by the norm's weight again.
        if limits.kind != DeviceKind::SoftwareGpu {
            self.absorb(Self::normalising);
        }
        self
    }

    /// Removes every call that others can do too; `into` says what these become.
    fn absorb(&mut self, into: impl Fn(&Self, usize) -> Option<Vec<(usize, Dispatch)>>) {
        let mut at = 0;
        while at < self.items.len() {
            match into(self, at) {
                Some(calls) => {
                    for (item, call) in calls {
                        self.items[item] = Item::Dispatch(call);
                    }
                    self.items.remove(at);
                }
                None => at += 1,
            }
        }
    }

    fn call(&self, item: usize, kernel: &Kernel) -> Option<&Dispatch> {
        match self.items.get(item)? {
            Item::Dispatch(d) if is(d, kernel) && d.variant.is_none() => Some(d),
            _ => None,
        }
    }

    /// The items that name a scratch tensor; `None` when it is read after the run.
    fn users(&self, slot: usize) -> Option<Vec<usize>> {
        if self.kept.contains(&slot) {
            return None;
        }
        let items = self.items.iter().enumerate();
        let users = items.filter(|(_, item)| item.tensors().any(|t| is_scratch(t, slot)));
        Some(users.map(|(i, _)| i).collect())
    }

    /// What the products before the `qkv_append` at `at` become when they append.
    fn merged_qkv(&self, at: usize) -> Option<Vec<(usize, Dispatch)>> {
        let append = self.call(at, &qkv_append::KERNEL)?;
        let mut products = self.users(scratch(bound(append, "x")?)?)?;
        if products.pop()? != at {
            return None;
        }
        // Others, as of a rank that shares the device, may be between if it is the same to them and to the call when it is done.
        let apart = |item: &Item| match item {
            Item::Dispatch(d) => {
                let made = |t: &Tensor| append.written().any(|made| made.shares_memory(t));
                let read =
                    |t: &Tensor| append.bindings.iter().flatten().any(|r| r.shares_memory(t));
                !item.tensors().any(made) && !d.written().any(read)
            }
            _ => false,
        };
        let mut between = (*products.first()?..at).filter(|item| !products.contains(item));
        if !between.all(|item| apart(&self.items[item])) {
            return None;
        }
        let merge = |item: usize| {
            let product = self.call(item, &matvec::KERNEL)?;
            let params = qkv_product::merged(&product.params, &append.params)?;
            let of = |name: &str| {
                bound(product, name)
                    .or_else(|| bound(append, name))
                    .cloned()
            };
            let bindings = qkv_product::KERNEL.bindings.iter().map(|b| match b.name {
                "x" => bound(product, "x").cloned(),
                name => of(name),
            });
            let call = Dispatch {
                kernel: &qkv_product::KERNEL,
                params,
                bindings: bindings.collect(),
                variant: None,
            };
            Some((item, call))
        };
        products.into_iter().map(merge).collect()
    }

    /// What the calls that read the norm at `at` become when each of them normalises.
    fn normalising(&self, at: usize) -> Option<Vec<(usize, Dispatch)>> {
        let call = self.call(at, &norm::KERNEL)?;
        let (x, weight, y) = (bound(call, "x")?, bound(call, "weight")?, bound(call, "y")?);
        if !is_plain_rms_norm(&call.params) || call.bindings.iter().flatten().count() != 3 {
            return None;
        }
        let slot = scratch(y)?;
        let mut readers = self.users(slot)?;
        if readers.remove(0) != at {
            return None;
        }
        // x must still be what it is, and a segment ends where there is no call.
        let stays = |item: &Item| match item {
            Item::Dispatch(d) => d.written().all(|t| !t.shares_memory(x)),
            _ => false,
        };
        if !self.items[at + 1..=*readers.last()?].iter().all(stays) {
            return None;
        }
        let eps = call.params.number("EPS");
        let with = |item: usize| {
            let kernels = [&matvec::KERNEL, &gated_mlp::KERNEL, &qkv_product::KERNEL];
            let reader = kernels.iter().find_map(|kernel| self.call(item, kernel))?;
            let p = &reader.params;
            let once = (reader.bindings.iter().flatten()).filter(|t| is_scratch(t, slot));
            let fits = once.count() == 1
                && is_scratch(bound(reader, "x")?, slot)
                && p.get("T") <= FEW_TOKENS
                && (p.get("T"), p.get("K")) == (call.params.get("T"), call.params.get("C"))
                && !p.is("EXPERTS")
                && !p.is("NORM");
            let mut reader = reader.clone();
            for (binding, tensor) in reader.kernel.bindings.iter().zip(&mut reader.bindings) {
                match binding.name {
                    "x" => *tensor = Some(x.clone()),
                    "norm" => *tensor = Some(weight.clone()),
                    _ => {}
                }
            }
            reader.params = with_norm(reader.params, eps);
            fits.then_some((item, reader))
        };
        readers.into_iter().map(with).collect()
    }
}

fn is(dispatch: &Dispatch, kernel: &Kernel) -> bool {
    std::ptr::eq(dispatch.kernel, kernel)
}

/// RMSNorm of the first rows of x.
fn is_plain_rms_norm(p: &Params) -> bool {
    let one = |name| p.get(name) == 1;
    !p.is("CENTERED") && p.get("FIRST") == 0 && one("GROUPS") && one("SPATIAL")
}

fn bound<'a>(dispatch: &'a Dispatch, name: &str) -> Option<&'a Tensor> {
    let place = |b: &Binding| b.name == name;
    let i = dispatch.kernel.bindings.iter().position(place)?;
    dispatch.bindings[i].as_ref()
}

fn scratch(tensor: &Tensor) -> Option<usize> {
    match tensor.storage {
        Storage::Scratch(slot) => Some(slot),
        Storage::Buffer(_) => None,
    }
}

fn is_scratch(tensor: &Tensor, slot: usize) -> bool {
    scratch(tensor) == Some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::device::cpu::CpuDevice;
    use crate::device::{Buffer, Device};
    use crate::kernels::{Activation, Size, gated_mlp::First};

    fn buffer(shape: &[usize]) -> Tensor {
        Tensor::of(Buffer::new((), 0), DType::F32, shape)
    }

    fn norm(r: &mut Recording, x: &Tensor) -> Tensor {
        let y = r.scratch(DType::F32, &x.shape).unwrap();
        let params = norm::params(x.rows(), x.cols(), 0.5, 0).bool("WEIGHT", true);
        let mut bindings = vec![None; 8];
        bindings[0] = Some(x.clone());
        bindings[1] = Some(buffer(&[x.cols()]));
        bindings[4] = Some(y.clone());
        r.push(&norm::KERNEL, params, bindings).unwrap();
        y
    }

    fn product(r: &mut Recording, x: &Tensor, rows: std::ops::Range<usize>, y: &Tensor) {
        let size = Size::slice(x.rows(), rows, y.cols(), x.cols());
        let mut bindings = vec![None; 7];
        bindings[0] = Some(x.clone());
        bindings[1] = Some(buffer(&[size.rows, x.cols()]));
        bindings[4] = Some(y.clone());
        let params = matvec::params(size, DType::F32, false, false);
        r.push(&matvec::KERNEL, params, bindings).unwrap();
    }

    /// Two query heads and one of keys and values, 8 channels each.
    fn append(r: &mut Recording, qkv: &Tensor, norm: bool) -> Tensor {
        let q = r.scratch(DType::F32, &[qkv.rows(), 16]).unwrap();
        let call = qkv_append::Call {
            tokens: qkv.rows(),
            heads: 2,
            kv_heads: 1,
            head_size: 8,
            capacity: 4,
            kv: DType::F16,
            rope: Some((8, false)),
            norm: norm.then_some(1e-6),
            paged: false,
        };
        let cache = || Some(buffer(&[1, 4, 8]));
        let bindings = vec![
            Some(qkv.clone()),
            Some(buffer(&[4, 4, 2])),
            norm.then(|| buffer(&[8])),
            norm.then(|| buffer(&[8])),
            Some(q.clone()),
            cache(),
            cache(),
            Some(buffer(&[4])),
            None,
        ];
        let params = qkv_append::params(&call);
        r.push(&qkv_append::KERNEL, params, bindings).unwrap();
        q
    }

    fn mlp(r: &mut Recording, x: &Tensor) -> Tensor {
        let size = Size::new(x.rows(), 12, x.cols());
        let y = r.scratch(DType::F32, &[x.rows(), 12]).unwrap();
        let (f32, act) = (DType::F32, Activation::Silu);
        let params = gated_mlp::params(size, First::default(), f32, f32, act);
        let mut bindings = vec![None; 8];
        bindings[0] = Some(x.clone());
        bindings[1] = Some(buffer(&[12, x.cols()]));
        bindings[2] = bindings[1].clone();
        bindings[5] = Some(y.clone());
        r.push(&gated_mlp::KERNEL, params, bindings).unwrap();
        y
    }

    /// The names of the calls, with `+` where one normalises.
    fn fused(r: Recording) -> Vec<String> {
        let limits = CpuDevice::new().limits().clone();
        let calls = r.fuse(&limits);
        let name = |d: &Dispatch| match d.params.is("NORM") {
            true => format!("{}+", d.kernel.name),
            false => d.kernel.name.to_string(),
        };
        calls.dispatches().map(name).collect()
    }

    /// A block until attention, of so many tokens; q, k and v in slices that end at these rows.
    fn block(tokens: usize, ends: &[usize], heads_normalised: bool) -> Recording {
        let mut r = Recording::new();
        let h = norm(&mut r, &buffer(&[tokens, 24]));
        let qkv = r.scratch(DType::F32, &[tokens, 32]).unwrap();
        let mut first = 0;
        for end in ends {
            product(&mut r, &h, first..*end, &qkv);
            first = *end;
        }
        append(&mut r, &qkv, heads_normalised);
        r
    }

    #[test]
    fn a_block_until_attention_is_one_call() {
        assert_eq!(fused(block(1, &[32], false)), ["qkv_product+"]);
        assert_eq!(fused(block(4, &[32], false)), ["qkv_product+"]);
        let parts = ["qkv_product+", "qkv_product+"];
        assert_eq!(fused(block(2, &[24, 32], false)), parts);
    }

    #[test]
    fn ranks_in_turns_are_fused_too() {
        let (mut r, other) = (block(1, &[32], false), block(1, &[24, 32], false));
        let offset = r.items.len();
        r.append(other);
        // norm, product and append of the first, one more product of the other.
        let mut turns: Vec<Item> = r.items.drain(..).collect();
        let second = turns.split_off(offset);
        for (i, item) in second.into_iter().enumerate() {
            let place = (2 * i + 1).min(turns.len());
            turns.insert(place, item);
        }
        r.items = turns;
        assert_eq!(fused(r), ["qkv_product+"; 3]);
    }

    #[test]
    fn an_append_stays_behind_what_reads_its_caches() {
        let mut r = block(1, &[32], false);
        let cache = bound(r.dispatches().last().unwrap(), "k_cache").cloned();
        let mut reader = block(1, &[32], false).items.remove(0);
        if let Item::Dispatch(d) = &mut reader {
            d.bindings = vec![cache, None, None, None, Some(buffer(&[1, 24]))];
        }
        r.items.insert(2, reader);
        assert_eq!(fused(r), ["matvec+", "norm", "qkv_append"]);
    }

    #[test]
    fn what_is_bound_to_the_one_call_is_what_was_bound_to_the_two() {
        let limits = CpuDevice::new().limits().clone();
        let plain = block(1, &[32], false);
        let before: Vec<Dispatch> = plain.dispatches().cloned().collect();
        let after: Vec<Dispatch> = plain.fuse(&limits).dispatches().cloned().collect();
        let same = |name: &str, from: &Dispatch, of: &str| {
            let (a, b) = (bound(&after[0], name).unwrap(), bound(from, of).unwrap());
            assert!(a.shares_memory(b), "{name}");
        };
        same("x", &before[0], "x");
        same("norm", &before[0], "weight");
        same("w", &before[1], "w");
        for name in ["table", "q", "k_cache", "v_cache", "step"] {
            same(name, &before[2], name);
        }
        assert_eq!(after[0].params.number("EPS"), 0.5);
    }

    #[test]
    fn calls_that_do_not_fit_stay() {
        // Inside a head; heads that are normalised; so many tokens that each tile would normalise.
        let split = ["matvec+", "matvec+", "qkv_append"];
        assert_eq!(fused(block(1, &[20, 32], false)), split);
        assert_eq!(fused(block(1, &[32], true)), ["matvec+", "qkv_append+"]);
        assert_eq!(fused(block(5, &[32], false)), ["norm", "qkv_product"]);
    }

    #[test]
    fn a_norm_that_somebody_else_reads_stays() {
        let mut r = Recording::new();
        let x = buffer(&[1, 24]);
        let h = norm(&mut r, &x);
        mlp(&mut r, &h);
        let mut kept = r.clone();
        kept.keep(&h);
        assert_eq!(fused(kept), ["norm", "gated_mlp"]);
        let mut read = r.clone();
        norm(&mut read, &h);
        assert_eq!(fused(read), ["norm", "gated_mlp", "norm"]);
        assert_eq!(fused(r), ["gated_mlp+"]);
    }

    #[test]
    fn a_norm_of_what_changes_before_it_is_read_stays() {
        let mut r = Recording::new();
        let x = r.scratch(DType::F32, &[1, 24]).unwrap();
        let from = buffer(&[1, 24]);
        product(&mut r, &from, 0..24, &x);
        let h = norm(&mut r, &x);
        product(&mut r, &from, 0..24, &x);
        mlp(&mut r, &h);
        assert_eq!(fused(r), ["matvec", "norm", "matvec", "gated_mlp"]);
    }

    #[test]
    fn memory_of_what_is_gone_is_not_allocated() {
        let limits = CpuDevice::new().limits().clone();
        let r = block(1, &[32], false).fuse(&limits);
        // q alone.
        assert_eq!(r.plan_scratch().buffers, [64]);
    }
}
