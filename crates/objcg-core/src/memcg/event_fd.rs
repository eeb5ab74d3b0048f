//! Event descriptors: a file that becomes readable when something about a group changes, for poll loops.
//!
//! A descriptor is written with the lock of all groups' lists held, which is one system call that never blocks; so whoever has
//! taken a descriptor off its list may close it.

#![expect(unsafe_code, reason = "gives descriptors back")]

use super::Memcg;
use super::attached::Attached;
use super::node::node;
use crate::os;
use crate::sync::Ordering;

/// The descriptors of all groups; never negative.
static FILES: Attached = Attached::new();

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
        let Some(slot) = FILES.add(&node(self.idx).first_event_fd, file as u64) else {
            close(file);
            return Err(libc::ENOMEM);
        };
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
        FILES.remove(&node(self.group.idx).first_event_fd, self.slot);
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
    // Each came from an `i32`.
    FILES.hold().for_each(&node(group).first_event_fd, |file| os::raise_event_fd(file.load(Ordering::Relaxed) as i32));
}

pub(super) fn hold_for_fork() {
    FILES.hold_for_fork();
}

pub(super) fn release_after_fork() {
    FILES.release_after_fork();
}
