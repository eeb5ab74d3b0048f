//! The engine's own small memory: owner vectors, bitmaps, sheaves, per-CPU slots.
//!
//! It never comes from the caches that the engine serves. The caches here are plain ones without sheaves, owners or a
//! bitmap outside the descriptor (at most 64 objects a slab), so taking from them needs nothing but pages: no recursion.

#![expect(unsafe_code, reason = "zeroes the memory that it hands out")]

use core::ptr::NonNull;

use super::cache::Cache;
use super::free_bits::INLINE_OBJECTS;
use super::free_object::FreeObject;
use crate::os::PAGE_SIZE;
use crate::page_alloc::{self, Run};
use crate::size_class::{NR_CLASSES, SizeClass, SlabGeometry};

static CACHES: [Cache; NR_CLASSES] = caches();
/// The first number of these caches: behind those of the size classes.
const FIRST_NUMBER: usize = NR_CLASSES;
/// The first number that is none of theirs.
pub(super) const END_NUMBER: usize = FIRST_NUMBER + NR_CLASSES;

const fn caches() -> [Cache; NR_CLASSES] {
    let mut caches = [const { Cache::UNUSED }; NR_CLASSES];
    let mut index = 0;
    while index < NR_CLASSES {
        let size = SizeClass::from_index(index).size();
        let geometry = SlabGeometry::for_engine(size, INLINE_OBJECTS);
        caches[index] = Cache::for_engine(size, geometry, FIRST_NUMBER + index);
        index += 1;
    }
    caches
}

/// The cache of a number, if it is one of these.
pub(super) fn of_number(number: usize) -> Option<&'static Cache> {
    CACHES.get(number.checked_sub(FIRST_NUMBER)?)
}

/// Zeroed memory of at least `nr_bytes`, aligned to 64 bytes when that is a multiple of 64.
pub(crate) fn alloc(nr_bytes: usize) -> Option<NonNull<u8>> {
    let Some(class) = SizeClass::for_engine(nr_bytes) else {
        let nr_pages = u32::try_from(nr_bytes.div_ceil(PAGE_SIZE)).ok()?;
        return Some(page_alloc::alloc_zeroed(nr_pages)?.address());
    };
    let memory = CACHES[class.index()].take_one()?.address();
    // SAFETY: the memory was just taken, so it is ours alone, and it has at least `nr_bytes`.
    unsafe { memory.write_bytes(0, nr_bytes) };
    Some(memory)
}

/// Gives memory from [`alloc`] back, with the same `nr_bytes`.
///
/// # Safety
/// Nothing refers to the memory any more.
pub(crate) unsafe fn free(memory: NonNull<u8>, nr_bytes: usize) {
    match SizeClass::for_engine(nr_bytes) {
        Some(class) => CACHES[class.index()].put_one(FreeObject::at(memory)),
        None => {
            page_alloc::free(Run::of_head(page_alloc::idx_of(memory.addr().get())));
        }
    }
}

/// Bytes that [`alloc`] really takes for `nr_bytes`.
pub(crate) fn full_size(nr_bytes: usize) -> usize {
    SizeClass::for_engine(nr_bytes).map_or(nr_bytes.next_multiple_of(PAGE_SIZE), SizeClass::size)
}

/// Locks of these caches, for a `fork`.
pub(crate) fn caches_for_fork() -> &'static [Cache] {
    &CACHES
}
