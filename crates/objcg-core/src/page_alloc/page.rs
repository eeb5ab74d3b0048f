//! The descriptor of a page: 32 bytes beside the region for each 4 KiB in it, the kernel's `struct page`, in two halves.
//!
//! A [`Lookup`] has what a free needs of the page that its object starts in, and no more, so that four of them share a cache line
//! with nothing else; a [`Page`] has the rest. Both are type-stable: once committed they stay mapped and are only ever this type,
//! so a `&'static` to one is always sound to hold. Every field is an atomic; which lock or owner makes a value meaningful is said
//! per field. A run's first `Page` is its *head*, and a slab's second one has its links; the last one, and all of runs that are looked up
//! by addresses inside them, lead to the head. A slab's `Lookup`s all have the same: the owner vector, where its first object is, and the
//! [kind](super::kind) of its cache.

use core::ptr::NonNull;

use super::kind::CacheKindId;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// What a run of pages is, kept in its head. A head is never left stale: freeing a run makes it one of a free run first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum PageKind {
    /// Never handed out since the region grew over it.
    Untouched = 0,
    /// The head of a free run that is [clean](super::runs::FreeKind::Clean). Inside a run a mark may be stale, of a head that was free or
    /// of a tail: a walk passes those by, and an address there is nobody's.
    Clean = 1,
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
    /// The last page of a free run of several.
    FreeTail = 7,
    /// The head of a free run that is [patchy](super::runs::FreeKind::Patchy).
    Patchy = 8,
    /// The head of a free run that is [dirty](super::runs::FreeKind::Dirty).
    Dirty = 9,
}

