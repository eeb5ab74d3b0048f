//! A cache: all slabs of one object size, shared by all groups (the kernel's `struct kmem_cache`).
//!
//! Caches are static (size classes, the engine's own) or live in a type-stable table (typed caches), so the number of a cache
//! in a descriptor is good for ever. The shape of a cache is written once, before its first object; what changes is
//! under the cache's locks. Objects come and go through [`super::cpu_sheaves`], or straight from [`super::lists`].

#![expect(unsafe_code, reason = "says that zero is a valid cache, and where a slab's objects start")]

use core::mem;
use core::ptr::NonNull;

use super::barn::Barn;
use super::cpu_sheaves::CpuSheaves;
use super::lists::SlabLists;
use super::sheaf::Sheaf;
use super::sheaf_size::SheafSize;
use super::{free_bits, meta};
use crate::cpu::Stacks;
use crate::hooks;
use crate::os::PAGE_SIZE;
use crate::page_alloc::{CacheKindId, Lookup, SlabPlace};
use crate::report::die;
use crate::size_class::{NR_CLASSES, SizeClass, SlabGeometry, is_dear};
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Lock, Ordering};
use crate::table::{Slot, Table};

/// Empty slabs that a cache keeps before it gives pages back: a size class if its objects are not dear, one of the engine's own, most of
/// which have a slab or two, if that is of so few objects that each would make one.
const KEEP_EMPTY: u32 = 1;
const FEW_OBJECTS: u32 = 2;
/// What a first object behind the bits of its slab is aligned to: as much as any of the engine's needs.
const FIRST_ALIGN: usize = 64;

static TABLE: Table<Cache, 1024> = Table::new();

// SAFETY: zero is a valid value of every field (no size, free locks, empty lists, null pointers), and all fields are
// atomics or locks.
unsafe impl Slot for Cache {
    fn next_free(&self) -> &AtomicU32 {
        &self.next_free
    }
}

#[repr(C, align(64))]
pub(crate) struct Cache {
    // A line that is read on every way to the sheaves but the shortest, and written before the first or hardly ever.
    /// The CPUs' stacks of free objects, in the per-CPU area; null until they are first needed, or without an area.
    stacks: AtomicPtr<u8>,
    size: AtomicU32,
    nr_objects: AtomicU32,
    nr_pages: AtomicU32,
    keep_empty: AtomicU32,
    next_free: AtomicU32,
    /// Below 2^16: classes count from 0, then the engine's own, then typed caches.
    number: AtomicU32,
    /// One slot a CPU; null until the first object, then the same for ever.
    pub(super) cpu_sheaves: AtomicPtr<CpuSheaves>,
    /// The slots whose locks a `fork` holds.
    pub(super) held_for_fork: AtomicPtr<CpuSheaves>,
    /// Not 0 once an object may have been charged.
    has_owners: AtomicU32,
    /// Bytes of a slab before its first object: of the engine's own, for their bits.
    nr_first: AtomicU32,
    // What changes.
    /// How large its sheaves are to be.
    pub(super) sheaf_size: SheafSize,
    // A line that each move between sheaves and slabs takes from the CPU that had it last.
    pub(super) barn: Barn<Sheaf>,
    pub(super) lists: Lock<SlabLists>,
    /// Objects that are not free in their slab: with the user or in a sheaf. Changed under the lock of the lists.
    nr_taken: AtomicU64,
    // What changes less often.
    pub(super) counters: Counters,
}

#[cfg(not(loom))]
const _: () = assert!(
    mem::offset_of!(Cache, nr_first) < 64
        && mem::offset_of!(Cache, sheaf_size) == 64
        && mem::offset_of!(Cache, barn) == 192
        && mem::offset_of!(Cache, counters) == 256
);

/// What a cache holds. Relaxed: each is exact by itself, a set of them only at a quiet point.
pub(super) struct Counters {
    pub(super) nr_slabs: AtomicU64,
    pub(super) owner_bytes: AtomicU64,
    /// The most slabs that there were when no other CPU had objects to spare.
    pub(super) most_slabs: AtomicU64,
}

