//! Pages: runs of 4 KiB pages from the region, given back to the operating system with hysteresis.
//!
//! Key types: [`Lookup`] and [`Page`] (the descriptor), [`Run`] (an owned run, move-only), [`RunHeap`]. Below: `os`. Above: slabs, large
//! objects, the engine's own tables. One lock, the *page lock*, guards the free runs and the shape of all runs; under it none
//! of the locks of slabs or groups is taken.
//!
//! **Kinds.** What is free is *clean*, *dirty* or *patchy* ([`FreeKind`]). Slabs use up all of their pages and take dirty ones first, which
//! are resident. Of an object that is larger than a page often only the start is touched, and then it leaves a patchy run, which it may be
//! told by: its last page is not resident. Such objects take patchy runs from their start on, or clean pages, and leave some dirty ones to the slabs.
//!
//! **Hysteresis.** Freed runs stay resident (dirty or patchy) up to a bound: 1.5 MiB plus 1/16 of the pages in use. Past it the
//! longest runs are released until half the bound is left, so a loop that sits on the bound does not fault its pages in
//! each round. The release itself runs outside the lock.
//!
//! **The peak.** Runs that are all too short for an object or a slab add to the most that the process ever holds if more pages
//! are about to be in use than ever. Then the longest go first, until 64 KiB or 1/256 of what is in use is left.

mod heap;
mod kind;
mod page;
mod region;
mod runs;

use core::ptr::NonNull;

use crate::os::PAGE_SIZE;
use crate::report::die;
use crate::sync::{AtomicU64, AtomicUsize, Lock, Ordering};

pub(crate) use heap::{RunHeap, SlabRun};
pub(crate) use kind::{CacheKind, CacheKindId};
pub(crate) use page::{Lookup, Page, PageIdx, PageKind, SlabPlace};
use region::Reservation;
pub(crate) use region::{LookedUp, address, end, idx_of, lookup, lookup_at, page};
use runs::{FreeKind, FreeRuns};

const DIRTY_BASE_PAGES: usize = (3 << 19) / PAGE_SIZE;
const DIRTY_SHARE: usize = 16;
/// So many dirty pages are left to slabs.
const DIRTY_FOR_SLABS: usize = 64;
/// So many free pages, and a share of those in use, stay resident even when more are in use than ever.
const FEW_DIRTY_PAGES: usize = 16;
const FEW_DIRTY_SHARE: usize = 256;
/// Pages by which the region grows at least: 8 MiB.
const GROW_PAGES: u32 = 2048;

/// A run of pages that the holder owns. Dropping it leaks the pages; [`free`] takes it back.
#[must_use = "a run that is dropped is leaked"]
pub(crate) struct Run {
    pub(crate) head: PageIdx,
    pub(crate) nr_pages: u32,
    /// Whether all its bytes are zero.
    pub(crate) zeroed: bool,
}

impl Run {
    pub(crate) fn page(&self) -> &'static Page {
        page(self.head)
    }

    pub(crate) fn address(&self) -> NonNull<u8> {
        address(self.head)
    }

    /// What addresses in its pages lead to.
    pub(crate) fn lookups(&self) -> impl Iterator<Item = &'static Lookup> + use<> {
        (self.head.0..self.head.0 + self.nr_pages).map(|idx| lookup(PageIdx(idx)))
    }

    /// The run whose head this is; whoever asks must own it.
    pub(crate) fn of_head(head: PageIdx) -> Run {
        Run { head, nr_pages: page(head).nr_pages(), zeroed: false }
    }
}

/// What of a run's pages its holder touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touches {
    /// Sooner or later all of them.
    All,
    /// Who knows: an object of several pages may not be used whole.
    Some,
}

impl Touches {
    /// Where a run is taken from, in that order, when so many dirty pages are free.
    fn preference(self, nr_dirty: usize) -> [FreeKind; 3] {
        match self {
            // Rather what is resident already.
            Touches::All => [FreeKind::Dirty, FreeKind::Patchy, FreeKind::Clean],
            // Rather what need not be resident, unless more is than slabs will soon use.
            Touches::Some if nr_dirty <= DIRTY_FOR_SLABS => [FreeKind::Patchy, FreeKind::Clean, FreeKind::Dirty],
            Touches::Some => [FreeKind::Patchy, FreeKind::Dirty, FreeKind::Clean],
        }
    }

    /// What pages are that are given back, of a run with that head. Those at the end are the last to be touched.
    fn leaves(self, head: &Page, last: PageIdx) -> FreeKind {
        let was_dirty = || head.kind() == PageKind::Large && head.was_dirty();
        if self == Touches::All || was_dirty() || region::is_resident(last) {
            FreeKind::Dirty
        } else {
            FreeKind::Patchy
        }
    }
}

