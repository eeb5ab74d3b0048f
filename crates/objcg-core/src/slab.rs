//! Slabs: runs of pages cut into objects of one cache, shared by all groups.
//!
//! Key types: [`Cache`] (all slabs of one size), [`SlabObject`] (an address that was looked up), `Sheaf` (a CPU's array of
//! free objects), `Barn` (the store of sheaves). Below: `page_alloc`, and `hooks`, which charges: this side only says when an
//! object changes hands.
//!
//! # Slab states
//!
//! | state | free objects | on list | leaves it when |
//! |---|---|---|---|
//! | partial | 1 … n−1 | `partial`, lowest address first | its last object is taken → full; its last comes back → empty |
//! | full | 0 | none | an object comes back → partial |
//! | empty | n | `empty`, at most `keep_empty` | an object is taken → partial; trimmed → gone |
//!
//! A free object is in exactly one place: its slab's bitmap, a sheaf of a CPU, or a sheaf in the barn. Slabs see objects in
//! sheaves as taken. In a sheaf an object keeps its charge (`in_kind`), in its slab it has none.
//!
//! # Lock order
//!
//! CPU slot → barn → slab lists → the engine's own caches (their slab lists) → page lock. See `LOCKING.md`.

#![expect(unsafe_code, reason = "owner words and owner vectors are reached through descriptors")]

mod barn;
mod cache;
mod cpu_sheaves;
mod free_bits;
mod free_object;
mod hardened;
mod in_kind;
mod lists;
mod meta;
mod obj_exts;
mod retire;
mod sheaf;
mod sheaf_size;
mod sole_owners;

use core::ptr::NonNull;

use crate::cpu::Stacks;
use crate::page_alloc::{self, CacheKind, LookedUp, Lookup, Page, PageIdx, SlabPlace};
use crate::report::die;
use crate::size_class::{NR_CLASSES, SizeClass};
use crate::sync::{AtomicU32, Ordering};

pub(crate) use cache::Cache;
pub use cache::CacheStat;
pub(crate) use free_object::FreeObject;
pub(crate) use in_kind::{Members, bound as in_kind_bound};
pub(crate) use meta::caches_for_fork;
use obj_exts::OwnerVector;
pub(crate) use sole_owners::nr_bytes as shared_owner_bytes;

/// The caches of the size classes.
static CACHES: [Cache; NR_CLASSES] = {
    let mut caches = [const { Cache::UNUSED }; NR_CLASSES];
    let mut index = 0;
    while index < NR_CLASSES {
        caches[index] = Cache::for_class(SizeClass::from_index(index));
        index += 1;
    }
    caches
};

/// The caches of the size classes.
pub(crate) fn caches() -> &'static [Cache; NR_CLASSES] {
    &CACHES
}

/// Every typed cache, those that are not in use among them: their locks are free, their lists empty.
pub(crate) fn typed_caches() -> impl DoubleEndedIterator<Item = &'static Cache> {
    Cache::all_of_table()
}

/// An object's address that was looked up and found to be the start of an object of a slab.
#[derive(Clone, Copy)]
pub(crate) struct SlabObject {
    pub(crate) address: NonNull<u8>,
    /// What the page that the object starts in leads to.
    page: &'static Lookup,
    place: SlabPlace,
    /// What a free asks for of its cache.
    kind: &'static CacheKind,
    obj_idx: u32,
}

impl SlabObject {
    /// Looks an address up; `None` unless an object starts there.
    #[inline(always)]
    pub(crate) fn find(address: NonNull<u8>) -> Option<SlabObject> {
        SlabObject::in_page(address, page_alloc::lookup_at(address.as_ptr() as usize)?)
    }

    /// The same, for an address in this page.
    #[inline(always)]
    pub(crate) fn in_page(address: NonNull<u8>, found: LookedUp) -> Option<SlabObject> {
        let place = found.page.place();
        let kind = found.kind(place);
        let obj_idx = kind.object_at(place.offset(address.as_ptr() as usize))?;
        Some(SlabObject { address, page: found.page, place, kind, obj_idx })
    }

    /// Looks up an object that the engine itself handed out or holds.
    fn of(address: NonNull<u8>) -> SlabObject {
        match SlabObject::find(address) {
            Some(object) => object,
            None => die!("{address:p}: a free list leads to what is no object"),
        }
    }

    /// Whose the object is that was seen at an address while others were at work there: a hint, which may be any number. Meanwhile
    /// its slab may be gone, and its pages' descriptors be released or another slab's.
    fn alleged_owner(addr: usize) -> Option<u32> {
        let found = page_alloc::lookup_at(addr)?;
        let place = found.page.place();
        let obj_idx = found.kind(place).object_at(place.offset(addr))?;
        OwnerVector::peek(&found.page.obj_exts, obj_idx)
    }

    /// The cache of its slab.
    #[inline]
    pub(crate) fn cache(&self) -> &'static Cache {
        Cache::of_slab(self.place)
    }

    /// The CPUs' stacks of its cache.
    #[inline(always)]
    fn stacks(&self) -> Stacks {
        // Relaxed: who finds a slab finds what it is one of.
        Stacks::from_ptr(self.kind.stacks())
    }

    /// The first page of the object's slab, where its first object starts.
    fn slab(&self) -> PageIdx {
        let addr = self.address.addr().get();
        page_alloc::idx_of(addr - self.place.offset(addr) as usize)
    }

    /// The slab's owner vector, as the object's page knows it.
    #[inline(always)]
    fn vector(&self) -> OwnerVector {
        OwnerVector::load(&self.page.obj_exts)
    }

    /// The object's word in an owner vector of its slab.
    #[inline(always)]
    fn owner_in(&self, vector: OwnerVector) -> &'static AtomicU32 {
        // SAFETY: the slab's cache gave it a vector with a word for each of its objects, which stays until the slab is
        // destroyed, which this object prevents.
        unsafe { vector.word(self.obj_idx) }
    }

    /// The object's owner word, if its slab has an owner vector of its own.
    fn own_word(&self) -> Option<&'static AtomicU32> {
        let vector = self.vector();
        vector.sole_owner().is_none().then(|| self.owner_in(vector))
    }

    /// Whom the object, which is not free in its slab, is charged to.
    #[inline(always)]
    fn owner_id(&self) -> u32 {
        // Relaxed: an object is in one hand at a time; handing it over orders the accesses.
        self.owner_in(self.vector()).load(Ordering::Relaxed)
    }

    /// The object as it goes into a sheaf.
    #[inline(always)]
    fn into_free(self) -> FreeObject {
        FreeObject::freed(self.address, self.owner_id())
    }
}

/// How many objects of a slab have owners for which the test is true; objects that wait in sheaves count if they are charged.
///
/// To be called only while the page lock is held, as it is during [`page_alloc::for_each_object_run`].
pub(crate) fn nr_owned(slab: &Lookup, head: &Page, mut test: impl FnMut(u32) -> bool) -> u64 {
    let Some(cache) = Cache::of_page(slab) else { return 0 };
    let vector = OwnerVector::load(&slab.obj_exts);
    let Some(sole) = vector.sole_owner() else {
        // SAFETY: the page lock keeps the slab, and its own vector is freed only after the slab.
        let words = unsafe { vector.words(cache.nr_objects()) };
        return words.iter().filter(|word| test(word.load(Ordering::Relaxed))).count() as u64;
    };
    if !test(sole) {
        return 0;
    }
    // tidy: allow(saturating_sub): the page may have become another cache's since it was looked at
    u64::from(cache.nr_objects().saturating_sub(head.nr_free().load(Ordering::Relaxed)))
}