impl Counters {
    #[expect(clippy::declare_interior_mutable_const, reason = "the initial value of a static")]
    const NONE: Counters =
        Counters { nr_slabs: AtomicU64::new(0), owner_bytes: AtomicU64::new(0), most_slabs: AtomicU64::new(0) };
}

/// A cache's holdings, in objects and bytes. Exact at a quiet point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStat {
    /// Slabs held.
    pub nr_slabs: u64,
    /// Bytes of the slabs held.
    pub slab_bytes: u64,
    /// Bytes of the owner vectors held.
    pub owner_bytes: u64,
    /// Objects that are not free in their slab: with the user, or waiting in a sheaf.
    pub nr_objects: u64,
}

impl Cache {
    #[expect(clippy::declare_interior_mutable_const, reason = "the initial value of a static")]
    pub(crate) const UNUSED: Cache = Cache {
        stacks: AtomicPtr::new(core::ptr::null_mut()),
        size: AtomicU32::new(0),
        nr_objects: AtomicU32::new(0),
        nr_pages: AtomicU32::new(0),
        sheaf_size: SheafSize::NONE,
        keep_empty: AtomicU32::new(0),
        next_free: AtomicU32::new(0),
        number: AtomicU32::new(u32::MAX),
        cpu_sheaves: AtomicPtr::new(core::ptr::null_mut()),
        held_for_fork: AtomicPtr::new(core::ptr::null_mut()),
        has_owners: AtomicU32::new(0),
        nr_first: AtomicU32::new(0),
        barn: Barn::new(),
        lists: Lock::new(SlabLists::EMPTY),
        nr_taken: AtomicU64::new(0),
        counters: Counters::NONE,
    };

    /// A cache of the engine's own memory: no sheaves, and nothing outside of its slabs. The bits are in the slab where the descriptor has
    /// no room for them.
    pub(crate) const fn for_engine(size: usize, number: usize) -> Cache {
        let geometry = SlabGeometry::for_engine(size, 0);
        if geometry.objects <= free_bits::INLINE_OBJECTS {
            return Cache::without_sheaves(size, geometry, number);
        }
        let nr_first = free_bits::nr_word_bytes(geometry.objects).next_multiple_of(FIRST_ALIGN);
        // Objects are found to be of a slab by the page of the first one.
        assert!(nr_first < PAGE_SIZE);
        let behind_bits = SlabGeometry::for_engine(size, nr_first);
        assert!(behind_bits.objects <= geometry.objects, "they have room for no more bits");
        let geometry = behind_bits;
        Cache { nr_first: AtomicU32::new(nr_first as u32), ..Cache::without_sheaves(size, geometry, number) }
    }

    const fn without_sheaves(size: usize, geometry: SlabGeometry, number: usize) -> Cache {
        Cache {
            number: AtomicU32::new(number as u32),
            size: AtomicU32::new(size as u32),
            nr_objects: AtomicU32::new(geometry.objects),
            nr_pages: AtomicU32::new(geometry.pages),
            keep_empty: AtomicU32::new(if geometry.objects <= FEW_OBJECTS { KEEP_EMPTY } else { 0 }),
            ..Cache::UNUSED
        }
    }

    /// A cache of a size class.
    pub(crate) const fn for_class(class: SizeClass) -> Cache {
        let size = class.size();
        Cache {
            sheaf_size: SheafSize::for_objects(size),
            keep_empty: AtomicU32::new(if is_dear(size) { 0 } else { KEEP_EMPTY }),
            ..Cache::without_sheaves(size, SlabGeometry::for_size(size), class.index())
        }
    }

