//! Owner vectors that slabs share: all words of one are the same. One is nobody's; groups that hold much have others.
//!
//! A slab whose taken objects are all one group's points at that group's, so that a free reads a word of it like any other, from a
//! few lines that are always at hand, and the slab needs no vector itself. Words are written once, before anybody sees them: a
//! vessel's id has the same vector for ever, whichever group has the id.

#![expect(unsafe_code, reason = "reads a word through an address that may be of a vector that is gone")]

use super::obj_exts::{MAX_OBJECTS, OwnerVector};
use crate::hooks;
use crate::memcg::ROOT_VESSEL;
use crate::page_alloc;
use crate::sync::{AtomicPtr, AtomicU32, Ordering};

/// Vessels that can have a vector; an id's is the one of its number modulo this, if no other id came first.
const NR_VECTORS: usize = 256;
/// Words of a vector: slabs of more objects, which are smaller than 32 bytes, have a vector of their own.
const NR_WORDS: usize = 256;
/// A group has a vector once so much is charged to it: then it is 1/256 of that at most, and stands for owner words of its slabs,
/// which are 1/50 in a server's mix.
const MIN_CHARGED: u64 = 256 << 10;

/// The vector of slabs of which no object is charged.
static NOBODYS: [AtomicU32; MAX_OBJECTS] = [const { AtomicU32::new(ROOT_VESSEL) }; MAX_OBJECTS];

#[repr(align(64))]
struct Words([AtomicU32; NR_WORDS]);

static VECTORS: [Words; NR_VECTORS] = [const { Words([const { AtomicU32::new(0) }; NR_WORDS]) }; NR_VECTORS];
/// Whose each vector is; 0 of one that is not made.
static OWNERS: [AtomicU32; NR_VECTORS] = [const { AtomicU32::new(0) }; NR_VECTORS];

/// While the words are being written: no vessel's id.
const IN_THE_MAKING: u32 = u32::MAX;

impl OwnerVector {
    /// The vector of slabs that are nobody's.
    pub(super) fn nobodys() -> OwnerVector {
        OwnerVector::new((&NOBODYS[0]).into())
    }

    /// The vector that a group's slabs of `nr_objects` share, if it has one or holds so much that it gets one.
    pub(super) fn of_sole(owner: u32, nr_objects: u32) -> Option<OwnerVector> {
        if owner == ROOT_VESSEL {
            return Some(OwnerVector::nobodys());
        }
        if nr_objects as usize > NR_WORDS {
            return None;
        }
        let nth = owner as usize % NR_VECTORS;
        // Acquire pairs with the Release in `make`.
        let has_vector = match OWNERS[nth].load(Ordering::Acquire) {
            0 => hooks::charged(owner) >= MIN_CHARGED && make(nth, owner),
            other => other == owner,
        };
        has_vector.then(|| OwnerVector::new((&VECTORS[nth].0[0]).into()))
    }

    /// Whose all objects of a slab with this vector are, if slabs share it.
    pub(super) fn sole_owner(self) -> Option<u32> {
        if self.as_ptr() == OwnerVector::nobodys().as_ptr() {
            return Some(ROOT_VESSEL);
        }
        let offset = (self.as_ptr() as usize).wrapping_sub((&raw const VECTORS) as usize);
        let owner = OWNERS.get(offset / size_of::<Words>())?;
        Some(owner.load(Ordering::Relaxed))
    }
}

impl OwnerVector {
    /// An object's word in the vector of a slab that may be gone, or another cache's by now: then it is anything, or `None`.
    pub(super) fn peek(slot: &AtomicPtr<AtomicU32>, obj_idx: u32) -> Option<u32> {
        let word = slot.load(Ordering::Acquire).wrapping_add(obj_idx as usize);
        if page_alloc::lookup_at(word as usize).is_none() && !is_shared(word) {
            return None;
        }
        // SAFETY: the word is in the region, of which nothing is unmapped, or in a static; vectors are aligned, and so are words that
        // are a whole number of them away. Volatile: who has the memory by now may be writing to it, and any value will do.
        Some(unsafe { word.cast::<u32>().read_volatile() })
    }
}

