//! The functions that this library stands before.

#![expect(unsafe_code, reason = "looks symbols up")]

use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};

/// A function of the libraries behind this one, looked up once.
pub(crate) struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    pub(crate) const fn new(name: &'static CStr) -> Next {
        Next { name, found: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// The function's address; ends the process if there is none, which cannot be with a libc.
    pub(crate) fn address(&self) -> *mut c_void {
        // Relaxed: whoever finds none finds the same one.
        let found = self.found.load(Ordering::Relaxed);
        if !found.is_null() {
            return found;
        }
        // SAFETY: a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        if found.is_null() {
            crate::program::fail(format_args!("libc has no function {}", self.name.to_str().unwrap_or_default()));
        }
        self.found.store(found, Ordering::Relaxed);
        found
    }
}
