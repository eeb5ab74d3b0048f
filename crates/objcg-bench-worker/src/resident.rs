//! Resident memory, as the kernel counts it, read without an allocation.

use std::fs::File;
use std::io::Read;

use crate::pages;

/// Bytes resident now, without the worker's own arrays. Walks the page tables, so that the figure is exact.
pub(crate) fn now_bytes() -> u64 {
    without_arrays(field("/proc/self/smaps_rollup", "Rss:"))
}

/// The most bytes that were resident, without the worker's own arrays.
pub(crate) fn peak_bytes() -> u64 {
    without_arrays(field("/proc/self/status", "VmHWM:"))
}

fn without_arrays(bytes: u64) -> u64 {
    bytes.saturating_sub(pages::held_bytes())
}

/// A field of a file of /proc, in bytes.
fn field(path: &str, name: &str) -> u64 {
    let mut buffer = [0u8; 4096];
    let mut len = 0;
    let mut file = File::open(path).expect("/proc is mounted");
    loop {
        match file.read(&mut buffer[len..]).expect("a file of /proc can be read") {
            0 => break,
            more => len += more,
        }
    }
    let text = std::str::from_utf8(&buffer[..len]).expect("a file of /proc is text");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel has the field");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("the kernel writes a number");
    kib * 1024
}
