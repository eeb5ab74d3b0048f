//! Names of groups: not empty, no `/`, at most 255 bytes, unique among siblings; and the index that finds them.
//!
//! A short name sits in its group's slot, a longer one in a table of its own. The index is one hash table over
//! (parent, name) for the whole tree, chained through the slots, guarded by the tree lock.

use core::fmt;

use crate::sync::{AtomicU64, Ordering};

/// Longest name in bytes, as of a file.
pub(crate) const MAX_LEN: usize = 255;

/// A name by value: the engine hands names out without allocating.
#[derive(Clone, Copy)]
pub struct Name {
    len: u8,
    bytes: [u8; MAX_LEN],
}

/// Why a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// It is empty.
    Empty,
    /// It contains `/`, which separates the names of a path.
    Slash,
    /// It is longer than 255 bytes.
    TooLong,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameError::Empty => "the name of a group cannot be empty",
            NameError::Slash => "the name of a group cannot contain '/'",
            NameError::TooLong => "the name of a group cannot be longer than 255 bytes",
        })
    }
}

impl core::error::Error for NameError {}

impl Name {
    /// The root's name.
    pub(super) const ROOT: Name = Name { len: 0, bytes: [0; MAX_LEN] };

    pub(super) fn new(text: &str) -> Result<Name, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.contains('/') {
            return Err(NameError::Slash);
        }
        let mut name = Name::ROOT;
        let Some(room) = name.bytes.get_mut(..text.len()) else { return Err(NameError::TooLong) };
        room.copy_from_slice(text.as_bytes());
        // MAX_LEN fits a byte.
        name.len = text.len() as u8;
        Ok(name)
    }

    /// The text; empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// FNV-1a over the parent's number and the bytes, folded by a multiplication.
    pub(super) fn hash(&self, parent: u32) -> u32 {
        let seed = 0xcbf2_9ce4_8422_2325 ^ u64::from(parent).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = self
            .as_bytes()
            .iter()
            .fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
        (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
    }

    /// Stores the bytes into words that the caller owns and that are enough.
    pub(super) fn store(&self, words: &[AtomicU64]) {
        for (word, chunk) in words.iter().zip(self.as_bytes().chunks(size_of::<u64>())) {
            let mut bytes = [0; size_of::<u64>()];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
    }

    /// Loads `len` bytes that [`Name::store`] left.
    pub(super) fn load(words: &[AtomicU64], len: u8) -> Name {
        let mut name = Name { len, ..Name::ROOT };
        let chunks = name.bytes[..usize::from(len)].chunks_mut(size_of::<u64>());
        for (chunk, word) in chunks.zip(words) {
            let bytes = word.load(Ordering::Relaxed).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        name
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
