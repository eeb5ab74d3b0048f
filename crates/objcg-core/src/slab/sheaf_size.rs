//! How large a cache's sheaves are: by bytes at first, then by use.
//!
//! A sheaf that is too small sends a loop to the slabs and back again; one that is too large keeps objects from others, and each
//! of those may be the last of its slab. So a cache starts small and its sheaves double when objects go to the slabs in one
//! direction soon after they came in the other: then a larger sheaf would have kept them. They double as well when sheaves are
//! traded with the barn or another CPU all the time, as they are when one CPU allocates and another frees. They are emptied and become smallest when the
//! cache's slabs stand nearly empty, since then it is the sheaves that hold them: see [`SheafSize::is_holding_slabs`]. Emptying moves objects
//! to slabs that may be wanted again at once, so a cache does it only when it has moved twice as many for other reasons: then it
//! costs a part of what is spent anyway, whatever comes next.
//!
//! | | objects | bytes |
//! |---|---|---|
//! | first size | 2 … 61 | 4 KiB |
//! | largest | 4 … 1021 | 64 KiB |
//! | smallest, while slabs stand empty | 2 … 4 | 4 KiB |
//! | of objects above 8 KiB ([`is_dear`]), always | 1 | 32 KiB |
//!
//! With header and lid, 61 and 1,021 objects make sheaves of 512 bytes and 8 KiB. Above the first size a sheaf may have its [`SHARE`] of the
//! cache's places; to exceed that there are [`EXTRA_BYTES`] for all caches together. When that is used up and was asked for some more times
//! all lose half of what they have learnt: sizes above their share, and places in the barn. So what was learnt once and is not needed any more is forgotten, and those that need it have it back at once.

use core::mem::offset_of;

use super::barn::MAX_FULL;
use super::retire;
use crate::page_alloc;
use crate::size_class::is_dear;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering, OwnLines};

const FIRST_BYTES: usize = 4 << 10;
const FIRST_OBJECTS: (usize, usize) = (2, 61);
const LARGEST_BYTES: usize = 64 << 10;
const LARGEST_OBJECTS: (usize, usize) = (4, 1021);
const SMALLEST_OBJECTS: (usize, usize) = (2, 4);

/// What a CPU's sheaf may grow to of a cache's places, times the CPUs. It is not taken down when places go or CPUs come, until all forget.
const SHARE: (u64, u64) = (1, 9);
/// Bytes by which all sheaf sizes together may exceed that or the first size: as many in a small process, whose caches have few places,
/// less a part of the pages in use, down to the second.
const EXTRA_BYTES: (usize, usize) = (1 << 20, 16 << 10);
const EXTRA_SHARE: usize = 8;
/// When so many sheaves were refused to grow any further, it is time to forget.
const REFUSALS_TO_FORGET: u32 = 32;
/// A refill brings at most so many bytes of objects of up to 128 bytes, and of larger ones, or two objects. What it brings and nobody wants yet adds to
/// the slabs that are needed at a peak, as what sheaves keep when objects come back does not.
const REFILL_BYTES: (usize, usize) = (8 << 10, 2 << 10);
const SMALL_OBJECT: usize = 128;
const MIN_REFILL: usize = 2;
/// A barn may store so many sheaves at first, and as it grows so many objects.
const SHELVED_SHEAVES: u32 = 16;
const SHELVED_OBJECTS: u32 = 4096;
/// Bytes of objects that may wait in all barns together: this, and a share of the pages in use.
const SHELVED_BYTES: usize = 5 << 18;
const SHELVED_SHARE: usize = 2;
/// Slabs with fewer than one object in this many places stand nearly empty, not counting those in the barn.
const EMPTY_SHARE: u64 = 4;
/// Sheaves are emptied when so many times as many objects as are taken went to slabs since they last were, and so many more for each CPU that
/// has sheaves: that long takes the fence by which another CPU's are had.
const PUTS_TO_EMPTY: (u64, u64) = (2, 256);
/// Slabs that a cache had before count for one place in this many.
const PEAK_SHARE: u64 = 4;
/// A cache whose sheaves are traded with the barn or another CPU so often has larger ones.
const TRADES_TO_GROW: u32 = 32;
/// Fewer bytes of slabs are not worth a look.
const MIN_SLAB_BYTES: u64 = 32 << 10;

