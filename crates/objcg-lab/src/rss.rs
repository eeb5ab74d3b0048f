//! The process's resident set.

use std::fs;
use std::io;

/// Where to look, best first. `smaps_rollup` counts page by page and is exact; not every kernel has it. The counter in
/// `status` lags by as much as 64 pages a CPU since Linux 6.2.
const SOURCES: [(&str, &str); 2] = [("/proc/self/smaps_rollup", "Rss:"), ("/proc/self/status", "VmRSS:")];

/// Resident bytes of this process. Dear: milliseconds.
pub(crate) fn resident_bytes() -> io::Result<u64> {
    SOURCES
        .into_iter()
        .find_map(|(file, key)| parse(&fs::read_to_string(file).ok()?, key))
        .ok_or_else(|| io::Error::other("neither /proc/self/smaps_rollup nor /proc/self/status shows it"))
}

fn parse(text: &str, key: &str) -> Option<u64> {
    let kib = text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.map(|kib: u64| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::{SOURCES, parse, resident_bytes};

    #[test]
    fn touched_memory_is_resident() {
        const BYTES: usize = 16 << 20;
        let before = resident_bytes().unwrap();
        let touched = std::hint::black_box(vec![1u8; BYTES]);
        let after = resident_bytes().unwrap();
        drop(touched);
        assert!(after >= before + BYTES as u64 / 2, "{before} -> {after}");
    }

    #[test]
    fn both_sources_are_understood() {
        assert_eq!(parse("00400000-7ffe [rollup]\nRss:      1234 kB\nPss: 7 kB\n", SOURCES[0].1), Some(1234 << 10));
        assert_eq!(parse("Name:\tx\nVmHWM:\t 99 kB\nVmRSS:\t  12 kB\n", SOURCES[1].1), Some(12 << 10));
        assert_eq!(parse("Name:\tx\n", SOURCES[1].1), None);
    }
}
