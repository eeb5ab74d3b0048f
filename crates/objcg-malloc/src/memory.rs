//! Memory on behalf of a group, whatever group the thread is in. Freed by `free`, resized by `realloc`, like any.

#![expect(unsafe_code, reason = "these are C's functions")]

use core::ffi::c_void;
use core::ptr::{self, NonNull};

use objcg_core::kmalloc;

use crate::group::{objcg_memcg_t, with_group};
use crate::surface::{ALIGN, or_out_of_memory, set_errno};

/// Runs `work` inside a group; null and `ESTALE` if there is none of that handle.
fn inside(group: objcg_memcg_t, work: impl FnOnce() -> Option<NonNull<u8>>) -> *mut c_void {
    let memory = with_group(group, |group| {
        let _inside = group.enter();
        work()
    });
    match memory {
        Some(memory) => or_out_of_memory(memory),
        None => {
            set_errno(libc::ESTALE);
            ptr::null_mut()
        }
    }
}

/// `malloc` for a group.
#[unsafe(no_mangle)]
pub extern "C" fn objcg_malloc(group: objcg_memcg_t, nr_bytes: usize) -> *mut c_void {
    inside(group, || kmalloc::alloc_aligned(nr_bytes, ALIGN))
}

/// `calloc` for a group.
#[unsafe(no_mangle)]
pub extern "C" fn objcg_calloc(group: objcg_memcg_t, nr_items: usize, item_bytes: usize) -> *mut c_void {
    inside(group, || kmalloc::alloc_zeroed(nr_items.checked_mul(item_bytes)?, ALIGN))
}

/// `aligned_alloc` for a group; null and `EINVAL` for an alignment that is no power of two.
#[unsafe(no_mangle)]
pub extern "C" fn objcg_aligned_alloc(group: objcg_memcg_t, align: usize, nr_bytes: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        set_errno(libc::EINVAL);
        return ptr::null_mut();
    }
    inside(group, || kmalloc::alloc(nr_bytes, align.max(ALIGN)))
}
