//! The quarantine: freed objects that wait, first in, first out, so that a use after free meets nobody else's object.
//!
//! A ring of addresses under one lock, in a mapping of its own. It knows no slabs: who puts an object in takes out those that
//! are too many, and frees them. The lock is taken under no other, and nothing is taken under it but the system's memory.

#![expect(unsafe_code, reason = "an array in a mapping")]

use core::ptr::NonNull;

use crate::options;
use crate::os;
use crate::sync::{AtomicPtr, AtomicUsize, Lock, Ordering};

/// Objects that wait at most, however small they are.
const NR_PLACES: usize = 1 << 16;

struct Ring {
    first: usize,
    nr_objects: usize,
    nr_bytes: usize,
}

static RING: Lock<Ring> = Lock::new(Ring { first: 0, nr_objects: 0, nr_bytes: 0 });
/// Address and bytes of each; null before the first object.
static PLACES: AtomicPtr<Place> = AtomicPtr::new(core::ptr::null_mut());

struct Place {
    address: AtomicPtr<u8>,
    nr_bytes: AtomicUsize,
}

/// Puts an object in. False without memory for the ring.
pub(crate) fn put(object: NonNull<u8>, nr_bytes: usize) -> bool {
    let mut ring = RING.lock();
    if ring.nr_objects == NR_PLACES || (PLACES.load(Ordering::Relaxed).is_null() && !make_places()) {
        return false;
    }
    let place = place(ring.first + ring.nr_objects);
    place.address.store(object.as_ptr(), Ordering::Relaxed);
    place.nr_bytes.store(nr_bytes, Ordering::Relaxed);
    ring.nr_objects += 1;
    ring.nr_bytes += nr_bytes;
    true
}

/// Takes the oldest object out, if there are too many or too large ones.
pub(crate) fn take_surplus() -> Option<NonNull<u8>> {
    let mut ring = RING.lock();
    if ring.nr_bytes <= options::quarantine_bytes() && ring.nr_objects < NR_PLACES {
        return None;
    }
    let place = place(ring.first);
    ring.first = (ring.first + 1) % NR_PLACES;
    ring.nr_objects -= 1;
    ring.nr_bytes -= place.nr_bytes.load(Ordering::Relaxed);
    NonNull::new(place.address.load(Ordering::Relaxed))
}

pub(crate) fn hold_for_fork() {
    RING.hold_for_fork();
}

pub(crate) fn release_after_fork() {
    RING.force_unlock();
}

fn make_places() -> bool {
    let Some(memory) = os::map(NR_PLACES * size_of::<Place>()) else { return false };
    PLACES.store(memory.cast().as_ptr(), Ordering::Relaxed);
    true
}

/// A place, counted round the ring, which has been made.
fn place(number: usize) -> &'static Place {
    // SAFETY: the mapping has that many places.
    let place = unsafe { PLACES.load(Ordering::Relaxed).add(number % NR_PLACES) };
    // SAFETY: all zero is a valid place, its fields are atomics, and the mapping is never taken away.
    unsafe { &*place }
}
