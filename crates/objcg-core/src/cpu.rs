//! CPUs: how many there can be, which one this is, and one slot of something for each.
//!
//! The contract that the layers above build on, whichever arm serves it:
//!
//! - A *slot* belongs to one CPU. An operation on a slot (take an object, put an object, consume or refill a stock) is
//!   atomic against every other operation on that slot.
//! - [`CpuId::current`] is a hint: the thread may be moved before it reaches the slot. Nothing above relies on being
//!   alone on a CPU, only on the slot's own atomicity.
//! - A slot can be reached from another CPU (a drain, the lab's replay of a recorded CPU column); that costs more.
//!
//! This is the portable arm: a sheaf slot is behind a lock that only threads of the same CPU meet, a stock slot is one
//! word changed by compare-exchange. Memory is bounded by CPUs, never by threads.

use crate::os;
use crate::sync::{AtomicUsize, Ordering};

/// More CPUs than this share slots: ids fold onto the ones below.
pub(crate) const MAX_CPUS: usize = 1024;

/// The number of a CPU's slots, less than [`nr_cpus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuId(u32);

/// The number of CPUs that have slots: those that the kernel says may ever come up.
#[must_use]
pub fn nr_cpus() -> usize {
    static NR_CPUS: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: every thread that finds 0 computes the same number.
    match NR_CPUS.load(Ordering::Relaxed) {
        0 => {
            let nr_cpus = os::nr_possible_cpus().clamp(1, MAX_CPUS);
            NR_CPUS.store(nr_cpus, Ordering::Relaxed);
            nr_cpus
        }
        nr_cpus => nr_cpus,
    }
}

impl CpuId {
    /// The CPU that this thread runs on at this moment.
    #[inline]
    #[must_use]
    pub fn current() -> CpuId {
        CpuId::fold(os::current_cpu())
    }

    /// CPU `number` modulo [`nr_cpus`], for numbers that come from elsewhere: a trace of a wider machine, a CPU that was
    /// plugged in beyond what the kernel had announced.
    #[inline]
    #[must_use]
    pub fn fold(number: usize) -> CpuId {
        let nr_cpus = nr_cpus();
        let folded = if number < nr_cpus { number } else { number % nr_cpus };
        // MAX_CPUS fits.
        CpuId(folded as u32)
    }

    /// All CPUs, ascending.
    pub(crate) fn all() -> impl Iterator<Item = CpuId> {
        (0..nr_cpus() as u32).map(CpuId)
    }

    /// As an index into an array with one element a CPU.
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
