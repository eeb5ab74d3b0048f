//! The region: one reservation of address space, and the array of descriptors beside it (the kernel's `vmemmap`).
//!
//! "Is it ours" is one comparison, address → descriptor is arithmetic. The region is reserved once, as large as the
//! address space limit allows, and committed from its low end in steps; what is committed stays committed (memory is
//! given back by release, not by decommit), so that a descriptor, once reachable, is reachable for ever.

#![expect(unsafe_code, reason = "address arithmetic between the region and its descriptors")]

use core::ptr::NonNull;

use super::page::{Page, PageIdx};
use crate::os::{self, PAGE_SHIFT, PAGE_SIZE};
use crate::sync::{AtomicUsize, Ordering};

const LARGEST: usize = 1 << 40;
const SMALLEST: usize = 64 << 20;
/// Slabs and aligned runs count on the region's own alignment.
pub(super) const ALIGN: usize = 2 << 20;
/// log2 of the bytes of a descriptor.
const DESCRIPTOR_SHIFT: u32 = size_of::<Page>().trailing_zeros();
/// The committed part grows by multiples of this, so that its descriptors fill whole pages.
pub(super) const COMMIT_PAGES: u32 = (PAGE_SIZE / size_of::<Page>()) as u32;

/// Where everything is: one static, so that a look-up needs one address.
struct Region {
    /// Address of page 0. Set once, before `committed` leaves 0.
    base: AtomicUsize,
    /// Bytes of the region that are committed. Only grows.
    committed: AtomicUsize,
    /// Address of page 0's descriptor. Set once, before `committed` leaves 0.
    vmemmap: AtomicUsize,
}

static REGION: Region =
    Region { base: AtomicUsize::new(0), committed: AtomicUsize::new(0), vmemmap: AtomicUsize::new(0) };

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
        let vmemmap_bytes = (nr_bytes >> PAGE_SHIFT) * size_of::<Page>();
        if let Some(start) = os::reserve(vmemmap_bytes + nr_bytes + ALIGN) {
            let vmemmap = start.as_ptr() as usize;
            REGION.base.store((vmemmap + vmemmap_bytes).next_multiple_of(ALIGN), Ordering::Relaxed);
            REGION.vmemmap.store(vmemmap, Ordering::Relaxed);
            return Some(Reservation { nr_pages: (nr_bytes >> PAGE_SHIFT) as u32 });
        }
        nr_bytes /= 2;
        if nr_bytes < SMALLEST {
            return None;
        }
    }
}

/// Makes the next `nr_pages` of the region, and their descriptors, usable. Called under the page lock, after `reserve`.
pub(super) fn commit(nr_pages: u32) -> bool {
    let old_bytes = REGION.committed.load(Ordering::Relaxed);
    let nr_bytes = (nr_pages as usize) << PAGE_SHIFT;
    let old_pages = old_bytes >> PAGE_SHIFT;
    let memory = REGION.base.load(Ordering::Relaxed) + old_bytes;
    let descriptors = REGION.vmemmap.load(Ordering::Relaxed) + old_pages * size_of::<Page>();
    let (Some(memory), Some(descriptors)) = (pointer(memory), pointer(descriptors)) else { return false };
    // SAFETY: both ranges lie in the reservation, above what is committed; the caller checked that the region has them.
    let committed = unsafe { os::commit(descriptors, nr_pages as usize * size_of::<Page>()) };
    // SAFETY: as above.
    if !committed || !unsafe { os::commit(memory, nr_bytes) } {
        return false;
    }
    // Release pairs with the Acquire in `page_at`: who sees the new bound sees the base addresses.
    REGION.committed.store(old_bytes + nr_bytes, Ordering::Release);
    true
}

fn pointer(addr: usize) -> Option<NonNull<u8>> {
    NonNull::new(core::ptr::with_exposed_provenance_mut(addr))
}

/// The descriptor of the page that an address lies in, if it lies in the region: the shortest way.
#[inline(always)]
pub(crate) fn page_at(addr: usize) -> Option<&'static Page> {
    // Acquire pairs with the Release in `commit`.
    let committed = REGION.committed.load(Ordering::Acquire);
    let offset = addr.wrapping_sub(REGION.base.load(Ordering::Relaxed));
    if offset >= committed {
        return None;
    }
    // One descriptor of 64 bytes for each page of 4096.
    let descriptor_offset = (offset >> (PAGE_SHIFT - DESCRIPTOR_SHIFT)) & !(size_of::<Page>() - 1);
    let vmemmap = REGION.vmemmap.load(Ordering::Relaxed) + descriptor_offset;
    // SAFETY: a page is committed, so the descriptors are somewhere.
    let descriptor = unsafe { NonNull::new_unchecked(core::ptr::with_exposed_provenance_mut::<Page>(vmemmap)) };
    // SAFETY: as in `page`: the offset is that of a committed page's descriptor.
    Some(unsafe { descriptor.as_ref() })
}

/// The end of the committed pages.
pub(crate) fn end() -> PageIdx {
    PageIdx((REGION.committed.load(Ordering::Acquire) >> PAGE_SHIFT) as u32)
}

/// The descriptor of a committed page.
#[inline(always)]
pub(crate) fn page(idx: PageIdx) -> &'static Page {
    debug_assert!(idx < end());
    let descriptors = core::ptr::with_exposed_provenance::<Page>(REGION.vmemmap.load(Ordering::Relaxed));
    // SAFETY: page numbers come from runs, below the committed end, so the descriptor is inside
    // the reservation.
    let descriptor = unsafe { descriptors.add(idx.0 as usize) };
    // SAFETY: it is committed for ever, zero (a valid `Page`) when new, and all its fields are atomics.
    unsafe { &*descriptor }
}

/// The address of a page.
#[inline]
pub(crate) fn address(idx: PageIdx) -> NonNull<u8> {
    let base = core::ptr::with_exposed_provenance_mut::<u8>(REGION.base.load(Ordering::Relaxed));
    // SAFETY: as for `page`, the page lies inside the reservation,
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
    let Some(descriptors) = pointer(core::ptr::from_ref(page(first)).expose_provenance()) else { return };
    // SAFETY: they fill whole pages of memory, zero is a valid descriptor, and all look-ups are of atomics. If the kernel
    // refuses, they stay as they are.
    let _released = unsafe { os::release(descriptors, nr_pages as usize * size_of::<Page>()) };
}

/// Gives the memory of a free run back to the operating system.
pub(super) fn release(run: PageIdx, nr_pages: u32) -> bool {
    // SAFETY: the run is committed, and whoever took it out of the free runs is its only owner.
    unsafe { os::release(address(run), (nr_pages as usize) << PAGE_SHIFT) }
}
