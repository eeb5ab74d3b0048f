//! Processes that are measured: they end when this one does or when they take too long, and say what they used.
//!
//! Peak memory is what the kernel tells whoever waits: the most that the process, or one of the descendants that were waited
//! for, had resident. The kernel begins to count before the program is loaded, so that it is never less than what this
//! process has at the fork, some MiB; [`floor`] measures that.
#![expect(unsafe_code, reason = "std waits without resource usage, and knows no signal for the death of a parent")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::ptr;
use std::time::{Duration, Instant};

/// What a process and those of its descendants that were waited for used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Duration,
    /// Of the largest of them.
    pub(crate) peak_bytes: u64,
}

/// A process at its end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// It took too long, and was killed.
    pub(crate) is_late: bool,
    pub(crate) usage: Usage,
}

/// A process that runs, the first of a process group. Dropping kills the group.
pub(crate) struct Process {
    /// `None` once it was waited for.
    pid: Option<libc::pid_t>,
    pidfd: OwnedFd,
    start: Instant,
}

impl Process {
    /// Starts `command`. Must be called by a thread that lives as long as the process should.
    pub(crate) fn start(command: &mut Command) -> io::Result<Process> {
        let die_with_parent = || {
            // SAFETY: prctl takes no pointer with this option; it is a system call, allowed between fork and exec.
            let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        // SAFETY: the closure makes one system call, and allocates nothing.
        let command = unsafe { command.pre_exec(die_with_parent) };
        let start = Instant::now();
        let child = command.process_group(0).stdin(Stdio::null()).spawn()?;
        let pid = child.id().cast_signed();
        // SAFETY: no pointer is passed; the child was not waited for, so that the number is still its own.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let pidfd = i32::try_from(pidfd).expect("a descriptor or -1");
        if pidfd < 0 {
            let error = io::Error::last_os_error();
            reap(pid)?;
            return Err(error);
        }
        // SAFETY: the descriptor is new, and nobody else has it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Process { pid: Some(pid), pidfd, start })
    }

    /// Waits for the end, at most for the time of `limit`; then kills the process group, what is left of it.
    pub(crate) fn wait(mut self, limit: Duration) -> io::Result<Ended> {
        let is_late = !self.ends_within(limit)?;
        let elapsed = self.start.elapsed();
        let pid = self.pid.take().expect("set until here");
        let (status, usage) = reap(pid)?;
        Ok(Ended { status, is_late, usage: Usage { elapsed, ..usage } })
    }

    /// Whether it ends in the time given from now on.
    pub(crate) fn ends_within(&self, time: Duration) -> io::Result<bool> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let milliseconds = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            match self.has_ended(milliseconds) {
                Ok(false) if milliseconds > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn has_ended(&self, milliseconds: i32) -> io::Result<bool> {
        let mut poll = libc::pollfd { fd: self.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd is there, as the count says.
        let nr_ready = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
        if nr_ready < 0 { Err(io::Error::last_os_error()) } else { Ok(nr_ready > 0) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            let _lost = reap(pid);
        }
    }
}

/// What is reported as peak memory of a program that needs none.
pub(crate) fn floor() -> Option<u64> {
    let process = Process::start(Command::new("true").env_clear()).ok()?;
    Some(process.wait(Duration::from_secs(10)).ok()?.usage.peak_bytes)
}

/// Kills what is left of the process group, and takes the process's status and usage.
fn reap(pid: libc::pid_t) -> io::Result<(ExitStatus, Usage)> {
    // SAFETY: the child is not reaped yet, so that the number is its group's. One that has ended keeps its status.
    unsafe { libc::kill(-pid, libc::SIGKILL) };
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to what the call writes.
        let waited = unsafe { libc::wait4(pid, ptr::from_mut(&mut status), 0, usage.as_mut_ptr()) };
        if waited == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: zeroes are a valid rusage, and wait4 has filled it.
    let usage = unsafe { usage.assume_init() };
    let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
    let peak_bytes = u64::try_from(usage.ru_maxrss).unwrap_or_default() * 1024;
    Ok((ExitStatus::from_raw(status), Usage { elapsed: Duration::ZERO, cpu, peak_bytes }))
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::{Process, floor};

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn the_status_is_the_programs() {
        let mut command = Command::new("sh");
        let ended = Process::start(command.args(["-c", "exit 7"])).unwrap().wait(LONG).unwrap();
        assert_eq!((ended.status.code(), ended.is_late), (Some(7), false));
    }

    #[test]
    fn what_takes_too_long_is_killed_with_its_children() {
        let mut command = Command::new("sh");
        // The shell waits for both, which never end by themselves.
        let process = Process::start(command.args(["-c", "tail -f /dev/null & tail -f /dev/null & wait"])).unwrap();
        let ended = process.wait(Duration::from_millis(1)).unwrap();
        assert!(ended.is_late && ended.status.code().is_none(), "{ended:?}");
    }

    #[test]
    fn peak_memory_is_the_childs_own_or_its_largest_childs() {
        let script = "head -c 50000000 /dev/zero | tail -c 40000000 > /dev/null; exit 0";
        let mut command = Command::new("sh");
        let ended = Process::start(command.args(["-c", script])).unwrap().wait(LONG).unwrap();
        assert!(ended.usage.peak_bytes > 40_000_000, "{ended:?}");
        assert!(floor().unwrap() < ended.usage.peak_bytes);
    }
}
