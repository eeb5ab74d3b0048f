//! Owner vectors: one 4-byte owner id an object of a slab, made when the slab's first object is charged.
//!
//! The kernel's `slab->obj_exts`. A slot is written by whoever owns the object: on allocation before the object is
//! handed out, on free before it can be reused. Only the installation races, between CPUs that charge the first objects
//! of one slab: a compare-exchange decides, the loser frees its vector.

#![expect(unsafe_code, reason = "vectors are reached through a pointer in the descriptor")]

use core::ptr::{self, NonNull};
use core::slice;

use crate::sync::{AtomicPtr, AtomicU32, Ordering};

/// Installs `vector` unless one is there; returns the one that is, and whether it is the caller's.
pub(super) fn install(slot: &AtomicPtr<AtomicU32>, vector: NonNull<AtomicU32>) -> (NonNull<AtomicU32>, bool) {
    // Release pairs with the Acquire in `load`: the zeroes of the vector are seen by whoever finds it. Acquire on
    // failure pairs with the winner's Release.
    match slot.compare_exchange(ptr::null_mut(), vector.as_ptr(), Ordering::Release, Ordering::Acquire) {
        Ok(_) => (vector, true),
        // A failed exchange found something other than null.
        Err(winner) => (NonNull::new(winner).unwrap_or(vector), false),
    }
}

/// The installed vector.
#[inline]
pub(super) fn load(slot: &AtomicPtr<AtomicU32>) -> Option<NonNull<AtomicU32>> {
    NonNull::new(slot.load(Ordering::Acquire))
}

/// Takes the vector out of a slab that is being destroyed.
pub(super) fn take(slot: &AtomicPtr<AtomicU32>) -> Option<NonNull<AtomicU32>> {
    NonNull::new(slot.swap(ptr::null_mut(), Ordering::Relaxed))
}

/// The owner ids of a slab.
///
/// # Safety
/// `vector` has `nr_objects` ids and the slab is not destroyed while the slice is in use.
#[inline]
pub(super) unsafe fn owners<'a>(vector: NonNull<AtomicU32>, nr_objects: u32) -> &'a [AtomicU32] {
    // SAFETY: the caller vouches for length and life time; the elements are atomics.
    unsafe { slice::from_raw_parts(vector.as_ptr(), nr_objects as usize) }
}

#[cfg(all(test, loom))]
mod models {
    use std::ptr::NonNull;

    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

    use super::{install, load};

    /// Two CPUs charge the first objects of a slab: both end with the same vector, one keeps its own, and both owner ids
    /// are in it.
    #[test]
    fn loom_owner_vector_is_installed_once() {
        loom::model(|| {
            let slot = Arc::new(AtomicPtr::<AtomicU32>::new(std::ptr::null_mut()));
            let charge = |slot: &AtomicPtr<AtomicU32>, obj_idx: usize, owner: u32| {
                let fresh: &'static mut [AtomicU32] = Box::leak(Box::new([AtomicU32::new(0), AtomicU32::new(0)]));
                let (vector, mine) = install(slot, NonNull::from(&mut fresh[0]));
                // SAFETY: both threads' vectors have two ids and are never freed.
                unsafe { vector.add(obj_idx).as_ref() }.store(owner, Ordering::Relaxed);
                mine
            };
            let other = Arc::clone(&slot);
            let thread = loom::thread::spawn(move || charge(&other, 1, 8));
            let mine = charge(&slot, 0, 7);
            let theirs = thread.join().unwrap();
            assert!(mine != theirs, "exactly one vector is installed");
            let vector = load(&slot).unwrap();
            // SAFETY: the installed vector has two ids and is never freed.
            let ids = [0, 1].map(|idx| unsafe { vector.add(idx).as_ref() }.load(Ordering::Relaxed));
            assert_eq!(ids, [7, 8]);
        });
    }
}
