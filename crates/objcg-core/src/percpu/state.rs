//! What the lock guards: the region, which of its chunks are made, and the sums over them.

#![expect(unsafe_code, reason = "zeroes allocations before anybody else knows of them")]

use core::ptr::NonNull;

use super::chunk::{Change, IdleBlocks};
use super::region::{self, MAX_CHUNKS, METADATA_BYTES, OwnerWord, Place, Region};
use super::slots::Slots;
use super::{GRANULE_BYTES, PercpuStat, Stranger};
use crate::os::PAGE_SIZE;
use crate::sync::Ordering;

/// Idle blocks that are kept at least, and beyond that a share of those in use.
const IDLE_BASE: usize = if cfg!(loom) { 3 } else { 4 };
const IDLE_SHARE: usize = 16;

pub(super) struct State {
    region: Option<Region>,
    slots: Slots,
    /// A bit for each chunk that is made.
    made: [u64; MAX_CHUNKS / 64],
    nr_chunks: usize,
    nr_allocations: usize,
    nr_granules: usize,
    nr_populated: usize,
    nr_idle: usize,
    nr_with_owners: usize,
}

/// Granules that were allocated. Nobody else knows of them yet.
#[must_use = "an allocation that is dropped is leaked"]
pub(super) struct Taken {
    pub(super) address: NonNull<u8>,
    nr_dirty_bytes: usize,
}

impl Taken {
    /// Zeroes what may hold old bytes.
    pub(super) fn zero(&self, nr_units: usize) {
        // SAFETY: the allocation has these bytes in each unit, and is the caller's alone.
        unsafe { region::zero(self.address, self.nr_dirty_bytes, nr_units) };
    }
}

/// What was freed.
pub(super) struct Freed {
    pub(super) nr_granules: usize,
    pub(super) owner: u32,
}

/// Blocks without an allocation that were taken, so that their pages can be given back.
#[must_use = "blocks that are not put back stay taken"]
pub(super) struct Idle {
    chunk: u32,
    blocks: IdleBlocks,
    pages: region::Pages,
}

impl Idle {
    pub(super) fn nr_pages(&self) -> usize {
        self.blocks.len()
    }

    /// Gives the memory back, under no lock.
    pub(super) fn release(&self) -> bool {
        self.pages.release()
    }
}

impl State {
    pub(super) const EMPTY: State = State {
        region: None,
        slots: Slots::EMPTY,
        made: [0; MAX_CHUNKS / 64],
        nr_chunks: 0,
        nr_allocations: 0,
        nr_granules: 0,
        nr_populated: 0,
        nr_idle: 0,
        nr_with_owners: 0,
    };

    pub(super) fn nr_idle(&self) -> usize {
        self.nr_idle
    }

    /// Idle blocks past this many go back.
    pub(super) fn idle_bound(&self) -> usize {
        IDLE_BASE + self.nr_populated / IDLE_SHARE
    }

    /// Takes `nr` granules at a multiple of `align` granules, in chunks of `nr_units`; `None` without memory.
    pub(super) fn alloc(&mut self, nr_units: usize, nr: usize, align: usize, owner: u32) -> Option<Taken> {
        if self.region.is_none() {
            self.region = Region::reserve(nr_units);
        }
        let region = self.region.as_mut()?;
        let mut change = Change::default();
        let mut take = |region: &mut Region, idx| {
            let chunk = region.chunk(idx);
            let start = chunk.find(nr, align)?;
            let nr_dirty = chunk.alloc(start..start + nr, owner != 0, &mut change);
            if owner != 0 {
                // Relaxed: the lock orders it before any look at the allocation.
                region.owners(idx)[start].store(owner, Ordering::Relaxed);
            }
            Some(Taken { address: region.address(idx, start), nr_dirty_bytes: nr_dirty * GRANULE_BYTES })
        };
        let found = self.slots.find(region, nr, &mut take);
        let taken = match found {
            Some(taken) => taken,
            None => {
                let idx = make_chunk(region, &mut self.made)?;
                self.nr_chunks += 1;
                // An empty chunk has room for whatever fits a unit.
                let taken = take(region, idx);
                self.slots.insert(region, idx);
                taken?
            }
        };
        self.nr_allocations += 1;
        self.nr_granules += nr;
        self.count(&change);
        Some(taken)
    }

    /// Ends the allocation at an address.
    pub(super) fn free(&mut self, addr: usize) -> Result<Freed, Stranger> {
        let region = self.region.as_mut().ok_or(Stranger::Foreign)?;
        let Place { chunk: idx, unit, offset } = region.find(addr).ok_or(Stranger::Foreign)?;
        if unit >= region.nr_units() || self.made[idx as usize / 64] >> (idx % 64) & 1 == 0 {
            return Err(Stranger::Foreign);
        }
        if unit > 0 {
            return Err(Stranger::OtherUnit(unit));
        }
        if !offset.is_multiple_of(GRANULE_BYTES) {
            return Err(Stranger::Inside);
        }
        let start = offset / GRANULE_BYTES;
        let mut change = Change::default();
        let chunk = region.chunk(idx);
        let has_owner = chunk.has_owner(start);
        let Some(granules) = chunk.free(start, &mut change) else {
            return Err(if chunk.is_allocated(start) { Stranger::Inside } else { Stranger::Free });
        };
        // Owner words of free granules are 0: a later allocation may have no owner.
        let owner = if has_owner { region.owners(idx)[start].swap(0, Ordering::Relaxed) } else { 0 };
        self.slots.sort(region, idx);
        self.nr_allocations -= 1;
        self.nr_granules -= granules.len();
        self.count(&change);
        Ok(Freed { nr_granules: granules.len(), owner })
    }

