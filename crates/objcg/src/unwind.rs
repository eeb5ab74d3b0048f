//! The program's code on threads and at places where a panic of its would be somebody else's: wakers, ends of closures.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what may panic. The panic goes no further; the panic hook has printed why.
pub(crate) fn quietly(work: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
        drop_quietly(payload);
    }
}

/// Drops what may panic at that.
pub(crate) fn drop_quietly<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // A payload that panics when it is dropped is not worth a third try.
        std::mem::forget(payload);
    }
}
