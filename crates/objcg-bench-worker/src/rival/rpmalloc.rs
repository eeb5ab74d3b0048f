//! rpmalloc, by `rpmalloc` with its defaults.
#![expect(unsafe_code, reason = "rpmalloc's own interface")]

use rpmalloc::RpMalloc;
use rpmalloc_sys::{rpmalloc_is_thread_initialized, rpmalloc_usable_size};

use crate::object::Object;

#[global_allocator]
static GLOBAL: RpMalloc = RpMalloc;

/// rpmalloc has a heap for this thread, and its span headers tell the size classes of objects.
pub(crate) fn prove() -> Result<String, String> {
    // SAFETY: has no precondition.
    let has_heap = unsafe { rpmalloc_is_thread_initialized() } != 0;
    let usable = [1000, 5000].map(|size| {
        let object = Object::new(size);
        // SAFETY: an object that lives; rpmalloc reads the head of the span around it.
        unsafe { rpmalloc_usable_size(object.as_ptr().cast_mut().cast()) }
    });
    if !has_heap || usable != [1008, 5120] {
        return Err(format!("rpmalloc has a heap: {has_heap}, and sees {usable:?} bytes in objects of 1000 and 5000"));
    }
    Ok(format!("rpmalloc_usable_size of 1000 B and 5000 B is {} B and {} B", usable[0], usable[1]))
}
