//! What a program under `objcg run` leaves behind: a file that the preloaded library maps and fills, and that the command reads
//! when the program is gone, however it went.
//!
//! [`Order`] is the way there, one environment variable; [`Report`] the way back. Both are of one build: the command carries the
//! library. No file is trusted: what is not a report of this version is refused.

#![no_std]
#![forbid(unsafe_code)]

mod order;

use bytemuck::{Pod, Zeroable};

pub use order::{GroupBy, Order, ParseOrderError};

/// The name of the variable that has the [`Order`].
pub const VARIABLE: &str = "OBJCG_RUN";
/// Rows of size classes: more than the engine has, by one at least for what is in pages.
pub const MAX_CLASSES: usize = 96;
/// Rows of groups of threads; what more there is, is summed up in the last.
pub const MAX_THREADS: usize = 256;
/// Bytes of names.
pub const NAME_BYTES: usize = 32;

/// "objcg" and the version of the layout.
const MAGIC: u64 = 0x0001_6763_6a62_6f00;

/// The program has started with the library.
pub const RUNNING: u64 = 1;
/// It ended by `_exit` or `abort`: [`Report::classes`] count objects that CPUs kept at hand as live ones.
pub const CUT_SHORT: u64 = 2;
/// It ended by `exit`, or returned from `main`: everything is exact.
pub const COMPLETE: u64 = 3;

/// What is kept up to date while the program runs: at its start, and whenever a limit refuses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Counters {
    /// Bytes charged.
    pub usage: u64,
    /// The most bytes charged at once.
    pub peak: u64,
    /// Charges that left usage over the soft limit.
    pub high_events: u64,
    /// Charges that met the limit.
    pub max_events: u64,
    /// Charges that were refused.
    pub refusals: u64,
}

/// Live objects of a size class.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Class {
    /// Bytes of an object; 0 for those that are runs of pages or mappings.
    pub size: u64,
    /// Live objects.
    pub nr_objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
}

/// Threads of one name.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Threads {
    /// The name, filled up with zeros.
    pub name: [u8; NAME_BYTES],
    /// How many there were at the end.
    pub nr_threads: u64,
    /// Bytes that they hold, and those that ended before.
    pub usage: u64,
    /// The most bytes that they held at once.
    pub peak: u64,
}

/// Everything. All numbers are of 64 bits, so that there is no padding.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Report {
    magic: u64,
    /// 0, [`RUNNING`], [`CUT_SHORT`] or [`COMPLETE`].
    pub state: u64,
    /// The process.
    pub pid: u64,
    /// What it runs, filled up with zeros.
    pub command: [u8; NAME_BYTES],
    /// See [`Counters`].
    pub counters: Counters,
    /// Live objects at the end.
    pub live_objects: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Bytes of those that are in slabs.
    pub slab_object_bytes: u64,
    /// Bytes of slabs and owner vectors.
    pub slab_bytes: u64,
    /// Bytes held of the operating system.
    pub held_bytes: u64,
    /// The process's peak of resident memory.
    pub peak_rss: u64,
    /// Rows of `classes`.
    pub nr_classes: u64,
    /// Size classes with objects, smallest first.
    pub classes: [Class; MAX_CLASSES],
    /// Rows of `threads`.
    pub nr_threads: u64,
    /// Groups of threads, if there are any.
    pub threads: [Threads; MAX_THREADS],
}

impl Report {
    /// Of a process that has just started.
    #[must_use]
    pub fn started(pid: u64, command: &[u8]) -> Report {
        Report { magic: MAGIC, state: RUNNING, pid, command: name(command), ..Report::zeroed() }
    }

    /// The report in the bytes of a file; `None` if there is none of this version.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Option<Report> {
        let report: Report = bytemuck::try_pod_read_unaligned(bytes.get(..size_of::<Report>())?).ok()?;
        (report.magic == MAGIC && report.state != 0).then_some(report)
    }

    /// The rows of size classes.
    #[must_use]
    pub fn classes(&self) -> &[Class] {
        rows(&self.classes, self.nr_classes)
    }

    /// The rows of threads.
    #[must_use]
    pub fn threads(&self) -> &[Threads] {
        rows(&self.threads, self.nr_threads)
    }

    /// Bytes of live slab objects per byte of slabs and owner vectors; `None` without slabs.
    #[must_use]
    pub fn utilisation(&self) -> Option<f64> {
        (self.slab_bytes > 0).then(|| self.slab_object_bytes as f64 / self.slab_bytes as f64)
    }
}

fn rows<T>(all: &[T], nr_rows: u64) -> &[T] {
    // A number from a file may be any.
    &all[..usize::try_from(nr_rows).unwrap_or(usize::MAX).min(all.len())]
}

/// A name cut to its room, filled up with zeros.
#[must_use]
pub fn name(bytes: &[u8]) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    let nr_bytes = bytes.len().min(NAME_BYTES);
    name[..nr_bytes].copy_from_slice(&bytes[..nr_bytes]);
    name
}

/// The bytes of a name without what fills it up.
#[must_use]
pub fn name_bytes(name: &[u8; NAME_BYTES]) -> &[u8] {
    name.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Report, name_bytes};

    #[test]
    fn a_report_comes_back_from_its_bytes_and_nothing_else_does() {
        let report = Report::started(17, b"a program with a name that is far too long");
        let bytes = bytemuck::bytes_of(&report);
        let back = Report::of_bytes(bytes).expect("it is one");
        assert_eq!((back.pid, name_bytes(&back.command)), (17, &b"a program with a name that is fa"[..]));
        assert!(Report::of_bytes(&bytes[..100]).is_none(), "cut off");
        let mut other = Report::started(17, b"");
        other.magic += 1;
        assert!(Report::of_bytes(bytemuck::bytes_of(&other)).is_none(), "another version");
        other = Report::started(17, b"");
        other.nr_classes = u64::MAX;
        assert_eq!(
            Report::of_bytes(bytemuck::bytes_of(&other)).expect("it is one").classes().len(),
            super::MAX_CLASSES
        );
    }
}
