//! The current group of a thread: one word, the vessel that its new objects are charged to.
//!
//! A guard restores the word, and borrows the handle that keeps the vessel. A thread that was *moved into* a group has no guard:
//! it holds a handle, by a key whose destructor drops it when the thread ends.

use core::ptr;

use super::Memcg;
use super::node::{ROOT, node};
use crate::cpu;
use crate::os::ThreadKey;
use crate::sync::Ordering;

/// The number of the group that this thread holds a handle to; 0, the root's, if it was never moved.
static HELD: ThreadKey = ThreadKey::new();

/// The vessel that this thread's new objects are charged to.
#[inline(always)]
pub(crate) fn current() -> u32 {
    cpu::thread_word()
}

/// Changes it, and returns the one before.
#[inline]
pub(super) fn replace(vessel: u32) -> u32 {
    cpu::replace_thread_word(vessel)
}

/// Moves this thread into a group, in which it stays until it is moved into another, or ends: it holds the handle. Returns the
/// ticket of the group that it was moved into before, the root's if none. `None` if the process is out of memory: then nothing
/// has changed.
///
/// A guard of [`Memcg::enter`] that is dropped later makes that group current again that was current before the guard.
pub fn move_into(group: Memcg) -> Option<u64> {
    let before = held();
    if !HELD.set(ptr::without_provenance(group.idx as usize), Some(let_go)) {
        return None;
    }
    replace(node(group.idx).objcg.load(Ordering::Relaxed));
    if group.idx != ROOT {
        // The key's now. It keeps none to the root: a null value has no destructor.
        core::mem::forget(group);
    }
    let previous = if before == ROOT { Memcg::root() } else { Memcg { idx: before } };
    Some(previous.ticket())
}

/// The ticket of the group that this thread was moved into; the root's if it never was.
#[must_use]
pub fn moved_into() -> u64 {
    match held() {
        ROOT => Memcg::root().ticket(),
        // This thread's handle keeps the slot.
        idx => Memcg::ticket_of(idx),
    }
}

fn held() -> u32 {
    // Set from a group's number only.
    HELD.get().addr() as u32
}

/// Called at the end of a thread that was moved into a group other than the root.
extern "C" fn let_go(group: *mut core::ffi::c_void) {
    replace(super::ROOT_VESSEL);
    drop(Memcg { idx: group.addr() as u32 });
}
