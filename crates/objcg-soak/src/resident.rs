//! Resident memory as the kernel counts it, read without an allocation.

use std::fs::File;
use std::io::Read;

/// Bytes resident now. Walks the page tables, so that the figure is exact.
pub(crate) fn now_bytes() -> u64 {
    let mut buffer = [0u8; 4096];
    let mut len = 0;
    let mut file = File::open("/proc/self/smaps_rollup").expect("/proc is mounted");
    loop {
        match file.read(&mut buffer[len..]).expect("a file of /proc can be read") {
            0 => break,
            more => len += more,
        }
    }
    let text = std::str::from_utf8(&buffer[..len]).expect("a file of /proc is text");
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).expect("the kernel has the field");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("the kernel writes a number");
    kib * 1024
}
