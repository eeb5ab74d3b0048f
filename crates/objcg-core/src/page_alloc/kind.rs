//! What slabs of one cache have in common, as far as a free asks for it.
//!
//! Each page's [`Lookup`](super::Lookup) has the number of it, and so takes no more than 16 bytes; the table is at the start of the region,
//! where the look-up has an address of anyway. An entry is written by who makes a cache's first slab, before it is published, perhaps by two
//! at once with the same; and again when the number is another cache's: of the one before no slab is left then.

use core::hint;

use super::region;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// What a free asks for of a cache: 8 (size) + 8 (stacks) + 4 (number of objects) bytes, in half a cache line.
#[repr(C, align(32))]
pub(crate) struct CacheKind {
    /// ⌈2^64 / size⌉ of the objects; 0 of no cache.
    reciprocal: AtomicU64,
    /// The CPUs' stacks of the cache.
    stacks: AtomicPtr<u8>,
    /// The number of a slab's last object.
    last: AtomicU32,
}

/// Which [`CacheKind`]: how many bytes its entry is from the first one, so that a look-up need not multiply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheKindId(u32);

/// A kind for each cache, by its number, behind that of no slab.
pub(super) const NR_KINDS: usize = 1 + (1 << u16::BITS);
const _: () = assert!(NR_KINDS * size_of::<CacheKind>() <= 1 << 32);

impl CacheKindId {
    pub(crate) fn of_cache(number: u16) -> CacheKindId {
        CacheKindId((u32::from(number) + 1) * size_of::<CacheKind>() as u32)
    }

    /// The number of the cache, if it is one's.
    #[inline]
    pub(crate) fn cache(self) -> Option<u16> {
        // The table ends with the entry of the highest number.
        (self.0 / size_of::<CacheKind>() as u32).checked_sub(1).map(|number| number as u16)
    }

    /// Its entry, for whoever has pages of the region, which starts with the table.
    #[inline(always)]
    pub(crate) fn kind(self) -> &'static CacheKind {
        region::kind(self)
    }

    /// What [`CacheKindId::to_bits`] gave; or 0, which is that of no slab.
    #[inline(always)]
    pub(super) fn from_bits(bits: u32) -> CacheKindId {
        CacheKindId(bits)
    }

    #[inline(always)]
    pub(super) fn to_bits(self) -> u32 {
        self.0
    }
}

impl CacheKind {
    /// What a cache's slabs are, before one is published. The same again is not written, for all CPUs read the line: who finds the slab by
    /// what is published then reads nothing older than what was read here, word by word.
    pub(crate) fn set(&self, size: usize, nr_objects: u32, stacks: *mut u8) {
        let is_set = self.reciprocal.load(Ordering::Relaxed) == reciprocal(size)
            && self.last.load(Ordering::Relaxed) == nr_objects - 1
            && self.stacks.load(Ordering::Relaxed) == stacks;
        if is_set {
            return;
        }
        self.reciprocal.store(reciprocal(size), Ordering::Relaxed);
        self.last.store(nr_objects - 1, Ordering::Relaxed);
        self.stacks.store(stacks, Ordering::Relaxed);
    }

    /// The CPUs' stacks of the cache.
    #[inline(always)]
    pub(crate) fn stacks(&self) -> *mut u8 {
        self.stacks.load(Ordering::Relaxed)
    }

    /// The number of the object that starts that far from a slab's first one; `None` if none does, and of no slab.
    #[inline(always)]
    pub(crate) fn object_at(&self, offset: u32) -> Option<u32> {
        let obj_idx = quotient(offset, self.reciprocal.load(Ordering::Relaxed))?;
        if obj_idx > self.last.load(Ordering::Relaxed) {
            hint::cold_path();
            return None;
        }
        Some(obj_idx)
    }
}

/// ⌈2^64 / size⌉.
const fn reciprocal(size: usize) -> u64 {
    (u64::MAX / size as u64) + 1
}

/// `offset / size`, by the reciprocal of the size; `None` of what is no multiple, and by 0. Offset × reciprocal is ⌊offset / size⌋
/// in the upper half, and in the lower half less than the reciprocal exactly for multiples: the rounding adds less than offset, and
/// the reciprocal is more than any of those, sizes being below 2^20. Addresses before the first object have offsets below 0, whose
/// quotients are more than any slab has objects.
#[inline(always)]
fn quotient(offset: u32, reciprocal: u64) -> Option<u32> {
    let product = u128::from(offset) * u128::from(reciprocal);
    ((product as u64) < reciprocal).then_some((product >> 64) as u32)
}

#[cfg(test)]
mod tests {
    use super::{quotient, reciprocal};
    use crate::size_class::{SizeClass, SlabGeometry};

    #[test]
    fn every_offset_leads_to_its_object_or_to_none() {
        for class in SizeClass::all() {
            let size = class.size();
            let geometry = SlabGeometry::for_size(size);
            let reciprocal = reciprocal(size);
            for offset in 0..geometry.pages * 4096 {
                let idx = offset / size as u32;
                let starts = offset % size as u32 == 0;
                assert_eq!(quotient(offset, reciprocal), starts.then_some(idx), "size {size}, offset {offset}");
            }
            for before in 1..=4096 {
                let obj_idx = quotient(0_u32.wrapping_sub(before), reciprocal);
                assert!(obj_idx.is_none_or(|idx| idx > 1 << 16), "size {size}, {before} before the first object");
            }
            assert_eq!(quotient(0, 0), None, "a page of no slab");
        }
    }

    #[test]
    fn offsets_in_the_largest_slabs_lead_to_their_objects() {
        const SLAB_BYTES: u32 = 128 * 4096;
        for size in [8, 24, 1000, 4096, 65_528, 300_000, SLAB_BYTES] {
            let reciprocal = reciprocal(size as usize);
            for offset in 0..SLAB_BYTES {
                let idx = (offset % size == 0).then_some(offset / size);
                assert_eq!(quotient(offset, reciprocal), idx, "size {size}, offset {offset}");
            }
        }
    }
}
