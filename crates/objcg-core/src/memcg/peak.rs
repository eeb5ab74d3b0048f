//! Readers of a group's peak, each with a peak of its own since its last reset: the kernel's `memory.peak`.
//!
//! A charge raises one word for all readers, the most since *anybody's* last reset. A reset takes that word, starts it anew, and
//! hands what it held to the other readers, which keep the most of what they were handed. So charges pay the same for any number
//! of readers, and resets, under one lock, pay for each.

use super::Memcg;
use super::node::{Node, node};
use crate::sync::{AtomicU32, AtomicU64, Lock, Ordering};
use crate::table::{Slot, Table};

/// Guards all lists of readers, and their values.
static LISTS: Lock<()> = Lock::new(());
static TABLE: Table<ReaderSlot, 64> = Table::new();

#[repr(C)]
pub(super) struct ReaderSlot {
    /// The most that others' resets have handed over since this reader's own; [`WHOLE_LIFE`] before its first.
    handed: AtomicU64,
    /// One more than the number of the next on the list, or 0.
    next: AtomicU32,
    next_free: AtomicU32,
}

mod slot {
    #![expect(unsafe_code, reason = "vouches for a type that may start as zeroes")]

    use super::{AtomicU32, ReaderSlot, Slot};

    // SAFETY: zero is a valid value of every field, and all are atomics.
    unsafe impl Slot for ReaderSlot {
        fn next_free(&self) -> &AtomicU32 {
            &self.next_free
        }
    }
}

const WHOLE_LIFE: u64 = u64::MAX;

/// A reader of a group's peak that can be reset without disturbing the others: see [`Memcg::peak_reader`].
#[derive(Debug)]
pub struct PeakReader {
    group: Memcg,
    slot: u32,
}

impl Memcg {
    /// A reader of the group's peak with a reset of its own. It holds a handle to the group. `None` if the process is out of
    /// memory.
    #[must_use]
    pub fn peak_reader(&self) -> Option<PeakReader> {
        let slot = TABLE.alloc()?;
        TABLE.get(slot).handed.store(WHOLE_LIFE, Ordering::Relaxed);
        let _lists = LISTS.lock();
        let first = &node(self.idx).first_peak_reader;
        TABLE.get(slot).next.store(first.load(Ordering::Relaxed), Ordering::Relaxed);
        first.store(slot + 1, Ordering::Relaxed);
        Some(PeakReader { group: self.clone(), slot })
    }
}

impl PeakReader {
    fn node(&self) -> &'static Node {
        node(self.group.idx)
    }

    /// The most bytes that were charged at once since this reader's last [`reset`](PeakReader::reset); before its first, since
    /// the group was created. Takes a lock for a few loads.
    #[must_use]
    pub fn peak(&self) -> u64 {
        let _lists = LISTS.lock();
        match TABLE.get(self.slot).handed.load(Ordering::Relaxed) {
            WHOLE_LIFE => self.node().counter.peak(),
            handed => handed.max(self.node().counter.recent_peak()),
        }
    }

    /// Starts this reader's peak anew at the present usage. Linear in the group's readers.
    pub fn reset(&self) {
        let _lists = LISTS.lock();
        let recent = self.node().counter.take_recent_peak();
        let mut at = self.node().first_peak_reader.load(Ordering::Relaxed);
        while let Some(idx) = at.checked_sub(1) {
            let reader = TABLE.get(idx);
            // One that reads the whole life has the largest value already.
            reader.handed.fetch_max(recent, Ordering::Relaxed);
            at = reader.next.load(Ordering::Relaxed);
        }
        TABLE.get(self.slot).handed.store(0, Ordering::Relaxed);
    }
}

impl Drop for PeakReader {
    fn drop(&mut self) {
        let lists = LISTS.lock();
        let mut link = &self.node().first_peak_reader;
        while let at = link.load(Ordering::Relaxed)
            && at != self.slot + 1
            && at != 0
        {
            link = &TABLE.get(at - 1).next;
        }
        link.store(TABLE.get(self.slot).next.load(Ordering::Relaxed), Ordering::Relaxed);
        drop(lists);
        TABLE.free(self.slot);
    }
}

pub(super) fn hold_for_fork() {
    LISTS.hold_for_fork();
    TABLE.hold_for_fork();
}

pub(super) fn release_after_fork() {
    TABLE.release_after_fork();
    LISTS.force_unlock();
}
