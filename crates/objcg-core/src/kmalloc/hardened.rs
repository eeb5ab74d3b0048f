//! Memory of any size while an option asks to see every call: with a track behind it, or between guard pages.
//!
//! Nothing is resized in place here, so that what uses an old address after `realloc` is found.

#![expect(unsafe_code, reason = "copies what moves")]

use core::ptr::NonNull;

use super::{Found, Pages, alloc_raw_pages, find, free, huge, size_of_found};
use crate::hardening::{self, Place};
use crate::options::{self, GUARD_PAGES};
use crate::size_class::SizeClass;
use crate::slab::caches;

/// As [`super::alloc`], by the slow path, with all that the options ask for.
#[cold]
#[inline(never)]
pub(super) fn alloc(nr_bytes: usize, align: usize) -> Option<Pages> {
    let nr_padded = nr_bytes.checked_add(hardening::nr_extra_bytes())?;
    let taken = match SizeClass::of_layout(nr_padded, align) {
        Some(class) => {
            let address = caches()[class.index()].alloc()?;
            if hardening::has_tracks() {
                Place::new(address, class.size()).check_free();
            }
            Pages { address, zeroed: false }
        }
        None if options::is_on(GUARD_PAGES) => huge::alloc_guarded(nr_padded, align)?,
        None => alloc_raw_pages(nr_padded, align)?,
    };
    if hardening::has_tracks() {
        place_of(taken.address).lay(nr_bytes);
    }
    Some(taken)
}

/// Looks at an object of pages that is about to be freed.
pub(super) fn bury(found: &Found, address: NonNull<u8>) {
    if hardening::has_tracks() {
        Place::new(address, size_of_found(found, address)).bury();
    }
}

/// As [`super::usable_size`]: what was asked for, and no byte more.
pub(super) fn usable_size(address: NonNull<u8>) -> usize {
    if hardening::has_tracks() { place_of(address).nr_asked() } else { size_of_found(&find(address), address) }
}

/// As [`super::realloc`].
///
/// # Safety
/// As for [`super::realloc`].
#[cold]
#[inline(never)]
pub(super) unsafe fn realloc(address: NonNull<u8>, nr_bytes: usize, align: usize) -> Option<NonNull<u8>> {
    let nr_usable = usable_size(address);
    let Some(moved) = alloc(nr_bytes, align) else {
        return (nr_bytes <= nr_usable).then_some(address);
    };
    // SAFETY: both have that many bytes, and new memory does not overlap live memory.
    unsafe { moved.address.copy_from_nonoverlapping(address, nr_usable.min(nr_bytes)) };
    // SAFETY: the caller gives the old address up.
    unsafe { free(address) };
    Some(moved.address)
}

fn place_of(address: NonNull<u8>) -> Place {
    Place::new(address, size_of_found(&find(address), address))
}
