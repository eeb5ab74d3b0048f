//! Free runs of pages: by length in bins, the lowest address of a bin first, each kind apart.
//!
//! The first and the last descriptor of a free run say what it is, for those who look for neighbours.

use super::heap::{FreeRun, RunHeap};
use super::page::{PageIdx, PageKind};
use super::region::{self, page};

/// Lengths up to this have a bin of their own.
const NR_EXACT: u32 = 64;
/// Longer ones: this many bins to a doubling.
const STEPS_SHIFT: u32 = 2;
const NR_BINS: usize = NR_EXACT as usize + ((32 - NR_EXACT.ilog2()) << STEPS_SHIFT) as usize;
const NR_WORDS: usize = NR_BINS.div_ceil(64);

/// What the pages of a free run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FreeKind {
    /// They read as zero and occupy no memory.
    Clean,
    /// They were somebody's who may have touched some of them: those at the start, if any.
    Patchy,
    /// They were used, and count as resident.
    Dirty,
}

impl FreeKind {
    /// Whether neighbours of the kind are one run. Who gets a patchy one as it was left touches the pages again that were touched before;
    /// of several that were merged each object would begin at another page, until all are resident.
    pub(super) fn merges(self) -> bool {
        self != FreeKind::Patchy
    }

    fn mark(self) -> PageKind {
        match self {
            FreeKind::Clean => PageKind::Clean,
            FreeKind::Patchy => PageKind::Patchy,
            FreeKind::Dirty => PageKind::Dirty,
        }
    }

    /// What a run is whose head this is, if it is free.
    pub(super) fn of(head: PageIdx) -> Option<FreeKind> {
        match page(head).kind() {
            PageKind::Clean => Some(FreeKind::Clean),
            PageKind::Patchy => Some(FreeKind::Patchy),
            PageKind::Dirty => Some(FreeKind::Dirty),
            _ => None,
        }
    }
}

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

    /// Takes a run in which `nr_pages` start at a multiple of `align_pages`.
    pub(super) fn take(&mut self, nr_pages: u32, align_pages: u32) -> Option<PageIdx> {
        let run = self.find(nr_pages, align_pages)?;
        self.remove(run);
        Some(run)
    }

    /// Whether there is such a run.
    pub(super) fn has(&self, nr_pages: u32, align_pages: u32) -> bool {
        self.find(nr_pages, align_pages).is_some()
    }

    /// The lowest of the closest length, if it starts there, or of the length in which there is such a place in any case.
    fn find(&self, nr_pages: u32, align_pages: u32) -> Option<PageIdx> {
        let closest = self.closest(nr_pages).filter(|run| run.0.is_multiple_of(align_pages));
        closest.or_else(|| self.closest(nr_pages.checked_add(align_pages - 1)?))
    }

    fn closest(&self, nr_pages: u32) -> Option<PageIdx> {
        let bin = bin_of(nr_pages);
        let fitting = self.bins[bin].lowest().filter(|run| page(*run).nr_pages() >= nr_pages);
        // Every run of a higher bin is longer than any of this one.
        fitting.or_else(|| self.bins[self.next_filled(bin + 1)?].lowest())
    }

    /// One of the longest runs.
    pub(super) fn longest(&self) -> Option<PageIdx> {
        let (word, bits) = self.filled.iter().enumerate().rev().find(|(_, bits)| **bits != 0)?;
        self.bins[word * 64 + bits.ilog2() as usize].lowest()
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
pub(super) fn mark_free(run: PageIdx, nr_pages: u32, kind: FreeKind) {
    if nr_pages > 1 {
        page(run.add(nr_pages - 1)).set_tail(PageKind::FreeTail, run);
    }
    page(run).set_head(kind.mark(), nr_pages);
}

/// The head of the run that ends where `run` starts, if that is free and of the same kind.
pub(super) fn free_before(run: PageIdx, kind: FreeKind) -> Option<PageIdx> {
    let last = PageIdx(run.0 - 1);
    let head = if page(last).kind() == PageKind::FreeTail { page(last).head() } else { last };
    (FreeKind::of(head) == Some(kind)).then_some(head)
}

/// What the run that starts at `at` is, if it is free.
pub(super) fn free_at(at: PageIdx) -> Option<FreeKind> {
    if at >= region::end() { None } else { FreeKind::of(at) }
}

/// How many pages are free from there on, in runs of any kind; a look for `enough` of them.
pub(super) fn nr_free_at(at: PageIdx, enough: u32) -> u32 {
    let mut nr_free = 0;
    while nr_free < enough && free_at(at.add(nr_free)).is_some() {
        nr_free += page(at.add(nr_free)).nr_pages();
    }
    nr_free
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
