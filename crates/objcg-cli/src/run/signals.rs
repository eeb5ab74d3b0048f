//! Signals: those that are sent to the command are the program's. What a terminal sends, both get anyway.

use std::fs;
use std::io;
use std::process::Child;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, pidfd_open, pidfd_send_signal, setrlimit};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::exfiltrator::origin::Origin;
use signal_hook::iterator::{Handle, SignalsInfo};
use signal_hook::low_level::siginfo::Cause;

const FORWARDED: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// Signals that wait for the program to start.
pub(super) struct Watch(SignalsInfo<WithOrigin>);

/// Signals on their way to the program, until this is dropped.
pub(super) struct Forwarder {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// From now on signals do not end this process. Those that it was told to ignore (`nohup`) the program ignores as well.
    pub(super) fn start() -> Result<Watch> {
        let ignored = ignored_signals();
        let forwarded = FORWARDED.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
        SignalsInfo::new(forwarded).map(Watch).context("signals cannot be watched")
    }

    pub(super) fn forward_to(self, child: &Child) -> Result<Forwarder> {
        let Watch(mut signals) = self;
        let handle = signals.handle();
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the program has no number")?;
        // By a descriptor: the number may be another's once the program has ended. Kernels before 5.3 have none.
        let program = pidfd_open(pid, PidfdFlags::empty());
        let thread = thread::spawn(move || {
            for Origin { signal, cause, .. } in &mut signals {
                if matches!(cause, Cause::Kernel) {
                    continue;
                }
                if let (Ok(program), Some(signal)) = (&program, Signal::from_named_raw(signal)) {
                    // It has ended meanwhile: then there is nobody to tell.
                    let _ended = pidfd_send_signal(program, signal);
                }
            }
        });
        Ok(Forwarder { handle, thread: Some(thread) })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed.
            let _panicked = thread.join();
        }
    }
}

/// The set of signals that this process ignores, one bit each.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

/// Ends this process by a signal that has ended the program, without a core of its own.
pub(super) fn die_of(signal: i32) -> io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // Where it cannot be lowered there will be a core, of the wrong program.
    let _kept = setrlimit(Resource::Core, none);
    signal_hook::low_level::emulate_default_handler(signal)
}
