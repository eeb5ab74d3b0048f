//! The global allocator.

#![expect(unsafe_code, reason = "`GlobalAlloc` is an unsafe trait of unsafe functions")]

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::{self, NonNull};

use objcg_core::kmalloc::{self, UNWINDER_ALIGN};

/// The engine as a global allocator: `#[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;`
///
/// What a thread allocates is charged to the [`Memcg`](crate::Memcg) that it is in. A refused charge is a null: an error
/// from `try_reserve`, an abort from what cannot fail.
///
/// ```
/// #[global_allocator]
/// static GLOBAL: objcg::Objcg = objcg::Objcg;
///
/// let text = String::from("served by objcg");
/// assert_eq!(text.len(), 15);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Objcg;

/// The alignment of a layout's memory.
#[inline]
fn aligned(layout: Layout) -> usize {
    layout.align().max(UNWINDER_ALIGN)
}

#[inline]
fn alloc(layout: Layout) -> Option<NonNull<u8>> {
    // One of the two remains.
    if UNWINDER_ALIGN > align_of::<u64>() {
        kmalloc::alloc_aligned(layout.size(), aligned(layout))
    } else {
        kmalloc::alloc(layout.size(), aligned(layout))
    }
}

fn or_null(memory: Option<NonNull<u8>>) -> *mut u8 {
    memory.map_or(ptr::null_mut(), NonNull::as_ptr)
}

// SAFETY: the engine's memory has the size and the alignment of the layout, stays valid until it is freed, and no entry
// unwinds.
unsafe impl GlobalAlloc for Objcg {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        or_null(alloc(layout))
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        or_null(kmalloc::alloc_zeroed(layout.size(), aligned(layout)))
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, _layout: Layout) {
        // SAFETY: `dealloc` is given what `alloc` returned, which is not null.
        let memory = unsafe { NonNull::new_unchecked(memory) };
        // SAFETY: by the contract of `dealloc` it came from here and nothing uses it any more.
        unsafe { kmalloc::free(memory) };
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: `realloc` is given what `alloc` returned, which is not null.
        let memory = unsafe { NonNull::new_unchecked(memory) };
        // SAFETY: by the contract of `realloc` it came from here with this alignment, and the old address is given up.
        or_null(unsafe { kmalloc::realloc(memory, new_size, aligned(layout)) })
    }
}
