//! What a chunk knows of its units: which granules are taken, where allocations start, and hints that keep searches short.
//!
//! All units of a chunk are alike, so one map serves them. It is cut into *blocks* of a page each. A block, and the chunk,
//! has a bound on its longest free run, the kernel's `contig_hint` of `pcpu_block_md`, but kept lazily: a bound is never
//! too small; it is lowered to what is free by every allocation, and to what is true by a search that it has misled; a free
//! raises it to the run that came about. So a block that is full is skipped by one compare, one that is too fragmented by a
//! second, and no allocation measures anything.
//!
//! A page of a unit is *populated* from the first allocation in it until it is given back; `used_to` says how much of a
//! block was ever handed out in that time. What lies above is still zero.

#![forbid(unsafe_code)]

use core::ops::Range;

use super::bits::Bits;
use super::{BLOCK_GRANULES, NR_BLOCKS, NR_GRANULES};

/// A chunk's metadata. All zero is a chunk that is not made.
#[repr(C)]
pub(super) struct Chunk {
    taken: Bits,
    /// The first granules of allocations.
    starts: Bits,
    blocks: [Block; NR_BLOCKS],
    nr_free: u32,
    /// No free run is longer.
    contig: u32,
    /// No granule below is free.
    first_free: u32,
    /// Blocks without an allocation whose pages are populated.
    nr_idle: u32,
    /// One more than the number of the next and the previous chunk in the slot; 0 for none.
    pub(super) next: u32,
    pub(super) prev: u32,
    /// The slot that the chunk is in.
    pub(super) slot: u32,
}

/// A page of each unit.
struct Block {
    nr_free: u16,
    /// No free run inside the block is longer.
    contig: u16,
    /// Granules from here on were not handed out since the pages were last zero.
    used_to: u16,
    /// Whether owner words of this block may be other than 0.
    has_owners: bool,
    /// Whether its pages are being given back: all is taken, nothing allocated.
    is_held: bool,
}

/// By how much an allocation or free has changed what is populated, idle, and has owners, in blocks.
#[derive(Default)]
pub(super) struct Change {
    pub(super) nr_populated: i32,
    pub(super) nr_idle: i32,
    pub(super) nr_with_owners: i32,
}

/// Neighbouring blocks that nobody can allocate from while their pages are given back.
pub(super) type IdleBlocks = Range<usize>;

impl Chunk {
    /// Makes the chunk: nothing is taken. The maps are zero already.
    pub(super) fn make(&mut self) {
        for block in &mut self.blocks {
            *block = Block {
                nr_free: BLOCK_GRANULES as u16,
                contig: BLOCK_GRANULES as u16,
                used_to: 0,
                has_owners: false,
                is_held: false,
            };
        }
        (self.nr_free, self.contig, self.first_free, self.nr_idle) = (NR_GRANULES as u32, NR_GRANULES as u32, 0, 0);
    }

    pub(super) fn contig(&self) -> usize {
        self.contig as usize
    }

    pub(super) fn is_idle(&self) -> bool {
        self.nr_idle > 0
    }

    /// Whether nothing is allocated and no page populated.
    pub(super) fn is_bare(&self) -> bool {
        self.nr_free as usize == NR_GRANULES && self.blocks.iter().all(|block| block.used_to == 0)
    }

    /// First fit: the lowest `nr` free granules that start at a multiple of `align`, both in granules.
    pub(super) fn find(&mut self, nr: usize, align: usize) -> Option<usize> {
        // A run as long as this has a fit wherever it starts.
        let sure = nr + align - 1;
        let mut at = self.first_free();
        while let Some(run) = self.next_candidate(at, nr, sure) {
            let start = run.next_multiple_of(align);
            let end = self.taken.next_set(run, (start + nr).min(NR_GRANULES));
            if end == start + nr {
                return Some(start);
            }
            let block = run / BLOCK_GRANULES;
            if end >= end_of(block) && usize::from(self.blocks[block].contig) >= sure {
                self.measure(block);
            }
            at = end;
        }
        self.contig = self.contig.min(sure as u32 - 1);
        None
    }

    fn first_free(&mut self) -> usize {
        let at = self.first_free as usize;
        let free = (at / BLOCK_GRANULES..NR_BLOCKS).filter(|block| self.blocks[*block].nr_free > 0).find_map(|block| {
            let free = self.taken.next_clear(at.max(block * BLOCK_GRANULES), end_of(block));
            (free < end_of(block)).then_some(free)
        });
        let free = free.unwrap_or(NR_GRANULES);
        self.first_free = free as u32;
        free
    }

    /// The next free granule from `at` on where a run of `nr` may begin.
    fn next_candidate(&mut self, at: usize, nr: usize, sure: usize) -> Option<usize> {
        let mut at = at;
        while at < NR_GRANULES {
            let block = at / BLOCK_GRANULES;
            let end = end_of(block);
            let Block { nr_free, contig, .. } = self.blocks[block];
            let free = if nr_free == 0 {
                end
            } else if usize::from(contig) < nr {
                // Only a run that goes on in the next block will do.
                self.taken.end_of_last_set(at, end)
            } else {
                self.taken.next_clear(at, end)
            };
            if free < end {
                return Some(free);
            }
            if usize::from(contig) >= sure {
                self.measure(block);
            }
            at = end;
        }
        None
    }

