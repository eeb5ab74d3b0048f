//! A counter that all CPUs add to without sharing a cache line, the kernel's `percpu_counter`.
//!
//! Each CPU has a word, which stays within plus and minus a batch; what would take it over goes to the common count together
//! with what the word had. So the common count alone is never further from the truth than CPUs × batch, and all together are
//! exact. How threads with and without restartable sequences share the words is at the head of `objcg_core::percpu::Words`.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use objcg_core::cpu::nr_cpus;
use objcg_core::percpu::{AllocError, Words};

/// What a CPU keeps to itself at most, unless said otherwise.
const BATCH: u32 = 1024;

/// A signed counter, exact, for many writers and few readers.
///
/// [`add`](PerCpuCounter::add) is one restartable sequence on this CPU's word: about a nanosecond, whoever else is adding. A sum
/// reads a word of every CPU; an approximate value with a bound is one load. Arithmetic is modulo 2^64. The words, 8 bytes
/// on each CPU, are charged to the group that is current when the counter is made. Source: the kernel's
/// `lib/percpu_counter.c`.
///
/// ```
/// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
/// use objcg::PerCpuCounter;
///
/// let requests = PerCpuCounter::new()?;
/// std::thread::scope(|scope| {
///     for _ in 0..4 {
///         scope.spawn(|| (0..10_000).for_each(|_| requests.add(1)));
///     }
/// });
/// assert_eq!(requests.sum(), 40_000);
/// assert!(requests.approximate().abs_diff(40_000) <= requests.bound());
/// # Ok::<(), objcg::AllocError>(())
/// ```
pub struct PerCpuCounter {
    words: Words,
    batch: u32,
    /// What is in no word. Changed by atomic instructions only.
    count: AtomicI64,
}

impl PerCpuCounter {
    /// A counter at 0, with a batch of 1024.
    ///
    /// # Errors
    /// A limit refuses, or the process is out of memory.
    pub fn new() -> Result<PerCpuCounter, AllocError> {
        PerCpuCounter::with_batch(BATCH)
    }

    /// A counter at 0. A larger batch lets CPUs keep more to themselves, a smaller one makes
    /// [`approximate`](PerCpuCounter::approximate) more exact.
    ///
    /// # Errors
    /// As for [`PerCpuCounter::new`].
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// let open_files = objcg::PerCpuCounter::with_batch(8)?;
    /// open_files.add(100);
    /// open_files.add(-3);
    /// assert_eq!((open_files.sum(), open_files.approximate()), (97, 100));
    /// assert_eq!(open_files.bound(), 8 * objcg::nr_cpus() as u64);
    /// # Ok::<(), objcg::AllocError>(())
    /// ```
    pub fn with_batch(batch: u32) -> Result<PerCpuCounter, AllocError> {
        Ok(PerCpuCounter { words: Words::new()?, batch, count: AtomicI64::new(0) })
    }

    /// Adds to the counter.
    #[inline(always)]
    pub fn add(&self, delta: i64) {
        if !self.words.add_within(delta, self.batch) {
            self.add_to_count(delta);
        }
    }

    #[cold]
    #[inline(never)]
    fn add_to_count(&self, delta: i64) {
        // Relaxed: a number, which orders nothing. Between the two steps what was taken is nowhere: a sum of that moment
        // lacks it, as it may lack any addition that is under way.
        self.count.fetch_add(self.words.take().wrapping_add(delta), Ordering::Relaxed);
    }

    /// The exact value once nobody adds any more; while others add, what they add in the meantime, up to a batch of each, may
    /// be in it or not. Reads a cache line of each CPU.
    #[must_use]
    pub fn sum(&self) -> i64 {
        self.count.load(Ordering::Relaxed).wrapping_add(self.words.sum())
    }

    /// The value, at most [`bound`](PerCpuCounter::bound) from the sum. One load.
    #[must_use]
    pub fn approximate(&self) -> i64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How far [`approximate`](PerCpuCounter::approximate) can be from the sum: the number of CPUs × the batch.
    #[must_use]
    pub fn bound(&self) -> u64 {
        nr_cpus() as u64 * u64::from(self.batch)
    }
}

impl fmt::Debug for PerCpuCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpuCounter").field("sum", &self.sum()).field("batch", &self.batch).finish_non_exhaustive()
    }
}