/// Bytes of objects in all barns.
static SHELVED: OwnLines<AtomicUsize> = OwnLines(AtomicUsize::new(0));
/// Bytes by which sheaf sizes grew beyond their share, less half each time that all forgot; how often that was refused, and how often
/// all forgot.
static EXTRA: OwnLines<AtomicUsize> = OwnLines(AtomicUsize::new(0));
static NR_REFUSALS: AtomicU32 = AtomicU32::new(0);
static HALVINGS: AtomicU32 = AtomicU32::new(0);

/// Which way objects last went between sheaves and slabs.
const NEITHER: u32 = 0;
const TO_SLABS: u32 = 1;
const FROM_SLABS: u32 = 2;

/// On lines of its own, in two halves: every move of a sheaf reads the first; trades and puts write to the second, which so goes from CPU
/// to CPU, and which of the others only a free that finds its sheaf full reads.
#[repr(C, align(64))]
pub(super) struct SheafSize {
    /// Objects; 0 without sheaves.
    capacity: AtomicU32,
    /// Bytes of an object.
    size: AtomicU32,
    /// The halving that this size has seen.
    halving: AtomicU32,
    /// Which way objects last went between sheaves and slabs.
    last_move: AtomicU32,
    /// The capacity before sheaves were emptied.
    before: AtomicU32,
    /// The most places since then.
    peak: AtomicU64,
    /// Slabs are looked at again when no more objects than this are taken.
    look_at: AtomicU64,
    /// Full sheaves that may wait in the barn, at least [`SHELVED_SHEAVES`].
    nr_shelves: AtomicU32,
    moves: Moves,
}

/// What trades and puts count.
#[repr(C, align(64))]
struct Moves {
    /// Trades with the barn or another CPU.
    nr_trades: AtomicU32,
    /// Objects that wait in the barn.
    nr_shelved: AtomicU32,
    /// Objects that sheaves put into slabs since they were last emptied.
    nr_put: AtomicU64,
}

const _: () = assert!(offset_of!(SheafSize, moves) == 64 && size_of::<SheafSize>() == 128);

impl SheafSize {
    #[expect(clippy::declare_interior_mutable_const, reason = "the initial value of a static")]
    pub(super) const NONE: SheafSize = SheafSize {
        capacity: AtomicU32::new(0),
        size: AtomicU32::new(0),
        halving: AtomicU32::new(0),
        last_move: AtomicU32::new(NEITHER),
        before: AtomicU32::new(0),
        peak: AtomicU64::new(0),
        look_at: AtomicU64::new(u64::MAX),
        nr_shelves: AtomicU32::new(0),
        moves: Moves { nr_trades: AtomicU32::new(0), nr_shelved: AtomicU32::new(0), nr_put: AtomicU64::new(0) },
    };

    pub(super) const fn for_objects(size: usize) -> SheafSize {
        SheafSize { capacity: AtomicU32::new(first(size)), size: AtomicU32::new(size as u32), ..SheafSize::NONE }
    }

