//! What stands for the operating system in models: memory of which loom sees who uses a word, and when the system takes it.
//!
//! The bytes are real, so layout and addresses are the engine's own, and what was given back reads as zero. Beside each word is
//! a cell of loom's: who reads or writes the word says so there, and so does the system when it takes the word's page. Two of
//! them that nothing has put in order end the model.

#![expect(unsafe_code, reason = "stands for memory that is reached by address")]

use std::cell::{Cell, UnsafeCell};
use std::ptr::NonNull;

use crate::sync::Ordering;

/// Two words.
pub(crate) const PAGE_SIZE: usize = size_of::<Page>();
type Page = UnsafeCell<u64>;
const WORD_BYTES: usize = size_of::<Word>();
/// Room for a few chunks of per-CPU memory.
const NR_PAGES: usize = 64;

loom::lazy_static! {
    static ref MEMORY: Memory = Memory::new();
}

struct Memory {
    pages: Box<[Page]>,
    uses: Vec<loom::cell::UnsafeCell<()>>,
    /// How many releases pass before one is refused, if one is to be.
    nr_passing: Cell<Option<usize>>,
}

impl Memory {
    fn new() -> Memory {
        Memory {
            pages: (0..NR_PAGES).map(|_| Page::new(0)).collect(),
            uses: (0..NR_PAGES * PAGE_SIZE / WORD_BYTES).map(|_| loom::cell::UnsafeCell::new(())).collect(),
            nr_passing: Cell::new(None),
        }
    }

    fn uses(&self, first: NonNull<u8>, nr_bytes: usize) -> &[loom::cell::UnsafeCell<()>] {
        let offset = first.as_ptr() as usize - self.pages.as_ptr() as usize;
        assert!(offset.is_multiple_of(WORD_BYTES) && nr_bytes.is_multiple_of(WORD_BYTES));
        &self.uses[offset / WORD_BYTES..(offset + nr_bytes) / WORD_BYTES]
    }
}

pub(crate) fn address_space_limit() -> Option<usize> {
    None
}

pub(crate) fn reserve(nr_bytes: usize) -> Option<NonNull<u8>> {
    let first = NonNull::from_ref(&*MEMORY.pages).cast();
    (nr_bytes <= NR_PAGES * PAGE_SIZE).then_some(first)
}

/// # Safety
/// As in `os.rs`; so are those below.
pub(crate) unsafe fn keep_pages_small(_addr: NonNull<u8>, _nr_bytes: usize) {}

pub(crate) unsafe fn commit(_addr: NonNull<u8>, _nr_bytes: usize) -> bool {
    true
}

pub(crate) unsafe fn release(addr: NonNull<u8>, nr_bytes: usize) -> bool {
    let nr_passing = MEMORY.nr_passing.take();
    if nr_passing == Some(0) {
        return false;
    }
    MEMORY.nr_passing.set(nr_passing.map(|nr_passing| nr_passing - 1));
    note_write(addr, nr_bytes);
    // SAFETY: `note_write` has found the range in the memory, and that nobody uses it at the same time.
    unsafe { addr.write_bytes(0, nr_bytes) };
    true
}

/// Lets `nr_passing` calls of [`release`] pass, and refuses the next.
pub(crate) fn refuse_a_release(nr_passing: usize) {
    MEMORY.nr_passing.set(Some(nr_passing));
}

/// Says that this thread writes to a range, now.
pub(crate) fn note_write(first: NonNull<u8>, nr_bytes: usize) {
    MEMORY.uses(first, nr_bytes).iter().for_each(|word| word.with_mut(|_| {}));
}

/// A word of the memory. Its methods are called like those of an atomic that is only used under a lock, which it stands for;
/// it is none, so that loom sees two who use it at the same time.
#[repr(transparent)]
pub(crate) struct Word(UnsafeCell<u32>);

// SAFETY: loom ends the model if two use it at the same time and one of them writes.
unsafe impl Sync for Word {}

impl Word {
    pub(crate) fn at(address: NonNull<u8>) -> &'static Word {
        MEMORY.uses(address, WORD_BYTES);
        // SAFETY: it was just found in the memory, which is there as long as the model runs; every bit pattern is a word.
        unsafe { address.cast().as_ref() }
    }

    pub(crate) fn load(&self, _order: Ordering) -> u32 {
        MEMORY.uses(NonNull::from_ref(self).cast(), WORD_BYTES)[0].with(|_| {});
        // SAFETY: loom has just found that nobody writes at the same time.
        unsafe { *self.0.get() }
    }

    pub(crate) fn store(&self, value: u32, order: Ordering) {
        self.swap(value, order);
    }

    pub(crate) fn swap(&self, value: u32, _order: Ordering) -> u32 {
        note_write(NonNull::from_ref(self).cast(), WORD_BYTES);
        // SAFETY: loom has just found that nobody else uses it.
        unsafe { self.0.get().replace(value) }
    }
}
