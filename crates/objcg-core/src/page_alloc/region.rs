//! The region: one reservation of address space, and the arrays of descriptors beside it (the kernel's `vmemmap`).
//!
//! It starts with the table of [kinds](super::kind), so that a free finds those by the address that it has read for the rest. "Is it
//! ours" is one comparison, address → descriptor is arithmetic. [`Lookup`]s lie below the region and go down from its start, so
//! that a free reads one address for both. The region is reserved once, as large as the
//! address space limit allows, and committed from its low end in steps; what is committed stays committed (memory is
//! given back by release, not by decommit), so that a descriptor, once reachable, is reachable for ever.

#![expect(unsafe_code, reason = "address arithmetic between the region and its descriptors")]

use core::hint;
use core::ptr::NonNull;

use super::Run;
use super::kind::{CacheKind, CacheKindId, NR_KINDS};
use super::page::{Lookup, NUMBER_BITS, Page, PageIdx, SlabPlace};
use crate::os::{self, PAGE_SHIFT, PAGE_SIZE};
use crate::sync::{AtomicUsize, Ordering, OwnLines};

const LARGEST: usize = 1 << 40;
const _: () = assert!(LARGEST >> PAGE_SHIFT <= 1 << NUMBER_BITS);
const SMALLEST: usize = 64 << 20;
/// Slabs and aligned runs count on the region's own alignment.
pub(super) const ALIGN: usize = 2 << 20;
/// log2 of the bytes of a descriptor's half: both are as large, and so are spare ones.
const HALF_SHIFT: u32 = size_of::<Lookup>().trailing_zeros();
const _: () = assert!(size_of::<Lookup>() == size_of::<Page>());
const NR_ARRAYS: usize = 3;
/// The committed part grows by multiples of this, so that each array of its descriptors fills whole pages.
pub(super) const COMMIT_PAGES: u32 = (PAGE_SIZE >> HALF_SHIFT) as u32;

/// The first page that is handed out: the table of kinds is before it, and page 0 stands for "none".
pub(super) const FIRST_PAGE: PageIdx = PageIdx((NR_KINDS * size_of::<CacheKind>()).div_ceil(PAGE_SIZE) as u32);

/// Where everything is: one static, so that a look-up needs one address.
#[repr(C)]
struct Region {
    /// Bytes of the region that are committed. Only grows.
    committed: AtomicUsize,
    /// The last address below page 0. Set once, before `committed` leaves 0.
    edge: AtomicUsize,
    /// Address of page 0's [`Page`]. As above.
    vmemmap: AtomicUsize,
    /// Address of page 0's spare [`Page`]. As above.
    spares: AtomicUsize,
}

static REGION: OwnLines<Region> = OwnLines(Region {
    committed: AtomicUsize::new(0),
    edge: AtomicUsize::new(0),
    vmemmap: AtomicUsize::new(0),
    spares: AtomicUsize::new(0),
});

/// Bytes that were reserved; the page lock's owner keeps it.
#[derive(Clone, Copy)]
pub(super) struct Reservation {
    pub(super) nr_pages: u32,
}

/// Reserves the region and its descriptors. Called once, under the page lock.
pub(super) fn reserve() -> Option<Reservation> {
    if !os::page_size_is_supported() {
        return None;
    }
    // A limited address space is shared with stacks, libraries and huge objects: leave them more than half of it.
    let largest = os::address_space_limit().map_or(LARGEST, |limit| (limit / 2 + 1).next_power_of_two() / 2);
    let mut nr_bytes = largest.clamp(SMALLEST, LARGEST);
    loop {
        let array_bytes = (nr_bytes >> PAGE_SHIFT) << HALF_SHIFT;
        if let Some(start) = os::reserve(NR_ARRAYS * array_bytes + nr_bytes + ALIGN) {
            let vmemmap = start.as_ptr() as usize;
            let base = (vmemmap + NR_ARRAYS * array_bytes).next_multiple_of(ALIGN);
            REGION.0.edge.store(base - 1, Ordering::Relaxed);
            REGION.0.vmemmap.store(vmemmap, Ordering::Relaxed);
            REGION.0.spares.store(vmemmap + array_bytes, Ordering::Relaxed);
            return Some(Reservation { nr_pages: (nr_bytes >> PAGE_SHIFT) as u32 });
        }
        nr_bytes /= 2;
        if nr_bytes < SMALLEST {
            return None;
        }
    }
}

/// Address of page 0.
#[inline]
fn base() -> usize {
    REGION.0.edge.load(Ordering::Relaxed) + 1
}

