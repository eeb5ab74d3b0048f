//! Turns, which the workers of a round take: one runs, the others wait.
//!
//! A machine whose pace changes from one second to the next would make a ratio of two processes that run one after the
//! other. So they take turns, each of which is a repetition and takes some milliseconds: what slows the machine slows the
//! repetitions of all of them.
#![expect(unsafe_code, reason = "no buffers: they would come from the allocator under test")]

use std::process;

use crate::clock;
use crate::protocol::AT_TURN;

/// Whom a worker takes turns with.
#[derive(Clone, Copy)]
pub(crate) enum Turns {
    /// Nobody: it never waits.
    Alone,
    /// Other workers, as the driver sees fit.
    WithOthers,
}

impl Turns {
    /// Waits until it is this worker's turn. If the driver is gone there is none, and the process ends.
    pub(crate) fn wait(self) {
        self.wait_after(|| ());
    }

    /// The same after a rest, during which the others have theirs.
    pub(crate) fn wait_after(self, rest: impl FnOnce()) {
        if let Turns::Alone = self {
            return rest();
        }
        clock::give_up_never();
        let is_heard = say(AT_TURN.as_bytes());
        rest();
        if !is_heard || !hear() {
            process::exit(1);
        }
        clock::give_up_after(clock::TOO_LONG);
    }
}

fn say(words: &[u8]) -> bool {
    // SAFETY: the kernel reads as many bytes as `words` has. A pipe takes as few as these at once or not at all.
    let nr_said = unsafe { libc::write(libc::STDOUT_FILENO, words.as_ptr().cast(), words.len()) };
    nr_said == words.len() as isize
}

fn hear() -> bool {
    let mut byte = 0_u8;
    // SAFETY: the kernel writes one byte, and there is room for it.
    let nr_heard = unsafe { libc::read(libc::STDIN_FILENO, (&raw mut byte).cast(), 1) };
    nr_heard == 1
}