/// Whether a word is of a vector that slabs share.
fn is_shared(word: *const AtomicU32) -> bool {
    NOBODYS.as_ptr_range().contains(&word) || VECTORS.as_ptr_range().contains(&word.cast())
}

/// Bytes of the groups' vectors.
pub(crate) fn nr_bytes() -> u64 {
    let nr_made = OWNERS.iter().filter(|owner| owner.load(Ordering::Relaxed) != 0).count();
    (nr_made * size_of::<Words>()) as u64
}

/// Makes an owner's vector; false if somebody else is making it, or one in its place.
fn make(nth: usize, owner: u32) -> bool {
    if OWNERS[nth].compare_exchange(0, IN_THE_MAKING, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return false;
    }
    VECTORS[nth].0.iter().for_each(|word| word.store(owner, Ordering::Relaxed));
    // Release pairs with the Acquire in `of_sole`.
    OWNERS[nth].store(owner, Ordering::Release);
    true
}

#[cfg(test)]
mod tests {
    use core::ptr;

    use super::{NOBODYS, NR_VECTORS, NR_WORDS, OwnerVector, VECTORS, make, nr_bytes};
    use crate::hooks::leads_to;
    use crate::memcg::ROOT_VESSEL;
    use crate::slab::meta;
    use crate::sync::{AtomicPtr, AtomicU32, Ordering};

    #[test]
    fn nobodys_vector_is_the_roots() {
        assert_eq!(OwnerVector::nobodys().sole_owner(), Some(ROOT_VESSEL));
        let shared = OwnerVector::of_sole(ROOT_VESSEL, 1 << 16).expect("nobody's is always there");
        assert_eq!(shared.as_ptr(), OwnerVector::nobodys().as_ptr());
    }

    #[test]
    fn a_vector_says_whose_it_is_in_each_word() {
        // Of an id that no group of the tests reaches.
        let owner = 1_000_007;
        let before = nr_bytes();
        assert!(make(owner as usize % NR_VECTORS, owner));
        // At least: other tests have groups.
        assert!(nr_bytes() >= before + 4 * NR_WORDS as u64);
        assert!(!make(owner as usize % NR_VECTORS, owner + NR_VECTORS as u32), "the place is taken");
        let vector = OwnerVector::of_sole(owner, NR_WORDS as u32).expect("it was made");
        assert_eq!(vector.sole_owner(), Some(owner));
        // SAFETY: the vector has so many words, and is a static.
        let words = unsafe { vector.words(NR_WORDS as u32) };
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == owner));
        assert!(OwnerVector::of_sole(owner, NR_WORDS as u32 + 1).is_none(), "too short");
        assert!(OwnerVector::of_sole(owner + NR_VECTORS as u32, 10).is_none(), "another's place");
    }
    #[test]
    fn a_vector_that_is_gone_gives_any_number_or_none() {
        let peek = |first: *const AtomicU32, obj_idx| OwnerVector::peek(&AtomicPtr::new(first.cast_mut()), obj_idx);
        let (nobodys, last) = (NOBODYS.as_ptr_range(), VECTORS[NR_VECTORS - 1].0.as_ptr_range());
        assert_eq!(peek(nobodys.start, NOBODYS.len() as u32 - 1), Some(ROOT_VESSEL));
        assert!(peek(last.start, NR_WORDS as u32 - 1).is_some());
        assert_eq!(peek(last.end, 0), None);
        // A page's descriptors that were released are all zero.
        assert_eq!(peek(ptr::null(), 0), None);
        assert_eq!(peek(ptr::null(), 1 << 20), None);
        let memory = meta::alloc(64).expect("memory");
        assert_eq!(peek(memory.as_ptr().cast(), 15), Some(0));
        // SAFETY: it is this test's alone.
        unsafe { meta::free(memory, 64) };
        assert!(peek(memory.as_ptr().cast(), 15).is_some(), "what is there now");
        assert!(!leads_to(u32::MAX, 0) && !leads_to(1 << 24, 0), "nobody's number");
    }
}
