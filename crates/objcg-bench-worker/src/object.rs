//! Objects: memory that the global allocator gave, and gets back.
//!
//! An [`Object`] is owned and move-only, so workloads need no unsafe code. Every one goes through `std::alloc`, as a `Box`
//! or a `Vec` would. Its first word is written when it is made, with its size; larger ones also have their last byte
//! written where a workload measures resident memory.
#![expect(unsafe_code, reason = "memory by hand, without what `Box` and `Vec` would add")]

use std::alloc::{Layout, alloc, dealloc, realloc};
use std::arch::asm;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// Sizes are at least a word.
pub(crate) const MIN_SIZE: usize = 8;
/// As of a `Box<u64>`.
const ALIGN: usize = 8;

/// Memory of `size` bytes from the global allocator.
pub(crate) struct Object {
    at: NonNull<u8>,
    size: usize,
}

// SAFETY: an object is plain memory that one owner has.
unsafe impl Send for Object {}

impl Object {
    /// Allocates an object and writes its first word.
    #[inline(always)]
    pub(crate) fn new(size: usize) -> Object {
        debug_assert!(size >= MIN_SIZE);
        let layout = layout(opaque(size));
        // SAFETY: the size is not 0.
        let at = unsafe { alloc(layout) };
        Object::adopt(at, size)
    }

    /// Takes `at`, which some allocator gave for `size` bytes, and writes its first word.
    #[inline(always)]
    fn adopt(at: *mut u8, size: usize) -> Object {
        let Some(at) = NonNull::new(at) else { out_of_memory(size) };
        // SAFETY: it has `size` bytes, at least a word, and is aligned to one.
        unsafe { at.cast::<usize>().write(size) };
        Object { at: opaque_pointer(at), size }
    }

    /// Allocates an object and touches each of its pages; no object that asks for it is larger than a page.
    #[inline(always)]
    pub(crate) fn new_touched(size: usize) -> Object {
        let mut object = Object::new(size);
        object.touch_last();
        object
    }

    #[inline(always)]
    fn touch_last(&mut self) {
        if self.size > MIN_SIZE {
            // SAFETY: the last byte is one of the object's.
            let last = unsafe { self.at.add(self.size - 1) };
            // SAFETY: as above, and it is writable.
            unsafe { last.write(1) };
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The address, for proofs.
    #[cfg(not(any(
        feature = "accounting-allocator",
        feature = "cap",
        feature = "glibc",
        feature = "header",
        feature = "objcg",
        feature = "stats_alloc",
        feature = "tracking-allocator"
    )))]
    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.at.as_ptr()
    }

    /// Reads the first word, as whoever was handed the object would.
    #[inline(always)]
    pub(crate) fn read(&self) -> usize {
        // SAFETY: it was written when the object was made.
        let word = unsafe { self.at.cast::<usize>().read() };
        opaque(word)
    }

    /// Grows or shrinks the object; what is new of it is not touched.
    #[inline(always)]
    pub(crate) fn resize(self, new_size: usize) -> Object {
        let object = ManuallyDrop::new(self);
        // SAFETY: it came from the global allocator with this layout; the new size is not 0.
        let at = unsafe { realloc(object.at.as_ptr(), layout(object.size), opaque(new_size)) };
        Object::adopt(at, new_size)
    }

    /// Writes a byte in each stretch of `step` bytes from `from` on.
    #[inline(always)]
    pub(crate) fn touch_from(&mut self, from: usize, step: usize) {
        for offset in (from..self.size).step_by(step) {
            // SAFETY: below the size.
            let byte = unsafe { self.at.add(offset) };
            // SAFETY: the byte is the object's.
            unsafe { byte.write(1) };
        }
    }

    /// Gives the object up for an address that may wait anywhere, such as in an atomic.
    pub(crate) fn into_raw(self) -> *mut u8 {
        ManuallyDrop::new(self).at.as_ptr()
    }

    /// The object that was given up; `None` of a null.
    ///
    /// # Safety
    /// The address is of `into_raw`, nobody else takes it, and the first word was left alone.
    pub(crate) unsafe fn from_raw(at: *mut u8) -> Option<Object> {
        let at = NonNull::new(at)?;
        // SAFETY: an object's first word is its size.
        let size = unsafe { at.cast::<usize>().read() };
        Some(Object { at, size })
    }
}

impl Drop for Object {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: it came from the global allocator with this layout, and this is its end.
        unsafe { dealloc(self.at.as_ptr(), layout(self.size)) };
    }
}

#[inline(always)]
fn layout(size: usize) -> Layout {
    // SAFETY: the alignment is a power of two, and no workload asks for half of the address space.
    unsafe { Layout::from_size_align_unchecked(size, ALIGN) }
}

/// The same number, of which the compiler knows nothing any more. Costs no instruction, unlike `black_box`, which goes
/// through memory.
#[inline(always)]
fn opaque(number: usize) -> usize {
    let mut seen = number;
    // SAFETY: the code is empty.
    unsafe { asm!("/* {0} */", inout(reg) seen, options(nostack, preserves_flags)) };
    seen
}

/// The same pointer; whoever has it may have looked at all that it leads to.
#[inline(always)]
fn opaque_pointer(pointer: NonNull<u8>) -> NonNull<u8> {
    let mut seen = pointer.as_ptr();
    // SAFETY: the code is empty.
    unsafe { asm!("/* {0} */", inout(reg) seen, options(nostack, preserves_flags)) };
    // SAFETY: it is what was not null before.
    unsafe { NonNull::new_unchecked(seen) }
}

#[cold]
#[inline(never)]
fn out_of_memory(size: usize) -> ! {
    eprintln!("no memory for an object of {size} bytes");
    std::process::exit(3)
}
