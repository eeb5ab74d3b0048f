//! A bounded queue of batches between two threads. It allocates nothing, and costs two atomic stores a batch.
#![expect(unsafe_code, reason = "a queue for one producer and one consumer")]

use std::cell::UnsafeCell;
use std::hint;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::object::Object;
use crate::pages::Pages;

/// Objects of a batch: so many that handing it over is lost in them, as it is not with 64.
pub(super) const BATCH: usize = 512;
const NR_BATCHES: usize = 8;
/// Looks at the other's counter before the CPU is given away.
const NR_SPINS: u32 = 1000;

pub(super) type Batch = [Option<Object>; BATCH];

/// A counter with cache lines of its own.
#[repr(align(128))]
struct Counter(AtomicUsize);

// # Invariants
// The consumer alone touches the batches from `taken` up to `put`, the producer alone all others.
pub(super) struct Ring {
    batches: Pages<UnsafeCell<Batch>>,
    put: Counter,
    taken: Counter,
}

// SAFETY: each batch is one thread's at any time, by the invariant.
unsafe impl Sync for Ring {}

impl Ring {
    pub(super) fn new() -> Ring {
        Ring {
            batches: Pages::new(NR_BATCHES, |_| UnsafeCell::new([const { None }; BATCH])),
            put: Counter(AtomicUsize::new(0)),
            taken: Counter(AtomicUsize::new(0)),
        }
    }

    /// Lets `fill` fill the next batch, as soon as there is an empty one. Of the producer alone.
    #[inline(always)]
    pub(super) fn put(&self, fill: impl FnOnce(&mut Batch)) {
        let nth = self.put.0.load(Ordering::Relaxed);
        // Acquire pairs with the Release of `take`: the consumer is done with the batch.
        wait_until(|| nth - self.taken.0.load(Ordering::Acquire) < NR_BATCHES);
        // SAFETY: by the invariant it is the producer's.
        fill(unsafe { &mut *self.batches[nth % NR_BATCHES].get() });
        // Release pairs with the Acquire of `take`: the batch is full.
        self.put.0.store(nth + 1, Ordering::Release);
    }

    /// Lets `empty` empty the next batch, as soon as there is a full one. Of the consumer alone.
    #[inline(always)]
    pub(super) fn take(&self, empty: impl FnOnce(&mut Batch)) {
        let nth = self.taken.0.load(Ordering::Relaxed);
        // Acquire pairs with the Release of `put`.
        wait_until(|| self.put.0.load(Ordering::Acquire) > nth);
        // SAFETY: by the invariant it is the consumer's.
        empty(unsafe { &mut *self.batches[nth % NR_BATCHES].get() });
        // Release pairs with the Acquire of `put`.
        self.taken.0.store(nth + 1, Ordering::Release);
    }
}

#[inline(always)]
fn wait_until(is_ready: impl Fn() -> bool) {
    loop {
        for _ in 0..NR_SPINS {
            if is_ready() {
                return;
            }
            hint::spin_loop();
        }
        thread::yield_now();
    }
}
