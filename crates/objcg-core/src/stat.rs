//! What a group holds, found by looking: every owner vector, every descriptor, every stock.
//!
//! Counting objects per group on the fast path would cost every allocation; this costs whoever asks: about a nanosecond
//! for each object slot of slabs that have owners, and 64 bytes read a page. It is independent of the counters, so at a
//! quiet point `usage() == stat().total_bytes()` checks both.

use crate::hooks::OWNER_BYTES;
use crate::kmalloc;
use crate::memcg::{self, Memcg};
use crate::os::PAGE_SIZE;
use crate::page_alloc::{self, PageKind, PageStat};
use crate::percpu;
use crate::slab::{self, Cache, Members};
use crate::sync::Ordering;

/// What is charged to a group and its descendants, in objects and bytes. Exact at a quiet point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemcgStat {
    /// Objects in slabs.
    pub slab_objects: u64,
    /// Bytes of their slots.
    pub slab_bytes: u64,
    /// Objects in runs of pages or mappings of their own.
    pub large_objects: u64,
    /// Bytes of their pages.
    pub large_bytes: u64,
    /// Allocations of per-CPU memory.
    pub percpu_objects: u64,
    /// Their bytes on all CPUs.
    pub percpu_bytes: u64,
    /// Bytes of the slots in owner vectors, of slab objects and per-CPU memory.
    pub owner_bytes: u64,
    /// Bytes of descendant groups' own memory, and of vessels that deleted ones left.
    pub group_bytes: u64,
    /// Bytes that stocks hold ready.
    pub stock_bytes: u64,
}

impl MemcgStat {
    /// Everything: the group's usage, at a quiet point.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.slab_bytes + self.large_bytes + self.percpu_bytes + self.owner_bytes + self.group_bytes + self.stock_bytes
    }
}

impl Memcg {
    /// Drains the group, then looks at everything that is charged to it and its descendants; all zero for a deleted group.
    /// Linear in the heap, not in the group.
    #[must_use]
    pub fn stat(&self) -> MemcgStat {
        let mut stat = MemcgStat::default();
        if self.is_deleted() {
            return stat;
        }
        // Free objects that wait with their charge would look like live ones.
        self.drain();
        let mut members = Members::of(self.id());
        page_alloc::for_each_object_run(|_, head| match head.kind() {
            PageKind::Large => {
                if members.contain(head.owner.load(Ordering::Relaxed)) {
                    stat.large_objects += 1;
                    stat.large_bytes += u64::from(head.nr_pages()) * PAGE_SIZE as u64;
                }
            }
            _ => {
                let owners = slab::owners_of_slab(head).unwrap_or_default();
                let nr_objects = owners.iter().filter(|owner| members.contain(owner.load(Ordering::Relaxed))).count();
                stat.slab_objects += nr_objects as u64;
                stat.slab_bytes += (nr_objects * Cache::of_page(head).map_or(0, Cache::size)) as u64;
            }
        });
        kmalloc::for_each_huge(|owner, nr_bytes| {
            if members.contain(owner) {
                stat.large_objects += 1;
                stat.large_bytes += nr_bytes as u64;
            }
        });
        percpu::for_each_owned(|owner, nr_bytes| {
            if members.contain(owner) {
                stat.percpu_objects += 1;
                stat.percpu_bytes += nr_bytes;
            }
        });
        stat.owner_bytes = (stat.slab_objects + stat.percpu_objects) * OWNER_BYTES as u64;
        stat.group_bytes = memcg::group_bytes(self.id());
        stat.stock_bytes = memcg::stock_bytes(self.id());
        stat
    }
}

/// The most bytes by which one group's usage can exceed what its objects and groups hold, because stocks hold bytes ready and
/// sheaves hold free objects with their charge. [`Memcg::drain`] gives both back.
#[must_use]
pub fn stock_bound() -> u64 {
    memcg::stock_bound() + slab::in_kind_bound()
}

/// The page layer's figures: what the engine holds of the operating system.
#[must_use]
pub fn pages() -> PageStat {
    page_alloc::stat()
}