struct PageAlloc {
    region: Option<Reservation>,
    clean: FreeRuns,
    patchy: FreeRuns,
    dirty: FreeRuns,
    /// The most pages that were in use.
    most_in_use: usize,
}

static PAGES: Lock<PageAlloc> = Lock::new(PageAlloc {
    region: None,
    clean: FreeRuns::EMPTY,
    patchy: FreeRuns::EMPTY,
    dirty: FreeRuns::EMPTY,
    most_in_use: 0,
});
/// Pages of runs that were handed out; changed under the page lock.
static NR_IN_USE: AtomicUsize = AtomicUsize::new(0);
/// Times that memory went back to the operating system.
static NR_RELEASES: AtomicU64 = AtomicU64::new(0);

/// Takes `nr_pages` (at least 1) whose first address is a multiple of `align_pages` pages, a power of two of at most
/// 2 MiB. `None` when neither the region nor the operating system has them.
pub(crate) fn alloc(nr_pages: u32, align_pages: u32, kind: PageKind, touches: Touches) -> Option<Run> {
    debug_assert!(nr_pages > 0 && align_pages.is_power_of_two());
    debug_assert!(align_pages as usize * PAGE_SIZE <= region::ALIGN);
    PAGES.lock().alloc(nr_pages, align_pages, kind, touches)
}

/// The same for an object or a slab, by a caller that holds no lock but a CPU slot: other free pages may go to the operating
/// system first.
pub(crate) fn alloc_at_peak(nr_pages: u32, align_pages: u32, kind: PageKind, touches: Touches) -> Option<Run> {
    let mut pages = PAGES.lock();
    if let Some(few) = pages.nr_to_leave(nr_pages, align_pages, touches) {
        drop(pages);
        release_down_to(few);
        pages = PAGES.lock();
    }
    pages.alloc(nr_pages, align_pages, kind, touches)
}

/// Takes `nr_pages` of zeroes for the engine itself.
pub(crate) fn alloc_zeroed(nr_pages: u32) -> Option<Run> {
    let run = alloc(nr_pages, 1, PageKind::Engine, Touches::All)?;
    if !run.zeroed {
        region::zero(&run);
    }
    Some(run)
}

/// Gives a run back.
pub(crate) fn free(run: Run, touches: Touches) {
    let kind = touches.leaves(run.page(), run.head.add(run.nr_pages - 1));
    let mut pages = PAGES.lock();
    NR_IN_USE.fetch_sub(run.nr_pages as usize, Ordering::Relaxed);
    pages.insert(run.head, run.nr_pages, kind);
    let bound = dirty_bound();
    if pages.nr_resident() <= bound {
        return;
    }
    drop(pages);
    release_down_to(bound / 2);
}

/// Gives all free memory back to the operating system; returns the bytes.
pub(crate) fn release_all() -> usize {
    release_down_to(0) * PAGE_SIZE
}

/// Grows a run by the pages behind it, if they are free.
pub(crate) fn extend(run: &mut Run, nr_pages: u32) -> bool {
    let extra = nr_pages - run.nr_pages;
    let mut pages = PAGES.lock();
    let behind = run.head.add(run.nr_pages);
    if runs::nr_free_at(behind, extra) < extra {
        return false;
    }
    pages.take_at(behind, extra);
    pages.note_use(extra);
    // Of what has come nobody knows.
    run.page().set_was_dirty(run.page().was_dirty() && extra < run.nr_pages);
    mark_used(run.head, nr_pages, run.page().kind());
    run.nr_pages = nr_pages;
    true
}

/// Gives the end of a run back, down to `nr_pages` (at least 1).
pub(crate) fn shrink(run: &mut Run, nr_pages: u32) {
    if nr_pages == run.nr_pages {
        return;
    }
    let kind = run.page().kind();
    let left = Touches::Some.leaves(run.page(), run.head.add(run.nr_pages - 1));
    let mut pages = PAGES.lock();
    mark_used(run.head, nr_pages, kind);
    NR_IN_USE.fetch_sub((run.nr_pages - nr_pages) as usize, Ordering::Relaxed);
    pages.insert(run.head.add(nr_pages), run.nr_pages - nr_pages, left);
    run.nr_pages = nr_pages;
}

/// Pages by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageStat {
    /// Bytes of runs in use, by slabs, large objects and the engine itself.
    pub used_bytes: usize,
    /// Bytes of free runs that may still be resident: of what a large object left all pages count, if it touched them or not.
    pub dirty_bytes: usize,
    /// Times that a run went back to the operating system since the start.
    pub nr_releases: u64,
}