/// Makes the next `nr_pages` of the region, and their descriptors, usable. Called under the page lock, after `reserve`.
pub(super) fn commit(nr_pages: u32) -> bool {
    let old_bytes = REGION.0.committed.load(Ordering::Relaxed);
    let nr_bytes = (nr_pages as usize) << PAGE_SHIFT;
    let (skipped, array_bytes) = ((old_bytes >> PAGE_SHIFT) << HALF_SHIFT, (nr_pages as usize) << HALF_SHIFT);
    let ranges = [
        (base() - skipped - array_bytes, array_bytes),
        (REGION.0.vmemmap.load(Ordering::Relaxed) + skipped, array_bytes),
        (REGION.0.spares.load(Ordering::Relaxed) + skipped, array_bytes),
        (base() + old_bytes, nr_bytes),
    ];
    for (start, nr_bytes) in ranges {
        // SAFETY: the ranges lie in the reservation, above what is committed; the caller checked that the region has them.
        if !pointer(start).is_some_and(|start| unsafe { os::commit(start, nr_bytes) }) {
            return false;
        }
    }
    // Release pairs with the Acquire in `lookup_at`: who sees the new bound sees the addresses.
    REGION.0.committed.store(old_bytes + nr_bytes, Ordering::Release);
    true
}

fn pointer(addr: usize) -> Option<NonNull<u8>> {
    NonNull::new(core::ptr::with_exposed_provenance_mut(addr))
}

/// What an address leads to, and where the region's table is, which was read for that.
#[derive(Clone, Copy)]
pub(crate) struct LookedUp {
    pub(crate) page: &'static Lookup,
    kinds: Kinds,
}

impl LookedUp {
    /// The kind of a slab's cache.
    #[inline(always)]
    pub(crate) fn kind(self, slab: SlabPlace) -> &'static CacheKind {
        self.kinds.get(slab.kind_id())
    }
}

/// The table of kinds, of a region that has pages.
#[derive(Clone, Copy)]
struct Kinds(NonNull<CacheKind>);

impl Kinds {
    /// Below the table is the last address before the region.
    #[inline(always)]
    fn above(edge: usize) -> Kinds {
        let first = core::ptr::with_exposed_provenance_mut(edge + 1);
        // SAFETY: the region is not at address 0.
        Kinds(unsafe { NonNull::new_unchecked(first) })
    }

    #[inline(always)]
    fn get(self, id: CacheKindId) -> &'static CacheKind {
        // SAFETY: numbers are made by `CacheKindId::of_cache`, or they are 0, and the table has an entry for each of those.
        let kind = unsafe { self.0.byte_add(id.to_bits() as usize) };
        // SAFETY: a region that has pages has those of its table: committed for ever, zero (a valid `CacheKind`) when new, and all
        // fields are atomics.
        unsafe { kind.as_ref() }
    }
}

/// What an address leads to, if it lies in the region: the shortest way.
#[inline(always)]
pub(crate) fn lookup_at(addr: usize) -> Option<LookedUp> {
    // Acquire pairs with the Release in `commit`.
    let committed = REGION.0.committed.load(Ordering::Acquire);
    let edge = REGION.0.edge.load(Ordering::Relaxed);
    // -1 for the first byte, and down to minus the bytes that are committed: those are as far below 0, so that they carry.
    let below_edge = edge.wrapping_sub(addr);
    let (_, is_committed) = committed.overflowing_add(below_edge);
    if !is_committed {
        hint::cold_path();
        return None;
    }
    // 16 bytes for each page of 4096, downwards: the first page's are below the edge.
    let lookups =
        (below_edge.cast_signed() >> (PAGE_SHIFT - HALF_SHIFT)) & (size_of::<Lookup>() as isize).wrapping_neg();
    let lookup = edge.wrapping_add_signed(lookups).wrapping_add(1);
    // SAFETY: a page is committed, so the array is somewhere.
    let lookup = unsafe { NonNull::new_unchecked(core::ptr::with_exposed_provenance_mut::<Lookup>(lookup)) };
    // SAFETY: as in `in_array`: the offset is that of a committed page's.
    let page = unsafe { lookup.as_ref() };
    Some(LookedUp { page, kinds: Kinds::above(edge) })
}

/// The kind of a cache, for whoever has pages.
pub(super) fn kind(id: CacheKindId) -> &'static CacheKind {
    debug_assert!(!end().is_none());
    Kinds::above(REGION.0.edge.load(Ordering::Relaxed)).get(id)
}

/// The page of an address in the committed region.
#[inline]
pub(crate) fn idx_of(addr: usize) -> PageIdx {
    let idx = PageIdx(((addr - base()) >> PAGE_SHIFT) as u32);
    debug_assert!(idx < end());
    idx
}

