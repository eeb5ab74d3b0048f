//! The end of threads that work until a flag is set.

use std::sync::atomic::{AtomicBool, Ordering};

/// Sets the flag when it is dropped, so that a test that fails ends, and does not wait for its threads for ever.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
