//! Whose the objects of a slab are: the kernel's `slab->obj_exts`, the address of an owner vector in the descriptor.
//!
//! | vector | says |
//! |---|---|
//! | shared, all words the same (`sole_owners`) | *sole owner*: every taken object of the slab is charged to it; to nobody by nobody's |
//! | the slab's own | 4 bytes an object, whose each is; 0 for free ones |
//!
//! A slab starts with nobody's. Before an object of a sole owner's slab becomes somebody else's, or nobody's, the slab gets a vector of
//! its own, in the descriptor of each of its pages, under the lock that guards which objects are taken ([`give_vector`]); it keeps
//! that until it is destroyed. A slab of which no object is taken may change its sole owner under the same lock. Words of a slab's
//! own vector are written by whoever holds the object, those of shared ones by nobody; so a free reads an object's word and need not
//! ask which kind it is.

#![expect(unsafe_code, reason = "vectors are reached through a pointer in the descriptor")]

use core::ptr::NonNull;
use core::slice;

use crate::sync::{AtomicPtr, AtomicU32, Ordering};

/// The most objects that a slab can have: 128 pages of the smallest ones.
pub(super) const MAX_OBJECTS: usize = if cfg!(loom) { 2 } else { 1 << 16 };

/// A slab's owner words, one an object.
#[derive(Clone, Copy)]
pub(super) struct OwnerVector(NonNull<AtomicU32>);

impl OwnerVector {
    /// The vector whose first word this is: one for each object of the slabs that get it.
    pub(super) fn new(first: NonNull<AtomicU32>) -> OwnerVector {
        OwnerVector(first)
    }

    /// The vector of a slab, from one of its pages.
    #[inline(always)]
    pub(super) fn load(slot: &AtomicPtr<AtomicU32>) -> OwnerVector {
        // Acquire pairs with the Release in `store`: what the vector holds is seen by whoever finds it.
        // SAFETY: whoever asks has found a slab's page, and a slab's pages have a vector, if only nobody's.
        OwnerVector(unsafe { NonNull::new_unchecked(slot.load(Ordering::Acquire)) })
    }

    /// Makes it the vector of one of a slab's pages. Under the lock that guards which objects are taken, or of a new slab.
    pub(super) fn store(self, slot: &AtomicPtr<AtomicU32>) {
        slot.store(self.as_ptr(), Ordering::Release);
    }

    /// The first word.
    #[cfg(not(loom))]
    pub(super) fn first(self) -> NonNull<AtomicU32> {
        self.0
    }

    pub(super) fn as_ptr(self) -> *mut AtomicU32 {
        self.0.as_ptr()
    }

    /// An object's word.
    ///
    /// # Safety
    /// The slab has an object of that number, and is not destroyed while the word is in use.
    #[inline(always)]
    pub(super) unsafe fn word<'a>(self, obj_idx: u32) -> &'a AtomicU32 {
        // SAFETY: vectors have a word for each object of their slabs.
        let word = unsafe { self.0.add(obj_idx as usize) };
        // SAFETY: the caller vouches for the life time; words are atomics.
        unsafe { word.as_ref() }
    }

    /// All words.
    ///
    /// # Safety
    /// The vector has so many, and is not freed while the slice is in use.
    pub(super) unsafe fn words<'a>(self, nr_objects: u32) -> &'a [AtomicU32] {
        // SAFETY: the caller vouches for length and life time; the elements are atomics.
        unsafe { slice::from_raw_parts(self.0.as_ptr(), nr_objects as usize) }
    }
}

/// Gives a slab whose sole owner is `sole` the vector `fresh`, in which each taken object is that owner's. Under the lock that guards
/// which objects are taken.
pub(super) fn give_vector<'a>(
    slots: impl Iterator<Item = &'a AtomicPtr<AtomicU32>>,
    fresh: OwnerVector,
    sole: u32,
    nr_objects: u32,
    is_taken: impl Fn(u32) -> bool,
) {
    // SAFETY: the vector is as long, and nobody else knows it yet.
    let words = unsafe { fresh.words(nr_objects) };
    let taken = words.iter().zip(0..).filter(|(_, obj_idx)| sole != 0 && is_taken(*obj_idx));
    taken.for_each(|(word, _)| word.store(sole, Ordering::Relaxed));
    slots.for_each(|slot| fresh.store(slot));
}

#[cfg(all(test, loom))]
mod models {
    use std::boxed::Box;
    use std::ptr::NonNull;

    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

