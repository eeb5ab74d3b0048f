//! Restartable sequences (rseq): per-CPU stacks, words and counters without locks or atomic instructions.
//!
//! # What a restartable sequence is
//!
//! Data that belongs to one CPU needs no atomic instruction as long as only one thread at a time runs on that CPU, which
//! is always so; the trouble is only that a thread may be *preempted* or *moved* between its load and its store. Linux
//! helps: a thread registers a small area (`struct rseq`) with the kernel, and before a critical section it writes the
//! address of a descriptor (start, length, abort handler) into that area. If the kernel takes the CPU away from the thread,
//! moves it, or delivers a signal to it while its instruction pointer is between start and end, the thread goes on at the
//! abort handler instead, which starts the section again. So the section either runs undisturbed up to its last
//! instruction, or it has no effect, if that last instruction is its only store: the *commit*.
//!
//! ```text
//! restart:
//!     area.rseq_cs = &descriptor        // armed: from `start` on, a disturbance leads to `abort`
//! start:
//!     cpu = area.cpu_id                 // the kernel keeps it right; a move would restart us
//!     stack = base + cpu * stride
//!     top = stack.top
//!     entry = *top
//!     if entry.object is null: give up  // the bottom of the stack
//!     stack.top = top - 1               // the commit
//! end:
//!     return entry
//! abort: (preceded by the signature that the kernel checks)
//!     goto restart
//! ```
//!
//! Stores before the commit are allowed where nobody looks until the commit: a push writes its entry above the top, and
//! only the commit makes it part of the stack.
//!
//! # What is here
//!
//! Sections on data of the CPU that the thread runs on: [`pop`], [`push`], [`pop_many`], [`push_many`] on a stack of pairs;
//! [`compare_add`] on a tagged word; [`add`] on a counter; [`exchange`] of a word. Each takes the address in CPU 0's part of
//! an area ([`PerCpu`]) in which the parts of the CPUs are `1 << SHIFT` bytes apart. And, for those who need another CPU's
//! data: [`fence`], after which no section that began before it on that CPU is still under way.
//!
//! | section | loads | stores before the commit | commit |
//! |---|---|---|---|
//! | [`pop`] | top, the entry under it | | top |
//! | [`push`] | top, the place above it | the entry | top |
//! | [`pop_many`] | top, entries | into the caller's buffer | top |
//! | [`push_many`] | top, places | the entries | top |
//! | [`compare_add`] | guard, word, limit | | word |
//! | [`add`] | | | word (one read-modify-write instruction) |
//! | [`exchange`] | word | | word |
//!
//! # Registration
//!
//! glibc from 2.35 on registers every thread and says where the area is (`__rseq_offset`). Where it does not (musl, older
//! glibc, `GLIBC_TUNABLES=glibc.pthread.rseq=0`), [`init`] chooses an area of our own in static thread-local storage, and each
//! thread registers it by [`register_thread`]; it must call [`unregister_thread`] before its thread-local memory goes. On
//! other systems and architectures, and in threads that are not registered, every section gives up (`None`, `false`): there is
//! always another way needed beside it. Sections give up as well on a CPU whose number is not below the `nr_cpus` of [`init`].
//!
//! # Rules for users
//!
//! - Data that sections of one CPU change must not be changed by anybody else by plain or atomic stores, until the sections
//!   were kept away from it (they see a stopper: an empty stack, a guard) *and* a [`fence`] has passed.
//! - A commit is a plain store: other CPUs that only look (an atomic load) see some recent value.
//! - Nothing here allocates, blocks or panics. Signal handlers may use sections, also inside a section: the outer one
//!   restarts.
//! - The code must stay mapped while a thread's area points at one of its descriptors: a library that uses this crate must not
//!   be unloaded while its threads run.

#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(test)]
extern crate std;

mod registration;
mod thread_word;

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
#[path = "aarch64.rs"]
mod arch;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[path = "absent.rs"]
mod arch;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "x86_64.rs"]
mod arch;

use core::mem::MaybeUninit;
use core::ptr::NonNull;

pub use registration::{Registration, current_cpu, fence, init, register_thread, registration, unregister_thread};
pub use thread_word::{replace_thread_word, thread_word};

/// An entry of a stack: an object, and a word that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// What is stored; see [`Stack`] for the two values that stand for the ends.
    pub object: NonNull<u8>,
    /// Whatever belongs to it.
    pub note: *mut u8,
}

/// The top of a stack: points at its last entry.
///
/// In memory, the stack is an array of two-word places. The one below the first entry starts with a word of 0 (the bottom),
/// the one above the last place starts with [`LID`]; so neither [`pop`] nor [`push`] needs to know where the array begins or
/// ends. No object may be at address 1.
pub type Stack = *mut [usize; 2];

/// What the first word of the place above the last one holds.
pub const LID: usize = 1;

/// A word that [`compare_add`] changes, and the most that may be in its lower half afterwards.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct TaggedWord {
    /// A tag in the upper 32 bits, a number in the lower ones.
    pub word: u64,
    /// The largest number that [`compare_add`] leaves.
    pub limit: u32,
}