/// The end of the committed pages.
pub(crate) fn end() -> PageIdx {
    PageIdx((REGION.0.committed.load(Ordering::Acquire) >> PAGE_SHIFT) as u32)
}

/// The descriptor of a committed page.
#[inline(always)]
pub(crate) fn page(idx: PageIdx) -> &'static Page {
    in_array(&REGION.0.vmemmap, idx)
}

/// Room for what the descriptor of a committed page has none for. Where nobody asks for it, it takes no memory.
pub(super) fn spare(idx: PageIdx) -> &'static Page {
    in_array(&REGION.0.spares, idx)
}

#[inline(always)]
fn in_array(first: &AtomicUsize, idx: PageIdx) -> &'static Page {
    debug_assert!(idx < end());
    let pages = core::ptr::with_exposed_provenance::<Page>(first.load(Ordering::Relaxed));
    // SAFETY: page numbers come from runs, below the committed end, so the descriptor is inside the reservation.
    let page = unsafe { pages.add(idx.0 as usize) };
    // SAFETY: it is committed for ever, zero (a valid `Page`) when new, and all its fields are atomics.
    unsafe { &*page }
}

/// What addresses in a committed page lead to.
#[inline(always)]
pub(crate) fn lookup(idx: PageIdx) -> &'static Lookup {
    debug_assert!(idx < end());
    let end = core::ptr::with_exposed_provenance::<Lookup>(base());
    // SAFETY: as in `in_array`; they go down from there.
    let lookup = unsafe { end.sub(idx.0 as usize + 1) };
    // SAFETY: as in `in_array`; zero is a valid `Lookup`.
    unsafe { &*lookup }
}

/// The address of a page.
#[inline]
pub(crate) fn address(idx: PageIdx) -> NonNull<u8> {
    let base = core::ptr::with_exposed_provenance_mut::<u8>(base());
    // SAFETY: as in `in_array`, the page lies inside the reservation,
    let address = unsafe { base.add((idx.0 as usize) << PAGE_SHIFT) };
    // SAFETY: which is not at address 0.
    unsafe { NonNull::new_unchecked(address) }
}

/// Of the pages whose descriptors fill whole pages of memory: those inside the run at `head`, without its first and its last
/// page, and around the `nr_changed` pages at `changed`. Their first and their number, if there are any.
pub(super) fn whole_descriptor_pages(
    head: PageIdx,
    nr_pages: u32,
    changed: PageIdx,
    nr_changed: u32,
) -> Option<(PageIdx, u32)> {
    let from = (head.0 + 1).max(changed.0 / COMMIT_PAGES * COMMIT_PAGES).next_multiple_of(COMMIT_PAGES);
    let changed_end = (changed.0 + nr_changed).next_multiple_of(COMMIT_PAGES);
    let to = (head.0 + nr_pages - 1).min(changed_end) / COMMIT_PAGES * COMMIT_PAGES;
    (from < to).then(|| (PageIdx(from), to - from))
}

/// Gives the memory of descriptors back to the operating system; they are zero then. Of pages from
/// [`whole_descriptor_pages`], in a run that nobody else can reach.
pub(super) fn release_descriptors(first: PageIdx, nr_pages: u32) {
    let last = first.add(nr_pages - 1);
    let (pages, spares) = (core::ptr::from_ref(page(first)), core::ptr::from_ref(spare(first)));
    let lookups = core::ptr::from_ref(lookup(last));
    let arrays = [pages.expose_provenance(), spares.expose_provenance(), lookups.expose_provenance()];
    for array in arrays.into_iter().filter_map(pointer) {
        // SAFETY: each fills whole pages of memory, zero is a valid value, and all fields are atomics. If the kernel refuses,
        // they stay as they are.
        let _released = unsafe { os::release(array, (nr_pages as usize) << HALF_SHIFT) };
    }
}

/// Fills a run with zeroes.
pub(super) fn zero(run: &Run) {
    // SAFETY: the run is its holder's alone, and has so many pages.
    unsafe { run.address().write_bytes(0, run.nr_pages as usize * PAGE_SIZE) };
}

/// Whether a committed page occupies memory, as far as the kernel says.
pub(super) fn is_resident(idx: PageIdx) -> bool {
    // SAFETY: the page is committed.
    unsafe { os::is_resident(address(idx)) }
}

/// Gives the memory of a free run back to the operating system.
pub(super) fn release(run: PageIdx, nr_pages: u32) -> bool {
    // SAFETY: the run is committed, and whoever took it out of the free runs is its only owner.
    unsafe { os::release(address(run), (nr_pages as usize) << PAGE_SHIFT) }
}
