//! Free runs of pages: by length in bins, the lowest address of a bin first, clean and dirty apart.
//!
//! A *clean* run reads as zero and occupies no memory; a *dirty* one was used. Neighbours of the same state are one run
//! (the first and the last descriptor of a free run say so). Dirty runs are used up first, being resident already.

use super::heap::{FreeRun, RunHeap};
use super::page::{PageIdx, PageKind};
use super::region::{self, page};

/// Lengths up to this have a bin of their own.
const NR_EXACT: u32 = 64;
/// Longer ones: this many bins to a doubling.
const STEPS_SHIFT: u32 = 2;
const NR_BINS: usize = NR_EXACT as usize + ((32 - NR_EXACT.ilog2()) << STEPS_SHIFT) as usize;
const NR_WORDS: usize = NR_BINS.div_ceil(64);

pub(super) struct FreeRuns {
    bins: [RunHeap<FreeRun>; NR_BINS],
    /// A bit for each bin that is not empty.
    filled: [u64; NR_WORDS],
    pub(super) nr_pages: usize,
}

impl FreeRuns {
    pub(super) const EMPTY: FreeRuns =
        FreeRuns { bins: [const { RunHeap::EMPTY }; NR_BINS], filled: [0; NR_WORDS], nr_pages: 0 };

    /// Adds a run whose descriptors are set by [`mark_free`].
    pub(super) fn insert(&mut self, run: PageIdx) {
        let nr_pages = page(run).nr_pages();
        let bin = bin_of(nr_pages);
        self.bins[bin].insert(run);
        self.filled[bin / 64] |= 1 << (bin % 64);
        self.nr_pages += nr_pages as usize;
    }

    pub(super) fn remove(&mut self, run: PageIdx) {
        let nr_pages = page(run).nr_pages();
        let bin = bin_of(nr_pages);
        self.bins[bin].remove(run);
        if self.bins[bin].is_empty() {
            self.filled[bin / 64] &= !(1 << (bin % 64));
        }
        self.nr_pages -= nr_pages as usize;
    }

    /// Takes a run of at least `nr_pages`: the lowest of the closest length.
    pub(super) fn take(&mut self, nr_pages: u32) -> Option<PageIdx> {
        let run = self.closest(nr_pages)?;
        self.remove(run);
        Some(run)
    }

    /// Whether there is a run of at least `nr_pages` to take.
    pub(super) fn has(&self, nr_pages: u32) -> bool {
        self.closest(nr_pages).is_some()
    }

    fn closest(&self, nr_pages: u32) -> Option<PageIdx> {
        let bin = bin_of(nr_pages);
        let fitting = self.bins[bin].lowest().filter(|run| page(*run).nr_pages() >= nr_pages);
        // Every run of a higher bin is longer than any of this one.
        fitting.or_else(|| self.bins[self.next_filled(bin + 1)?].lowest())
    }

    /// Takes a run of the longest kind.
    pub(super) fn take_longest(&mut self) -> Option<PageIdx> {
        let (word, bits) = self.filled.iter().enumerate().rev().find(|(_, bits)| **bits != 0)?;
        let bin = word * 64 + bits.ilog2() as usize;
        let run = self.bins[bin].lowest()?;
        self.remove(run);
        Some(run)
    }

    fn next_filled(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = self.filled.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.filled.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

fn bin_of(nr_pages: u32) -> usize {
    if nr_pages <= NR_EXACT {
        return nr_pages as usize - 1;
    }
    let last = nr_pages - 1;
    let log2 = last.ilog2();
    let step = (last >> (log2 - STEPS_SHIFT)) & ((1 << STEPS_SHIFT) - 1);
    (NR_EXACT + ((log2 - NR_EXACT.ilog2()) << STEPS_SHIFT) + step) as usize
}

/// Sets the descriptors of a free run: head and last page, as its neighbours look for them.
pub(super) fn mark_free(run: PageIdx, nr_pages: u32, dirty: bool) {
    if nr_pages > 1 {
        page(run.add(nr_pages - 1)).set_tail(PageKind::FreeTail, run);
    }
    page(run).set_free_head(nr_pages, dirty);
}

/// The free run that ends where `run` starts, if there is one of that state.
pub(super) fn free_before(run: PageIdx, dirty: bool) -> Option<PageIdx> {
    let last = PageIdx(run.0 - 1);
    let head = match page(last).kind() {
        PageKind::Free => last,
        PageKind::FreeTail => page(last).head(),
        _ => return None,
    };
    (page(head).kind() == PageKind::Free && page(head).is_dirty() == dirty).then_some(head)
}

/// The free run that starts at `at`, if there is one of that state.
pub(super) fn free_at(at: PageIdx, dirty: bool) -> Option<PageIdx> {
    if at >= region::end() {
        return None;
    }
    let head = page(at);
    (head.kind() == PageKind::Free && head.is_dirty() == dirty).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::{NR_BINS, bin_of};

    #[test]
    fn bins_are_ordered_by_length_and_all_in_range() {
        let mut last = 0;
        for nr_pages in 1..100_000 {
            let bin = bin_of(nr_pages);
            assert!(bin == last || bin == last + 1);
            last = bin;
        }
        assert!(bin_of(u32::MAX) < NR_BINS);
    }
}
