//! The descriptor of a page: 64 bytes beside the region for each 4 KiB in it, the kernel's `struct page`, in two halves.
//!
//! A [`Lookup`] has what a free needs of the page that its object starts in, and no more, so that two of them share a cache line
//! with nothing else; a [`Page`] has the rest. Both are type-stable: once committed they stay mapped and are only ever this type,
//! so a `&'static` to one is always sound to hold. Every field is an atomic; which lock or owner makes a value meaningful is said
//! per field. Only a run's first `Page` (its *head*) is complete; the last one, and all of runs that are looked up by addresses inside
//! them, lead to it. A slab's `Lookup`s all have the same: the reciprocal of the object size, the stacks, the owner vector, the shape.

use core::ptr::NonNull;

use crate::sync::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// What a run of pages is, kept in its head. A head is never left stale: freeing a run makes it `Free` first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum PageKind {
    /// Never handed out since the region grew over it.
    Untouched = 0,
    /// The head or the last page of a free run (or a stale mark inside a run, which nobody reads).
    Free = 1,
    /// Not the first page of its run.
    Tail = 2,
    /// A slab of objects.
    Slab = 3,
    /// One large object.
    Large = 4,
    /// The engine's own memory.
    Engine = 5,
    /// On its way back to the operating system.
    Releasing = 6,
}

impl PageKind {
    fn from_u8(byte: u8) -> PageKind {
        match byte {
            1 => PageKind::Free,
            2 => PageKind::Tail,
            3 => PageKind::Slab,
            4 => PageKind::Large,
            5 => PageKind::Engine,
            6 => PageKind::Releasing,
            _ => PageKind::Untouched,
        }
    }
}

/// The number of a page in the region; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PageIdx(pub(crate) u32);

impl PageIdx {
    pub(crate) const NONE: PageIdx = PageIdx(0);

    #[inline]
    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(crate) fn add(self, nr_pages: u32) -> PageIdx {
        PageIdx(self.0 + nr_pages)
    }
}

/// What an address in a page of a slab leads to, in each of its pages. Words of 64 bits: a free is bound by how many it reads. When the
/// slab is gone all but the reciprocal stay what they were, until the descriptors of free pages are released.
#[repr(C, align(32))]
pub(crate) struct Lookup {
    /// ⌈2^64 / size⌉ of a slab's objects; 0 in pages of no slab. Set when all else is there, cleared before the pages are given back.
    pub(crate) reciprocal: AtomicU64,
    /// The CPUs' stacks of the slab's cache.
    pub(crate) stacks: AtomicPtr<u8>,
    /// The owner vector: one that slabs share, then perhaps the slab's own. Written under the cache's lock.
    pub(crate) obj_exts: AtomicPtr<AtomicU32>,
    shape: AtomicU64,
}

/// A slab in a word: the lower half of the address where it starts, its cache's number, the number of its last object.
#[derive(Clone, Copy)]
pub(crate) struct SlabShape(u64);

impl SlabShape {
    /// `nr_objects` is at least 1, and at most 65,536.
    pub(crate) fn new(start: NonNull<u8>, cache: u16, nr_objects: u32) -> SlabShape {
        let start = start.addr().get() as u32;
        SlabShape(u64::from(start) | u64::from(cache) << 32 | u64::from(nr_objects - 1) << 48)
    }

    /// How far an address in the slab is from its start. Slabs are smaller than 4 GiB: the lower halves tell.
    #[inline(always)]
    pub(crate) fn offset(self, addr: usize) -> u32 {
        (addr as u32).wrapping_sub(self.0 as u32)
    }

    #[inline]
    pub(crate) fn cache(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Whether the slab has an object of that number.
    #[inline(always)]
    pub(crate) fn has(self, obj_idx: u32) -> bool {
        u64::from(obj_idx) <= self.0 >> 48
    }
}

/// The rest of a descriptor: 8 (kind, length) + 8 (bits) + 4 (count, owner or head) + 12 (links).
#[repr(C, align(32))]
pub(crate) struct Page {
    /// Written under the page lock.
    kind: AtomicU8,
    /// A free run: whether its pages may hold old bytes and occupy memory. Under the page lock.
    dirty: AtomicU8,
    _pad: [u8; 2],
    /// Pages of the run, in the head. Under the page lock, or by the run's owner.
    nr_pages: AtomicU32,
    /// A slab's free objects, a bit each: the bits themselves up to 64 objects, else the address of the words. Under the
    /// cache's lock.
    pub(crate) free_bits: AtomicU64,
    /// A slab: its free objects, under the cache's lock. A large object: its owner, the vessel that was charged or 0, by who
    /// has the object. Free runs, and pages that are not the first: the first page of the run, under the page lock, or by the
    /// run's owner.
    count_or_owner_or_head: AtomicU32,
    /// Links of the heap that the run is in. Under the lock of the heap's owner.
    pub(super) child: AtomicU32,
    pub(super) next: AtomicU32,
    pub(super) prev: AtomicU32,
}

const _: () = assert!(size_of::<Lookup>() == 32 && size_of::<Page>() == 32);

impl Lookup {
    #[inline(always)]
    pub(crate) fn shape(&self) -> SlabShape {
        SlabShape(self.shape.load(Ordering::Relaxed))
    }

    pub(crate) fn set_shape(&self, shape: SlabShape) {
        self.shape.store(shape.0, Ordering::Relaxed);
    }
}

impl Page {
    #[inline]
    pub(crate) fn kind(&self) -> PageKind {
        PageKind::from_u8(self.kind.load(Ordering::Relaxed))
    }

    pub(super) fn set_kind(&self, kind: PageKind) {
        self.kind.store(kind as u8, Ordering::Relaxed);
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Relaxed) != 0
    }

    pub(super) fn set_dirty(&self, dirty: bool) {
        self.dirty.store(u8::from(dirty), Ordering::Relaxed);
    }

    /// Free objects of a slab.
    #[inline]
    pub(crate) fn nr_free(&self) -> &AtomicU32 {
        &self.count_or_owner_or_head
    }

    /// The owner of a large object.
    #[inline]
    pub(crate) fn owner(&self) -> &AtomicU32 {
        &self.count_or_owner_or_head
    }

    /// The first page of the run of a free page, or of one that is not the first.
    pub(super) fn head(&self) -> PageIdx {
        PageIdx(self.count_or_owner_or_head.load(Ordering::Relaxed))
    }

    pub(super) fn set_head(&self, head: PageIdx) {
        self.count_or_owner_or_head.store(head.0, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn nr_pages(&self) -> u32 {
        self.nr_pages.load(Ordering::Relaxed)
    }

    pub(super) fn set_nr_pages(&self, nr_pages: u32) {
        self.nr_pages.store(nr_pages, Ordering::Relaxed);
    }
}
