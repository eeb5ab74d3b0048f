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

/// Prints `objcg: …` as one line to standard error.
#[cfg(not(loom))]
macro_rules! complain {
    ($($arg:tt)*) => { $crate::report::print(core::format_args!($($arg)*)) };
}
#[cfg(not(loom))]
pub(crate) use complain;

/// See [`die!`].
#[cold]
#[inline(never)]
pub(crate) fn abort(what: fmt::Arguments<'_>) -> ! {
    let line = Line::of(what);
    #[cfg(not(loom))]
    os::abort_with(line.text());
    #[cfg(loom)]
    panic!("{}", String::from_utf8_lossy(line.text()))
}

/// See [`complain!`].
#[cfg(not(loom))]
#[cold]
#[inline(never)]
pub(crate) fn print(what: fmt::Arguments<'_>) {
    os::print(Line::of(what).text());
}

struct Line {
    bytes: [u8; Line::CAPACITY],
    len: usize,
}

impl Line {
    const CAPACITY: usize = 768;

    fn of(what: fmt::Arguments<'_>) -> Line {
        let mut line = Line { bytes: [0; Line::CAPACITY], len: 0 };
        // A line that does not fit is cut: the write itself never fails.
        let _ = line.write_str("objcg: ");
        let _ = line.write_fmt(what);
        line.bytes[line.len] = b'\n';
        line
    }

    /// With the newline.
    fn text(&self) -> &[u8] {
        &self.bytes[..=self.len]
    }
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
