//! Numbers attached to groups, each group's on a list of its own: files of its event descriptors, values of its readers of peaks.
//!
//! A number's slot is on one list, whose first link is a word of its group. One lock guards all lists of a kind, and is held while
//! something is done with their numbers; nothing is taken under it.

#![expect(unsafe_code, reason = "vouches for a type that may start as zeroes")]

use crate::sync::{AtomicU32, AtomicU64, Guard, Lock, Ordering};
use crate::table::{Slot, Table};

/// All lists of one kind.
pub(super) struct Attached {
    lock: Lock<()>,
    table: Table<AttachedSlot, 64>,
}

#[repr(C)]
struct AttachedSlot {
    number: AtomicU64,
    /// One more than the index of the next on the list, or 0. So is a list's first link.
    next: AtomicU32,
    next_free: AtomicU32,
}

// SAFETY: zero is a valid value of every field, and all are atomics.
unsafe impl Slot for AttachedSlot {
    fn next_free(&self) -> &AtomicU32 {
        &self.next_free
    }
}

/// The lists of a kind while they are held.
pub(super) struct Held<'a> {
    attached: &'a Attached,
    _lock: Guard<'a, ()>,
}

impl Attached {
    pub(super) const fn new() -> Attached {
        Attached { lock: Lock::new(()), table: Table::new() }
    }

    /// Puts a number on the list that `first` begins, and returns its index. `None` without memory.
    pub(super) fn add(&self, first: &AtomicU32, number: u64) -> Option<u32> {
        let idx = self.table.alloc()?;
        let slot = self.table.get(idx);
        slot.number.store(number, Ordering::Relaxed);
        let _lock = self.lock.lock();
        slot.next.store(first.load(Ordering::Relaxed), Ordering::Relaxed);
        first.store(idx + 1, Ordering::Relaxed);
        Some(idx)
    }

    /// Takes a number off its list: nobody does anything with it any more.
    pub(super) fn remove(&self, first: &AtomicU32, idx: u32) {
        let lock = self.lock.lock();
        let mut link = first;
        while let at = link.load(Ordering::Relaxed)
            && at != idx + 1
            && at != 0
        {
            link = &self.table.get(at - 1).next;
        }
        link.store(self.table.get(idx).next.load(Ordering::Relaxed), Ordering::Relaxed);
        drop(lock);
        self.table.free(idx);
    }

    pub(super) fn hold(&self) -> Held<'_> {
        Held { attached: self, _lock: self.lock.lock() }
    }

    pub(super) fn hold_for_fork(&self) {
        self.lock.hold_for_fork();
        self.table.hold_for_fork();
    }

    pub(super) fn release_after_fork(&self) {
        self.table.release_after_fork();
        self.lock.force_unlock();
    }
}

impl Held<'_> {
    pub(super) fn number(&self, idx: u32) -> &AtomicU64 {
        &self.attached.table.get(idx).number
    }

    /// Visits the numbers of one list.
    pub(super) fn for_each(&self, first: &AtomicU32, mut visit: impl FnMut(&AtomicU64)) {
        let mut at = first.load(Ordering::Relaxed);
        while let Some(idx) = at.checked_sub(1) {
            let slot = self.attached.table.get(idx);
            visit(&slot.number);
            at = slot.next.load(Ordering::Relaxed);
        }
    }
}
