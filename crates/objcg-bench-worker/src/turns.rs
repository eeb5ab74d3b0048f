//! Turns, which the workers of a round take: one runs, the others wait.
//!
//! A machine whose pace changes from one second to the next would make a ratio of two processes that run one after the
//! other. So they take turns: the first sets up, each other one is a repetition, where a workload has repetitions. What slows the
//! machine for a while slows the repetitions of all of them. A worker that waits says [`AT_TURN`] or [`AT_REST`], and goes on when it is sent a byte.
#![expect(unsafe_code, reason = "no buffers: they would come from the allocator under test")]

use std::io;
use std::process;

use crate::clock;
use crate::protocol::{AT_REST, AT_TURN};

/// Waits until it is this worker's turn.
pub(crate) fn wait() {
    wait_at(AT_TURN);
}

/// Waits until all others are at their rest, too, so that it disturbs nobody's turn.
pub(crate) fn wait_for_rest() {
    wait_at(AT_REST);
}

/// If the driver is gone there are no more turns, and the process ends.
fn wait_at(what: &str) {
    clock::give_up_after(clock::LONGEST_WAIT);
    if let Err(error) = say(what.as_bytes()).and_then(|()| hear()) {
        eprintln!("no driver any more: {error}");
        process::exit(1);
    }
    clock::give_up_after(clock::TOO_LONG);
}

fn say(words: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as `words` has. A pipe takes as few as these at once or not at all.
    until_uninterrupted(words.len(), || unsafe { libc::write(libc::STDOUT_FILENO, words.as_ptr().cast(), words.len()) })
}

fn hear() -> io::Result<()> {
    let mut byte = 0_u8;
    // SAFETY: the kernel writes one byte, and there is room for it.
    until_uninterrupted(1, || unsafe { libc::read(libc::STDIN_FILENO, (&raw mut byte).cast(), 1) })
}

fn until_uninterrupted(nr_bytes: usize, mut call: impl FnMut() -> isize) -> io::Result<()> {
    loop {
        let nr_done = call();
        if nr_done == nr_bytes as isize {
            return Ok(());
        }
        let error = if nr_done < 0 { io::Error::last_os_error() } else { io::ErrorKind::UnexpectedEof.into() };
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
