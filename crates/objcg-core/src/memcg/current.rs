//! The current group of a thread: one word, the vessel that its new objects are charged to, as a mark of free objects has it.
//!
//! A guard restores the word, and borrows or owns the handle that keeps the vessel. A thread that was *moved into* a group has
//! no guard: it holds a handle, by a key whose destructor drops it when the thread ends.

use core::marker::PhantomData;
use core::{mem, ptr};

use super::charge::PinnedNode;
use super::node::{ROOT, node};
use super::{Memcg, tree};
use crate::cpu;
use crate::os::ThreadKey;
use crate::sync::Ordering;

/// The number of the group that this thread holds a handle to; 0, the root's, if it was never moved.
static HELD: ThreadKey = ThreadKey::new();

/// The vessel that this thread's new objects are charged to.
#[inline(always)]
pub(crate) fn current() -> u32 {
    // Below 2^32 more than the first word.
    cpu::thread_word().wrapping_sub(UNCHARGED) as u32
}

/// The mark of a free object that nobody is charged for; that of one that is charged is its owner's number more.
pub(crate) const UNCHARGED: u64 = cpu::THREAD_WORD_AT_FIRST;

/// The mark of a free object that is charged to [`current`].
#[inline(always)]
pub(crate) fn current_mark() -> u64 {
    cpu::thread_word()
}

/// Changes it, and returns the one before.
#[inline]
pub(super) fn replace(vessel: u32) -> u32 {
    let word = cpu::replace_thread_word(u64::from(vessel).wrapping_add(UNCHARGED));
    word.wrapping_sub(UNCHARGED) as u32
}

/// The guard of [`Memcg::enter_owned`]: dropping it makes the group current again that was current before.
///
/// For those who cannot borrow a handle, or cannot leave groups in the reverse order.
#[must_use = "the group is left again when the guard is dropped"]
#[derive(Debug)]
pub struct EnteredOwned {
    previous: u32,
    /// Keeps the group's vessel.
    _group: Memcg,
    /// Bound to the thread, whose word it restores.
    _bound: PhantomData<*const ()>,
}

impl Memcg {
    /// The group that this thread's new objects are charged to; in a deleted group its nearest living ancestor. A few atomic
    /// operations.
    #[must_use]
    pub fn current() -> Memcg {
        let vessel = current();
        if vessel == super::ROOT_VESSEL {
            return Memcg::root();
        }
        loop {
            // None: a guard was leaked. Such a thread is in the root.
            let Some(group) = PinnedNode::of_vessel(vessel) else { return Memcg::root() };
            if tree::try_add_user(group.idx, node(group.idx).pin.generation()) {
                return Memcg { idx: group.idx };
            }
            // It was deleted just now: its vessel leads on.
            core::hint::spin_loop();
        }
    }

    /// As [`Memcg::enter`], with a guard that holds the handle: it can be kept anywhere in the thread.
    pub fn enter_owned(self) -> EnteredOwned {
        let previous = replace(node(self.idx).objcg.load(Ordering::Relaxed));
        EnteredOwned { previous, _group: self, _bound: PhantomData }
    }
}

impl EnteredOwned {
    /// Leaves the group although `inner`, the guard that was made next on this thread, is still there: dropping that one makes
    /// the group current that was current before this one.
    pub fn leave_below(self, inner: &mut EnteredOwned) {
        let mut this = self;
        inner.previous = this.previous;
        // Its end changes nothing.
        this.previous = current();
    }
}

impl Drop for EnteredOwned {
    fn drop(&mut self) {
        replace(self.previous);
    }
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
        mem::forget(group);
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
