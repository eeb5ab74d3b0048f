//! The last line before an abort: corruption is reported without allocating, then the process ends.
//!
//! Nothing unwinds out of an allocator entry, and nothing continues on metadata that is known to be wrong.

use core::fmt::{self, Write};

#[cfg(not(loom))]
use crate::os;

/// Prints `objcg: …` as one line to standard error and aborts.
macro_rules! die {
    ($($arg:tt)*) => { $crate::report::abort(core::format_args!($($arg)*)) };
}
pub(crate) use die;

/// See [`die!`].
#[cold]
#[inline(never)]
pub(crate) fn abort(what: fmt::Arguments<'_>) -> ! {
    let mut line = Line { bytes: [0; Line::CAPACITY], len: 0 };
    // A line that does not fit is cut: the write itself never fails.
    let _ = line.write_str("objcg: ");
    let _ = line.write_fmt(what);
    let end = line.len;
    line.bytes[end] = b'\n';
    #[cfg(not(loom))]
    os::abort_with(&line.bytes[..=end]);
    #[cfg(loom)]
    panic!("{}", String::from_utf8_lossy(&line.bytes[..=end]))
}

struct Line {
    bytes: [u8; Line::CAPACITY],
    len: usize,
}

impl Line {
    const CAPACITY: usize = 256;
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // One byte stays free for the newline.
        let room = Self::CAPACITY - 1 - self.len;
        let taken = text.len().min(room);
        self.bytes[self.len..self.len + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.len += taken;
        Ok(())
    }
}
