//! Chunks sorted by their longest free run: slot n has those with runs of 2^(n-1) granules and more, slot 0 those without.
//!
//! An allocation looks at the lowest slot whose chunks can have room, so full chunks are never seen, and the fullest that will
//! do are filled first: the others empty and go back. A chunk's bound may be too large, never too small (`chunk`); a search
//! that it has misled lowers it, and the chunk goes to the slot where it belongs.

#![forbid(unsafe_code)]

use super::NR_GRANULES;
use super::region::Region;

const NR_SLOTS: usize = slot_of(NR_GRANULES) as usize + 1;

/// One more than the number of the first chunk of each slot; 0 for none.
pub(super) struct Slots([u32; NR_SLOTS]);

const fn slot_of(contig: usize) -> u32 {
    usize::BITS - contig.leading_zeros()
}

impl Slots {
    pub(super) const EMPTY: Slots = Slots([0; NR_SLOTS]);

    /// Chunks that may have a run of `nr` granules, the fullest slot first. `test` finds one that does, or says no, upon
    /// which the chunk is put where it belongs.
    pub(super) fn find<T>(
        &mut self,
        region: &mut Region,
        nr: usize,
        mut test: impl FnMut(&mut Region, u32) -> Option<T>,
    ) -> Option<T> {
        for slot in slot_of(nr) as usize..NR_SLOTS {
            let mut next = self.0[slot].checked_sub(1);
            while let Some(chunk) = next {
                next = region.chunk(chunk).next.checked_sub(1);
                if region.chunk(chunk).contig() < nr {
                    continue;
                }
                let found = test(region, chunk);
                self.sort(region, chunk);
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    /// Puts a chunk that is in no slot into its own.
    pub(super) fn insert(&mut self, region: &mut Region, chunk: u32) {
        let slot = slot_of(region.chunk(chunk).contig());
        let first = core::mem::replace(&mut self.0[slot as usize], chunk + 1);
        if let Some(first) = first.checked_sub(1) {
            region.chunk(first).prev = chunk + 1;
        }
        let this = region.chunk(chunk);
        (this.next, this.prev, this.slot) = (first, 0, slot);
    }

    /// Takes a chunk out of its slot.
    pub(super) fn remove(&mut self, region: &mut Region, chunk: u32) {
        let this = region.chunk(chunk);
        let (next, prev, slot) = (this.next, this.prev, this.slot);
        match prev.checked_sub(1) {
            Some(prev) => region.chunk(prev).next = next,
            None => self.0[slot as usize] = next,
        }
        if let Some(next) = next.checked_sub(1) {
            region.chunk(next).prev = prev;
        }
    }

    /// Moves a chunk whose bound has changed.
    pub(super) fn sort(&mut self, region: &mut Region, chunk: u32) {
        let this = region.chunk(chunk);
        if this.slot != slot_of(this.contig()) {
            self.remove(region, chunk);
            self.insert(region, chunk);
        }
    }

    /// Every chunk is in the slot of its bound, and nothing else is in any.
    #[cfg(test)]
    pub(super) fn check(&self, region: &mut Region, chunks: impl Iterator<Item = u32>) {
        let mut nr_found = 0;
        for (slot, first) in self.0.iter().enumerate() {
            let (mut next, mut prev) = (*first, 0);
            while let Some(chunk) = next.checked_sub(1) {
                let this = region.chunk(chunk);
                assert_eq!((this.slot, this.prev), (slot as u32, prev));
                assert_eq!(slot_of(this.contig()), slot as u32);
                (prev, next) = (next, this.next);
                nr_found += 1;
            }
        }
        assert_eq!(chunks.count(), nr_found);
    }
}
