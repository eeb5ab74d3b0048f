//! Event descriptors: a file that becomes readable when something about a group changes, for poll loops.
//!
//! A descriptor's slot is on its group's list, under one lock for all groups. It is written with that lock held, which is one
//! system call that never blocks; so whoever has taken a descriptor off the list may close it.

#![expect(unsafe_code, reason = "gives descriptors back, and vouches for a type that may start as zeroes")]

use super::Memcg;
use super::node::node;
use crate::os;
use crate::sync::{AtomicU32, Lock, Ordering};
use crate::table::{Slot, Table};

/// Guards all lists of descriptors.
static LISTS: Lock<()> = Lock::new(());
static TABLE: Table<FdSlot, 64> = Table::new();

/// A descriptor on a group's list.
#[repr(C)]
pub(super) struct FdSlot {
    file: AtomicU32,
    /// One more than the number of the next on the list, or 0.
    next: AtomicU32,
    next_free: AtomicU32,
}

// SAFETY: zero is a valid value of every field, and all are atomics.
unsafe impl Slot for FdSlot {
    fn next_free(&self) -> &AtomicU32 {
        &self.next_free
    }
}

/// An event descriptor of a group: see [`Memcg::event_fd`]. Holds a handle to the group; closed when it is dropped.
#[derive(Debug)]
pub struct EventFd {
    group: Memcg,
    slot: u32,
    file: i32,
}

impl Memcg {
    /// A file descriptor (an `eventfd`, non-blocking) that becomes readable whenever an event of the group or of a descendant is
    /// counted, usage falls to `high`, the group is marked, revived or deleted. It is written from inside charges, so it
    /// never waits for a thread. Reading it resets it.
    ///
    /// # Errors
    /// The system's error number, if it has no descriptor or no memory.
    pub fn event_fd(&self) -> Result<EventFd, i32> {
        let file = os::event_fd()?;
        let Some(slot) = TABLE.alloc() else {
            close(file);
            return Err(libc::ENOMEM);
        };
        // Not negative.
        TABLE.get(slot).file.store(file as u32, Ordering::Relaxed);
        let _lists = LISTS.lock();
        let first = &node(self.idx).first_event_fd;
        TABLE.get(slot).next.store(first.load(Ordering::Relaxed), Ordering::Relaxed);
        first.store(slot + 1, Ordering::Relaxed);
        Ok(EventFd { group: self.clone(), slot, file })
    }
}

impl EventFd {
    /// The descriptor's number. Good as long as this lives.
    #[must_use]
    pub fn as_raw_fd(&self) -> i32 {
        self.file
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        let lists = LISTS.lock();
        let mut link = &node(self.group.idx).first_event_fd;
        while let at = link.load(Ordering::Relaxed)
            && at != self.slot + 1
            && at != 0
        {
            link = &TABLE.get(at - 1).next;
        }
        link.store(TABLE.get(self.slot).next.load(Ordering::Relaxed), Ordering::Relaxed);
        drop(lists);
        TABLE.free(self.slot);
        close(self.file);
    }
}

fn close(file: i32) {
    // SAFETY: it was opened by `event_fd`, and is on no list, so nobody writes to it.
    unsafe { os::close(file) };
}

/// Makes all of a group's descriptors readable.
#[cold]
pub(super) fn raise(group: u32) {
    let _lists = LISTS.lock();
    let mut at = node(group).first_event_fd.load(Ordering::Relaxed);
    while let Some(idx) = at.checked_sub(1) {
        let slot = TABLE.get(idx);
        // It came from an `i32`.
        os::raise_event_fd(slot.file.load(Ordering::Relaxed) as i32);
        at = slot.next.load(Ordering::Relaxed);
    }
}

pub(super) fn hold_for_fork() {
    LISTS.hold_for_fork();
    TABLE.hold_for_fork();
}

pub(super) fn release_after_fork() {
    TABLE.release_after_fork();
    LISTS.force_unlock();
}