    use super::{OwnerVector, give_vector};
    use crate::sync::Lock;

    const SOLE: u32 = 7;

    /// Two objects of a slab whose sole owner is 7, one on each of its two pages.
    struct Slab {
        shared: OwnerVector,
        slots: [AtomicPtr<AtomicU32>; 2],
        taken: Lock<[bool; 2]>,
    }

    // SAFETY: vectors are never freed, and their words are atomics.
    unsafe impl Send for Slab {}
    // SAFETY: as above.
    unsafe impl Sync for Slab {}

    fn vector_of(owner: u32) -> OwnerVector {
        let words: &'static mut [AtomicU32] = Box::leak(Box::new([AtomicU32::new(owner), AtomicU32::new(owner)]));
        OwnerVector::new(NonNull::from(&mut words[0]))
    }

    impl Slab {
        fn of_seven() -> Slab {
            let shared = vector_of(SOLE);
            let slots = [AtomicPtr::new(shared.as_ptr()), AtomicPtr::new(shared.as_ptr())];
            Slab { shared, slots, taken: Lock::new([true; 2]) }
        }

        fn own_vector(&self, page: usize) -> Option<OwnerVector> {
            let vector = OwnerVector::load(&self.slots[page]);
            (vector.as_ptr() != self.shared.as_ptr()).then_some(vector)
        }

        /// What `Cache::owner_word` does, and a store to the word.
        fn give_away(&self, obj_idx: usize, owner: u32) {
            let vector = self.own_vector(obj_idx).unwrap_or_else(|| {
                let taken = self.taken.lock();
                self.own_vector(0).unwrap_or_else(|| {
                    let fresh = vector_of(0);
                    give_vector(self.slots.iter(), fresh, SOLE, 2, |obj_idx| taken[obj_idx as usize]);
                    fresh
                })
            });
            // SAFETY: vectors have two words and are never freed.
            unsafe { vector.word(obj_idx as u32) }.store(owner, Ordering::Relaxed);
        }

        fn owner(&self, obj_idx: usize) -> u32 {
            let vector = OwnerVector::load(&self.slots[obj_idx]);
            // SAFETY: both objects are the slab's, and vectors are never freed.
            unsafe { vector.word(obj_idx as u32) }.load(Ordering::Relaxed)
        }
    }

    /// One CPU gives an object away while another frees the other object: it is still the sole owner's, before and after.
    #[test]
    fn loom_i1_sole_owner_stays_the_others_while_a_vector_comes() {
        loom::model(|| {
            let slab = Arc::new(Slab::of_seven());
            let other = Arc::clone(&slab);
            let thread = loom::thread::spawn(move || other.give_away(0, 8));
            assert_eq!(slab.owner(1), SOLE);
            thread.join().unwrap();
            assert_eq!([slab.owner(0), slab.owner(1)], [8, SOLE]);
        });
    }

    /// Two CPUs give an object each away: one vector comes, and has both.
    #[test]
    fn loom_i1_two_objects_are_given_away_at_once() {
        loom::model(|| {
            let slab = Arc::new(Slab::of_seven());
            let other = Arc::clone(&slab);
            let thread = loom::thread::spawn(move || other.give_away(0, 8));
            slab.give_away(1, 9);
            assert_eq!(slab.owner(1), 9);
            thread.join().unwrap();
            assert_eq!([slab.owner(0), slab.owner(1)], [8, 9]);
        });
    }

    /// An object that goes back into its slab while the vector comes is nobody's there.
    #[test]
    fn loom_i1_an_object_goes_back_while_a_vector_comes() {
        loom::model(|| {
            let slab = Arc::new(Slab::of_seven());
            let other = Arc::clone(&slab);
            let thread = loom::thread::spawn(move || other.give_away(0, 8));
            // What `SlabLists::put` does.
            let mut taken = slab.taken.lock();
            taken[1] = false;
            if let Some(vector) = slab.own_vector(1) {
                // SAFETY: vectors have two words and are never freed.
                unsafe { vector.word(1) }.store(0, Ordering::Relaxed);
            }
            drop(taken);
            thread.join().unwrap();
            let vector = slab.own_vector(1).expect("it has come");
            // SAFETY: as above.
            let words = [0, 1].map(|obj_idx| unsafe { vector.word(obj_idx) }.load(Ordering::Relaxed));
            assert_eq!(words, [8, 0]);
        });
    }
}
