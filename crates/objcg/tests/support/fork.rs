//! Children of `fork`, which have the memory of their parent and one of its threads.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// After that many seconds a child is taken to hang.
const PATIENCE_S: u32 = 60;

/// Runs `is_well` in a child of `fork`, and fails unless it is true there and the child ends in time. It may call what the fork
/// handlers make safe, and no more: other threads may have held any lock but the engine's.
pub(crate) fn in_child_of_fork(is_well: impl FnOnce() -> bool) {
    // SAFETY: the child calls only what the caller says, and leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        // SAFETY: alarm has no preconditions; its signal ends a child that hangs.
        unsafe { libc::alarm(PATIENCE_S) };
        // Unwound into the test harness, it would end the child as if all were well.
        let is_well = catch_unwind(AssertUnwindSafe(is_well)).unwrap_or(false);
        // SAFETY: ends the child without what its parent has registered.
        unsafe { libc::_exit(i32::from(!is_well)) };
    }
    let mut status = 0;
    // SAFETY: the child is this process's, and `status` is a valid out-parameter.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "the child hung (SIGALRM) or failed");
}
