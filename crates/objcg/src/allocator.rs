//! Groups as allocators: collections that belong to a group whatever the current one is. With the feature `allocator-api2`.

#![expect(unsafe_code, reason = "`Allocator` is an unsafe trait of unsafe functions")]

use std::ptr::NonNull;

use allocator_api2::alloc::{AllocError, Allocator, Layout};
use objcg_core::kmalloc;

use crate::Memcg;

/// Memory of the group, from the engine itself: the program's global allocator need not be [`Objcg`](crate::Objcg).
///
/// `&Memcg` is an allocator as well. Growing and shrinking in place stays with the owner.
///
/// ```
/// use allocator_api2::vec::Vec;
/// use objcg::Memcg;
///
/// let cache = Memcg::root().create("cache")?;
/// let mut rows = Vec::new_in(cache.clone());
/// rows.extend_from_slice(&[0u8; 100_000]);
/// assert!(cache.usage() >= 100_000);
/// drop(rows);
/// cache.drain();
/// assert_eq!(cache.usage(), 0);
/// # Ok::<(), objcg::CreateError>(())
/// ```
// SAFETY: the engine's memory has the size and the alignment of the layout and stays valid until it is freed, whatever becomes of
// the handle; any handle frees it.
unsafe impl Allocator for Memcg {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let _inside = self.enter();
        of_size(kmalloc::alloc(layout.size(), layout.align()), layout)
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let _inside = self.enter();
        of_size(kmalloc::alloc_zeroed(layout.size(), layout.align()), layout)
    }

    unsafe fn deallocate(&self, memory: NonNull<u8>, _layout: Layout) {
        // SAFETY: by the contract of `deallocate` it came from `allocate` and nothing uses it any more.
        unsafe { kmalloc::free(memory) };
    }

    unsafe fn grow(&self, memory: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's contract.
        unsafe { self.resize(memory, old, new) }
    }

    unsafe fn shrink(&self, memory: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's contract.
        unsafe { self.resize(memory, old, new) }
    }
}

impl Memcg {
    /// # Safety
    /// As [`Allocator::grow`] or [`Allocator::shrink`].
    unsafe fn resize(&self, memory: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let _inside = self.enter();
        if new.align() <= old.align() {
            // SAFETY: it came from here with the old layout, and the caller gives the old address up if it moves.
            return of_size(unsafe { kmalloc::realloc(memory, new.size(), old.align()) }, new);
        }
        let moved = kmalloc::alloc(new.size(), new.align()).ok_or(AllocError)?;
        // SAFETY: both have that many bytes, and new memory does not overlap live memory.
        unsafe { moved.copy_from_nonoverlapping(memory, old.size().min(new.size())) };
        // SAFETY: the caller gives the old address up.
        unsafe { kmalloc::free(memory) };
        of_size(Some(moved), new)
    }
}

fn of_size(memory: Option<NonNull<u8>>, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
    memory.map(|memory| NonNull::slice_from_raw_parts(memory, layout.size())).ok_or(AllocError)
}