    /// Puts an end to a bound that has misled a search.
    #[cold]
    fn measure(&mut self, block: usize) {
        let (mut at, end) = (block * BLOCK_GRANULES, end_of(block));
        let mut longest = 0;
        while at < end {
            let start = self.taken.next_clear(at, end);
            at = self.taken.next_set(start, end);
            longest = longest.max(at - start);
        }
        self.blocks[block].contig = longest as u16;
    }

    /// Allocates granules that [`Chunk::find`] has found. Returns how many of them, from the first on, may hold old bytes.
    pub(super) fn alloc(&mut self, granules: Range<usize>, is_charged: bool, change: &mut Change) -> usize {
        self.starts.set(granules.start);
        if is_charged {
            let block = &mut self.blocks[granules.start / BLOCK_GRANULES];
            change.nr_with_owners += i32::from(!block.has_owners);
            block.has_owners = true;
        }
        let mut nr_dirty = 0;
        for (idx, part) in parts(granules.clone()) {
            let block = &mut self.blocks[idx];
            if block.used_to == 0 {
                change.nr_populated += 1;
            } else if usize::from(block.nr_free) == BLOCK_GRANULES {
                change.nr_idle -= 1;
                self.nr_idle -= 1;
            }
            let end = (part.end - idx * BLOCK_GRANULES) as u16;
            let used_end = idx * BLOCK_GRANULES + usize::from(block.used_to.min(end));
            if used_end > part.start {
                nr_dirty = used_end - granules.start;
            }
            block.used_to = block.used_to.max(end);
        }
        self.take(granules);
        nr_dirty
    }

    /// Ends the allocation that starts at a granule; returns its granules, or `None` if none starts there.
    pub(super) fn free(&mut self, start: usize, change: &mut Change) -> Option<Range<usize>> {
        if !self.starts.get(start) || self.blocks[start / BLOCK_GRANULES].is_held {
            return None;
        }
        let granules = self.allocation(start);
        self.starts.clear(start);
        self.give(granules.clone());
        for (idx, _) in parts(granules.clone()) {
            if usize::from(self.blocks[idx].nr_free) == BLOCK_GRANULES {
                change.nr_idle += 1;
                self.nr_idle += 1;
            }
        }
        Some(granules)
    }

    /// The granules of the allocation that starts there.
    fn allocation(&self, start: usize) -> Range<usize> {
        start..self.taken.next_clear_or_set_in(&self.starts, start + 1, NR_GRANULES)
    }

    /// Whether a granule belongs to an allocation.
    pub(super) fn is_allocated(&self, granule: usize) -> bool {
        self.taken.get(granule) && !self.blocks[granule / BLOCK_GRANULES].is_held
    }

    /// Whether the owner word of an allocation that starts at a granule may be other than 0.
    pub(super) fn has_owner(&self, start: usize) -> bool {
        self.blocks[start / BLOCK_GRANULES].has_owners
    }

    /// The allocations that may have owners.
    pub(super) fn allocations(&self) -> impl Iterator<Item = Range<usize>> {
        let with_owners = (0..NR_BLOCKS).filter(|block| self.blocks[*block].has_owners && !self.blocks[*block].is_held);
        with_owners.flat_map(move |block| {
            let next = move |at| Some(self.starts.next_set(at, end_of(block))).filter(|start| *start < end_of(block));
            core::iter::successors(next(block * BLOCK_GRANULES), move |start| next(start + 1))
                .map(|start| self.allocation(start))
        })
    }

    /// Takes neighbouring idle blocks, so that nobody allocates from them; `None` if there are none.
    pub(super) fn hold_idle(&mut self) -> Option<IdleBlocks> {
        let is_idle = |block: &Block| block.used_to > 0 && usize::from(block.nr_free) == BLOCK_GRANULES;
        let first = self.blocks.iter().position(is_idle)?;
        let nr_idle = self.blocks[first..].iter().take_while(|block| is_idle(block)).count();
        let blocks = first..first + nr_idle;
        self.nr_idle -= nr_idle as u32;
        self.take(granules_of(&blocks));
        // Here ends what is allocated before.
        self.starts.set(first * BLOCK_GRANULES);
        self.blocks[blocks.clone()].iter_mut().for_each(|block| block.is_held = true);
        Some(blocks)
    }

    /// Gives blocks back that [`Chunk::hold_idle`] took. `are_zero`: their pages hold no memory any more.
    pub(super) fn put_idle(&mut self, blocks: IdleBlocks, are_zero: bool, change: &mut Change) {
        self.starts.clear(blocks.start * BLOCK_GRANULES);
        self.give(granules_of(&blocks));
        for block in &mut self.blocks[blocks] {
            block.is_held = false;
            if are_zero {
                change.nr_populated -= 1;
                change.nr_with_owners -= i32::from(block.has_owners);
                (block.used_to, block.has_owners) = (0, false);
            } else {
                change.nr_idle += 1;
                self.nr_idle += 1;
            }
        }
    }