    /// Takes another's values, before the cache is used.
    pub(super) fn set(&self, other: SheafSize) {
        self.capacity.store(other.capacity.load(Ordering::Relaxed), Ordering::Relaxed);
        self.size.store(other.size.load(Ordering::Relaxed), Ordering::Relaxed);
        self.last_move.store(NEITHER, Ordering::Relaxed);
        self.look_at.store(u64::MAX, Ordering::Relaxed);
        self.moves.nr_put.store(0, Ordering::Relaxed);
        self.before.store(0, Ordering::Relaxed);
        self.peak.store(0, Ordering::Relaxed);
        self.moves.nr_trades.store(0, Ordering::Relaxed);
        self.nr_shelves.store(0, Ordering::Relaxed);
        self.moves.nr_shelved.store(0, Ordering::Relaxed);
        self.halving.store(HALVINGS.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether the cache has sheaves at all.
    pub(super) fn has_sheaves(&self) -> bool {
        self.capacity.load(Ordering::Relaxed) > 0
    }

    /// Objects of a new sheaf of a cache with room for that many; 0 without sheaves.
    pub(super) fn capacity(&self, nr_places: u64) -> u32 {
        self.catch_up(nr_places);
        self.capacity.load(Ordering::Relaxed)
    }

    /// Halves what was learnt once for each halving that was missed.
    fn catch_up(&self, nr_places: u64) {
        let halvings = HALVINGS.load(Ordering::Relaxed);
        if self.halving.load(Ordering::Relaxed) == halvings || !self.has_sheaves() {
            return;
        }
        let nr_missed = halvings.wrapping_sub(self.halving.swap(halvings, Ordering::Relaxed)).min(u32::BITS - 1);
        let halve = |learnt: &AtomicU32, least: u32| {
            let value = learnt.load(Ordering::Relaxed);
            // What is below the least has been taken down for another reason.
            learnt.store((value >> nr_missed).max(least.min(value)), Ordering::Relaxed);
        };
        let size = self.size.load(Ordering::Relaxed) as usize;
        let own = first(size).max(share_of(nr_places)).min(largest(size));
        halve(&self.capacity, own);
        halve(&self.before, own);
        halve(&self.nr_shelves, 0);
    }

    /// The most objects that a sheaf of the cache ever has.
    pub(super) fn largest(&self) -> u32 {
        if !self.has_sheaves() { 0 } else { largest(self.size.load(Ordering::Relaxed) as usize) }
    }

    /// Whether a CPU has a second sheaf.
    pub(super) fn has_spare(&self) -> bool {
        !is_dear(self.size.load(Ordering::Relaxed) as usize)
    }

    /// Full sheaves that may wait in the barn: none while slabs stand empty.
    pub(super) fn barn_limit(&self) -> u32 {
        if self.lets_slabs_go() || !self.has_spare() {
            0
        } else {
            SHELVED_SHEAVES.max(self.nr_shelves.load(Ordering::Relaxed))
        }
    }

    /// Whether sheaves were emptied since slabs stood empty, and objects were not wanted again.
    pub(super) fn lets_slabs_go(&self) -> bool {
        self.look_at.load(Ordering::Relaxed) != u64::MAX
    }

    /// Objects are about to come from the slabs, which have room for that many.
    pub(super) fn note_take(&self, nr_places: u64) {
        // Acquire pairs with the Release in `is_holding_slabs`: the capacity from before is there.
        if self.lets_slabs_go() && self.look_at.swap(u64::MAX, Ordering::Acquire) != u64::MAX {
            // Sheaves were emptied, and now objects are wanted again: as large as if it had not been done.
            let size = self.size.load(Ordering::Relaxed) as usize;
            let before = self.before.load(Ordering::Relaxed).clamp(smallest(size), largest(size));
            self.capacity.store(before, Ordering::Relaxed);
            self.peak.store(0, Ordering::Relaxed);
        }
        if self.turns_to(FROM_SLABS) {
            self.grow_all(nr_places);
        }
    }

    /// So many objects are about to go to the slabs, which have room for that many.
    pub(super) fn note_put(&self, nr_objects: u32, nr_places: u64) {
        // Not what goes there only because sheaves were emptied.
        if !self.lets_slabs_go() {
            self.moves.nr_put.fetch_add(u64::from(nr_objects), Ordering::Relaxed);
        }
        if self.turns_to(TO_SLABS) {
            self.grow_all(nr_places);
        }
    }

    /// Whether objects went the other way last. Written only then: all CPUs read it.
    fn turns_to(&self, direction: u32) -> bool {
        let last = self.last_move.load(Ordering::Relaxed);
        last != direction && self.last_move.swap(direction, Ordering::Relaxed) == TO_SLABS + FROM_SLABS - direction
    }

    /// A sheaf is traded with the barn or another CPU of a cache with room for that many.
    pub(super) fn note_trade(&self, nr_places: u64) {
        let nr_trades = self.moves.nr_trades.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if nr_trades.is_multiple_of(TRADES_TO_GROW) {
            self.grow(nr_places);
        }
    }

    /// Larger sheaves, and when they are largest more of them in the barn.
    fn grow_all(&self, nr_places: u64) {
        let size = self.size.load(Ordering::Relaxed) as usize;
        let capacity = self.capacity(nr_places);
        if capacity == largest(size) {
            let most = (SHELVED_OBJECTS / capacity.max(1)).min(MAX_FULL);
            self.nr_shelves.store((2 * self.barn_limit()).min(most), Ordering::Relaxed);
        }
        self.grow(nr_places);
    }

    /// Sheaves of twice as many objects, if that is within their share or there are bytes left by which to exceed it.
    fn grow(&self, nr_places: u64) {
        let size = self.size.load(Ordering::Relaxed) as usize;
        let old = self.capacity(nr_places).clamp(smallest(size), largest(size));
        let new = (2 * old).min(largest(size));
        // tidy: allow(saturating_sub): within its share it exceeds nothing
        let extra = new.saturating_sub(share_of(nr_places).max(first(size)).max(old)) as usize * size;
        if extra > 0 && !take_extra(extra) {
            return;
        }
        self.capacity.store(new, Ordering::Relaxed);
    }

    /// Whether slabs with room for `nr_places` objects stand nearly empty with `nr_taken` of them, which are in use or in sheaves, less those in
    /// the barn, or most slabs of a while ago are gone; and whether enough was spent to empty sheaves. Then it is true once, and again for each
    /// halving of those taken until objects are wanted. The sheaves are smallest then.
    pub(super) fn is_holding_slabs(&self, nr_taken: u64, nr_places: u64) -> bool {
        let size = self.size.load(Ordering::Relaxed);
        let peak = self.peak.load(Ordering::Relaxed);
        if nr_places > peak {
            self.peak.store(nr_places, Ordering::Relaxed);
        }
        // tidy: allow(saturating_sub): they are counted apart, and more may be shelved by now than were taken
        let nr_used = nr_taken.saturating_sub(u64::from(self.moves.nr_shelved.load(Ordering::Relaxed)));
        if nr_used * EMPTY_SHARE >= nr_places.max(peak / PEAK_SHARE)
            || nr_places * u64::from(size) < MIN_SLAB_BYTES
            || nr_taken > self.look_at.load(Ordering::Relaxed)
        {
            return false;
        }
        if !self.lets_slabs_go() {
            if self.moves.nr_put.load(Ordering::Relaxed) < puts_to_empty(nr_taken) {
                return false;
            }
            self.before.store(self.capacity(nr_places), Ordering::Relaxed);
        }
        self.moves.nr_put.store(0, Ordering::Relaxed);
        // Release: whoever sees that sheaves were emptied restores the capacity from before. Another CPU may do so between these
        // two stores: then the sheaves are smallest for a while although objects are wanted, and grow. So they are when two CPUs are here at
        // once, and the second takes the first one's for the capacity from before.
        self.look_at.store(nr_taken / 2, Ordering::Release);
        self.capacity.store(smallest(size as usize), Ordering::Relaxed);
        true
    }

    /// Whether so many objects may wait in the barn; they count as waiting from then on.
    pub(super) fn shelve(&self, nr_objects: u32) -> bool {
        let nr_bytes = self.nr_bytes(nr_objects);
        if SHELVED.0.fetch_add(nr_bytes, Ordering::Relaxed) + nr_bytes > shelved_bound() {
            SHELVED.0.fetch_sub(nr_bytes, Ordering::Relaxed);
            return false;
        }
        self.moves.nr_shelved.fetch_add(nr_objects, Ordering::Relaxed);
        true
    }

    /// They do not wait any more.
    pub(super) fn unshelve(&self, nr_objects: u32) {
        self.moves.nr_shelved.fetch_sub(nr_objects, Ordering::Relaxed);
        SHELVED.0.fetch_sub(self.nr_bytes(nr_objects), Ordering::Relaxed);
    }

    fn nr_bytes(&self, nr_objects: u32) -> usize {
        nr_objects as usize * self.size.load(Ordering::Relaxed) as usize
    }
}

/// The most objects that come from the slabs at once.
pub(super) fn refill(size: usize) -> u32 {
    let nr_bytes = if size <= SMALL_OBJECT { REFILL_BYTES.0 } else { REFILL_BYTES.1 };
    (nr_bytes / size).max(MIN_REFILL) as u32
}

/// Whether more waits in barns than may, since pages in use have become fewer.
pub(super) fn has_shelved_too_much() -> bool {
    SHELVED.0.load(Ordering::Relaxed) > shelved_bound()
}

/// Whether sheaves may exceed their share by so many bytes more. If not, and that has been said often, all forget.
fn take_extra(nr_bytes: usize) -> bool {
    // Two at once may exceed the bound, or forget one of them.
    let extra = EXTRA.0.load(Ordering::Relaxed);
    let bound = extra_bound();
    if extra + nr_bytes <= bound {
        EXTRA.0.store(extra + nr_bytes, Ordering::Relaxed);
        return true;
    }
    // What is more than there is for all would be refused then, too.
    if nr_bytes > bound {
        return false;
    }
    if NR_REFUSALS.fetch_add(1, Ordering::Relaxed).wrapping_add(1).is_multiple_of(REFUSALS_TO_FORGET) {
        HALVINGS.fetch_add(1, Ordering::Relaxed);
        // Room for whoever asked last, at least.
        EXTRA.0.store((extra / 2).min(bound - nr_bytes), Ordering::Relaxed);
    }
    false
}

fn extra_bound() -> usize {
    let (most, least) = EXTRA_BYTES;
    // tidy: allow(saturating_sub): of a large process nothing is left
    most.saturating_sub(page_alloc::used_bytes() / EXTRA_SHARE).max(least)
}

/// What a sheaf may have of a cache's places.
fn share_of(nr_places: u64) -> u32 {
    let nr_cpus = retire::nr_cpus_seen() as u64;
    (nr_places * SHARE.0 / (SHARE.1 * nr_cpus)).min(LARGEST_OBJECTS.1 as u64) as u32
}

fn shelved_bound() -> usize {
    SHELVED_BYTES + page_alloc::used_bytes() / SHELVED_SHARE
}

/// The most bytes that wait in all barns: what may wait now, or more if it came when more pages were in use.
pub(super) fn most_shelved() -> usize {
    shelved_bound().max(SHELVED.0.load(Ordering::Relaxed))
}

/// How many objects have to go to slabs before sheaves of so many are emptied.
fn puts_to_empty(nr_taken: u64) -> u64 {
    PUTS_TO_EMPTY.0 * nr_taken + PUTS_TO_EMPTY.1 * retire::nr_cpus_seen() as u64
}

const fn first(size: usize) -> u32 {
    if is_dear(size) { 1 } else { within(FIRST_BYTES / size, FIRST_OBJECTS) }
}

const fn largest(size: usize) -> u32 {
    if is_dear(size) { 1 } else { within(LARGEST_BYTES / size, LARGEST_OBJECTS) }
}

const fn smallest(size: usize) -> u32 {
    if is_dear(size) { 1 } else { within(FIRST_BYTES / size, SMALLEST_OBJECTS) }
}

const fn within(nr_objects: usize, (least, most): (usize, usize)) -> u32 {
    (if nr_objects < least {
        least
    } else if nr_objects > most {
        most
    } else {
        nr_objects
    }) as u32
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{HALVINGS, SHARE, SheafSize, first, largest, puts_to_empty, retire, share_of};
    use crate::sync::Ordering;

    /// Objects go to the slabs and come back, again and again.
    fn alternate(size: &SheafSize, nr_times: usize) {
        for _ in 0..nr_times {
            size.note_put(0, 0);
            size.note_take(0);
        }
    }

    #[test]
    fn sheaves_grow_while_objects_go_to_the_slabs_and_come_back() {
        let size = SheafSize::for_objects(16);
        assert_eq!(size.capacity(0), first(16));
        // What other caches need may halve it meanwhile: it grows again.
        assert!((0..1000).any(|_| {
            alternate(&size, 1);
            size.capacity(0) == largest(16)
        }));
    }

    #[test]
    fn what_was_learnt_is_forgotten_by_halves() {
        let size = SheafSize::for_objects(1024);
        alternate(&size, 10);
        let (before, shelves) = (size.capacity(0), size.nr_shelves.load(Ordering::Relaxed));
        HALVINGS.fetch_add(1, Ordering::Relaxed);
        assert!((first(1024)..=(before / 2).max(first(1024))).contains(&size.capacity(0)));
        assert!(size.nr_shelves.load(Ordering::Relaxed) <= shelves / 2);
        HALVINGS.fetch_add(100, Ordering::Relaxed);
        assert_eq!(size.capacity(0), first(1024));
    }

    #[test]
    fn what_is_within_the_share_of_the_places_is_not_forgotten() {
        let size = SheafSize::for_objects(512);
        let nr_places = u64::from(3 * first(512)) * SHARE.1 / SHARE.0 * retire::nr_cpus_seen() as u64;
        let share = share_of(nr_places);
        assert!(share > first(512) && share < largest(512));
        for _ in 0..100 {
            size.note_put(0, nr_places);
            size.note_take(nr_places);
        }
        HALVINGS.fetch_add(100, Ordering::Relaxed);
        let capacity = size.capacity(nr_places);
        // In other tests more CPUs may come, which make it smaller.
        assert!((share_of(nr_places) / 2 + 1..=share).contains(&capacity));
        // Of fewer places the share is smaller.
        HALVINGS.fetch_add(100, Ordering::Relaxed);
        assert_eq!(size.capacity(0), first(512));
    }

    #[test]
    fn what_was_made_smallest_does_not_grow_by_being_halved() {
        let size = SheafSize::for_objects(64);
        alternate(&size, 10);
        size.note_put(1 << 20, 10_000);
        assert!(size.is_holding_slabs(1, 10_000));
        let smallest = size.capacity(0);
        assert!(smallest < first(64));
        HALVINGS.fetch_add(1, Ordering::Relaxed);
        assert!(size.capacity(0) <= smallest);
    }

    #[test]
    fn sheaves_are_emptied_when_twice_as_much_was_put_as_is_taken() {
        let size = SheafSize::for_objects(64);
        let (nr_taken, nr_places) = (100, 10_000);
        assert!(!size.is_holding_slabs(nr_taken, nr_places), "nothing went to slabs so far");
        // In other tests CPUs may come, each of which costs something.
        size.note_put(1 << 20, nr_places);
        assert!(size.is_holding_slabs(nr_taken, nr_places));
        assert!(!size.is_holding_slabs(nr_taken, nr_places) && size.is_holding_slabs(nr_taken / 2, nr_places));
        size.note_put(1 << 20, nr_places);
        size.note_take(nr_places);
        assert!(
            !size.is_holding_slabs(nr_taken, nr_places),
            "objects came back, and what went while there were no sheaves pays nothing"
        );
        let nr_put = puts_to_empty(nr_taken) as u32;
        size.note_put(nr_put / 2, nr_places);
        assert!(!size.is_holding_slabs(nr_taken, nr_places));
        size.note_put(1 << 20, nr_places);
        assert!(size.is_holding_slabs(nr_taken, nr_places));
    }

    #[test]
    fn what_waits_in_the_barn_is_not_in_use() {
        let size = SheafSize::for_objects(64);
        let (nr_taken, nr_places) = (5_000, 10_000);
        size.note_put(1 << 20, nr_places);
        assert!(!size.is_holding_slabs(nr_taken, nr_places));
        // Not by `shelve`: other tests have barns as well, and all together are bounded.
        size.moves.nr_shelved.store(4_000, Ordering::Relaxed);
        assert!(size.is_holding_slabs(nr_taken, nr_places));
        size.moves.nr_shelved.store(0, Ordering::Relaxed);
        assert!(!size.is_holding_slabs(nr_taken / 2, nr_places));
    }

    #[test]
    fn without_sheaves_there_is_nothing_to_halve() {
        let none = SheafSize::NONE;
        HALVINGS.fetch_add(1, Ordering::Relaxed);
        assert_eq!((none.capacity(0), none.largest()), (0, 0));
    }
}
