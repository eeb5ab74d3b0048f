//! A number of each CPU, changed by the threads that run there.
//!
//! Two ways of changing a word do not mix. A section's commit is no atomic instruction: it can undo one that came between its
//! load and its store, by a thread that had looked at its CPU's number and was then moved, by one whose CPU's number is above
//! the count and which shares another's word, or, where a commit is more than one instruction, by any thread of the same CPU. So
//! the words belong to one way for the whole life of the process (`cpu::has_sections`, decided before the first word is made):
//!
//! | the process | its words are changed by | a thread without registration |
//! |---|---|---|
//! | can register threads for sections | sections alone | is refused, and counts elsewhere |
//! | cannot | atomic instructions alone | (all are) |
//!
//! Every change of a word is then atomic against every other, so none is lost, and the sum of the words and of what was counted
//! elsewhere is exact once nobody is at work. Threads that are not registered although the process can are few: a thread at
//! its end, a CPU whose number is above the count. On a CPU that was plugged in beyond the count, the second way shares the
//! word of a lower number, which atomic instructions allow.

#![expect(unsafe_code, reason = "hands addresses of per-CPU memory to restartable sequences")]

use core::ptr::NonNull;

use objcg_rseq::PerCpu;
pub use objcg_rseq::Sum;

use super::{AllocError, UNIT_SHIFT};
use crate::cpu::{CpuId, has_sections, this_cpu};
use crate::sync::{AtomicU64, Ordering};

/// A signed 64-bit number of each CPU, 0 at first, charged to the group that is current when it is made.
///
/// ```
/// use objcg_core::percpu::{Sum, Words};
///
/// let words = Words::new()?;
/// let elsewhere = if words.add(5) == Sum::GaveUp { 5 } else { 0 };
/// assert_eq!(words.iter().sum::<i64>() + elsewhere, 5);
/// # Ok::<(), objcg_core::percpu::AllocError>(())
/// ```
///
/// # Invariants
/// `first` is an allocation of 8 aligned bytes of this value's own. Its words are changed as the table of this module says;
/// whether the process has sections was found out before it was made, so they may be called.
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
        has_sections();
        // INVARIANT: just allocated, and nobody else knows of it; it was just asked for sections.
        Ok(Words { first: first.cast() })
    }

    fn per_cpu<T>(&self) -> PerCpu<T, UNIT_SHIFT> {
        PerCpu::new(self.first.as_ptr().cast())
    }

    /// Adds to this CPU's word. If this thread may not change it nothing has happened, and the caller keeps the number
    /// elsewhere. One section; or one atomic addition where there are no sections.
    #[inline(always)]
    pub fn add(&self, delta: i64) -> Sum {
        // SAFETY: by the type's invariant there is a word for each CPU below the count, and sections may be called; the words are
        // changed by sections alone, since one that gets this far runs in a process that has them.
        match unsafe { objcg_rseq::add_overflowing(self.per_cpu(), delta) } {
            Sum::GaveUp => self.add_slow(delta),
            sum => sum,
        }
    }

    #[cold]
    #[inline(never)]
    fn add_slow(&self, delta: i64) -> Sum {
        if has_sections() {
            // A thread's first look at its CPU registers it.
            return match this_cpu() {
                // SAFETY: as in `add`.
                Some(_) => unsafe { objcg_rseq::add_overflowing(self.per_cpu(), delta) },
                None => Sum::GaveUp,
            };
        }
        // Relaxed: a number, which orders nothing.
        let old = self.of_cpu(CpuId::current()).fetch_add(delta.cast_unsigned(), Ordering::Relaxed);
        if old.cast_signed().checked_add(delta).is_none() { Sum::Overflowed } else { Sum::Added }
    }

    /// The words of all CPUs in ascending order, each as it is at that moment.
    pub fn iter(&self) -> impl Iterator<Item = i64> {
        // Relaxed: a quiet point is one that the caller has come to by other means.
        CpuId::all().map(|cpu| self.of_cpu(cpu).load(Ordering::Relaxed).cast_signed())
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
