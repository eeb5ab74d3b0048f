//! How large a cache's sheaves are: by bytes at first, then by use.
//!
//! A sheaf that is too small sends a loop to the slabs and back again; one that is too large keeps objects from others, and each
//! of those may be the last of its slab. So a cache starts small and its sheaves double when objects go to the slabs in one
//! direction soon after they came in the other: then a larger sheaf would have kept them. They double as well when main sheaf and
//! spare change places all the time, as they do in a cache of few large objects, or when sheaves are traded with the barn all the
//! time, as they are when one CPU allocates and another frees. They become smallest when the cache's slabs stand nearly empty,
//! since then it is the sheaves that hold them: see [`SheafSize::is_holding_slabs`].
//!
//! | | objects | bytes |
//! |---|---|---|
//! | first size | 2 … 61 | 4 KiB |
//! | largest | 4 … 509 | 64 KiB |
//! | smallest, while slabs stand empty | 2 … 4 | 4 KiB |
//! | of objects above 8 KiB ([`is_dear`]), always | 1 | 32 KiB |
//!
//! With header and lid, 61 and 509 objects make sheaves of 512 bytes and 4 KiB. All that grew share [`EXTRA_BYTES`]; when it is used up,
//! all start again.

use super::barn::MAX_FULL;
use crate::page_alloc;
use crate::size_class::is_dear;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

const FIRST_BYTES: usize = 4 << 10;
const FIRST_OBJECTS: (usize, usize) = (2, 61);
const LARGEST_BYTES: usize = 64 << 10;
const LARGEST_OBJECTS: (usize, usize) = (4, 509);
const SMALLEST_OBJECTS: (usize, usize) = (2, 4);

/// Bytes by which all sheaf sizes together may exceed the first ones.
const EXTRA_BYTES: usize = 1 << 19;
/// A barn may store so many sheaves at first, and as it grows so many objects.
const SHELVED_SHEAVES: usize = 16;
const SHELVED_OBJECTS: usize = 4096;
/// Bytes of objects that may wait in all barns together: this, and a share of the pages in use.
const SHELVED_BYTES: usize = 5 << 18;
const SHELVED_SHARE: usize = 8;
/// Slabs with fewer than one object in this many places stand nearly empty. The second is for caches whose objects came back
/// every time that their sheaves were emptied.
const EMPTY_SHARE: (u32, u32) = (4, 256);
/// Slabs that a cache had before count for one place in this many.
const PEAK_SHARE: u64 = 4;
/// A cache whose sheaves change places so often has larger ones.
const SWAPS_TO_GROW: u32 = 256;
/// A trade with the barn is as bad as so many swaps.
const SWAPS_OF_TRADE: u32 = 8;
/// Fewer bytes of slabs are not worth a look.
const MIN_SLAB_BYTES: u64 = 32 << 10;

/// Bytes of objects in all barns.
static SHELVED: AtomicUsize = AtomicUsize::new(0);
/// Bytes by which sheaf sizes exceed the first ones, and how often they were all reset.
static EXTRA: AtomicUsize = AtomicUsize::new(0);
static RESETS: AtomicU32 = AtomicU32::new(0);

/// Which way objects last went between sheaves and slabs.
const NEITHER: u32 = 0;
const TO_SLABS: u32 = 1;
const FROM_SLABS: u32 = 2;

pub(super) struct SheafSize {
    /// Objects; 0 without sheaves.
    capacity: AtomicU32,
    /// Bytes of an object.
    size: AtomicU32,
    last_move: AtomicU32,
    /// The reset that this size has seen.
    reset: AtomicU32,
    /// Slabs are looked at again when no more objects than this are taken.
    look_at: AtomicU64,
    /// See [`EMPTY_SHARE`].
    empty_share: AtomicU32,
    /// The capacity before sheaves were emptied.
    before: AtomicU32,
    /// The most places since then.
    peak: AtomicU64,
    /// Times that a sheaf changed places with the spare.
    nr_swaps: AtomicU32,
    /// Full sheaves that may wait in the barn, at least [`SHELVED_SHEAVES`].
    nr_shelved: AtomicU32,
}