impl PageKind {
    fn from_bits(bits: u32) -> PageKind {
        match bits {
            1 => PageKind::Clean,
            2 => PageKind::Tail,
            3 => PageKind::Slab,
            4 => PageKind::Large,
            5 => PageKind::Engine,
            6 => PageKind::Releasing,
            7 => PageKind::FreeTail,
            8 => PageKind::Patchy,
            9 => PageKind::Dirty,
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
/// slab is gone the owner vector stays what it was, until the descriptors of free pages are released.
#[repr(C, align(16))]
pub(crate) struct Lookup {
    /// The owner vector: one that slabs share, then perhaps the slab's own. Written under the cache's lock.
    pub(crate) obj_exts: AtomicPtr<AtomicU32>,
    place: AtomicU64,
}

/// A slab in a word: what is to be added to the lower half of an address in it to have the offset from its first object, and its kind.
/// 0 for no slab.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlabPlace(u64);

impl SlabPlace {
    pub(crate) const NONE: SlabPlace = SlabPlace(0);

    pub(crate) fn new(first_object: NonNull<u8>, kind: CacheKindId) -> SlabPlace {
        let to_offset = (first_object.addr().get() as u32).wrapping_neg();
        SlabPlace(u64::from(to_offset) | u64::from(kind.to_bits()) << 32)
    }

    /// How far an address in the slab is from its first object. Slabs are smaller than 4 GiB: the lower halves tell.
    #[inline(always)]
    pub(crate) fn offset(self, addr: usize) -> u32 {
        (self.0 as u32).wrapping_add(addr as u32)
    }

    #[inline(always)]
    pub(super) fn kind_id(self) -> CacheKindId {
        CacheKindId::from_bits((self.0 >> 32) as u32)
    }

    /// The number of the slab's cache; `None` of no slab.
    #[inline]
    pub(crate) fn cache(self) -> Option<u16> {
        self.kind_id().cache()
    }
}

/// The rest of a descriptor: 4 (kind, length or head) + 4 (count, owner or link) + 8 (bits or links).
#[repr(C, align(16))]
pub(crate) struct Page {
    /// Bits 0–3: the kind of the run, or a tail's. The rest: of a head the pages of the run, of a tail the head. Under the page lock, or
    /// by the run's owner.
    mark: AtomicU32,
    /// A slab: its free objects, under the cache's lock. A large object: its owner, the vessel that was charged or 0, by who
    /// has the object. Where links are (see [`super::heap`]): the first child.
    count_or_owner_or_child: AtomicU32,
    /// A slab's free objects, a bit each: the bits themselves up to 64 objects, else the address of the words. Under the
    /// cache's lock. A large object: not 0 if its pages were dirty when it got them. Where links are: the siblings, the next one in
    /// the lower half.
    bits_or_siblings: AtomicU64,
}

/// Bits of a mark below the number.
const NUMBER_SHIFT: u32 = 4;
/// Bits of a number: no region has more pages.
pub(super) const NUMBER_BITS: u32 = u32::BITS - NUMBER_SHIFT;
const KIND: u32 = 15;

const _: () = assert!(size_of::<Lookup>() == 16 && size_of::<Page>() == 16);

impl Lookup {
    #[inline(always)]
    pub(crate) fn place(&self) -> SlabPlace {
        // Acquire pairs with the Release in `set_place`.
        SlabPlace(self.place.load(Ordering::Acquire))
    }

    /// A slab's when all else is there; none before the pages are given back.
    pub(crate) fn set_place(&self, place: SlabPlace) {
        self.place.store(place.0, Ordering::Release);
    }
}

impl Page {
    #[inline]
    pub(crate) fn kind(&self) -> PageKind {
        PageKind::from_bits(self.mark.load(Ordering::Relaxed) & KIND)
    }

    /// Makes the head of a run one of another kind.
    pub(super) fn set_kind(&self, kind: PageKind) {
        let rest = self.mark.load(Ordering::Relaxed) & !KIND;
        self.mark.store(rest | kind as u32, Ordering::Relaxed);
    }

    /// Makes it the head of a run.
    pub(super) fn set_head(&self, kind: PageKind, nr_pages: u32) {
        self.mark.store(nr_pages << NUMBER_SHIFT | kind as u32, Ordering::Relaxed);
    }

    /// Makes it lead to the head of its run.
    pub(super) fn set_tail(&self, kind: PageKind, head: PageIdx) {
        self.mark.store(head.0 << NUMBER_SHIFT | kind as u32, Ordering::Relaxed);
    }

    /// Of a head, the pages of its run.
    #[inline]
    pub(crate) fn nr_pages(&self) -> u32 {
        self.mark.load(Ordering::Relaxed) >> NUMBER_SHIFT
    }

    /// Of a tail, the head of its run.
    pub(super) fn head(&self) -> PageIdx {
        PageIdx(self.mark.load(Ordering::Relaxed) >> NUMBER_SHIFT)
    }

    /// Free objects of a slab.
    #[inline]
    pub(crate) fn nr_free(&self) -> &AtomicU32 {
        &self.count_or_owner_or_child
    }

    /// The owner of a large object.
    #[inline]
    pub(crate) fn owner(&self) -> &AtomicU32 {
        &self.count_or_owner_or_child
    }

    /// A slab's free objects: see the field.
    #[inline]
    pub(crate) fn free_bits(&self) -> &AtomicU64 {
        &self.bits_or_siblings
    }

    /// A large object: see the field.
    pub(super) fn was_dirty(&self) -> bool {
        self.bits_or_siblings.load(Ordering::Relaxed) != 0
    }

    pub(super) fn set_was_dirty(&self, was_dirty: bool) {
        self.bits_or_siblings.store(u64::from(was_dirty), Ordering::Relaxed);
    }

    /// The first child, where links are. These, and all below, under the lock of the heap's owner.
    pub(super) fn child(&self) -> PageIdx {
        PageIdx(self.count_or_owner_or_child.load(Ordering::Relaxed))
    }

    pub(super) fn set_child(&self, child: PageIdx) {
        self.count_or_owner_or_child.store(child.0, Ordering::Relaxed);
    }

    pub(super) fn next(&self) -> PageIdx {
        PageIdx(self.bits_or_siblings.load(Ordering::Relaxed) as u32)
    }

    pub(super) fn prev(&self) -> PageIdx {
        PageIdx((self.bits_or_siblings.load(Ordering::Relaxed) >> 32) as u32)
    }

    pub(super) fn set_next(&self, next: PageIdx) {
        self.set_siblings(next, self.prev());
    }

    pub(super) fn set_prev(&self, prev: PageIdx) {
        self.set_siblings(self.next(), prev);
    }

    pub(super) fn set_siblings(&self, next: PageIdx, prev: PageIdx) {
        self.bits_or_siblings.store(u64::from(next.0) | u64::from(prev.0) << 32, Ordering::Relaxed);
    }
}
