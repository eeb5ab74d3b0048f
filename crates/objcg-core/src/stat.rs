//! What a group holds, found by looking: every owner vector, every descriptor, every stock.
//!
//! Counting objects per group on the fast path would cost every allocation; this costs whoever asks: about a nanosecond
//! for each object slot of slabs that have owners, and 64 bytes read a page. It is independent of the counters, so at a
//! quiet point `usage() == stat().total_bytes()` checks both.

use crate::hooks::OWNER_BYTES;
use crate::kmalloc;
use crate::memcg::{self, Memcg, ROOT_VESSEL};
use crate::os::PAGE_SIZE;
use crate::page_alloc::{self, PageKind, PageStat};
use crate::slab::{self, Cache};
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
    /// Bytes of the slab objects' slots in owner vectors.
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
        self.slab_bytes + self.large_bytes + self.owner_bytes + self.group_bytes + self.stock_bytes
    }
}

impl Memcg {
    /// Looks at everything that is charged to the group and its descendants; all zero for a deleted group. Linear in the
    /// heap, not in the group.
    #[must_use]
    pub fn stat(&self) -> MemcgStat {
        let mut stat = MemcgStat::default();
        if self.is_deleted() {
            return stat;
        }
        let mut members = Members { top: self.id(), last: (ROOT_VESSEL, false) };
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
                stat.slab_bytes += (nr_objects * Cache::of_slab(head).size()) as u64;
            }
        });
        kmalloc::for_each_huge(|owner, nr_bytes| {
            if members.contain(owner) {
                stat.large_objects += 1;
                stat.large_bytes += nr_bytes as u64;
            }
        });
        stat.owner_bytes = stat.slab_objects * OWNER_BYTES as u64;
        stat.group_bytes = memcg::group_bytes(self.id());
        stat.stock_bytes = memcg::stock_bytes(self.id());
        stat
    }
}

/// Which owners belong to a subtree; neighbours tend to have the same owner, so the last answer is kept.
struct Members {
    top: u32,
    last: (u32, bool),
}

impl Members {
    fn contain(&mut self, owner: u32) -> bool {
        if owner == ROOT_VESSEL {
            return false;
        }
        if self.last.0 != owner {
            self.last = (owner, memcg::leads_to(owner, self.top));
        }
        self.last.1
    }
}

/// The page layer's figures: what the engine holds of the operating system.
#[must_use]
pub fn pages() -> PageStat {
    page_alloc::stat()
}