/// The page layer's figures.
pub(crate) fn stat() -> PageStat {
    let pages = PAGES.lock();
    PageStat {
        used_bytes: used_bytes(),
        dirty_bytes: pages.nr_resident() * PAGE_SIZE,
        nr_releases: NR_RELEASES.load(Ordering::Relaxed),
    }
}

/// Bytes of runs that were handed out, without the page lock.
pub(crate) fn used_bytes() -> usize {
    NR_IN_USE.load(Ordering::Relaxed) * PAGE_SIZE
}

fn dirty_bound() -> usize {
    DIRTY_BASE_PAGES + NR_IN_USE.load(Ordering::Relaxed) / DIRTY_SHARE
}

/// Calls `visit` with the heads of slabs and large objects, a batch of pages at a time under the page lock: a visited
/// run cannot be freed during its visit. Runs that come or go meanwhile may be missed.
pub(crate) fn for_each_object_run(mut visit: impl FnMut(PageIdx, &'static Page)) {
    const BATCH: u32 = 4096;
    let mut at = region::FIRST_PAGE;
    while at < end() {
        let _pages = PAGES.lock();
        let stop = at.add(BATCH);
        while at < end() && at < stop {
            let head = page(at);
            match head.kind() {
                PageKind::Slab | PageKind::Large => {
                    visit(at, head);
                    at = at.add(head.nr_pages());
                }
                // Lengths of other runs may be stale when the walk resumes inside one; a page at a time is always right.
                _ => at = at.add(1),
            }
        }
    }
}

/// Looks at slabs that may be on their way back, under the page lock.
pub(crate) fn while_no_run_goes<R>(look: impl FnOnce() -> R) -> R {
    let _pages = PAGES.lock();
    look()
}

/// Takes the page lock for a `fork`.
pub(crate) fn hold_for_fork() {
    PAGES.hold_for_fork();
}

/// Gives back what [`hold_for_fork`] took.
pub(crate) fn release_after_fork() {
    PAGES.force_unlock();
}

impl PageAlloc {
    fn list(&mut self, kind: FreeKind) -> &mut FreeRuns {
        match kind {
            FreeKind::Clean => &mut self.clean,
            FreeKind::Patchy => &mut self.patchy,
            FreeKind::Dirty => &mut self.dirty,
        }
    }

    /// Free pages that may be resident.
    fn nr_resident(&self) -> usize {
        self.patchy.nr_pages + self.dirty.nr_pages
    }

    fn alloc(&mut self, nr_pages: u32, align_pages: u32, kind: PageKind, touches: Touches) -> Option<Run> {
        let taken = touches.preference(self.dirty.nr_pages).into_iter().find_map(|free| match free {
            FreeKind::Clean => self.take_clean(nr_pages, align_pages),
            _ => self.list(free).take(nr_pages, align_pages),
        });
        let head = taken.or_else(|| self.clean_up(nr_pages, align_pages))?;
        let (head, free) = self.trim(head, nr_pages, align_pages);
        self.note_use(nr_pages);
        // No count and no owner yet, for walks.
        page(head).owner().store(0, Ordering::Relaxed);
        page(head).set_was_dirty(free == FreeKind::Dirty);
        mark_used(head, nr_pages, kind);
        Some(Run { head, nr_pages, zeroed: free == FreeKind::Clean })
    }

    fn note_use(&mut self, nr_pages: u32) {
        let nr_in_use = NR_IN_USE.fetch_add(nr_pages as usize, Ordering::Relaxed) + nr_pages as usize;
        self.most_in_use = self.most_in_use.max(nr_in_use);
    }

    /// How many free pages may stay resident before a run is taken, if none of them will do and more pages are in use then than ever.
    fn nr_to_leave(&mut self, nr_pages: u32, align_pages: u32, touches: Touches) -> Option<usize> {
        let nr_in_use = NR_IN_USE.load(Ordering::Relaxed) + nr_pages as usize;
        let few = FEW_DIRTY_PAGES.max(nr_in_use / FEW_DIRTY_SHARE);
        // Twice as many, so that not each run that is taken has others released.
        let is_due = nr_in_use > self.most_in_use && self.nr_resident() > 2 * few;
        let [first, second, _] = touches.preference(self.dirty.nr_pages);
        let has = [first, second]
            .into_iter()
            .any(|kind| kind != FreeKind::Clean && self.list(kind).has(nr_pages, align_pages));
        (is_due && !has).then_some(few)
    }

    /// Takes a clean run in which `nr_pages` start at a multiple of `align_pages` out of the bins.
    fn take_clean(&mut self, nr_pages: u32, align_pages: u32) -> Option<PageIdx> {
        if let Some(run) = self.clean.take(nr_pages, align_pages) {
            return Some(run);
        }
        let is_grown = self.grow(nr_pages.checked_add(align_pages - 1)?);
        if is_grown { self.clean.take(nr_pages, align_pages) } else { None }
    }

    /// When the region is at its end: all that is free made clean, since neighbours of several kinds may do together; or what is patchy
    /// dirty, from where on the kernel takes no memory back.
    fn clean_up(&mut self, nr_pages: u32, align_pages: u32) -> Option<PageIdx> {
        while let Some((run, _)) = self.take_longest() {
            let nr_run = page(run).nr_pages();
            if release_memory(run, nr_run) {
                self.insert(run, nr_run, FreeKind::Clean);
                continue;
            }
            self.insert(run, nr_run, FreeKind::Dirty);
            while let Some(patchy) = self.patchy.longest() {
                self.patchy.remove(patchy);
                self.insert(patchy, page(patchy).nr_pages(), FreeKind::Dirty);
            }
            break;
        }
        self.clean.take(nr_pages, align_pages).or_else(|| self.dirty.take(nr_pages, align_pages))
    }

    /// Takes one of the longest runs that may be resident.
    fn take_longest(&mut self) -> Option<(PageIdx, FreeKind)> {
        let longest = [self.dirty.longest(), self.patchy.longest()].into_iter().flatten();
        let run = longest.max_by_key(|run| page(*run).nr_pages())?;
        let kind = FreeKind::of(run)?;
        self.list(kind).remove(run);
        Some((run, kind))
    }

    /// Takes `nr_pages` from there on, all of which are free.
    fn take_at(&mut self, mut at: PageIdx, nr_pages: u32) {
        let end = at.add(nr_pages);
        while at < end {
            let Some(kind) = FreeKind::of(at) else { die!("{at:?}: a run in use among the free ones") };
            let available = page(at).nr_pages();
            self.list(kind).remove(at);
            let wanted = end.0 - at.0;
            if available > wanted {
                self.insert_alone(end, available - wanted, kind);
            }
            at = at.add(available);
        }
    }

    /// Cuts a run that was taken down to `nr_pages` at the alignment; the rest goes back. Returns the new head and
    /// what the run was.
    fn trim(&mut self, run: PageIdx, nr_pages: u32, align_pages: u32) -> (PageIdx, FreeKind) {
        let Some(kind) = FreeKind::of(run) else { die!("{run:?}: a run in use among the free ones") };
        let available = page(run).nr_pages();
        let head = PageIdx(run.0.next_multiple_of(align_pages));
        let before = head.0 - run.0;
        let behind = available - before - nr_pages;
        if before > 0 {
            self.insert_alone(run, before, kind);
        }
        if behind > 0 {
            self.insert_alone(head.add(nr_pages), behind, kind);
        }
        (head, kind)
    }

    /// Files a free run as it is.
    fn insert_alone(&mut self, run: PageIdx, nr_pages: u32, kind: FreeKind) {
        runs::mark_free(run, nr_pages, kind);
        self.list(kind).insert(run);
    }

    /// Files a free run, merged with its neighbours of the same kind, if runs of that kind merge.
    fn insert(&mut self, run: PageIdx, nr_pages: u32, kind: FreeKind) {
        let (head, total) = if kind.merges() { self.absorb(run, nr_pages, kind) } else { (run, nr_pages) };
        self.insert_alone(head, total, kind);
    }

    /// A free run merged with its neighbours of the same kind, which are taken out of the bins.
    fn absorb(&mut self, run: PageIdx, nr_pages: u32, kind: FreeKind) -> (PageIdx, u32) {
        // Marked before the neighbours: a stale head would otherwise stay behind inside the merged run.
        runs::mark_free(run, nr_pages, kind);
        let (mut head, mut total) = (run, nr_pages);
        if let Some(before) = runs::free_before(run, kind) {
            self.list(kind).remove(before);
            head = before;
            total += page(before).nr_pages();
        }
        let behind = run.add(nr_pages);
        if runs::free_at(behind) == Some(kind) {
            self.list(kind).remove(behind);
            total += page(behind).nr_pages();
        }
        (head, total)
    }

    fn grow(&mut self, nr_pages: u32) -> bool {
        if self.region.is_none() {
            self.region = region::reserve();
        }
        let Some(reservation) = self.region else { return false };
        let end = end();
        let room = reservation.nr_pages - end.0;
        let nr_before = if end.is_none() { region::FIRST_PAGE.0 } else { 0 };
        let Some(needed) =
            nr_pages.checked_add(nr_before).and_then(|n| n.checked_next_multiple_of(region::COMMIT_PAGES))
        else {
            return false;
        };
        let step = needed.max(GROW_PAGES).min(room);
        if step < needed || !(region::commit(step) || (step > needed && region::commit(needed))) {
            return false;
        }
        let first = end.add(nr_before);
        let nr_new = region::end().0 - first.0;
        if nr_before > 0 {
            // Those before the first page are nobody's to take.
            mark_used(PageIdx::NONE, nr_before, PageKind::Engine);
        }
        self.insert(first, nr_new, FreeKind::Clean);
        true
    }
}

/// Sets the descriptors of a run that is handed out: its head, and its last page, which must not look free any more.
fn mark_used(run: PageIdx, nr_pages: u32, kind: PageKind) {
    if nr_pages > 1 {
        page(run.add(nr_pages - 1)).set_tail(PageKind::Tail, run);
    }
    page(run).set_head(kind, nr_pages);
}

/// Makes every page of a run lead to its head, for runs that are looked up by addresses inside them.
pub(crate) fn mark_tails(run: &Run) {
    for offset in 1..run.nr_pages {
        page(run.head.add(offset)).set_tail(PageKind::Tail, run.head);
    }
}

/// Turns a slab back into a run of the engine's; a walk that is reading it is waited for.
pub(crate) fn retract_slab(run: &Run) {
    let _pages = PAGES.lock();
    run.page().set_kind(PageKind::Engine);
}

/// Turns a run of the engine's into a slab, once its descriptor is complete.
pub(crate) fn publish_slab(head: PageIdx) {
    // Under the lock, which a walk holds.
    let _pages = PAGES.lock();
    page(head).set_kind(PageKind::Slab);
}

/// Releases the longest runs until `target` pages that may be resident are left; returns how many pages went.
fn release_down_to(target: usize) -> usize {
    let mut nr_released = 0;
    loop {
        let mut pages = PAGES.lock();
        if pages.nr_resident() <= target {
            return nr_released;
        }
        let Some((run, kind)) = pages.take_longest() else { return nr_released };
        let nr_pages = page(run).nr_pages();
        mark_releasing(run, nr_pages);
        drop(pages);
        if !release_memory(run, nr_pages) {
            PAGES.lock().insert(run, nr_pages, kind);
            return nr_released;
        }
        file_released(run, nr_pages);
        nr_released += nr_pages as usize;
    }
}

/// Files a run that was released, together with its clean neighbours, and releases the descriptors of pages between the first
/// and the last of them: nobody looks at those before the pages are handed out again, and all zero they are as good as new.
fn file_released(run: PageIdx, nr_pages: u32) {
    let mut pages = PAGES.lock();
    let (head, total) = pages.absorb(run, nr_pages, FreeKind::Clean);
    let Some((first, nr_pages)) = region::whole_descriptor_pages(head, total, run, nr_pages) else {
        return pages.insert_alone(head, total, FreeKind::Clean);
    };
    mark_releasing(head, total);
    drop(pages);
    region::release_descriptors(first, nr_pages);
    PAGES.lock().insert(head, total, FreeKind::Clean);
}

/// Neither free nor used: no neighbour merges with it, and nobody is given it while the lock is open.
fn mark_releasing(run: PageIdx, nr_pages: u32) {
    if nr_pages > 1 {
        page(run.add(nr_pages - 1)).set_tail(PageKind::Tail, run);
    }
    page(run).set_head(PageKind::Releasing, nr_pages);
}

fn release_memory(run: PageIdx, nr_pages: u32) -> bool {
    NR_RELEASES.fetch_add(1, Ordering::Relaxed);
    region::release(run, nr_pages)
}

/// The head of the run that an address in the committed region is in. Aborts when that is not in any run.
pub(crate) fn head_of(addr: usize) -> PageIdx {
    let idx = idx_of(addr);
    let head = match page(idx).kind() {
        PageKind::Tail | PageKind::FreeTail => page(idx).head(),
        _ => idx,
    };
    // Of a page that is handed out meanwhile it may be a length.
    if head > idx {
        die!("{addr:#x}: not the address of an object");
    }
    let run = page(head);
    let past_start = addr.wrapping_sub(address(head).as_ptr() as usize);
    if past_start >= run.nr_pages() as usize * PAGE_SIZE {
        die!("{addr:#x}: not the address of an object");
    }
    head
}

#[cfg(test)]
mod tests;
