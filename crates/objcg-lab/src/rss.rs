//! The process's resident set.

use std::fs;
use std::io;

/// Resident bytes of this process, counted page by page (`/proc/self/smaps_rollup`). Dear: milliseconds.
///
/// `statm` is cheaper, but since Linux 6.2 its counters lag by as much as 64 pages a CPU.
pub(crate) fn resident_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup")?;
    text.lines()
        .find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other("no Rss in /proc/self/smaps_rollup"))
}

#[cfg(test)]
mod tests {
    use super::resident_bytes;

    #[test]
    fn touched_memory_is_resident() {
        const BYTES: usize = 16 << 20;
        let before = resident_bytes().unwrap();
        let touched = std::hint::black_box(vec![1u8; BYTES]);
        let after = resident_bytes().unwrap();
        drop(touched);
        assert!(after >= before + BYTES as u64 / 2, "{before} -> {after}");
    }
}
