//! What a thread is in the middle of, for the slow path of charges: running shrinkers, or a scope that nothing may refuse.
//!
//! One pthread key, asked only where a charge was refused. A thread that sets it for the first time may allocate in libc; that
//! allocation is nobody's.

use core::ptr;

use super::{ROOT_VESSEL, current};
use crate::os::ThreadKey;

static KEY: ThreadKey = ThreadKey::new();

/// The bit of a thread that runs shrinkers; above it the number of scopes that must not fail; above that the number of the registration
/// whose callback it runs, and one.
const RECLAIMS: usize = 1;
const MUST_NOT_FAIL: usize = 2;
const RUNS_SHIFT: u32 = 32;

/// Whether this thread runs shrinkers.
pub(super) fn reclaims() -> bool {
    bits() & RECLAIMS != 0
}

/// Whether this thread's charges are forced.
pub(super) fn must_not_fail() -> bool {
    bits() as u32 as usize >= MUST_NOT_FAIL
}

/// The registration whose callback this thread runs.
pub(super) fn runs() -> Option<u32> {
    ((bits() >> RUNS_SHIFT) as u32).checked_sub(1)
}

/// Runs the callback of a registration, in a thread that reclaims.
pub(super) fn running<R>(idx: u32, work: impl FnOnce() -> R) -> R {
    // The key is there: it was set when the thread began to reclaim.
    set(bits() | (idx as usize + 1) << RUNS_SHIFT);
    // Callbacks do not unwind.
    let result = work();
    set(bits() as u32 as usize);
    result
}

fn bits() -> usize {
    KEY.get().addr()
}

fn set(bits: usize) -> bool {
    // Its own memory must not be refused, nor reclaimed for.
    let group = current::replace(ROOT_VESSEL);
    let is_set = KEY.set(ptr::without_provenance(bits), None);
    current::replace(group);
    is_set
}

/// Runs `work` in the root, as a thread that reclaims. `None` if it does already, or cannot be noted.
pub(super) fn reclaiming<R>(work: impl FnOnce() -> R) -> Option<R> {
    let before = bits();
    if before & RECLAIMS != 0 || !set(before | RECLAIMS) {
        return None;
    }
    let group = current::replace(ROOT_VESSEL);
    // Callbacks do not unwind.
    let result = work();
    current::replace(group);
    set(bits() & !RECLAIMS);
    Some(result)
}

/// A scope whose charges are forced: see [`NoFail::enter`].
#[must_use = "charges may be refused again once it is dropped"]
#[derive(Debug)]
pub struct NoFail {
    /// Bound to the thread.
    _bound: core::marker::PhantomData<*const ()>,
}

impl NoFail {
    /// From here on no limit refuses this thread's charges: what does not fit after reclaim is charged above `max`, and counted as
    /// [`Events::max`](super::Events::max). Scopes nest, and may end in any order. `None` without memory for the thread's key.
    #[must_use]
    pub fn enter() -> Option<NoFail> {
        // Made only then: its drop counts down.
        set(bits() + MUST_NOT_FAIL).then(|| NoFail { _bound: core::marker::PhantomData })
    }
}

impl Drop for NoFail {
    fn drop(&mut self) {
        set(bits() - MUST_NOT_FAIL);
    }
}
