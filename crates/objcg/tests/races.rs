//! Objects, groups and limits handed between threads by nothing but atomics, for a thread sanitizer to watch (I2, I4).
//!
//! The test's own memory does not come from the engine, and its threads share nothing of the standard library's: what a
//! sanitizer that knows only this code and the engine's sees as a race is one. Every object is written by whoever has it, without
//! atomics, so that each hand-over through the engine has to order the accesses.

use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread;

use objcg::{Memcg, PerCpuCounter};
use objcg_core::kmalloc;

#[path = "support/random.rs"]
mod random;
use random::Random;

const NR_THREADS: usize = 4;
const NR_OPERATIONS: usize = 4_000;
const NR_PLACES: usize = 64;

fn fill(object: NonNull<u8>) {
    // SAFETY: objects have at least 16 bytes, and this one is ours.
    unsafe { object.cast::<[u8; 16]>().write([7; 16]) };
}

fn free(object: *mut u8) {
    let Some(object) = NonNull::new(object) else { return };
    fill(object);
    // SAFETY: live, and whoever took it out of its place is its only user.
    unsafe { kmalloc::free(object) };
}

fn work(top: &Memcg, places: &[AtomicPtr<u8>], mut random: Random, nth_thread: usize) {
    let mut tenant = top.create(&format!("{nth_thread}")).expect("no limit");
    let mut counter = PerCpuCounter::new().expect("memory");
    for nth in 0..NR_OPERATIONS {
        match random.below(100) {
            0 => {
                // What is in the places outlives it.
                tenant.delete().expect("alive, and without children");
                tenant = top.create(&format!("{nth_thread}")).expect("no limit");
                tenant.set_max(Some(1 << 20)).expect("no root");
            }
            1 => top.drain(),
            2 => {
                kmalloc::trim();
            }
            3 => counter = tenant.scope(PerCpuCounter::new).unwrap_or(counter),
            _ => {
                let nr_bytes = if nth % 100 == 0 { 50_000 } else { 16 + random.below(1000) };
                counter.add(1);
                let Some(object) = tenant.scope(|| kmalloc::alloc(nr_bytes, 8)) else { continue };
                fill(object);
                let place = &places[random.below(NR_PLACES)];
                free(place.swap(object.as_ptr(), Ordering::AcqRel));
            }
        }
    }
}

#[test]
fn i2_i4_objects_go_from_thread_to_thread() {
    let mut random = Random::from_environment();
    let top = Memcg::root().create("races").expect("a new name");
    let places: Vec<_> = (0..NR_PLACES).map(|_| AtomicPtr::new(null_mut())).collect();
    thread::scope(|scope| {
        let start = |nth| {
            let (top, places, random) = (&top, &places, Random::seeded(random.below(1 << 30) as u64));
            scope.spawn(move || work(top, places, random, nth))
        };
        let threads: Vec<_> = (0..NR_THREADS).map(start).collect();
        // Joined one by one: that orders their accesses before what follows, for a sanitizer too.
        threads.into_iter().for_each(|thread| thread.join().expect("a thread that ends well"));
    });
    places.iter().for_each(|place| free(place.swap(null_mut(), Ordering::AcqRel)));
    top.drain();
    assert_eq!((top.usage(), top.stat().total_bytes(), objcg::nr_dying()), (0, 0, 0));
}
