//! What slabs of one cache have in common, as far as a free asks for it.
//!
//! Each page's [`Lookup`](super::Lookup) has the number of it, and so takes no more than 16 bytes; the table is at the start of the region,
//! where the look-up has an address of anyway. An entry is written by who makes a cache's first slab, before it is published, perhaps by two
//! at once with the same; and again when the number is another cache's: of the one before no slab is left then.

use core::hint;

use super::region;
use crate::sync::{AtomicPtr, AtomicU64, Ordering};

/// What a free asks for of a cache: 16 (size and number of objects) + 8 (stacks) bytes, in half a cache line.
#[repr(C, align(32))]
pub(crate) struct CacheKind {
    divisor: Divisor<AtomicU64>,
    /// The CPUs' stacks of the cache.
    stacks: AtomicPtr<u8>,
}

/// What tells whether an offset in a slab is that of an object, and of which: see [`Divisor::quotient`]. All 0 of no cache.
struct Divisor<W> {
    /// ⌊2^64 / size⌋ + 1.
    reciprocal: W,
    /// The number of objects × what reciprocal × size is above 2^64.
    bound: W,
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
        let divisor = Divisor::of(size, nr_objects);
        let is_set = self.divisor.reciprocal.load(Ordering::Relaxed) == divisor.reciprocal
            && self.divisor.bound.load(Ordering::Relaxed) == divisor.bound
            && self.stacks.load(Ordering::Relaxed) == stacks;
        if is_set {
            return;
        }
        self.divisor.reciprocal.store(divisor.reciprocal, Ordering::Relaxed);
        self.divisor.bound.store(divisor.bound, Ordering::Relaxed);
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
        let reciprocal = self.divisor.reciprocal.load(Ordering::Relaxed);
        let obj_idx = Divisor { reciprocal, bound: self.divisor.bound.load(Ordering::Relaxed) }.quotient(offset);
        if obj_idx.is_none() {
            hint::cold_path();
        }
        obj_idx
    }
}

impl Divisor<u64> {
    fn of(size: usize, nr_objects: u32) -> Divisor<u64> {
        let reciprocal = u64::MAX / size as u64 + 1;
        // Of a power of two the quotient is 2^64 / size already: one more, so that there is something above 2^64.
        let reciprocal = if size.is_power_of_two() { reciprocal + 1 } else { reciprocal };
        let above = reciprocal.wrapping_mul(size as u64);
        Divisor { reciprocal, bound: u64::from(nr_objects) * above }
    }

    /// `offset / size`, if it is that of one of the objects. With e for reciprocal × size - 2^64, which is 1 to size, number × size ×
    /// reciprocal is the number in the upper half, and in the lower half number × e: below the bound for the objects and nothing behind
    /// them. What lies between them has at least a reciprocal more than that in the lower half, and a reciprocal is more than any bound,
    /// sizes being below 2^20 and slabs below 2^32 bytes. Offsets of addresses before the first object are 2^32 less those, and
    /// further behind the last object than anything in the slab.
    #[inline(always)]
    fn quotient(self, offset: u32) -> Option<u32> {
        let product = u128::from(offset) * u128::from(self.reciprocal);
        ((product as u64) < self.bound).then_some((product >> 64) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::Divisor;
    use crate::size_class::{SizeClass, SlabGeometry};

    /// Offsets in so many bytes, and before the first object, lead to their objects or to none.
    fn check(size: u32, nr_objects: u32, nr_bytes: u32) {
        let quotient = |offset| Divisor::of(size as usize, nr_objects).quotient(offset);
        for offset in 0..nr_bytes {
            let idx = offset / size;
            let starts = offset % size == 0 && idx < nr_objects;
            assert_eq!(quotient(offset), starts.then_some(idx), "size {size}, offset {offset}");
        }
        for before in 1..=nr_bytes {
            assert_eq!(quotient(0_u32.wrapping_sub(before)), None, "size {size}, {before} before the first object");
        }
    }

    #[test]
    fn every_offset_leads_to_its_object_or_to_none() {
        for class in SizeClass::all() {
            let geometry = SlabGeometry::for_size(class.size());
            check(class.size() as u32, geometry.objects, geometry.pages * 4096);
        }
        let none = Divisor { reciprocal: 0, bound: 0 };
        assert_eq!(none.quotient(0), None, "a page of no slab");
    }

    #[test]
    fn offsets_in_the_largest_slabs_lead_to_their_objects() {
        const SLAB_BYTES: u32 = 128 * 4096;
        for size in [8, 24, 1000, 4096, 65_528, 300_000, SLAB_BYTES] {
            check(size, SLAB_BYTES / size, SLAB_BYTES);
            check(size, 1, SLAB_BYTES);
        }
    }
}