/// The address of something in CPU 0's part of an area; the same in the next CPU's part is `1 << SHIFT` bytes further on.
#[derive(Debug)]
pub struct PerCpu<T, const SHIFT: u32>(*mut T);

impl<T, const SHIFT: u32> Clone for PerCpu<T, SHIFT> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, const SHIFT: u32> Copy for PerCpu<T, SHIFT> {}

impl<T, const SHIFT: u32> PerCpu<T, SHIFT> {
    /// `address` is CPU 0's.
    #[inline]
    #[must_use]
    pub const fn new(address: *mut T) -> Self {
        PerCpu(address)
    }

    /// The address in a CPU's part.
    #[inline]
    #[must_use]
    pub fn of_cpu(self, cpu: u32) -> *mut T {
        self.0.wrapping_byte_add((cpu as usize) << SHIFT)
    }
}

/// Takes the top entry of this CPU's stack. `None` if it is empty, or if the thread is not registered.
///
/// # Safety
/// The area has a valid [`Stack`] for each CPU below the `nr_cpus` of [`init`], changed only as the crate's rules allow.
#[inline(always)]
pub unsafe fn pop<const SHIFT: u32>(stack: PerCpu<Stack, SHIFT>) -> Option<Entry> {
    // SAFETY: the caller's promise.
    let (object, note) = unsafe { arch::pop::<SHIFT>(stack.0) };
    NonNull::new(object).map(|object| Entry { object, note })
}

/// Puts an entry onto this CPU's stack; false if it is full, or if the thread is not registered.
///
/// # Safety
/// As for [`pop`].
#[inline(always)]
#[must_use]
pub unsafe fn push<const SHIFT: u32>(stack: PerCpu<Stack, SHIFT>, entry: Entry) -> bool {
    // SAFETY: the caller's promise.
    unsafe { arch::push::<SHIFT>(stack.0, entry.object.as_ptr(), entry.note) }
}

/// Takes entries off this CPU's stack, the top one first, until `room` is full or the stack is empty; all at once, or none.
/// Returns how many.
///
/// # Safety
/// As for [`pop`].
#[inline]
pub unsafe fn pop_many<const SHIFT: u32>(stack: PerCpu<Stack, SHIFT>, room: &mut [MaybeUninit<Entry>]) -> usize {
    // SAFETY: the caller's promise; the buffer has that many places.
    unsafe { arch::pop_many::<SHIFT>(stack.0, room.as_mut_ptr().cast(), room.len()) }
}

/// Puts entries onto this CPU's stack, the first one lowest, until all are there or it is full; all of them at once. Returns
/// how many.
///
/// # Safety
/// As for [`pop`].
#[inline]
pub unsafe fn push_many<const SHIFT: u32>(stack: PerCpu<Stack, SHIFT>, entries: &[Entry]) -> usize {
    // SAFETY: the caller's promise; the buffer has that many entries.
    unsafe { arch::push_many::<SHIFT>(stack.0, entries.as_ptr().cast(), entries.len()) }
}

/// Adds `delta` to this CPU's word if its tag is `tag` before and after, the number it leaves is at most the word's limit, and
/// this CPU's `guard` is 0. A subtraction that goes below zero borrows from the tag and so fails, unless the tag above
/// `tag` shares the word: users keep neighbouring tags in different words.
///
/// # Safety
/// The area has valid, aligned words and guards for each CPU below the `nr_cpus` of [`init`], changed only as the crate's rules
/// allow.
#[inline(always)]
#[must_use]
pub unsafe fn compare_add<const SHIFT: u32>(
    word: PerCpu<TaggedWord, SHIFT>,
    guard: PerCpu<u32, SHIFT>,
    tag: u32,
    delta: i64,
) -> bool {
    // SAFETY: the caller's promise.
    unsafe { arch::compare_add::<SHIFT>(word.0, guard.0, tag, delta) }
}

/// Adds to this CPU's counter, modulo 2^64; false if the thread is not registered.
///
/// # Safety
/// The area has a valid, aligned counter for each CPU below the `nr_cpus` of [`init`], changed only as the crate's rules allow.
#[inline(always)]
#[must_use]
pub unsafe fn add<const SHIFT: u32>(counter: PerCpu<u64, SHIFT>, delta: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { arch::add::<SHIFT>(counter.0, delta) }
}

/// Replaces the word of `cpu` if the thread is running there; returns the one before, or `None` on another CPU.
///
/// # Safety
/// As for [`add`]; `cpu` is below the `nr_cpus` of [`init`].
#[inline]
pub unsafe fn exchange<const SHIFT: u32>(word: PerCpu<usize, SHIFT>, cpu: u32, new: usize) -> Option<usize> {
    // SAFETY: the caller's promise.
    unsafe { arch::exchange(word.of_cpu(cpu), cpu, new) }
}

/// Makes every section loop that many times before it commits, so that tests can preempt it there.
#[cfg(feature = "delay")]
pub fn set_delay(nr_loops: u64) {
    arch::DELAY.store(nr_loops, core::sync::atomic::Ordering::Relaxed);
}