    fn count(&mut self, change: &Change) {
        let add = |sum: &mut usize, delta: i32| *sum = sum.wrapping_add_signed(delta as isize);
        add(&mut self.nr_populated, change.nr_populated);
        add(&mut self.nr_idle, change.nr_idle);
        add(&mut self.nr_with_owners, change.nr_with_owners);
    }

    /// Takes idle blocks of the highest chunk that has some.
    pub(super) fn hold_idle(&mut self) -> Option<Idle> {
        let region = self.region.as_mut()?;
        let chunk = made_chunks(&self.made).rev().find(|idx| region.chunk(*idx).is_idle())?;
        let blocks = region.chunk(chunk).hold_idle()?;
        self.nr_idle -= blocks.len();
        self.slots.sort(region, chunk);
        Some(Idle { chunk, pages: region.pages(chunk, &blocks), blocks })
    }

    /// Puts back what [`State::hold_idle`] took. A chunk that has nothing left is unmade.
    pub(super) fn put_idle(&mut self, idle: Idle, are_zero: bool) {
        let Some(region) = self.region.as_mut() else { return };
        let mut change = Change::default();
        let chunk = region.chunk(idle.chunk);
        chunk.put_idle(idle.blocks, are_zero, &mut change);
        let is_bare = chunk.is_bare();
        self.slots.sort(region, idle.chunk);
        if is_bare {
            self.slots.remove(region, idle.chunk);
            self.made[idle.chunk as usize / 64] &= !(1 << (idle.chunk % 64));
            self.nr_chunks -= 1;
            // If the system refuses, 8 KiB stay: the maps are empty and will do for the chunk's next life.
            let _is_released = region.release_metadata(idle.chunk);
        }
        self.count(&change);
    }

    /// Visits what has an owner in the chunk `at`, or the next one that is made; returns where to go on.
    pub(super) fn for_each_owned(&mut self, at: u32, mut visit: impl FnMut(&OwnerWord, usize)) -> Option<u32> {
        let region = self.region.as_mut()?;
        let idx = made_chunks(&self.made).find(|idx| *idx >= at)?;
        let owners = region.owners(idx);
        for granules in region.chunk(idx).allocations() {
            visit(&owners[granules.start], granules.len());
        }
        Some(idx + 1)
    }

    pub(super) fn stat(&self) -> PercpuStat {
        let nr_units = self.region.as_ref().map_or(0, Region::nr_units);
        PercpuStat {
            nr_allocations: self.nr_allocations,
            used_bytes: self.nr_granules * GRANULE_BYTES * nr_units,
            populated_bytes: self.nr_populated * PAGE_SIZE * nr_units,
            owner_bytes: self.nr_with_owners * PAGE_SIZE,
            metadata_bytes: self.nr_chunks * METADATA_BYTES,
        }
    }

    /// Where an address lies.
    #[cfg(test)]
    pub(super) fn find(&self, address: NonNull<u8>) -> Option<Place> {
        self.region.as_ref()?.find(address.as_ptr() as usize)
    }

    /// Holds the sums of this state against its chunks, and each chunk against itself.
    #[cfg(test)]
    pub(super) fn check(&mut self) {
        let Some(region) = self.region.as_mut() else { return };
        let mut sums = [0; 4];
        for idx in made_chunks(&self.made) {
            let of_chunk = region.chunk(idx).check();
            sums.iter_mut().zip(of_chunk).for_each(|(sum, part)| *sum += part);
        }
        let kept = [self.nr_granules, self.nr_populated, self.nr_idle, self.nr_with_owners];
        assert_eq!(sums, kept, "granules, populated, idle, with owners");
        assert_eq!(made_chunks(&self.made).count(), self.nr_chunks);
        self.slots.check(region, made_chunks(&self.made));
    }
}

/// Makes the lowest chunk that is not.
fn make_chunk(region: &mut Region, made: &mut [u64; MAX_CHUNKS / 64]) -> Option<u32> {
    let word = made.iter().position(|bits| *bits != u64::MAX)?;
    let bit = made[word].trailing_ones();
    let idx = (word * 64) as u32 + bit;
    if !region.commit(idx) {
        return None;
    }
    made[word] |= 1 << bit;
    region.chunk(idx).make();
    Some(idx)
}

/// The numbers of chunks that are made, ascending.
fn made_chunks(made: &[u64; MAX_CHUNKS / 64]) -> impl DoubleEndedIterator<Item = u32> {
    let bits_of = move |word: usize| (0..64).filter(move |bit| made[word] >> bit & 1 != 0);
    let words = (0..made.len()).filter(|word| made[*word] != 0);
    words.flat_map(move |word| bits_of(word).map(move |bit| (word * 64) as u32 + bit))
}
