//! The current group of a thread: one word, the vessel that its new objects are charged to.

use crate::cpu;

/// The vessel that this thread's new objects are charged to.
#[inline(always)]
pub(crate) fn current() -> u32 {
    cpu::thread_word()
}

/// Changes it, and returns the one before.
#[inline]
pub(super) fn replace(vessel: u32) -> u32 {
    cpu::replace_thread_word(vessel)
}
