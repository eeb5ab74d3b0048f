//! Atomics and locks: the only door to them, so that loom can replace what stands behind it.
//!
//! Everything above takes its atomics from here (`cargo xtask tidy` checks it). Under `--cfg loom` the same names are
//! loom's, and [`Lock`] sleeps on what stands for a futex there; the protocols do not change.

mod lock;

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

pub(crate) use lock::{Guard, Lock};

/// With cache lines of its own, and those that a prefetcher takes with them: what one CPU writes there takes no line from others that
/// read something else, and nobody's writing takes this one.
#[cfg(not(loom))]
#[repr(align(128))]
pub(crate) struct OwnLines<T>(pub(crate) T);
