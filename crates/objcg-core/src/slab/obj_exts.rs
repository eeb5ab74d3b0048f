//! Owner vectors: one 4-byte owner id an object of a slab, made when the slab's first object is charged.
//!
//! The kernel's `slab->obj_exts`. A word is written by whoever holds the object. Only the installation races, between CPUs
//! that charge the first objects of one slab: a compare-exchange decides, the loser frees its vector. Slabs without a vector
//! share one that is all zero and never written, so that a free need not ask whether there is one.

#![expect(unsafe_code, reason = "vectors are reached through a pointer in the descriptor")]

use core::ptr::NonNull;
use core::slice;

use crate::sync::{AtomicPtr, AtomicU32, Ordering};

/// The most objects that a slab can have: 128 pages of the smallest ones.
pub(super) const MAX_OBJECTS: usize = if cfg!(loom) { 2 } else { 1 << 16 };

/// The vector of slabs that have none.
#[cfg(not(loom))]
static NOBODYS: [AtomicU32; MAX_OBJECTS] = [const { AtomicU32::new(0) }; MAX_OBJECTS];

/// A slab's owner words: its own vector, or the one of slabs that have none.
#[derive(Clone, Copy)]
pub(super) struct OwnerVector(NonNull<AtomicU32>);

impl OwnerVector {
    /// A vector of a slab's own.
    pub(super) fn new(first: NonNull<AtomicU32>) -> OwnerVector {
        OwnerVector(first)
    }

    /// The vector of slabs that have none.
    #[cfg(not(loom))]
    pub(super) fn nobodys() -> OwnerVector {
        OwnerVector(NonNull::from_ref(&NOBODYS).cast())
    }

    /// The first word.
    #[cfg(not(loom))]
    pub(super) fn first(self) -> NonNull<AtomicU32> {
        self.0
    }

    pub(super) fn as_ptr(self) -> *mut AtomicU32 {
        self.0.as_ptr()
    }

    /// The vector, if it is a slab's own.
    #[cfg(not(loom))]
    pub(super) fn if_real(self) -> Option<OwnerVector> {
        (self.0 != OwnerVector::nobodys().0).then_some(self)
    }

    /// An object's word.
    ///
    /// # Safety
    /// The slab has an object of that number, and is not destroyed while the word is in use.
    #[inline(always)]
    pub(super) unsafe fn word<'a>(self, obj_idx: u32) -> &'a AtomicU32 {
        // SAFETY: vectors have a word for each object of their slab, `NOBODYS` as many as any slab has.
        let word = unsafe { self.0.add(obj_idx as usize) };
        // SAFETY: the caller vouches for the life time; words are atomics.
        unsafe { word.as_ref() }
    }

    /// All words.
    ///
    /// # Safety
    /// It is the own vector of a slab of `nr_objects`, which is not destroyed while the slice is in use.
    #[cfg(not(loom))]
    pub(super) unsafe fn words<'a>(self, nr_objects: u32) -> &'a [AtomicU32] {
        // SAFETY: the caller vouches for length and life time; the elements are atomics.
        unsafe { slice::from_raw_parts(self.0.as_ptr(), nr_objects as usize) }
    }
}

/// Installs `vector` in place of `nobodys` unless another one was; returns the one that is there, and whether it is the
/// caller's.
pub(super) fn install(
    slot: &AtomicPtr<AtomicU32>,
    nobodys: *mut AtomicU32,
    vector: OwnerVector,
) -> (OwnerVector, bool) {
    // Release pairs with the Acquire in `load`: the zeroes of the vector are seen by whoever finds it. Acquire on
    // failure pairs with the winner's Release.
    match slot.compare_exchange(nobodys, vector.as_ptr(), Ordering::Release, Ordering::Acquire) {
        Ok(_) => (vector, true),
        // A slab's field is never null.
        Err(winner) => (NonNull::new(winner).map_or(vector, OwnerVector), false),
    }
}

/// The vector of a slab, from one of its pages.
#[inline(always)]
pub(super) fn load(slot: &AtomicPtr<AtomicU32>) -> OwnerVector {
    // SAFETY: whoever asks has found a slab's page, and a slab's pages have a vector, if only `NOBODYS`.
    OwnerVector(unsafe { NonNull::new_unchecked(slot.load(Ordering::Acquire)) })
}

#[cfg(all(test, loom))]
mod models {
    use std::ptr::NonNull;

    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

    use super::{OwnerVector, install, load};

    /// Two CPUs charge the first objects of a slab: both end with the same vector, one keeps its own, and both owner ids
    /// are in it.
    #[test]
    fn loom_owner_vector_is_installed_once() {
        loom::model(|| {
            let slot = Arc::new(AtomicPtr::<AtomicU32>::new(std::ptr::null_mut()));
            let charge = |slot: &AtomicPtr<AtomicU32>, obj_idx: u32, owner: u32| {
                let fresh: &'static mut [AtomicU32] = Box::leak(Box::new([AtomicU32::new(0), AtomicU32::new(0)]));
                let fresh = OwnerVector::new(NonNull::from(&mut fresh[0]));
                let (vector, mine) = install(slot, std::ptr::null_mut(), fresh);
                // SAFETY: both threads' vectors have two ids and are never freed.
                unsafe { vector.word(obj_idx) }.store(owner, Ordering::Relaxed);
                mine
            };
            let other = Arc::clone(&slot);
            let thread = loom::thread::spawn(move || charge(&other, 1, 8));
            let mine = charge(&slot, 0, 7);
            let theirs = thread.join().unwrap();
            assert!(mine != theirs, "exactly one vector is installed");
            let vector = load(&slot);
            // SAFETY: the installed vector has two ids and is never freed.
            let ids = [0, 1].map(|idx| unsafe { vector.word(idx) }.load(Ordering::Relaxed));
            assert_eq!(ids, [7, 8]);
        });
    }
}
