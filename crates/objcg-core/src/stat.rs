//! What a group holds, found by looking: every descriptor, every owner vector, every stock.
//!
//! Counting objects per group on the fast path would cost every allocation; this costs whoever asks: about a nanosecond
//! for each object slot of slabs that have owners, and 16 bytes read a page. It is independent of the counters, so at a
//! quiet point `usage() == stat().total_bytes()` checks both.

use crate::hooks::OWNER_BYTES;
use crate::kmalloc;
use crate::memcg::{self, Memcg};
use crate::os::PAGE_SIZE;
use crate::page_alloc::{self, PageKind, PageStat};
use crate::percpu;
use crate::size_class::NR_CLASSES;
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
    /// Charges for memory that the engine does not make.
    pub external_charges: u64,
    /// Their bytes.
    pub external_bytes: u64,
}

impl MemcgStat {
    /// Everything: the group's usage, at a quiet point.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        let objects = self.slab_bytes + self.large_bytes + self.percpu_bytes + self.owner_bytes;
        objects + self.group_bytes + self.stock_bytes + self.external_bytes
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
        page_alloc::for_each_object_run(|at, head| match head.kind() {
            PageKind::Large => {
                if members.contain(head.owner().load(Ordering::Relaxed)) {
                    stat.large_objects += 1;
                    stat.large_bytes += u64::from(head.nr_pages()) * PAGE_SIZE as u64;
                }
            }
            _ => {
                let slab = page_alloc::lookup(at);
                let nr_objects = slab::nr_owned(slab, head, |owner| members.contain(owner));
                stat.slab_objects += nr_objects;
                stat.slab_bytes += nr_objects * Cache::of_page(slab).map_or(0, Cache::size) as u64;
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
        memcg::for_each_external(|owner, nr_bytes| {
            if members.contain(owner) {
                stat.external_charges += 1;
                stat.external_bytes += nr_bytes;
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

/// What a size class holds, for all groups and for nobody. Exact at a quiet point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassStat {
    /// Bytes of an object's slot.
    pub size: usize,
    /// Live objects.
    pub nr_objects: u64,
    /// Free objects that CPUs keep at hand.
    pub nr_waiting: u64,
    /// Slabs held.
    pub nr_slabs: u64,
    /// Their bytes.
    pub slab_bytes: u64,
    /// Bytes of their own owner vectors.
    pub owner_bytes: u64,
}

impl ClassStat {
    fn of(cache: &Cache, nr_waiting: u64) -> ClassStat {
        let stat = cache.stat();
        ClassStat {
            size: cache.size(),
            // tidy: allow(saturating_sub): both change while they are read
            nr_objects: stat.nr_objects.saturating_sub(nr_waiting),
            nr_waiting,
            nr_slabs: stat.nr_slabs,
            slab_bytes: stat.slab_bytes,
            owner_bytes: stat.owner_bytes,
        }
    }

    /// Bytes of the live objects.
    #[must_use]
    pub fn object_bytes(&self) -> u64 {
        self.nr_objects * self.size as u64
    }
}

/// How many size classes there are.
pub const NR_SIZE_CLASSES: usize = NR_CLASSES;

/// Each size class, smallest first. Takes locks of each CPU's sheaves: microseconds.
pub fn size_classes() -> impl Iterator<Item = ClassStat> {
    slab::caches().iter().map(|cache| ClassStat::of(cache, cache.nr_waiting()))
}

/// The same without a lock, for whoever may have interrupted the allocator: free objects that CPUs keep at hand count as live.
pub fn size_classes_at_a_glance() -> impl Iterator<Item = ClassStat> {
    slab::caches().iter().map(|cache| ClassStat::of(cache, 0))
}

/// The whole process's memory from this allocator, in objects and bytes. Exact at a quiet point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapStat {
    /// Live objects of size classes.
    pub slab_objects: u64,
    /// Their bytes.
    pub slab_object_bytes: u64,
    /// Bytes of the size classes' slabs.
    pub slab_bytes: u64,
    /// Bytes of owner vectors, with those that slabs share.
    pub owner_bytes: u64,
    /// Objects that are runs of pages.
    pub large_objects: u64,
    /// Their bytes.
    pub large_bytes: u64,
    /// Objects that are mappings of their own.
    pub huge_objects: u64,
    /// Their bytes.
    pub huge_bytes: u64,
    /// The page layer's figures, without huge objects.
    pub pages: PageStat,
}

impl HeapStat {
    /// Bytes of all live objects.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.slab_object_bytes + self.large_bytes + self.huge_bytes
    }

    /// Bytes held of the operating system: runs in use, free runs that may be resident, huge objects.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        (self.pages.used_bytes + self.pages.dirty_bytes) as u64 + self.huge_bytes
    }

    /// Bytes of live slab objects per byte of slabs and owner vectors; 1 without slabs.
    #[must_use]
    pub fn utilisation(&self) -> f64 {
        match self.slab_bytes + self.owner_bytes {
            0 => 1.0,
            held => self.slab_object_bytes as f64 / held as f64,
        }
    }
}

/// Looks at the whole heap: 16 bytes read for each page in use.
#[must_use]
pub fn heap() -> HeapStat {
    let mut heap = HeapStat { pages: pages(), owner_bytes: shared_owner_bytes(), ..HeapStat::default() };
    for class in size_classes() {
        heap.slab_objects += class.nr_objects;
        heap.slab_object_bytes += class.object_bytes();
        heap.slab_bytes += class.slab_bytes;
        heap.owner_bytes += class.owner_bytes;
    }
    page_alloc::for_each_object_run(|_, head| {
        if head.kind() == PageKind::Large {
            heap.large_objects += 1;
            heap.large_bytes += u64::from(head.nr_pages()) * PAGE_SIZE as u64;
        }
    });
    kmalloc::for_each_huge(|_, nr_bytes| {
        heap.huge_objects += 1;
        heap.huge_bytes += nr_bytes as u64;
    });
    heap
}

/// Bytes of owner vectors that slabs share: a kilobyte for each vessel that has one, which are those of groups that were large when they
/// needed it.
#[must_use]
pub fn shared_owner_bytes() -> u64 {
    slab::shared_owner_bytes()
}

/// The page layer's figures: what the engine holds of the operating system.
#[must_use]
pub fn pages() -> PageStat {
    page_alloc::stat()
}
