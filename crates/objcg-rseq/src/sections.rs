//! What the architectures' sections are called with, and the sections themselves as everybody sees them.

#![expect(unsafe_code, reason = "calls the architecture's sections, and says what they demand")]

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use crate::arch;

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64"), not(objcg_rseq_absent)))]
mod tests;

/// What [`pop_raw`] returns the address of if it has found no object: a word that is no address and no
/// thread's word, for those who look into an object before they know that they have one.
pub static NO_OBJECT: AtomicU64 = AtomicU64::new(1 << 62);

/// The top of a stack of objects: points at the place of the last one.
///
/// In memory, the stack is an array of places of a word each, with an object's address. The one below the first object (the
/// bottom) and the one above the last place (the lid) hold [`END`]; so neither [`pop`] nor [`push`] needs to know where the array
/// begins or ends. No object may be at address 1.
pub type Stack = *mut usize;

/// What the place below the first object and the place above the last one hold.
pub const END: usize = 1;

/// A stack without places, to put where a stack was: neither [`pop`] nor [`push`] gets past it.
///
/// A section that began before may still commit, and where a commit is one read-modify-write instruction, it may move the
/// stopper by a place instead of the stack. So the places around it are ends as well, and [`Stopper::drift`] tells after a
/// fence.
#[derive(Debug)]
pub struct Stopper([usize; 4]);

impl Stopper {
    /// A stopper; it has to stay where it is while it is on a stack.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Stopper {
        Stopper([END; 4])
    }

    /// The address of what stands for its top.
    #[inline]
    #[must_use]
    pub fn top(&self) -> usize {
        (&raw const self.0[1]).expose_provenance()
    }

    /// By how many bytes a commit has moved this stopper; `None` if the stack's top is no place of it.
    #[inline]
    #[must_use]
    pub fn drift(&self, top: usize) -> Option<isize> {
        let drift = top.wrapping_sub(self.top()).cast_signed();
        (drift.unsigned_abs() <= size_of::<usize>()).then_some(drift)
    }
}

/// A word that [`compare_add`] changes, and the most that may be in its lower half afterwards.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct TaggedWord {
    /// A tag in the upper 32 bits, a number in the lower ones.
    pub word: u64,
    /// The largest number that [`compare_add`] leaves.
    pub limit: u32,
}

/// What [`add_overflowing`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sum {
    /// Nothing: the thread is not registered.
    GaveUp,
    /// The addition.
    Added,
    /// The addition, which went around: 2^64 less than the true sum if the number added is positive, more if negative.
    Overflowed,
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

    /// The addresses in the two parts before CPU 0's: [`pop`] and [`push`] of a thread that is not registered go there, for
    /// the kernel's number of its CPU is -1, or -2 if the registration failed.
    #[inline]
    #[must_use]
    pub fn of_unregistered(self) -> [*mut T; 2] {
        [1, 2].map(|back: usize| self.0.wrapping_byte_sub(back << SHIFT))
    }
}

/// Takes the top object of this CPU's stack. `None` if it is empty, or if the thread is not registered.
///
/// # Safety
/// [`init`](crate::init) has returned. The area has a valid [`Stack`] for each CPU that the machine may have, whatever the `nr_cpus` of
/// `init`, and a [`Stopper`]'s top at each address of [`PerCpu::of_unregistered`]: not even the CPU's number is compared.
/// Stacks change only as the crate's rules allow.
#[inline(always)]
pub unsafe fn pop<const SHIFT: u32>(stack: PerCpu<Stack, SHIFT>) -> Option<NonNull<u8>> {
    // SAFETY: the caller's promise.
    let object = unsafe { pop_raw(stack) };
    if core::ptr::addr_eq(object.as_ptr(), &raw const NO_OBJECT) { None } else { Some(object) }
}

