//! Large objects: a run of pages each, with its owner in the descriptor.

use super::Pages;
use crate::hooks;
use crate::os::PAGE_SIZE;
use crate::page_alloc::{self, PageIdx, PageKind, Run, Touches, page};
use crate::sync::Ordering;

/// Above this an object gets a mapping of its own.
pub(super) const MAX_BYTES: usize = 4 << 20;
/// The page layer aligns runs up to this.
pub(super) const MAX_ALIGN: usize = 2 << 20;

fn pages_for(nr_bytes: usize) -> u32 {
    // MAX_BYTES keeps this far below u32.
    nr_bytes.div_ceil(PAGE_SIZE).max(1) as u32
}

/// Takes a run for `nr_bytes` (at most [`MAX_BYTES`]) at a multiple of `align` (at most [`MAX_ALIGN`]).
pub(super) fn alloc(nr_bytes: usize, align: usize) -> Option<Pages> {
    let nr_pages = pages_for(nr_bytes);
    let price = nr_pages as usize * PAGE_SIZE;
    let charge = hooks::charge_pages(price)?;
    let align_pages = (align / PAGE_SIZE).max(1) as u32;
    let run = page_alloc::alloc_at_peak(nr_pages, align_pages, PageKind::Large, Touches::Some)?;
    run.page().owner().store(charge.taken(), Ordering::Relaxed);
    Some(Pages { address: run.address(), zeroed: run.zeroed })
}

/// Gives the run of a large object back.
pub(super) fn free(head: PageIdx) {
    let owner = page(head).owner().swap(0, Ordering::Relaxed);
    let price = nr_bytes(head);
    page_alloc::free(Run::of_head(head), Touches::Some);
    hooks::uncharge_pages(owner, price);
}

/// Resizes a large object in place: gives pages at its end back, or takes the free ones behind it. False if it has to
/// move: too small for a run, too large, no free neighbour, or a limit refuses.
pub(super) fn resize(head: PageIdx, nr_bytes: usize) -> bool {
    if nr_bytes > MAX_BYTES || nr_bytes <= crate::size_class::MAX_SIZE {
        return false;
    }
    let mut run = Run::of_head(head);
    let owner = page(head).owner().load(Ordering::Relaxed);
    let nr_pages = pages_for(nr_bytes);
    if nr_pages <= run.nr_pages {
        let surplus = (run.nr_pages - nr_pages) as usize * PAGE_SIZE;
        page_alloc::shrink(&mut run, nr_pages);
        hooks::uncharge_pages(owner, surplus);
        return true;
    }
    let missing = (nr_pages - run.nr_pages) as usize * PAGE_SIZE;
    let Some(charge) = hooks::charge_more_pages(owner, missing) else { return false };
    let is_extended = page_alloc::extend(&mut run, nr_pages);
    if is_extended {
        charge.taken();
    }
    is_extended
}

/// Bytes of a large object's run.
pub(super) fn nr_bytes(head: PageIdx) -> usize {
    page(head).nr_pages() as usize * PAGE_SIZE
}
