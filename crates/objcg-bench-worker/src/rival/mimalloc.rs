//! mimalloc v2 or v3, by `mimalloc` with its defaults; and a heap of its own for each tenant.
#![expect(unsafe_code, reason = "mimalloc's own interface")]

use std::ptr::NonNull;

use libmimalloc_sys::{
    mi_free, mi_heap_delete, mi_heap_malloc, mi_heap_new, mi_heap_t, mi_is_in_heap_region, mi_version,
};
use mimalloc::MiMalloc;

use crate::object::Object;

#[global_allocator]
static GLOBAL: MiMalloc = MiMalloc;

/// The first digit of versions of 1,000 a major version.
const MAJOR: i32 = if cfg!(feature = "mimalloc-v2") { 2 } else { 3 };

/// mimalloc finds an object in its regions, and does not find an address on the stack.
pub(crate) fn prove() -> Result<String, String> {
    let object = Object::new(1000);
    // SAFETY: any address may be asked for.
    let has_object = unsafe { mi_is_in_heap_region(object.as_ptr().cast()) };
    // SAFETY: as above.
    let has_stack = unsafe { mi_is_in_heap_region((&raw const object).cast()) };
    if !has_object || has_stack {
        return Err(format!("mimalloc has an object: {has_object}, has the stack: {has_stack}"));
    }
    // SAFETY: has no precondition.
    let version = unsafe { mi_version() };
    let digits = version.to_string();
    if !digits.starts_with(char::from_digit(MAJOR as u32, 10).expect("a digit")) {
        return Err(format!("mimalloc is of version {version}, not {MAJOR}"));
    }
    Ok(format!("mi_version {version}, mi_is_in_heap_region finds an object"))
}

/// A heap. That of v2 serves only the thread that made it.
pub(crate) struct Heap(NonNull<mi_heap_t>);

impl Heap {
    pub(crate) fn new() -> Result<Heap, String> {
        // SAFETY: has no precondition.
        let heap = unsafe { mi_heap_new() };
        NonNull::new(heap).map(Heap).ok_or_else(|| "mimalloc gives no heap".to_owned())
    }

    #[inline(always)]
    pub(crate) fn alloc(&self, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the heap lives, and is this thread's: workloads with heaps have one thread.
        NonNull::new(unsafe { mi_heap_malloc(self.0.as_ptr(), size) }.cast())
    }

    /// # Safety
    /// `object` is of this heap, and nobody uses it any more.
    #[inline(always)]
    pub(crate) unsafe fn free(&self, object: NonNull<u8>) {
        // SAFETY: by the contract of this function.
        unsafe { mi_free(object.as_ptr().cast()) };
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: the heap lives, and this is its end.
        unsafe { mi_heap_delete(self.0.as_ptr()) };
    }
}
