//! The address space of per-CPU memory: one reservation, in which every chunk has the same shape.
//!
//! ```text
//! chunk:  | CPU 0's unit | CPU 1's unit | … | owner words | metadata |
//!           64 KiB each                       64 KiB        8 KiB
//! ```
//!
//! A granule's owner word lies as far into the owner words as the granule into its unit: both have 4 bytes. Address to
//! chunk and granule is arithmetic, and so is the way from one CPU's unit to another's. A chunk is committed at once, in one
//! piece, so that chunks cost no mappings of their own; its pages take memory when they are first written to, and lose it by
//! [`Pages::release`]. The unit of a CPU that never comes up takes none at all.

#![expect(unsafe_code, reason = "address arithmetic within one reservation")]

use core::ops::Range;
use core::ptr::NonNull;

use super::chunk::Chunk;
use super::{BLOCK_GRANULES, GRANULE_BYTES, NR_BLOCKS, NR_GRANULES, UNIT_BYTES, UNIT_SHIFT};
use crate::os::{self, PAGE_SIZE};

#[cfg(loom)]
pub(super) use crate::os::Word as OwnerWord;
/// The word that names a granule's owner. Used under the lock of per-CPU memory only.
#[cfg(not(loom))]
pub(super) use crate::sync::AtomicU32 as OwnerWord;

/// Chunks of a region at most: 256 MiB for each CPU.
pub(super) const MAX_CHUNKS: usize = 4096;
/// Of a limited address space at most this share is reserved.
const LIMIT_SHARE: usize = 16;

const _: () = assert!(GRANULE_BYTES == size_of::<OwnerWord>());
const _: () = assert!(BLOCK_GRANULES * GRANULE_BYTES == PAGE_SIZE && NR_BLOCKS * PAGE_SIZE == UNIT_BYTES);

pub(super) const METADATA_BYTES: usize = size_of::<Chunk>().next_multiple_of(PAGE_SIZE);

/// The reservation. Whoever has it alone has the metadata of its chunks alone.
pub(super) struct Region {
    base: NonNull<u8>,
    nr_units: usize,
    nr_chunks: u32,
    /// Chunks below are committed, for ever.
    nr_committed: u32,
}

// SAFETY: the address is that of a reservation that no thread has more right to than another, and is never given back.
unsafe impl Send for Region {}

/// Where an address lies.
pub(super) struct Place {
    pub(super) chunk: u32,
    /// Past the units: owner words or metadata.
    pub(super) unit: usize,
    pub(super) offset: usize,
}

impl Region {
    /// Reserves room for chunks of that many units: fewer chunks where there is little address space.
    pub(super) fn reserve(nr_units: usize) -> Option<Region> {
        let mut region = Region { base: NonNull::dangling(), nr_units, nr_chunks: 0, nr_committed: 0 };
        let affordable =
            os::address_space_limit().map_or(MAX_CHUNKS, |limit| limit / LIMIT_SHARE / region.chunk_bytes());
        let mut nr_chunks = affordable.clamp(1, MAX_CHUNKS);
        while nr_chunks > 0 {
            if let Some(base) = os::reserve(nr_chunks * region.chunk_bytes()) {
                // SAFETY: the whole reservation, which is ours.
                unsafe { os::keep_pages_small(base, nr_chunks * region.chunk_bytes()) };
                (region.base, region.nr_chunks) = (base, nr_chunks as u32);
                return Some(region);
            }
            nr_chunks /= 2;
        }
        None
    }

    pub(super) fn nr_units(&self) -> usize {
        self.nr_units
    }

    fn chunk_bytes(&self) -> usize {
        (self.nr_units + 1) * UNIT_BYTES + METADATA_BYTES
    }

    /// Makes a chunk's memory usable, if it is not: all zero then, or as it was left. False if the region ends before it, or
    /// the system refuses. Chunks are committed in order.
    pub(super) fn commit(&mut self, chunk: u32) -> bool {
        if chunk < self.nr_committed {
            return true;
        }
        debug_assert_eq!(chunk, self.nr_committed);
        // SAFETY: chunks below the region's number lie in the reservation; nobody uses one that is not committed.
        let is_committed = chunk < self.nr_chunks && unsafe { os::commit(self.at(chunk, 0), self.chunk_bytes()) };
        self.nr_committed += u32::from(is_committed);
        is_committed
    }

    /// The metadata of a committed chunk.
    pub(super) fn chunk(&mut self, chunk: u32) -> &mut Chunk {
        debug_assert!(chunk < self.nr_committed);
        let metadata = self.at(chunk, (self.nr_units + 1) * UNIT_BYTES).cast::<Chunk>();
        // SAFETY: it lies in the committed part at a multiple of the page, zero (a valid `Chunk`) or as it was left; the
        // region is borrowed for as long, and has no other way to it.
        unsafe { &mut *metadata.as_ptr() }
    }