/// The same, for those who can tell from the object's memory whether there was one: else it is the address of [`NO_OBJECT`].
///
/// # Safety
/// As for [`pop`].
#[inline(always)]
pub unsafe fn pop_raw<const SHIFT: u32>(stack: PerCpu<Stack, SHIFT>) -> NonNull<u8> {
    // SAFETY: the caller's promise.
    let object = unsafe { arch::pop::<SHIFT>(stack.0) };
    // SAFETY: objects are not null, and nor is `NO_OBJECT`.
    unsafe { NonNull::new_unchecked(object) }
}

/// Puts an object onto this CPU's stack; false if it is full, if the same object is its top (nothing is free twice), or if
/// the thread is not registered.
///
/// # Safety
/// As for [`pop`].
#[inline(always)]
#[must_use]
pub unsafe fn push<const SHIFT: u32>(stack: PerCpu<Stack, SHIFT>, object: NonNull<u8>) -> bool {
    // SAFETY: the caller's promise.
    unsafe { arch::push::<SHIFT>(stack.0, object.as_ptr()) }
}

/// Takes objects off this CPU's stack, the top one first, until `room` is full or the stack is empty; all at once, or none.
/// Returns how many.
///
/// # Safety
/// [`init`](crate::init) has returned. The area has a valid [`Stack`] for each CPU below its `nr_cpus`, changed only as the
/// crate's rules allow.
#[inline]
pub unsafe fn pop_many<const SHIFT: u32>(stack: PerCpu<Stack, SHIFT>, room: &mut [MaybeUninit<NonNull<u8>>]) -> usize {
    // SAFETY: the caller's promise; the buffer has that many places.
    unsafe { arch::pop_many::<SHIFT>(stack.0, room.as_mut_ptr().cast(), room.len()) }
}

/// Puts objects onto this CPU's stack, the first one lowest, until all are there or it is full; all of them at once. Returns
/// how many.
///
/// # Safety
/// As for [`pop_many`].
#[inline]
pub unsafe fn push_many<const SHIFT: u32>(stack: PerCpu<Stack, SHIFT>, objects: &[NonNull<u8>]) -> usize {
    // SAFETY: the caller's promise; the buffer has that many objects.
    unsafe { arch::push_many::<SHIFT>(stack.0, objects.as_ptr().cast(), objects.len()) }
}

/// Adds `delta` to this CPU's word if its tag is `tag` before and after, the number it leaves is at most the word's limit, and
/// this CPU's `guard` is 0. A subtraction that goes below zero borrows from the tag and so fails, unless the tag above
/// `tag` shares the word: users keep neighbouring tags in different words.
///
/// # Safety
/// [`init`](crate::init) has returned. The area has valid, aligned words and guards for each CPU below its `nr_cpus`, changed
/// only as the crate's rules allow.
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
/// [`init`](crate::init) has returned. The area has a valid, aligned counter for each CPU below its `nr_cpus`, changed only as the
/// crate's rules allow.
#[inline(always)]
#[must_use]
pub unsafe fn add<const SHIFT: u32>(counter: PerCpu<u64, SHIFT>, delta: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { arch::add::<SHIFT>(counter.0, delta) }
}

/// Adds to this CPU's counter, and says whether that took it past the largest or the smallest number, from where it goes on
/// at the other end.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub unsafe fn add_overflowing<const SHIFT: u32>(counter: PerCpu<i64, SHIFT>, delta: i64) -> Sum {
    // SAFETY: the caller's promise.
    unsafe { arch::add_overflowing::<SHIFT>(counter.0, delta) }
}

/// Replaces the word of `cpu` if the thread is running there; returns the one before, or `None` on another CPU.
///
/// # Safety
/// As for [`add`]; `cpu` is below the `nr_cpus` of [`init`](crate::init).
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

/// How often a section was aborted so far, by any thread; on aarch64 two at a time may count as one.
#[cfg(feature = "delay")]
#[must_use]
pub fn nr_aborts() -> u64 {
    arch::ABORTS.load(core::sync::atomic::Ordering::Relaxed)
}
