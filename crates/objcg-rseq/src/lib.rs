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
//!     object = *top
//!     if object is END: give up         // the bottom of the stack
//!     stack.top = top - 1               // the commit
//! end:
//!     return object
//! abort: (preceded by the signature that the kernel checks)
//!     goto restart
//! ```
//!
//! Stores before the commit are allowed where nobody looks until the commit: a push writes its object above the top, and
//! only the commit makes it part of the stack.
//!
//! # What is here
//!
//! Sections on data of the CPU that the thread runs on: [`pop`], [`push`], [`pop_many`], [`push_many`] on a stack of objects;
//! [`compare_add`] on a tagged word; [`add`] and [`add_overflowing`] on a counter; [`exchange`] of a word. Each takes the address in
//! CPU 0's part of an area ([`PerCpu`]) in which the parts of the CPUs are `1 << SHIFT` bytes apart. And, for those who need another CPU's
//! data: [`fence`], after which no section that began before it on that CPU is still under way.
//!
//! | section | loads | stores before the commit | commit |
//! |---|---|---|---|
//! | [`pop`] | top, the object there | | top |
//! | [`push`] | top, the place above it | the object | top |
//! | [`pop_many`] | top, objects | into the caller's buffer | top |
//! | [`push_many`] | top, places | the objects | top |
//! | [`compare_add`] | guard, word, limit | | word |
//! | [`add`] | | | word (one read-modify-write instruction) |
//! | [`add_overflowing`] | | | word (the same) |
//! | [`exchange`] | word | | word |
//!
//! # Registration
//!
//! glibc from 2.35 on registers every thread and says where the area is (`__rseq_offset`). Where it does not (musl, older
//! glibc, `GLIBC_TUNABLES=glibc.pthread.rseq=0`), [`init`] chooses an area of our own in static thread-local storage, and each
//! thread registers it by [`register_thread`]; it must call [`unregister_thread`] before its thread-local memory goes. On
//! other systems and architectures, and in threads that are not registered, every section gives up (`None`, `false`): there is
//! always another way needed beside it. Sections give up as well on a CPU whose number is not below the `nr_cpus` of [`init`]. All but
//! [`pop`] and [`push`], the shortest ones, which compare no number: they find a stack for each CPU of the machine, and the
//! [`Stopper`] in two parts before CPU 0's, which the numbers of threads without registration lead to.
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
//! - A child of `vfork` has its parent's memory without its registration: it uses no sections.
//!
//! # Example
//!
//! A counter that all threads share, without a shared cache line:
//!
//! ```
//! use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
//! use std::thread;
//!
//! use objcg_rseq::PerCpu;
//!
//! const SHIFT: u32 = 6;
//! const MAX_CPUS: usize = 1024;
//!
//! /// One CPU's part: `1 << SHIFT` bytes.
//! #[repr(C, align(64))]
//! struct Part(AtomicU64);
//!
//! static PARTS: [Part; MAX_CPUS] = [const { Part(AtomicU64::new(0)) }; MAX_CPUS];
//! /// For threads without registration, and CPUs beyond.
//! static ELSEWHERE: AtomicU64 = AtomicU64::new(0);
//!
//! fn count() {
//!     let counter = PerCpu::<u64, SHIFT>::new(PARTS.as_ptr().cast_mut().cast());
//!     // SAFETY: there is a counter for each CPU, and only this section changes it.
//!     if !unsafe { objcg_rseq::add(counter, 1) } {
//!         ELSEWHERE.fetch_add(1, Relaxed);
//!     }
//! }
//!
//! fn sum() -> u64 {
//!     PARTS.iter().map(|part| part.0.load(Relaxed)).sum::<u64>() + ELSEWHERE.load(Relaxed)
//! }
//!
//! objcg_rseq::init(MAX_CPUS as u32);
//! let threads: Vec<_> = (0..8).map(|_| thread::spawn(|| (0..1000).for_each(|_| count()))).collect();
//! threads.into_iter().for_each(|thread| thread.join().unwrap());
//! assert_eq!(sum(), 8000);
//! ```

#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

mod read_mostly;
mod registration;
mod sections;

#[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64", not(objcg_rseq_absent)))]
#[path = "x86_64.rs"]
mod arch;

#[cfg(all(target_os = "linux", target_arch = "aarch64", target_endian = "little", not(objcg_rseq_absent)))]
#[path = "aarch64.rs"]
mod arch;

#[cfg(not(any(
    all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64", not(objcg_rseq_absent)),
    all(target_os = "linux", target_arch = "aarch64", target_endian = "little", not(objcg_rseq_absent))
)))]
#[path = "absent.rs"]
mod arch;

#[cfg(any(
    all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64", not(objcg_rseq_absent)),
    all(target_os = "linux", target_arch = "aarch64", target_endian = "little", not(objcg_rseq_absent))
))]
mod thread_word;

pub use registration::{Registration, current_cpu, fence, init, register_thread, registration, unregister_thread};
pub use sections::{
    END, NO_OBJECT, PerCpu, Stack, Stopper, Sum, TaggedWord, add, add_overflowing, compare_add, exchange, pop,
    pop_many, pop_raw, push, push_many,
};
#[cfg(feature = "delay")]
pub use sections::{nr_aborts, set_delay};
#[cfg(any(
    all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64", not(objcg_rseq_absent)),
    all(target_os = "linux", target_arch = "aarch64", target_endian = "little", not(objcg_rseq_absent))
))]
pub use thread_word::{replace_thread_word, thread_word};

/// What a thread's word is at first: no address, no small number, and far from what a program would have in memory by chance; so
/// this and what is added to it can mark something as the thread's, and be compared without a decoding. The negative of 31 bits: an
/// operand of instructions.
pub const THREAD_WORD_AT_FIRST: u64 = (-0x5a5b_0000_i64).cast_unsigned();

/// Whether `thread_word` and `replace_thread_word` exist: on Linux on x86-64 and little-endian aarch64. Elsewhere static
/// thread-local storage cannot be had without libc or a nightly compiler, so a user brings a word of its own.
pub const HAS_THREAD_WORD: bool = arch::HAS_THREAD_WORD;
