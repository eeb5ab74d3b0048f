//! Which objects of a slab are free: a bit each, out of line, so that nothing sits next to the user's bytes.
//!
//! Up to 64 objects the bits are in the descriptor itself, above that in words of the engine's memory; of the engine's own slabs, next to
//! which are no user's bytes, before the first object. Objects that wait
//! in a sheaf count as taken here. All of it is guarded by the cache's slab lock; the atomics are only for type stability.

#![expect(unsafe_code, reason = "the words of a large slab are reached through an address in the descriptor")]

use core::ptr::NonNull;
use core::slice;

use super::meta;
use crate::page_alloc::Page;
use crate::sync::{AtomicU64, Ordering};

/// Slabs of at most this many objects keep their bits in the descriptor.
pub(super) const INLINE_OBJECTS: u32 = 64;

/// Bytes of the words of a slab with that many objects; 0 if the descriptor holds them.
pub(super) const fn nr_word_bytes(nr_objects: u32) -> usize {
    if nr_objects <= INLINE_OBJECTS { 0 } else { nr_objects.div_ceil(64) as usize * size_of::<u64>() }
}

/// Gives a new slab its bits, all objects free: in the words at `inside`, if there are such. False without memory.
pub(super) fn init(page: &Page, nr_objects: u32, inside: Option<NonNull<u8>>) -> bool {
    let nr_bytes = nr_word_bytes(nr_objects);
    if nr_bytes > 0 {
        let Some(memory) = inside.or_else(|| meta::alloc_beside_slab(nr_bytes)) else { return false };
        page.free_bits().store(memory.as_ptr().expose_provenance() as u64, Ordering::Relaxed);
    }
    let mut left = nr_objects;
    for word in words(page, nr_objects) {
        let nr_bits = left.min(64);
        word.store(u64::MAX >> (64 - nr_bits), Ordering::Relaxed);
        left -= nr_bits;
    }
    page.nr_free().store(nr_objects, Ordering::Relaxed);
    true
}

/// The memory to give back once a slab is gone whose words are outside of it: the bits' address and size, if they are out of the
/// descriptor.
pub(super) fn detach(page: &Page, nr_objects: u32) -> Option<(u64, usize)> {
    let nr_bytes = nr_word_bytes(nr_objects);
    (nr_bytes > 0).then(|| (page.free_bits().load(Ordering::Relaxed), nr_bytes))
}

#[inline]
fn words(page: &Page, nr_objects: u32) -> &[AtomicU64] {
    if nr_objects <= INLINE_OBJECTS {
        return slice::from_ref(page.free_bits());
    }
    let address = page.free_bits().load(Ordering::Relaxed) as usize;
    let words = core::ptr::with_exposed_provenance::<AtomicU64>(address);
    // SAFETY: `init` stored the address of that many words and set them; they live as long as the slab does.
    unsafe { slice::from_raw_parts(words, nr_objects.div_ceil(64) as usize) }
}

/// Takes up to `want` free objects, lowest first; returns how many.
pub(super) fn take(page: &Page, nr_objects: u32, want: u32, mut found: impl FnMut(u32)) -> u32 {
    let mut nr_taken = 0;
    for (index, word) in words(page, nr_objects).iter().enumerate() {
        let mut bits = word.load(Ordering::Relaxed);
        if bits == 0 {
            continue;
        }
        while bits != 0 && nr_taken < want {
            found(index as u32 * 64 + bits.trailing_zeros());
            bits &= bits - 1;
            nr_taken += 1;
        }
        word.store(bits, Ordering::Relaxed);
        if nr_taken == want {
            break;
        }
    }
    page.nr_free().store(page.nr_free().load(Ordering::Relaxed) - nr_taken, Ordering::Relaxed);
    nr_taken
}

/// Marks an object free; returns how many are free now, or `None` if it was free already.
pub(super) fn put(page: &Page, nr_objects: u32, obj_idx: u32) -> Option<u32> {
    let word = &words(page, nr_objects)[(obj_idx / 64) as usize];
    let bits = word.load(Ordering::Relaxed);
    let bit = 1 << (obj_idx % 64);
    if bits & bit != 0 {
        return None;
    }
    word.store(bits | bit, Ordering::Relaxed);
    let nr_free = page.nr_free().load(Ordering::Relaxed) + 1;
    page.nr_free().store(nr_free, Ordering::Relaxed);
    Some(nr_free)
}

/// Whether an object is marked free.
pub(super) fn is_free(page: &Page, nr_objects: u32, obj_idx: u32) -> bool {
    words(page, nr_objects)[(obj_idx / 64) as usize].load(Ordering::Relaxed) & (1 << (obj_idx % 64)) != 0
}
