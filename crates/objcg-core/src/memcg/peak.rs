//! Readers of a group's peak, each with a peak of its own since its last reset: the kernel's `memory.peak`.
//!
//! A charge raises one word for all readers, the most since *anybody's* last reset. A reset takes that word, starts it anew, and
//! hands what it held to the other readers, which keep the most of what they were handed. So charges pay the same for any number
//! of readers, and resets, under one lock, pay for each.

use super::Memcg;
use super::attached::Attached;
use super::node::{Node, node};
use crate::sync::Ordering;

/// The readers of all groups: the most that others' resets have handed over since a reader's own; [`WHOLE_LIFE`] before its first.
static READERS: Attached = Attached::new();
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
        let slot = READERS.add(&node(self.idx).first_peak_reader, WHOLE_LIFE)?;
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
        let readers = READERS.hold();
        match readers.number(self.slot).load(Ordering::Relaxed) {
            WHOLE_LIFE => self.node().counter.peak(),
            handed => handed.max(self.node().counter.recent_peak()),
        }
    }

    /// Starts this reader's peak anew at the present usage. Linear in the group's readers.
    pub fn reset(&self) {
        let readers = READERS.hold();
        let recent = self.node().counter.take_recent_peak();
        // One that reads the whole life has the largest value already.
        readers.for_each(&self.node().first_peak_reader, |handed| {
            handed.fetch_max(recent, Ordering::Relaxed);
        });
        readers.number(self.slot).store(0, Ordering::Relaxed);
    }
}

impl Drop for PeakReader {
    fn drop(&mut self) {
        READERS.remove(&self.node().first_peak_reader, self.slot);
    }
}

pub(super) fn hold_for_fork() {
    READERS.hold_for_fork();
}

pub(super) fn release_after_fork() {
    READERS.release_after_fork();
}
