//! A futex lock of one word, with the data that it guards.
//!
//! States of the word: `FREE` → `HELD` (nobody waits) → `CONTENDED` (somebody may wait). A thread that gives up spinning
//! sets `CONTENDED` and sleeps; the unlock that finds `CONTENDED` wakes one. Const-constructible, never allocates, and
//! stays usable across `fork` (see [`Lock::force_unlock`]). The order in which the engine takes its locks is in
//! `LOCKING.md`.

#![expect(unsafe_code, reason = "the guard hands out the only reference to the guarded data")]

use core::ops::{Deref, DerefMut};

use super::{AtomicU32, Ordering};
#[cfg(not(loom))]
use core::cell::UnsafeCell;
#[cfg(loom)]
use loom::cell::{MutPtr, UnsafeCell};

#[cfg(loom)]
mod futex;
#[cfg(all(test, loom))]
mod models;

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;
/// Rounds of spinning before the thread sleeps: sections are tens of nanoseconds, a sleep and wake is microseconds.
#[cfg(not(loom))]
const SPINS: u32 = 64;

pub(crate) struct Lock<T> {
    word: AtomicU32,
    data: UnsafeCell<T>,
    #[cfg(loom)]
    sleepers: futex::Sleepers,
}

// SAFETY: `data` is reached only through a guard, and the word lets one guard exist at a time.
unsafe impl<T: Send> Sync for Lock<T> {}
// SAFETY: moving the lock moves the data; no thread identity is kept.
unsafe impl<T: Send> Send for Lock<T> {}

pub(crate) struct Guard<'a, T> {
    lock: &'a Lock<T>,
    /// Has loom see the access, from the lock to the unlock.
    #[cfg(loom)]
    data: Option<MutPtr<T>>,
}

impl<T> Lock<T> {
    #[cfg(not(loom))]
    pub(crate) const fn new(data: T) -> Self {
        Lock { word: AtomicU32::new(FREE), data: UnsafeCell::new(data) }
    }

    #[cfg(loom)]
    pub(crate) fn new(data: T) -> Self {
        Lock { word: AtomicU32::new(FREE), data: UnsafeCell::new(data), sleepers: futex::Sleepers::default() }
    }

    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        // Acquire pairs with the Release in `unlock`: what the last holder wrote is seen.
        if self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_slow();
        }
        Guard {
            lock: self,
            #[cfg(loom)]
            data: Some(self.data.get_mut()),
        }
    }

    /// The guard, if nobody holds the lock.
    #[cfg(not(loom))]
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        // Acquire: as in `lock`.
        self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(Guard { lock: self })
    }

    #[cold]
    #[inline(never)]
    fn lock_slow(&self) {
        #[cfg(not(loom))]
        for _ in 0..SPINS {
            if self.word.load(Ordering::Relaxed) == FREE
                && self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return;
            }
            core::hint::spin_loop();
        }
        // Taken as CONTENDED, not HELD: whether others sleep is not known, and one wake too many is harmless.
        while self.word.swap(CONTENDED, Ordering::Acquire) != FREE {
            self.sleep_while(CONTENDED);
        }
    }

    /// May return for no reason.
    fn sleep_while(&self, expected: u32) {
        #[cfg(not(loom))]
        crate::os::futex_wait(&self.word, expected);
        #[cfg(loom)]
        self.sleepers.wait(&self.word, expected);
    }

    #[inline]
    fn unlock(&self) {
        if self.word.swap(FREE, Ordering::Release) == CONTENDED {
            self.wake();
        }
    }

    #[cold]
    #[inline(never)]
    fn wake(&self) {
        #[cfg(not(loom))]
        crate::os::futex_wake(&self.word);
        #[cfg(loom)]
        self.sleepers.wake();
    }

    /// Takes the lock for the duration of a `fork`; [`Lock::force_unlock`] gives it back, in parent and child.
    #[cfg(not(loom))]
    pub(crate) fn hold_for_fork(&self) {
        core::mem::forget(self.lock());
    }

    /// Gives back what [`Lock::hold_for_fork`] took. In the child the waiters do not exist any more; in the parent they
    /// are woken.
    #[cfg(not(loom))]
    pub(crate) fn force_unlock(&self) {
        debug_assert!(self.word.load(Ordering::Relaxed) != FREE, "given back after a fork, but not held for it");
        self.unlock();
    }
}

#[cfg(loom)]
impl<T> Guard<'_, T> {
    fn tracked(&self) -> *mut T {
        let data = self.data.as_ref().unwrap();
        // SAFETY: the lock outlives its guard, and no other guard exists.
        unsafe { core::ptr::from_mut(data.deref()) }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        #[cfg(loom)]
        drop(self.data.take());
        self.lock.unlock();
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        #[cfg(not(loom))]
        let data = self.lock.data.get();
        #[cfg(loom)]
        let data = self.tracked();
        // SAFETY: this guard is the only one (the word is not FREE), so no `&mut` to the data exists.
        unsafe { &*data }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        #[cfg(not(loom))]
        let data = self.lock.data.get();
        #[cfg(loom)]
        let data = self.tracked();
        // SAFETY: this guard is the only one and is borrowed mutably: no other reference to the data exists.
        unsafe { &mut *data }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use super::Lock;

    #[test]
    fn many_threads_add_without_losing_one() {
        static SUM: Lock<u64> = Lock::new(0);
        let threads: std::vec::Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    for _ in 0..50_000 {
                        *SUM.lock() += 1;
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(*SUM.lock(), 200_000);
    }
}
