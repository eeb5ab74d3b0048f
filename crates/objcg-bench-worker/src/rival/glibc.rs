//! glibc's malloc, by std's `System`.
#![expect(unsafe_code, reason = "glibc's own statistics")]

use std::alloc::System;
use std::ffi::CStr;

use crate::object::Object;

#[global_allocator]
static GLOBAL: System = System;

/// Bytes in use by `mallinfo2` follow a thousand objects.
pub(crate) fn prove() -> Result<String, String> {
    const NR_OBJECTS: usize = 1000;
    const SIZE: usize = 1000;
    let before = in_use();
    let objects: Vec<Object> = (0..NR_OBJECTS).map(|_| Object::new(SIZE)).collect();
    let grown = in_use().saturating_sub(before);
    drop(objects);
    // What the thread's cache has counts as in use before it is.
    if grown < NR_OBJECTS * SIZE / 2 {
        return Err(format!("mallinfo2 saw {grown} bytes of {NR_OBJECTS} objects of {SIZE}"));
    }
    // SAFETY: has no precondition.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: glibc gives a string that stays.
    let version = unsafe { CStr::from_ptr(version) };
    Ok(format!("glibc {}, mallinfo2 saw {grown} B of {NR_OBJECTS} objects of {SIZE} B", version.to_string_lossy()))
}

fn in_use() -> usize {
    // SAFETY: has no precondition.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}
