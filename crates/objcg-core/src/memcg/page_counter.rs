//! Usage and limit of one group, after the kernel's `mm/page_counter.c`; here in bytes, and never over the limit.
//!
//! One struct. The kernel adds first and takes back what went over, so that readers can see usage above `max`
//! and two charges can refuse each other. Here a charge is a compare-exchange: it happens whole and within the limit, or
//! not at all. It runs once a batch, not once an object, so the retry under contention does not show.

use crate::sync::{AtomicU64, Ordering};

/// No limit.
pub(crate) const UNLIMITED: u64 = u64::MAX;

/// Bytes in the usage word; above them the version of the limit.
const BYTES: u64 = (1 << 48) - 1;
const VERSION: u64 = BYTES + 1;

#[repr(C)]
#[cfg_attr(loom, derive(Default))]
pub(crate) struct PageCounter {
    usage: AtomicU64,
    max: AtomicU64,
    high: AtomicU64,
    peak: AtomicU64,
}

impl PageCounter {
    /// Starts afresh: nothing used, no limit. The caller owns the group.
    pub(crate) fn reset(&self) {
        self.usage.store(0, Ordering::Relaxed);
        self.max.store(UNLIMITED, Ordering::Relaxed);
        self.high.store(UNLIMITED, Ordering::Relaxed);
        self.peak.store(0, Ordering::Relaxed);
    }

    /// Adds `nr_bytes` if usage stays within the limit.
    ///
    /// Races with [`PageCounter::set_max`], which changes the version in the usage word: a charge that compared with the
    /// old limit fails its exchange and looks again.
    pub(crate) fn try_charge(&self, nr_bytes: u64) -> bool {
        // Acquire pairs with the Release in `set_max`: who sees the version sees its limit.
        let mut word = self.usage.load(Ordering::Acquire);
        loop {
            let Some(new) = (word & BYTES).checked_add(nr_bytes) else { return false };
            if new > self.max.load(Ordering::Relaxed).min(BYTES) {
                return false;
            }
            match self.usage.compare_exchange_weak(word, word + nr_bytes, Ordering::Relaxed, Ordering::Acquire) {
                Ok(_) => return true,
                Err(seen) => word = seen,
            }
        }
    }

    /// Takes `nr_bytes` off; returns the usage before. More than was charged is the caller's bug, and his to report.
    pub(crate) fn uncharge(&self, nr_bytes: u64) -> u64 {
        self.usage.fetch_sub(nr_bytes, Ordering::Relaxed) & BYTES
    }

    /// Raises the peak to the present usage. Called once a charge has succeeded at every level, so that a refused one
    /// leaves no peak. A free on another CPU between the charge and this may hide up to what it freed.
    pub(crate) fn note_peak(&self) {
        let usage = self.usage();
        if usage > self.peak() {
            self.peak.fetch_max(usage, Ordering::Relaxed);
        }
    }

    /// Bytes charged now.
    pub(crate) fn usage(&self) -> u64 {
        self.usage.load(Ordering::Relaxed) & BYTES
    }

    /// The most bytes that were charged at once.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// The limit in bytes.
    pub(crate) fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// The soft limit in bytes: no charge asks it.
    pub(crate) fn high(&self) -> u64 {
        self.high.load(Ordering::Relaxed)
    }

    pub(crate) fn set_high(&self, nr_bytes: u64) {
        self.high.store(nr_bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_max(&self, nr_bytes: u64) {
        self.max.store(nr_bytes, Ordering::Relaxed);
        // Release pairs with the Acquire in `try_charge`. A charge that compared with the old limit fails its exchange.
        self.usage.fetch_add(VERSION, Ordering::Release);
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;

    use super::PageCounter;

    /// Two charges of which only one fits, and an observer: exactly one succeeds, usage is never over the limit, and
    /// after the return it is zero.
    #[test]
    fn loom_i3_usage_never_passes_max() {
        loom::model(|| {
            let counter = Arc::new(PageCounter::default());
            counter.set_max(10);
            let charge = |counter: &PageCounter| {
                let charged = counter.try_charge(6);
                assert!(counter.usage() <= 10);
                charged
            };
            let other = Arc::clone(&counter);
            let thread = loom::thread::spawn(move || charge(&other));
            let mine = charge(&counter);
            let theirs = thread.join().unwrap();
            assert!(mine != theirs, "one charge fits, not both and not none");
            counter.note_peak();
            assert_eq!((counter.usage(), counter.peak()), (6, 6));
            assert_eq!(counter.uncharge(6), 6);
            assert_eq!(counter.usage(), 0);
        });
    }

    /// A return while others charge: the sum is exact afterwards.
    #[test]
    fn loom_i1_charges_and_returns_balance() {
        loom::model(|| {
            let counter = Arc::new(PageCounter::default());
            counter.set_max(100);
            assert!(counter.try_charge(5));
            let other = Arc::clone(&counter);
            let thread = loom::thread::spawn(move || other.uncharge(5));
            assert!(counter.try_charge(7));
            thread.join().unwrap();
            assert_eq!(counter.usage(), 7);
        });
    }
}
