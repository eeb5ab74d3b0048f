//! A counter that all CPUs add to without sharing a cache line, the kernel's `percpu_counter`.
//!
//! Each CPU has a word with the counter's part in its top bits, in units of 2^53: it overflows, as a signed number, when the part
//! leaves the range of plus and minus a *batch* of 1024. The processor says so with the addition itself, and exactly to the
//! thread whose addition it was; that thread adds the two batches that the word has lost to the common count. So an addition
//! is one instruction and a jump that is not taken, the common count alone is never further from the truth than CPUs × batch, and
//! all together are exact:
//!
//! ```text
//! word' = word + delta · 2^53 − turn · 2^64                       turn: −1, 0 or 1, the sign of delta's
//! word' / 2^53 + turn · 2 · 1024 = word / 2^53 + delta
//! ```
//!
//! How threads with and without restartable sequences share the words is at the head of `words.rs`.

use core::fmt;

use super::{AllocError, Sum, Words};
use crate::cpu::nr_cpus;
use crate::sync::{AtomicI64, Ordering};

/// What a CPU keeps to itself at most.
const BATCH: i64 = 1024;
/// A word has its number above these bits.
const SCALE: u32 = i64::BITS - 1 - BATCH.ilog2();

const _: () = assert!(BATCH.count_ones() == 1 && (-BATCH << SCALE) == i64::MIN);

/// A signed counter, exact, for many writers and few readers.
///
/// [`add`](PerCpuCounter::add) is one restartable sequence on this CPU's word: about a nanosecond, whoever else is adding. A sum
/// reads a word of every CPU; an approximate value with a bound is one load. Arithmetic is modulo 2^64. The words, 8 bytes
/// on each CPU, are charged to the group that is current when the counter is made. Source: the kernel's
/// `lib/percpu_counter.c`.
///
/// ```
/// use objcg_core::percpu::PerCpuCounter;
///
/// let requests = PerCpuCounter::new()?;
/// std::thread::scope(|scope| {
///     for _ in 0..4 {
///         scope.spawn(|| (0..10_000).for_each(|_| requests.add(1)));
///     }
/// });
/// assert_eq!(requests.sum(), 40_000);
/// assert!(requests.approximate().abs_diff(40_000) <= requests.bound());
/// # Ok::<(), objcg_core::percpu::AllocError>(())
/// ```
pub struct PerCpuCounter {
    words: Words,
    /// What is in no word. Changed by atomic instructions only.
    count: AtomicI64,
}

impl PerCpuCounter {
    /// A counter at 0.
    ///
    /// # Errors
    /// A limit refuses, or the process is out of memory.
    pub fn new() -> Result<PerCpuCounter, AllocError> {
        Ok(PerCpuCounter { words: Words::new()?, count: AtomicI64::new(0) })
    }

    /// Adds to the counter. What a word cannot hold, 1024 and more, goes to the common count at once.
    ///
    /// ```
    /// let open_files = objcg_core::percpu::PerCpuCounter::new()?;
    /// open_files.add(100);
    /// open_files.add(-3);
    /// assert_eq!(open_files.sum(), 97);
    /// # Ok::<(), objcg_core::percpu::AllocError>(())
    /// ```
    #[inline(always)]
    pub fn add(&self, delta: i64) {
        if !(-BATCH..BATCH).contains(&delta) {
            return self.add_to_count(delta);
        }
        match self.words.add(delta << SCALE) {
            Sum::Added => {}
            Sum::Overflowed => self.add_to_count(delta.signum() * 2 * BATCH),
            Sum::GaveUp => self.add_to_count(delta),
        }
    }

    #[cold]
    #[inline(never)]
    fn add_to_count(&self, delta: i64) {
        // Relaxed: a number, which orders nothing. A sum in between lacks what the word has lost, as it may lack any addition
        // that is under way.
        self.count.fetch_add(delta, Ordering::Relaxed);
    }

    /// The exact value once nobody adds any more; while others add, what they add in the meantime may be in it or not, and for
    /// each of them two batches may be missing. Reads a cache line of each CPU.
    #[must_use]
    pub fn sum(&self) -> i64 {
        let of_cpus: i64 = self.words.iter().map(|word| word >> SCALE).sum();
        self.count.load(Ordering::Relaxed).wrapping_add(of_cpus)
    }

    /// The value, at most [`bound`](PerCpuCounter::bound) from the sum. One load.
    ///
    /// ```
    /// let requests = objcg_core::percpu::PerCpuCounter::new()?;
    /// (0..1_000_000).for_each(|_| requests.add(1));
    /// assert!(requests.approximate().abs_diff(1_000_000) <= requests.bound());
    /// # Ok::<(), objcg_core::percpu::AllocError>(())
    /// ```
    #[must_use]
    pub fn approximate(&self) -> i64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How far [`approximate`](PerCpuCounter::approximate) can be from the sum: the number of CPUs × 1024.
    #[must_use]
    pub fn bound(&self) -> u64 {
        nr_cpus() as u64 * BATCH.unsigned_abs()
    }
}

impl fmt::Debug for PerCpuCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpuCounter").field("sum", &self.sum()).finish_non_exhaustive()
    }
}
