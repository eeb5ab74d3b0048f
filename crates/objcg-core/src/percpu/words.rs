//! A number of each CPU, changed by the threads that run there.
//!
//! Two ways of changing a word do not mix: a section's commit is a plain store, which can undo an atomic instruction that came
//! between its load and its store, by another thread on the same CPU. So the words belong to one way for the whole life of the
//! process (`cpu::has_sections`, decided before the first change of any word):
//!
//! | the process | its words are changed by | a thread without registration |
//! |---|---|---|
//! | can register threads for sections | sections alone | gets `false`, and counts elsewhere |
//! | cannot | atomic instructions alone | (all are) |
//!
//! Every change of a word is then atomic against every other, so none is lost, and the sum of the words and of what was counted
//! elsewhere is exact once nobody is at work. Threads that are not registered although the process can are few: a thread at
//! its end, a CPU whose number is above the count. On a CPU that was plugged in beyond the count, the second way shares the
//! word of a lower number, which atomic instructions allow.

use core::ptr::NonNull;

use objcg_rseq::PerCpu;

use super::{AllocError, UNIT_SHIFT};
use crate::cpu::{CpuId, has_sections, this_cpu};
use crate::sync::{AtomicU64, Ordering};

/// A signed 64-bit number of each CPU, 0 at first, charged to the group that is current when it is made.
///
/// ```
/// use objcg_core::percpu::Words;
///
/// let words = Words::new()?;
/// let elsewhere = if words.add_within(5, 100) { 0 } else { 5 };
/// assert_eq!(words.sum() + elsewhere, 5);
/// # Ok::<(), objcg_core::percpu::AllocError>(())
/// ```
///
/// # Invariants
/// `first` is an allocation of 8 aligned bytes of this value's own. Its words are changed as the table of this module says.
pub struct Words {
    first: NonNull<u64>,
}

// SAFETY: words are changed atomically, by whatever thread; freeing them is the engine's, from any thread.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Words that are 0 on every CPU.
    ///
    /// # Errors
    /// See [`AllocError`].
    pub fn new() -> Result<Words, AllocError> {
        let first = super::alloc(size_of::<u64>(), align_of::<u64>())?;
        // INVARIANT: just allocated, and nobody else knows of it.
        Ok(Words { first: first.cast() })
    }

    fn per_cpu<T>(&self) -> PerCpu<T, UNIT_SHIFT> {
        PerCpu::new(self.first.as_ptr().cast())
    }

    /// Adds to this CPU's word if what it leaves is from `-bound` to `bound`. False if it is not, or if this thread may not
    /// change it: then nothing has happened, and the caller keeps the number elsewhere. One section; or one
    /// compare-exchange where there are no sections.
    #[inline(always)]
    #[must_use]
    pub fn add_within(&self, delta: i64, bound: u32) -> bool {
        // SAFETY: there is a word for each CPU below the count, by the type's invariant; it is changed by sections alone, since
        // one that gets this far runs in a process that has them.
        let is_added = unsafe { objcg_rseq::add_within(self.per_cpu(), delta, bound) };
        is_added || self.add_slow(delta, bound)
    }

    #[cold]
    #[inline(never)]
    fn add_slow(&self, delta: i64, bound: u32) -> bool {
        if has_sections() {
            // A thread's first look at its CPU registers it.
            // SAFETY: as in `add_within`.
            return this_cpu().is_some() && unsafe { objcg_rseq::add_within(self.per_cpu(), delta, bound) };
        }
        let add = |word: u64| {
            let sum = word.wrapping_add_signed(delta);
            (sum.wrapping_add(u64::from(bound)) <= 2 * u64::from(bound)).then_some(sum)
        };
        // Relaxed: a number, which orders nothing.
        self.of_cpu(CpuId::current()).fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// Takes out what this CPU's word has; it is 0 then. 0 if this thread may not change it, or was moved meanwhile.
    pub fn take(&self) -> i64 {
        let taken = match this_cpu() {
            // SAFETY: as in `add_within`; the CPU's number is below the count.
            Some(cpu) => unsafe { objcg_rseq::exchange(self.per_cpu(), cpu.index() as u32, 0) }.map(|word| word as u64),
            None if has_sections() => None,
            None => Some(self.of_cpu(CpuId::current()).swap(0, Ordering::Relaxed)),
        };
        taken.unwrap_or(0).cast_signed()
    }

    /// What all words have, modulo 2^64. While others are at work, what they do in the meantime may be in it or not.
    #[must_use]
    pub fn sum(&self) -> i64 {
        // Relaxed: a quiet point is one that the caller has come to by other means.
        let words = CpuId::all().map(|cpu| self.of_cpu(cpu).load(Ordering::Relaxed));
        words.fold(0, u64::wrapping_add).cast_signed()
    }

    fn of_cpu(&self, cpu: CpuId) -> &AtomicU64 {
        let word = self.per_cpu::<AtomicU64>().of_cpu(cpu.index() as u32);
        // SAFETY: a word of this allocation, by the invariant aligned and alive as long as `self` is.
        unsafe { &*word }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the allocation is this value's, which nobody has a reference to any more.
        unsafe { super::free(self.first.cast()) };
    }
}
