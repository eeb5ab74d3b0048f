//! The worker's own arrays: memory straight from the kernel, so that the allocator under test never serves it.
//!
//! Every page is touched when an array is made, and all arrays are counted, so that what the harness holds can be taken
//! out of the resident set.
#![expect(unsafe_code, reason = "memory from mmap")]

use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

const PAGE_SIZE: usize = 4096;

static HELD: AtomicU64 = AtomicU64::new(0);

/// Bytes of all arrays that there ever were: none is given back before the worker ends.
pub(crate) fn held_bytes() -> u64 {
    HELD.load(Ordering::Relaxed)
}

/// An array outside the allocator under test.
pub(crate) struct Pages<T> {
    at: NonNull<T>,
    len: usize,
}

// SAFETY: an owned array, as a Vec.
unsafe impl<T: Send> Send for Pages<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Pages<T> {}

impl<T> Pages<T> {
    /// An array of `len` elements, each made by `element`.
    pub(crate) fn new(len: usize, mut element: impl FnMut(usize) -> T) -> Pages<T> {
        const { assert!(align_of::<T>() <= PAGE_SIZE) };
        let nr_bytes = (len * size_of::<T>()).max(1).next_multiple_of(PAGE_SIZE);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: new memory, at an address of the kernel's choice.
        let at = unsafe { libc::mmap(ptr::null_mut(), nr_bytes, access, flags, -1, 0) };
        assert!(at != libc::MAP_FAILED, "no memory for {nr_bytes} bytes of the worker's own");
        HELD.fetch_add(nr_bytes as u64, Ordering::Relaxed);
        let at = NonNull::new(at.cast::<T>()).expect("mmap gives no null");
        for idx in 0..len {
            // SAFETY: below the length.
            let place = unsafe { at.add(idx) };
            // SAFETY: a place of the new memory.
            unsafe { place.write(element(idx)) };
        }
        Pages { at, len }
    }
}

impl<T> Deref for Pages<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements were written.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Pages<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: `len` elements were written, and they are borrowed as `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl<T> Drop for Pages<T> {
    fn drop(&mut self) {
        // SAFETY: all elements are there, and nobody sees them again. The pages stay, so that `held_bytes` stays true.
        unsafe { ptr::drop_in_place(&raw mut **self) };
    }
}
