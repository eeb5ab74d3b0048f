//! Where there are no restartable sequences: nothing can be registered, and every section gives up.

#![expect(unsafe_code, reason = "the sections of other architectures are")]

#[cfg(feature = "delay")]
use core::sync::atomic::AtomicU64;

use crate::{Stack, Sum, TaggedWord};

#[cfg(feature = "delay")]
pub(crate) static DELAY: AtomicU64 = AtomicU64::new(0);
#[cfg(feature = "delay")]
pub(crate) static ABORTS: AtomicU64 = AtomicU64::new(0);

pub(crate) const HAS_THREAD_WORD: bool = false;
pub(crate) const SIGNATURE: u32 = 0;
pub(crate) const SYS_RSEQ: usize = 0;
pub(crate) const SYS_MEMBARRIER: usize = 0;

pub(crate) unsafe fn pop<const SHIFT: u32>(_: *mut Stack) -> *mut u8 {
    (&raw const crate::NO_OBJECT).cast_mut().cast()
}

pub(crate) unsafe fn push<const SHIFT: u32>(_: *mut Stack, _: *mut u8) -> bool {
    false
}

pub(crate) unsafe fn pop_many<const SHIFT: u32>(_: *mut Stack, _: *mut usize, _: usize) -> usize {
    0
}

pub(crate) unsafe fn push_many<const SHIFT: u32>(_: *mut Stack, _: *const usize, _: usize) -> usize {
    0
}

pub(crate) unsafe fn compare_add<const SHIFT: u32>(_: *mut TaggedWord, _: *mut u32, _: u32, _: i64) -> bool {
    false
}

pub(crate) unsafe fn add<const SHIFT: u32>(_: *mut u64, _: u64) -> bool {
    false
}

pub(crate) unsafe fn add_overflowing<const SHIFT: u32>(_: *mut i64, _: i64) -> Sum {
    Sum::GaveUp
}

pub(crate) unsafe fn exchange(_: *mut usize, _: u32, _: usize) -> Option<usize> {
    None
}

pub(crate) fn own_offset() -> isize {
    0
}

pub(crate) fn libc_area() -> Option<(isize, u32)> {
    None
}

/// No word: all ones, which is no CPU.
pub(crate) unsafe fn thread_load_volatile<const DISPLACEMENT: usize>(_: isize) -> u32 {
    u32::MAX
}

pub(crate) unsafe fn thread_load<const DISPLACEMENT: usize>(_: isize) -> u32 {
    u32::MAX
}

pub(crate) unsafe fn thread_store<const DISPLACEMENT: usize>(_: isize, _: u32) {}

pub(crate) fn thread_pointer() -> *mut u8 {
    core::ptr::null_mut()
}

/// -ENOSYS, whatever is asked for.
pub(crate) unsafe fn syscall(_: usize, _: [usize; 4]) -> isize {
    -38
}
