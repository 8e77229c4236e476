//! What of a device's memory is taken, and what for.

use std::any::Any;
use std::cell::Cell;
use std::rc::Rc;

use super::Buffer;

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A weight of a model, in the device's layout.
    Weights,
    /// A table that was computed, such as rope's.
    Tables,
    /// Keys and values.
    KvCache,
    /// Inputs, outputs and what lies between them.
    Activations,
    /// Slots of an [expert cache](crate::expert_cache).
    Experts,
    /// On its way to or from the host.
    Staging,
}

/// Bytes of a device's memory by purpose. Sizes are those that were allocated, after rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryUse {
    /// Weights of models.
    pub weights: u64,
    /// Tables by position.
    pub tables: u64,
    /// Keys and values.
    pub kv: u64,
    /// Inputs, outputs and what lies between them; arguments of kernels.
    pub activations: u64,
    /// Slots for experts.
    pub experts: u64,
    /// Read-backs, and writes of which it is not known that they have been done.
    pub staging: u64,
    /// All of these.
    pub total: u64,
    /// The most there was at a time.
    pub peak: u64,
    /// Bytes of files that are used in place: not allocated, so not in the total.
    pub mapped: u64,
    /// Compiled kernels; a number, not bytes.
    pub pipelines: u64,
}

impl MemoryUse {
    /// Is nothing taken?
    pub fn is_empty(&self) -> bool {
        self.total == 0 && self.mapped == 0 && self.pipelines == 0
    }
}

/// The account of one device. Clones share it, and it outlives the device, so that one can see that nothing is left.
#[derive(Clone, Default)]
pub struct Ledger(Rc<Cell<MemoryUse>>);

#[derive(Clone, Copy)]
enum Account {
    Memory(Purpose),
    Mapped,
    Pipelines,
}

impl Ledger {
    /// What is taken now.
    pub fn used(&self) -> MemoryUse {
        self.0.get()
    }

    /// A buffer whose `allocated` bytes count until its last clone is dropped.
    pub fn buffer(&self, inner: impl Any, bytes: u64, allocated: u64, purpose: Purpose) -> Buffer {
        Buffer::new(inner, bytes).counted(self.memory(purpose, allocated))
    }

    /// A buffer that is a part of a file.
    pub fn mapped(&self, inner: impl Any, bytes: u64) -> Buffer {
        Buffer::new(inner, bytes).counted(self.enter(Account::Mapped, bytes))
    }

    /// Counts bytes until the entry is dropped.
    pub fn memory(&self, purpose: Purpose, bytes: u64) -> Entry {
        self.enter(Account::Memory(purpose), bytes)
    }

    /// Counts a compiled kernel until the entry is dropped.
    pub fn pipeline(&self) -> Entry {
        self.enter(Account::Pipelines, 1)
    }

    fn enter(&self, account: Account, amount: u64) -> Entry {
        let mut entry = Entry {
            ledger: self.clone(),
            account,
            amount: 0,
        };
        entry.add(amount);
        entry
    }

    fn change(&self, account: Account, change: impl Fn(u64) -> u64) {
        let mut used = self.0.get();
        let place = match account {
            Account::Memory(purpose) => {
                used.total = change(used.total);
                used.peak = used.peak.max(used.total);
                match purpose {
                    Purpose::Weights => &mut used.weights,
                    Purpose::Tables => &mut used.tables,
                    Purpose::KvCache => &mut used.kv,
                    Purpose::Activations => &mut used.activations,
                    Purpose::Experts => &mut used.experts,
                    Purpose::Staging => &mut used.staging,
                }
            }
            Account::Mapped => &mut used.mapped,
            Account::Pipelines => &mut used.pipelines,
        };
        *place = change(*place);
        self.0.set(used);
    }
}

/// An amount that a [`Ledger`] counts while this lives.
pub struct Entry {
    ledger: Ledger,
    account: Account,
    amount: u64,
}

impl Entry {
    /// Counts so much more.
    pub fn add(&mut self, amount: u64) {
        self.amount += amount;
        self.ledger.change(self.account, |n| n + amount);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.ledger.change(self.account, |n| n - self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_until_the_last_clone_is_dropped() {
        let ledger = Ledger::default();
        let buffer = ledger.buffer((), 3, 16, Purpose::KvCache);
        let again = buffer.clone();
        let weights = ledger.buffer((), 32, 32, Purpose::Weights);
        let want = MemoryUse {
            weights: 32,
            kv: 16,
            total: 48,
            peak: 48,
            ..MemoryUse::default()
        };
        assert_eq!(ledger.used(), want);
        drop((buffer, weights));
        assert_eq!((ledger.used().kv, ledger.used().total), (16, 16));
        drop(again);
        assert!(ledger.used().is_empty());
        assert_eq!(ledger.used().peak, 48);
    }

    #[test]
    fn files_in_place_and_kernels_are_not_allocated_bytes() {
        let ledger = Ledger::default();
        let (buffer, kernel) = (ledger.mapped((), 100), ledger.pipeline());
        let used = ledger.used();
        assert_eq!((used.mapped, used.pipelines, used.total), (100, 1, 0));
        assert!(!used.is_empty());
        drop((buffer, kernel));
        assert!(ledger.used().is_empty());
    }

    #[test]
    fn an_entry_that_grows_is_given_back_whole() {
        let ledger = Ledger::default();
        let mut entry = ledger.memory(Purpose::Staging, 4);
        entry.add(60);
        assert_eq!(ledger.used().staging, 64);
        drop(entry);
        assert_eq!((ledger.used().staging, ledger.used().peak), (0, 64));
    }
}
