//! A heap of the tenant's own: a jemalloc arena, a mimalloc heap.
//!
//! Objects come from the heap's own functions. That saves it the way through the global allocator.
#![expect(unsafe_code, reason = "objects of a heap that is not the global allocator's")]

use std::ptr::NonNull;

use super::home::Home;
use crate::object::MIN_SIZE;
use crate::rival::Heap;

pub(super) struct Heaped(Heap);

/// An object of some heap.
pub(super) struct HeapObject {
    at: NonNull<u8>,
    size: usize,
}

// SAFETY: an object is plain memory that one owner has.
unsafe impl Send for HeapObject {}
// SAFETY: workloads with heaps have one thread.
unsafe impl Send for Heaped {}

impl Heaped {
    pub(super) fn new() -> Result<Heaped, String> {
        Heap::new().map(Heaped)
    }
}

impl Home for Heaped {
    type Object = HeapObject;

    const COSTS: bool = true;

    #[inline(always)]
    fn visit<R>(&self, work: impl FnOnce() -> R) -> R {
        work()
    }

    #[inline(always)]
    fn alloc(&self, size: usize) -> HeapObject {
        let Some(at) = self.0.alloc(size) else {
            eprintln!("no memory for an object of {size} bytes in a heap");
            std::process::exit(3)
        };
        // SAFETY: it has `size` bytes, at least a word, and is aligned to one.
        unsafe { at.cast::<usize>().write(size) };
        if size > MIN_SIZE {
            // SAFETY: the last byte is one of the object's.
            let last = unsafe { at.add(size - 1) };
            // SAFETY: as above.
            unsafe { last.write(1) };
        }
        HeapObject { at, size }
    }

    #[inline(always)]
    fn free(&self, object: HeapObject) {
        // SAFETY: a tenant's objects are of its heap; it was moved in here.
        unsafe { self.0.free(object.at) };
    }

    fn size(object: &HeapObject) -> usize {
        object.size
    }
}
