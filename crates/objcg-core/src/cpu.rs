//! CPUs: how many there can be, which one this is, and data for each.
//!
//! The contract that the layers above build on, whichever arm serves it:
//!
//! - A *slot* belongs to one CPU. An operation on a slot (take an object, put an object, consume or refill a stock) is
//!   atomic against every other operation on that slot.
//! - [`CpuId::current`] is a hint: the thread may be moved before it reaches the slot. Nothing above relies on being
//!   alone on a CPU, only on the slot's own atomicity.
//! - A slot can be reached from another CPU (a drain, the lab's replay of a recorded CPU column); that costs more.
//!
//! There are two arms, and they never touch the same slot. Threads that are registered with the kernel (`this_cpu` is
//! `Some`) use the `area`, by restartable sequences. The others (no rseq in the kernel or forbidden, a thread that is not
//! registered yet, a CPU number above the count) use the *portable arm*: sheaves behind a lock that only threads of one CPU
//! meet, stock words changed by compare-exchange. Memory is bounded by CPUs, never by threads.
//!
//! The thread's word, the current group, is here as well: static thread-local storage on the architectures that have rseq.

mod afar;
mod area;
#[cfg(target_arch = "x86_64")]
mod prefetch;

use crate::os;
use crate::sync::{AtomicUsize, Ordering};

pub(crate) use afar::take_top;
pub(crate) use area::{
    CpuWords, NR_WORDS, Stacks, Words, drift, empty, fence, has_words, hold_for_fork, release_after_fork,
};
pub(crate) use objcg_rseq::{END, NO_OBJECT, THREAD_WORD_AT_FIRST};
#[cfg(target_arch = "x86_64")]
pub(crate) use prefetch::prefetch;

/// More CPUs than this share slots: ids fold onto the ones below.
pub(crate) const MAX_CPUS: usize = 1024;

/// The number of a CPU's slots, less than [`nr_cpus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuId(u32);

/// 0 until somebody has asked.
static NR_CPUS: AtomicUsize = AtomicUsize::new(0);

/// The number of CPUs that have slots: those that the kernel says may ever come up.
#[must_use]
pub fn nr_cpus() -> usize {
    // Relaxed: the number is all that there is, and it never changes again.
    match NR_CPUS.load(Ordering::Relaxed) {
        0 => {
            let nr_cpus = os::nr_possible_cpus().clamp(1, MAX_CPUS);
            let winner = NR_CPUS.compare_exchange(0, nr_cpus, Ordering::Relaxed, Ordering::Relaxed);
            winner.map_or_else(|winner| winner, |_| nr_cpus)
        }
        nr_cpus => nr_cpus,
    }
}

/// Has the engine behave as on a machine with `number` possible CPUs (at most 1024), whatever the kernel says: for
/// measurements, as the kernel's `possible_cpus=`. False once the number has been asked for: what was made for it stays.
pub fn set_nr_cpus(number: usize) -> bool {
    // Relaxed: as in `nr_cpus`.
    NR_CPUS.compare_exchange(0, number.clamp(1, MAX_CPUS), Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

impl CpuId {
    /// The CPU that this thread runs on at this moment.
    #[inline]
    #[must_use]
    pub fn current() -> CpuId {
        match objcg_rseq::current_cpu() {
            Some(cpu) => CpuId(cpu),
            None => CpuId::fold(os::current_cpu()),
        }
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
    pub fn all() -> impl Iterator<Item = CpuId> {
        (0..nr_cpus() as u32).map(CpuId)
    }

    /// As an index into an array with one element a CPU.
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The CPU that this thread runs on, if its slots can be used by restartable sequences.
#[inline]
pub(crate) fn this_cpu() -> Option<CpuId> {
    match objcg_rseq::current_cpu() {
        Some(cpu) => Some(CpuId(cpu)),
        None => this_cpu_slow(),
    }
}

#[cold]
fn this_cpu_slow() -> Option<CpuId> {
    if !area::init() || !objcg_rseq::register_thread() {
        return None;
    }
    if objcg_rseq::registration() == objcg_rseq::Registration::Own {
        unregister_at_exit();
    }
    objcg_rseq::current_cpu().map(CpuId)
}

/// Has this thread's own registration end with it, or at once: libc takes the thread's memory back after its end, when the kernel must not
/// write to it any more.
fn unregister_at_exit() {
    if !os::at_thread_exit(unregister) {
        objcg_rseq::unregister_thread();
    }
}

/// Whether threads of this process can use restartable sequences. Decided once, and for the whole life of the process: a word
/// that sections may change in one thread is not changed otherwise by another. Sections may be called once this has returned.
pub(crate) fn has_sections() -> bool {
    const UNKNOWN: usize = 0;
    const NO: usize = 1;
    const YES: usize = 2;
    static ANSWER: AtomicUsize = AtomicUsize::new(UNKNOWN);
    // Relaxed: every thread that finds it unknown comes to the same answer.
    match ANSWER.load(Ordering::Relaxed) {
        UNKNOWN => {
            // Without memory for the area there are none either, from then on.
            area::init();
            let has_sections = objcg_rseq::registration() != objcg_rseq::Registration::Absent;
            ANSWER.store(if has_sections { YES } else { NO }, Ordering::Relaxed);
            has_sections
        }
        answer => answer == YES,
    }
}

extern "C" fn unregister(_: *mut core::ffi::c_void) {
    objcg_rseq::unregister_thread();
}

/// This thread's word, [`THREAD_WORD_AT_FIRST`] at first.
#[inline(always)]
pub(crate) fn thread_word() -> u64 {
    word::get()
}

/// Replaces this thread's word; returns the one before.
#[inline(always)]
pub(crate) fn replace_thread_word(word: u64) -> u64 {
    word::replace(word)
}

/// For other architectures there is no stable intrinsic.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn prefetch(_: core::ptr::NonNull<u8>) {}

#[cfg(all(
    any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")),
    not(objcg_rseq_absent)
))]
mod word {
    pub(super) use objcg_rseq::{replace_thread_word as replace, thread_word as get};
}

#[cfg(not(all(
    any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")),
    not(objcg_rseq_absent)
)))]
mod word {
    use super::THREAD_WORD_AT_FIRST;
    use crate::os::ThreadWord;

    /// How much more than the first one the word is.
    static WORD: ThreadWord = ThreadWord::new();

    pub(super) fn get() -> u64 {
        THREAD_WORD_AT_FIRST.wrapping_add(u64::from(WORD.get()))
    }

    pub(super) fn replace(word: u64) -> u64 {
        // Less than 2^32 more.
        let previous = WORD.replace(word.wrapping_sub(THREAD_WORD_AT_FIRST) as u32);
        THREAD_WORD_AT_FIRST.wrapping_add(u64::from(previous))
    }
}