    /// A cache from the table, and its number. `size` and `geometry` were checked.
    pub(crate) fn create(size: usize, geometry: SlabGeometry, with_sheaves: bool, keep_empty: u32) -> Option<u32> {
        let idx = TABLE.alloc_below((1 << u16::BITS) - meta::END_NUMBER as u32)?;
        let cache = TABLE.get(idx);
        cache.size.store(size as u32, Ordering::Relaxed);
        cache.nr_objects.store(geometry.objects, Ordering::Relaxed);
        cache.nr_pages.store(geometry.pages, Ordering::Relaxed);
        cache.keep_empty.store(keep_empty, Ordering::Relaxed);
        cache.counters.most_slabs.store(0, Ordering::Relaxed);
        cache.sheaf_size.set(if with_sheaves { SheafSize::for_objects(size) } else { SheafSize::NONE });
        cache.number.store(meta::END_NUMBER as u32 + idx, Ordering::Relaxed);
        Some(idx)
    }

    /// The cache of a number from [`Cache::create`].
    pub(crate) fn get(idx: u32) -> &'static Cache {
        TABLE.get(idx)
    }

    /// Gives the cache's number back if nothing is left of it; returns whether that was so.
    pub(crate) fn destroy(idx: u32) -> bool {
        let cache = TABLE.get(idx);
        cache.shrink_to(0);
        // Acquire pairs with the Release in `destroy_slabs`: of those that are gone nothing is left.
        if cache.counters.nr_slabs.load(Ordering::Acquire) != 0 {
            return false;
        }
        // Its slots stay for the next cache of the number: a drain or a fork may be looking at them.
        TABLE.free(idx);
        true
    }

    /// Takes the table's lock for a `fork`: no cache comes or goes until [`Cache::release_table_after_fork`].
    pub(crate) fn hold_table_for_fork() {
        TABLE.hold_for_fork();
    }

    pub(crate) fn release_table_after_fork() {
        TABLE.release_after_fork();
    }

    /// Every cache of the table, those that are free among them: their locks are free, their lists empty.
    pub(crate) fn all_of_table() -> impl DoubleEndedIterator<Item = &'static Cache> {
        (0..TABLE.nr_made()).map(|idx| TABLE.get(idx))
    }

    /// The cache of a slab's page; `None` for pages of no slab.
    #[inline]
    pub(crate) fn of_page(page: &Lookup) -> Option<&'static Cache> {
        page.place().cache().map(Cache::of_number)
    }

    /// The cache of a slab.
    #[inline]
    pub(super) fn of_slab(slab: SlabPlace) -> &'static Cache {
        match slab.cache() {
            Some(number) => Cache::of_number(number),
            None => die!("a slab of no cache"),
        }
    }

    /// The cache of a number that a page of a slab has.
    #[inline]
    pub(super) fn of_number(number: u16) -> &'static Cache {
        let number = usize::from(number);
        match super::caches().get(number) {
            Some(cache) => cache,
            None => Cache::of_high_number(number),
        }
    }

    /// The cache of a number that is no size class's.
    #[cold]
    fn of_high_number(number: usize) -> &'static Cache {
        meta::of_number(number).unwrap_or_else(|| TABLE.get((number - meta::END_NUMBER) as u32))
    }

    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed) as usize
    }

    #[inline]
    pub(super) fn nr_objects(&self) -> u32 {
        self.nr_objects.load(Ordering::Relaxed)
    }

    /// Where the first object of a slab is that starts there.
    pub(super) fn first_object(&self, slab: NonNull<u8>) -> NonNull<u8> {
        // SAFETY: slabs are larger than what they have before their first object.
        unsafe { slab.add(self.nr_first.load(Ordering::Relaxed) as usize) }
    }

    /// Where an object of a slab is, whose first one is there.
    #[inline]
    pub(super) fn object_at(&self, first: NonNull<u8>, obj_idx: u32) -> NonNull<u8> {
        // SAFETY: objects of a slab lie inside its run.
        unsafe { first.add(obj_idx as usize * self.size()) }
    }

    /// Whether the bits of its slabs are in them, before the first object.
    pub(super) fn has_bits_inside(&self) -> bool {
        self.nr_first.load(Ordering::Relaxed) > 0
    }

    pub(super) fn nr_pages(&self) -> u32 {
        self.nr_pages.load(Ordering::Relaxed)
    }

    /// Empty slabs that it keeps: none while its slabs stand nearly empty.
    pub(super) fn keep_empty(&self) -> u32 {
        if self.sheaf_size.lets_slabs_go() { 0 } else { self.keep_empty.load(Ordering::Relaxed) }
    }

    /// The CPUs' stacks of this cache.
    #[inline(always)]
    pub(crate) fn stacks(&self) -> Stacks {
        // Relaxed: what it points at is in the area, whose making happened before anybody stored this.
        Stacks::from_ptr(self.stacks.load(Ordering::Relaxed))
    }

    /// Finds the stacks, before each slab; `None` without memory for them.
    pub(super) fn find_stacks(&self) -> Option<Stacks> {
        // Acquire pairs with the Release below: who makes a slab passes on that the stacks are empty, and the area made.
        let known = Stacks::from_ptr(self.stacks.load(Ordering::Acquire));
        if known.are_found() {
            return Some(known);
        }
        let stacks = if self.is_engines() { Stacks::nobodys() } else { Stacks::of_number(usize::from(self.number())) }?;
        self.stacks.store(stacks.as_ptr(), Ordering::Release);
        Some(stacks)
    }

    /// What its slabs are, for the one that starts there: to be published in its pages.
    pub(super) fn place_of(&self, slab: NonNull<u8>, stacks: Stacks) -> SlabPlace {
        let id = CacheKindId::of_cache(self.number());
        id.kind().set(self.size(), self.nr_objects(), stacks.as_ptr());
        SlabPlace::new(self.first_object(slab), id)
    }

    /// Which cache this is: see [`Cache::of_number`].
    pub(super) fn number(&self) -> u16 {
        // `create` makes none with a higher one.
        self.number.load(Ordering::Relaxed) as u16
    }

    /// Whether this is the cache of a size class.
    pub(super) fn is_class(&self) -> bool {
        usize::from(self.number()) < NR_CLASSES
    }

    /// Whether this is one of the engine's own caches.
    pub(super) fn is_engines(&self) -> bool {
        !self.is_class() && usize::from(self.number()) < meta::END_NUMBER
    }

    /// What an object costs its owner: its slot and its owner word.
    #[inline]
    pub(crate) fn price(&self) -> u64 {
        (self.size() + hooks::OWNER_BYTES) as u64
    }

    pub(crate) fn stat(&self) -> CacheStat {
        let nr_slabs = self.counters.nr_slabs.load(Ordering::Relaxed);
        CacheStat {
            nr_slabs,
            slab_bytes: nr_slabs * self.nr_pages() as u64 * PAGE_SIZE as u64,
            owner_bytes: self.counters.owner_bytes.load(Ordering::Relaxed),
            nr_objects: self.nr_taken(),
        }
    }

    /// So many objects are taken from their slabs, or put back. Under the lock of the lists.
    pub(super) fn change_taken(&self, change: i64) {
        let nr_taken = self.nr_taken();
        self.nr_taken.store(nr_taken.wrapping_add_signed(change), Ordering::Relaxed);
    }

    /// Objects that are not free in their slab. Exact at a quiet point.
    pub(super) fn nr_taken(&self) -> u64 {
        self.nr_taken.load(Ordering::Relaxed)
    }

    /// An object is about to be charged.
    pub(super) fn note_owners(&self) {
        if !self.may_have_owners() {
            self.has_owners.store(1, Ordering::Relaxed);
        }
    }

    /// Whether any object was ever charged.
    pub(super) fn may_have_owners(&self) -> bool {
        self.has_owners.load(Ordering::Relaxed) != 0
    }

    /// Objects that its slabs have room for.
    pub(super) fn nr_places(&self) -> u64 {
        self.counters.nr_slabs.load(Ordering::Relaxed) * u64::from(self.nr_objects())
    }
}
