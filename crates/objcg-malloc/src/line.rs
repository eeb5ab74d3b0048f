//! Text without an allocation: what an allocator prints about itself.

use core::fmt::{self, Write};

/// A piece of text in a buffer of its own; what does not fit is cut off.
#[derive(Clone, Copy)]
pub struct Line<const CAPACITY: usize> {
    bytes: [u8; CAPACITY],
    len: usize,
}

impl<const CAPACITY: usize> Line<CAPACITY> {
    /// The text of `args`.
    #[must_use]
    pub fn of(args: fmt::Arguments<'_>) -> Self {
        let mut line = Line { bytes: [0; CAPACITY], len: 0 };
        // A line that does not fit is cut: the write itself never fails.
        let _ = line.write_fmt(args);
        line
    }

    /// Its bytes, without an end mark.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<const CAPACITY: usize> Write for Line<CAPACITY> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let nr_taken = text.len().min(CAPACITY - self.len);
        self.bytes[self.len..self.len + nr_taken].copy_from_slice(&text.as_bytes()[..nr_taken]);
        self.len += nr_taken;
        Ok(())
    }
}