    fn take(&mut self, granules: Range<usize>) {
        self.taken.set_range(granules.clone());
        for (idx, part) in parts(granules.clone()) {
            let block = &mut self.blocks[idx];
            block.nr_free -= part.len() as u16;
            block.contig = block.contig.min(block.nr_free);
        }
        self.nr_free -= granules.len() as u32;
        self.contig = self.contig.min(self.nr_free);
        if self.first_free as usize == granules.start {
            self.first_free = granules.end as u32;
        }
    }

    fn give(&mut self, granules: Range<usize>) {
        self.taken.clear_range(granules.clone());
        for (idx, part) in parts(granules.clone()) {
            self.blocks[idx].nr_free += part.len() as u16;
        }
        self.nr_free += granules.len() as u32;
        self.first_free = self.first_free.min(granules.start as u32);
        let run = self.start_of_run(granules.start)..self.end_of_run(granules.end);
        self.contig = self.contig.max(run.len() as u32);
        for (idx, part) in parts(run) {
            let block = &mut self.blocks[idx];
            block.contig = block.contig.max(part.len() as u16);
        }
    }

    /// Holds every figure against the maps; returns the granules that are allocated, and the blocks that are populated, idle
    /// and with owners.
    #[cfg(test)]
    pub(super) fn check(&self) -> [usize; 4] {
        let mut sums = [0; 4];
        let nr_free = |range: Range<usize>| range.filter(|granule| !self.taken.get(*granule)).count();
        let longest = |range: Range<usize>| {
            let (mut longest, mut run) = (0, 0);
            for granule in range {
                run = if self.taken.get(granule) { 0 } else { run + 1 };
                longest = longest.max(run);
            }
            longest
        };
        for (idx, block) in self.blocks.iter().enumerate() {
            let granules = granules_of(&(idx..idx + 1));
            assert_eq!(nr_free(granules.clone()), usize::from(block.nr_free));
            assert!(longest(granules.clone()) <= usize::from(block.contig));
            let is_populated = block.used_to > 0;
            let above = granules.start + usize::from(block.used_to)..granules.end;
            assert_eq!(nr_free(above.clone()), above.len(), "what was never handed out is not taken");
            sums[0] += granules.len() - usize::from(block.nr_free);
            sums[1] += usize::from(is_populated);
            sums[2] += usize::from(is_populated && usize::from(block.nr_free) == BLOCK_GRANULES);
            sums[3] += usize::from(block.has_owners);
        }
        assert_eq!(nr_free(0..NR_GRANULES), self.nr_free as usize);
        assert!(longest(0..NR_GRANULES) <= self.contig());
        assert!(self.contig() <= self.nr_free as usize);
        assert_eq!(nr_free(0..self.first_free as usize), 0);
        assert_eq!(self.nr_idle as usize, sums[2]);
        assert!((0..NR_GRANULES).all(|granule| !self.starts.get(granule) || self.taken.get(granule)));
        sums
    }

    /// Where the free run starts that ends at a granule, or goes on there.
    fn start_of_run(&self, granule: usize) -> usize {
        let mut at = granule;
        while at > 0 {
            let block = (at - 1) / BLOCK_GRANULES;
            let first = block * BLOCK_GRANULES;
            let is_free = usize::from(self.blocks[block].nr_free) == BLOCK_GRANULES;
            let start = if is_free { first } else { self.taken.end_of_last_set(first, at) };
            if start > first {
                return start;
            }
            at = first;
            if at > 0 && self.taken.get(at - 1) {
                return at;
            }
        }
        0
    }

    /// The same in the other direction: the first taken granule from there on.
    fn end_of_run(&self, granule: usize) -> usize {
        let mut at = granule;
        while at < NR_GRANULES {
            let block = at / BLOCK_GRANULES;
            let is_free = usize::from(self.blocks[block].nr_free) == BLOCK_GRANULES;
            let end = if is_free { end_of(block) } else { self.taken.next_set(at, end_of(block)) };
            if end < end_of(block) {
                return end;
            }
            at = end;
        }
        NR_GRANULES
    }
}

fn end_of(block: usize) -> usize {
    (block + 1) * BLOCK_GRANULES
}

fn granules_of(blocks: &IdleBlocks) -> Range<usize> {
    blocks.start * BLOCK_GRANULES..blocks.end * BLOCK_GRANULES
}

/// A range of granules cut at the ends of blocks: each block's number, and what of it is in the range.
fn parts(granules: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let blocks = granules.start / BLOCK_GRANULES..granules.end.div_ceil(BLOCK_GRANULES);
    blocks.map(move |idx| (idx, granules.start.max(idx * BLOCK_GRANULES)..granules.end.min(end_of(idx))))
}