impl SheafSize {
    #[expect(clippy::declare_interior_mutable_const, reason = "the initial value of a static")]
    pub(super) const NONE: SheafSize = SheafSize {
        capacity: AtomicU32::new(0),
        size: AtomicU32::new(0),
        last_move: AtomicU32::new(NEITHER),
        reset: AtomicU32::new(0),
        look_at: AtomicU64::new(u64::MAX),
        empty_share: AtomicU32::new(EMPTY_SHARE.0),
        before: AtomicU32::new(0),
        peak: AtomicU64::new(0),
        nr_swaps: AtomicU32::new(0),
        nr_shelved: AtomicU32::new(0),
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
        self.empty_share.store(EMPTY_SHARE.0, Ordering::Relaxed);
        self.before.store(0, Ordering::Relaxed);
        self.peak.store(0, Ordering::Relaxed);
        self.nr_swaps.store(0, Ordering::Relaxed);
        self.nr_shelved.store(0, Ordering::Relaxed);
        self.reset.store(RESETS.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Objects of a new sheaf; 0 without sheaves.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// The most objects that a sheaf of the cache ever has.
    pub(super) fn largest(&self) -> u32 {
        if self.capacity() == 0 { 0 } else { largest(self.size.load(Ordering::Relaxed) as usize) }
    }

    /// Whether a CPU has a second sheaf.
    pub(super) fn has_spare(&self) -> bool {
        !is_dear(self.size.load(Ordering::Relaxed) as usize)
    }

    /// Full sheaves that may wait in the barn: none while slabs stand empty.
    pub(super) fn barn_limit(&self) -> usize {
        if self.lets_slabs_go() || !self.has_spare() {
            0
        } else {
            SHELVED_SHEAVES.max(self.nr_shelved.load(Ordering::Relaxed) as usize)
        }
    }

    /// Whether sheaves were emptied since slabs stood empty, and objects were not wanted again.
    pub(super) fn lets_slabs_go(&self) -> bool {
        self.look_at.load(Ordering::Relaxed) != u64::MAX
    }

    /// Objects are about to come from the slabs.
    pub(super) fn note_take(&self) {
        // Acquire pairs with the Release in `is_holding_slabs`: the capacity from before is there.
        if self.look_at.swap(u64::MAX, Ordering::Acquire) != u64::MAX {
            // Sheaves were emptied, and now objects are wanted again: as if it had not been done, and less readily next time.
            let size = self.size.load(Ordering::Relaxed) as usize;
            let before = self.before.load(Ordering::Relaxed).clamp(smallest(size), largest(size));
            self.capacity.store(before, Ordering::Relaxed);
            self.peak.store(0, Ordering::Relaxed);
            let share = self.empty_share.load(Ordering::Relaxed);
            self.empty_share.store((2 * share).min(EMPTY_SHARE.1), Ordering::Relaxed);
        }
        if self.last_move.swap(FROM_SLABS, Ordering::Relaxed) == TO_SLABS {
            self.grow_all();
        }
    }

    /// Objects are about to go to the slabs.
    pub(super) fn note_put(&self) {
        if self.last_move.swap(TO_SLABS, Ordering::Relaxed) == FROM_SLABS {
            self.grow_all();
        }
    }

    /// A sheaf changes places with the spare.
    pub(super) fn note_swap(&self) {
        self.note_swaps(1);
    }

    /// A sheaf is traded with the barn.
    pub(super) fn note_trade(&self) {
        self.note_swaps(SWAPS_OF_TRADE);
    }

    fn note_swaps(&self, nr_new: u32) {
        let before = self.nr_swaps.fetch_add(nr_new, Ordering::Relaxed);
        if before / SWAPS_TO_GROW != before.wrapping_add(nr_new) / SWAPS_TO_GROW {
            self.grow();
        }
    }

    /// Larger sheaves, and when they are largest more of them in the barn.
    fn grow_all(&self) {
        let size = self.size.load(Ordering::Relaxed) as usize;
        if self.capacity() == largest(size) {
            let most = (SHELVED_OBJECTS / self.capacity().max(1) as usize).min(MAX_FULL);
            self.nr_shelved.store((2 * self.barn_limit()).min(most) as u32, Ordering::Relaxed);
        }
        self.grow();
    }

    fn grow(&self) {
        let size = self.size.load(Ordering::Relaxed) as usize;
        let resets = RESETS.load(Ordering::Relaxed);
        if self.reset.swap(resets, Ordering::Relaxed) != resets {
            self.capacity.store(first(size), Ordering::Relaxed);
        }
        let old = self.capacity().clamp(smallest(size), largest(size));
        let new = (2 * old).min(largest(size));
        let extra = (new - old) as usize * size;
        if EXTRA.fetch_add(extra, Ordering::Relaxed) + extra > EXTRA_BYTES {
            RESETS.fetch_add(1, Ordering::Relaxed);
            EXTRA.store(0, Ordering::Relaxed);
        }
        self.capacity.store(new, Ordering::Relaxed);
    }

    /// Whether slabs with room for `nr_places` objects stand nearly empty with `nr_taken` of them, which are in use or in
    /// sheaves, or most slabs of a while ago are gone; true once for each halving of those taken. The sheaves are smallest then.
    pub(super) fn is_holding_slabs(&self, nr_taken: u64, nr_places: u64) -> bool {
        let share = u64::from(self.empty_share.load(Ordering::Relaxed));
        let size = self.size.load(Ordering::Relaxed);
        let peak = self.peak.load(Ordering::Relaxed);
        if nr_places > peak {
            self.peak.store(nr_places, Ordering::Relaxed);
        }
        if nr_taken * share >= nr_places.max(peak / PEAK_SHARE)
            || nr_places * u64::from(size) < MIN_SLAB_BYTES
            || nr_taken > self.look_at.load(Ordering::Relaxed)
        {
            return false;
        }
        if !self.lets_slabs_go() {
            self.before.store(self.capacity(), Ordering::Relaxed);
        }
        // Release: whoever sees that sheaves were emptied restores the capacity from before. Another CPU may do so between these
        // two stores: then the sheaves are smallest for a while although objects are wanted, and grow.
        self.look_at.store(nr_taken / 2, Ordering::Release);
        self.nr_shelved.store(0, Ordering::Relaxed);
        self.capacity.store(smallest(size as usize), Ordering::Relaxed);
        true
    }
}

/// Whether objects of that many bytes may wait in a barn; they count as waiting from then on.
pub(super) fn shelve(nr_bytes: usize) -> bool {
    if SHELVED.fetch_add(nr_bytes, Ordering::Relaxed) + nr_bytes > shelved_bound() {
        unshelve(nr_bytes);
        return false;
    }
    true
}

/// Whether more waits in barns than may, since pages in use have become fewer.
pub(super) fn has_shelved_too_much() -> bool {
    SHELVED.load(Ordering::Relaxed) > shelved_bound()
}

/// They do not wait any more.
pub(super) fn unshelve(nr_bytes: usize) {
    SHELVED.fetch_sub(nr_bytes, Ordering::Relaxed);
}

fn shelved_bound() -> usize {
    SHELVED_BYTES + page_alloc::used_bytes() / SHELVED_SHARE
}

/// The most bytes that wait in all barns: what may wait now, or more if it came when more pages were in use.
pub(super) fn most_shelved() -> usize {
    shelved_bound().max(SHELVED.load(Ordering::Relaxed))
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
