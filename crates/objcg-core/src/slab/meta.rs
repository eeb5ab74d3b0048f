//! The engine's own small memory: owner vectors, bitmaps, sheaves, per-CPU slots.
//!
//! It never comes from the caches that the engine serves. The caches here are plain ones without sheaves or owners, and with their bits
//! in the descriptor or in the slab itself, so taking from them needs nothing but pages: no recursion.

#![expect(unsafe_code, reason = "zeroes the memory that it hands out")]

use core::ptr::NonNull;

use super::cache::Cache;
use super::free_object::FreeObject;
use crate::os::PAGE_SIZE;
use crate::page_alloc::{self, Run, Touches};
use crate::size_class::{NR_CLASSES, SizeClass};

static CACHES: [Cache; NR_CLASSES] = caches();
/// The first number of these caches: behind those of the size classes.
const FIRST_NUMBER: usize = NR_CLASSES;
/// The first number that is none of theirs.
pub(super) const END_NUMBER: usize = FIRST_NUMBER + NR_CLASSES;

const fn caches() -> [Cache; NR_CLASSES] {
    let mut caches = [const { Cache::UNUSED }; NR_CLASSES];
    let mut index = 0;
    while index < NR_CLASSES {
        caches[index] = Cache::for_engine(SizeClass::from_index(index).size(), FIRST_NUMBER + index);
        index += 1;
    }
    caches
}

/// The cache of a number, if it is one of these.
pub(super) fn of_number(number: usize) -> Option<&'static Cache> {
    CACHES.get(number.checked_sub(FIRST_NUMBER)?)
}

/// Zeroed memory of at least `nr_bytes`, aligned to 64 bytes.
pub(crate) fn alloc(nr_bytes: usize) -> Option<NonNull<u8>> {
    alloc_of(SizeClass::for_engine(nr_bytes), nr_bytes)
}

/// Gives memory from [`alloc`] back, with the same `nr_bytes`.
///
/// # Safety
/// Nothing refers to the memory any more.
pub(crate) unsafe fn free(memory: NonNull<u8>, nr_bytes: usize) {
    free_of(SizeClass::for_engine(nr_bytes), memory);
}

/// The same as [`alloc`] for what belongs to a slab, in lines that it may share with others, aligned to 8 bytes.
pub(super) fn alloc_beside_slab(nr_bytes: usize) -> Option<NonNull<u8>> {
    alloc_of(SizeClass::beside_slabs(nr_bytes), nr_bytes)
}

/// The same as [`free`] for memory from [`alloc_beside_slab`].
///
/// # Safety
/// Nothing refers to the memory any more.
pub(super) unsafe fn free_beside_slab(memory: NonNull<u8>, nr_bytes: usize) {
    free_of(SizeClass::beside_slabs(nr_bytes), memory);
}

/// Bytes that [`alloc_beside_slab`] really takes for `nr_bytes`.
pub(super) fn full_size(nr_bytes: usize) -> usize {
    SizeClass::beside_slabs(nr_bytes).map_or(nr_bytes.next_multiple_of(PAGE_SIZE), SizeClass::size)
}

fn alloc_of(class: Option<SizeClass>, nr_bytes: usize) -> Option<NonNull<u8>> {
    let Some(class) = class else {
        let nr_pages = u32::try_from(nr_bytes.div_ceil(PAGE_SIZE)).ok()?;
        return Some(page_alloc::alloc_zeroed(nr_pages)?.address());
    };
    let memory = CACHES[class.index()].take_one()?.address();
    // SAFETY: the memory was just taken, so it is ours alone, and it has at least `nr_bytes`.
    unsafe { memory.write_bytes(0, nr_bytes) };
    Some(memory)
}

fn free_of(class: Option<SizeClass>, memory: NonNull<u8>) {
    match class {
        Some(class) => CACHES[class.index()].put_one(FreeObject::at(memory)),
        None => page_alloc::free(Run::of_head(page_alloc::idx_of(memory.addr().get())), Touches::All),
    }
}

/// Locks of these caches, for a `fork`.
pub(crate) fn caches_for_fork() -> &'static [Cache] {
    &CACHES
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ptr::NonNull;
    use std::vec::Vec;

    use super::{alloc, alloc_beside_slab, free, free_beside_slab, full_size};

    type Alloc = fn(usize) -> Option<NonNull<u8>>;
    type Free = unsafe fn(NonNull<u8>, usize);

    /// Fills more than a slab of each size, so that bits or objects that overlapped would be overwritten.
    #[test]
    fn memory_is_zero_and_nobody_elses() {
        let kinds: [(Alloc, Free); 2] = [(alloc, free), (alloc_beside_slab, free_beside_slab)];
        for nr_bytes in [1, 8, 16, 17, 32, 33, 64, 65, 100, 128, 200, 1000, 5000, 40_000] {
            for (alloc, free) in kinds {
                let taken: Vec<_> = (0..1100).map(|_| alloc(nr_bytes).expect("memory")).collect();
                for (memory, tag) in taken.iter().zip((1..=255).cycle()) {
                    // SAFETY: it was just taken, has so many bytes, and is this test's alone.
                    let bytes = unsafe { NonNull::slice_from_raw_parts(*memory, nr_bytes).as_mut() };
                    assert!(bytes.iter().all(|byte| *byte == 0), "{nr_bytes} bytes");
                    bytes.fill(tag);
                }
                assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), taken.len());
                for (memory, tag) in taken.iter().zip((1..=255).cycle()) {
                    // SAFETY: as above.
                    let bytes = unsafe { NonNull::slice_from_raw_parts(*memory, nr_bytes).as_ref() };
                    assert!(bytes.iter().all(|byte| *byte == tag), "{nr_bytes} bytes");
                    // SAFETY: nothing refers to it any more.
                    unsafe { free(*memory, nr_bytes) };
                }
            }
        }
    }

    #[test]
    fn what_belongs_to_slabs_takes_little_more_than_it_needs() {
        assert_eq!([1, 16, 17, 32, 33, 64, 65, 72, 1000].map(full_size), [16, 16, 32, 32, 64, 64, 72, 72, 1024]);
    }

    #[test]
    fn what_cpus_write_has_whole_cache_lines() {
        for nr_bytes in 1..3000 {
            let memory = alloc(nr_bytes).expect("memory");
            assert!(memory.addr().get().is_multiple_of(64), "{nr_bytes} bytes at {memory:p}");
            // SAFETY: nothing refers to it.
            unsafe { free(memory, nr_bytes) };
        }
    }
}
