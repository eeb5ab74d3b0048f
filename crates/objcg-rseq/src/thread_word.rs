//! A 64-bit word of each thread in static thread-local storage: one load to find it, no destructor, good before `main` and after the
//! other thread-locals are gone, in an executable and in a library alike.

#![expect(unsafe_code, reason = "a word at an offset from the thread pointer")]

use crate::arch;

/// Bytes from our own area to the word behind it.
const WORD_OFFSET: usize = 32;

/// This thread's word.
#[inline(always)]
#[must_use]
pub fn thread_word() -> u64 {
    // SAFETY: the word is in static thread-local storage, behind the area.
    unsafe { arch::thread_load_word::<WORD_OFFSET>(arch::own_offset()) }
}

/// Replaces this thread's word; returns the one before.
#[inline(always)]
pub fn replace_thread_word(word: u64) -> u64 {
    let previous = thread_word();
    // SAFETY: as above, and it is written by nobody else.
    unsafe { arch::thread_store_word::<WORD_OFFSET>(arch::own_offset(), word) };
    previous
}