    /// The address of a granule in CPU 0's unit.
    pub(super) fn address(&self, chunk: u32, granule: usize) -> NonNull<u8> {
        self.at(chunk, granule * GRANULE_BYTES)
    }

    /// The owner words of a committed chunk, one a granule.
    pub(super) fn owners(&self, chunk: u32) -> &'static [OwnerWord; NR_GRANULES] {
        let words = self.at(chunk, self.nr_units * UNIT_BYTES).cast::<[OwnerWord; NR_GRANULES]>();
        // SAFETY: aligned, and inside a committed chunk, which stays committed; only used as atomics, and given back only
        // while nothing has an owner there.
        unsafe { words.as_ref() }
    }

    /// Where an address of a committed chunk lies; `None` for all others.
    pub(super) fn find(&self, addr: usize) -> Option<Place> {
        let offset = addr.checked_sub(self.base.as_ptr() as usize)?;
        let chunk = u32::try_from(offset / self.chunk_bytes()).ok().filter(|chunk| *chunk < self.nr_committed)?;
        let offset = offset % self.chunk_bytes();
        Some(Place { chunk, unit: offset / UNIT_BYTES, offset: offset % UNIT_BYTES })
    }

    /// The pages of neighbouring blocks, of which the caller has seen to it that nobody is in them or can get in.
    pub(super) fn pages(&self, chunk: u32, blocks: &Range<usize>) -> Pages {
        Pages { first: self.at(chunk, blocks.start * PAGE_SIZE), nr_pages: blocks.len(), nr_units: self.nr_units }
    }

    /// Gives the memory of a chunk's metadata back.
    pub(super) fn release_metadata(&mut self, chunk: u32) -> bool {
        // SAFETY: metadata that reads as zero is that of a chunk that is not made, and the caller unmakes this one.
        unsafe { os::release(self.at(chunk, (self.nr_units + 1) * UNIT_BYTES), METADATA_BYTES) }
    }

    fn at(&self, chunk: u32, offset: usize) -> NonNull<u8> {
        debug_assert!(chunk < self.nr_chunks && offset < self.chunk_bytes());
        // SAFETY: within the chunk, which is within the reservation.
        unsafe { self.base.add(chunk as usize * self.chunk_bytes() + offset) }
    }
}

/// Pages of neighbouring blocks in all units of a chunk, and of their owner words: nobody uses them.
pub(super) struct Pages {
    /// In CPU 0's unit.
    first: NonNull<u8>,
    nr_pages: usize,
    nr_units: usize,
}

impl Pages {
    /// Gives their memory back. False if the system refuses: some of it may have gone even so.
    pub(super) fn release(&self) -> bool {
        if self.nr_pages == NR_BLOCKS {
            // All units, and the owner words behind them, in one piece.
            // SAFETY: nobody uses these pages, by the rule of their making.
            return unsafe { os::release(self.first, (self.nr_units + 1) * UNIT_BYTES) };
        }
        (0..=self.nr_units).all(|unit| {
            // SAFETY: the same pages in another unit, or in the owner words.
            let pages = unsafe { self.first.byte_add(unit << UNIT_SHIFT) };
            // SAFETY: nobody uses these pages, by the rule of their making.
            unsafe { os::release(pages, self.nr_pages * PAGE_SIZE) }
        })
    }
}

/// Zeroes the first `nr_bytes` of an allocation in all units, but writes only where there is something: a page that its CPU
/// never wrote to has no memory, and gets none.
///
/// # Safety
/// `first` is the address of an allocation that long in CPU 0's unit of a chunk of `nr_units`, and is the caller's alone.
pub(super) unsafe fn zero(first: NonNull<u8>, nr_bytes: usize, nr_units: usize) {
    const PIECE_WORDS: usize = 16;
    for unit in 0..nr_units {
        // SAFETY: the allocation has the same place in every unit.
        let words = unsafe { first.byte_add(unit << UNIT_SHIFT) }.cast::<u32>();
        #[cfg(loom)]
        os::note_write(words.cast(), nr_bytes);
        // SAFETY: the caller's alone, aligned to the granule, and made of whole granules.
        let words = unsafe { core::slice::from_raw_parts_mut(words.as_ptr(), nr_bytes / GRANULE_BYTES) };
        for piece in words.chunks_mut(PIECE_WORDS) {
            if piece.iter().fold(0, |bits, word| bits | *word) != 0 {
                piece.fill(0);
            }
        }
    }
}
