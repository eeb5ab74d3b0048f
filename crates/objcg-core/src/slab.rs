//! Slabs: runs of pages cut into objects of one cache, shared by all groups.
//!
//! Key types: [`Cache`] (all slabs of one size), [`SlabObject`] (an address that was looked up), `Sheaf` (a CPU's array of
//! free objects), `Barn` (the store of sheaves). Below: `page_alloc`. This side knows nothing of groups; the owner vector
//! is only memory here, what is in it is the business of `hooks`.
//!
//! # Slab states
//!
//! | state | free objects | on list | leaves it when |
//! |---|---|---|---|
//! | partial | 1 … n−1 | `partial`, lowest address first | its last object is taken → full; its last comes back → empty |
//! | full | 0 | none | an object comes back → partial |
//! | empty | n | `empty`, at most `keep_empty` | an object is taken → partial; trimmed → gone |
//!
//! A free object is in exactly one place: its slab's bitmap, a sheaf in a CPU's slot, or a sheaf in the barn. Slabs see
//! objects in sheaves as taken.
//!
//! # Lock order
//!
//! CPU slot → barn → slab lists → the engine's own caches (their slab lists) → page lock. See `LOCKING.md`.

#![expect(unsafe_code, reason = "reads and writes the mark in free objects")]

mod barn;
mod cache;
mod cpu_sheaves;
mod free_bits;
mod lists;
mod meta;
mod obj_exts;
mod sheaf;

use core::ptr::NonNull;

use crate::page_alloc::{self, Page, PageIdx, page};
use crate::report::die;
use crate::sync::{AtomicPtr, AtomicU32, Ordering};

pub(crate) use cache::Cache;
pub use cache::CacheStat;
pub(crate) use meta::caches_for_fork;

/// An object's address that was looked up and found to be the start of an object of a slab.
pub(crate) struct SlabObject {
    pub(crate) address: NonNull<u8>,
    pub(crate) page: &'static Page,
    slab: PageIdx,
    obj_idx: u32,
}

impl SlabObject {
    /// Looks up an object that the engine itself handed out or holds.
    pub(crate) fn of(address: NonNull<u8>) -> SlabObject {
        match page_alloc::head_of(address.as_ptr() as usize) {
            Some(slab) => SlabObject::in_slab(address, slab),
            None => die!("{address:p}: a free list leads out of the heap"),
        }
    }

    /// Looks up an address whose page belongs to the slab with this head; aborts unless an object starts there.
    #[inline]
    pub(crate) fn in_slab(address: NonNull<u8>, slab: PageIdx) -> SlabObject {
        let head = page(slab);
        let offset = address.as_ptr() as usize - page_alloc::address(slab).as_ptr() as usize;
        match Cache::of_slab(head).obj_idx(offset) {
            Some(obj_idx) => SlabObject { address, page: head, slab, obj_idx },
            None => die!("{address:p}: not the start of an object of {} bytes", Cache::of_slab(head).size()),
        }
    }

    /// The object's owner id, if its slab has owners.
    #[inline]
    pub(crate) fn owner(&self) -> Option<&'static AtomicU32> {
        let vector = obj_exts::load(&self.page.obj_exts)?;
        Some(self.owner_in(vector))
    }

    /// The object's owner id in its slab's vector.
    #[inline]
    pub(crate) fn owner_in(&self, vector: NonNull<AtomicU32>) -> &'static AtomicU32 {
        // SAFETY: the slab's cache made the vector with an id for each of its objects; it stays until the slab is
        // destroyed, which this live object prevents.
        let owners = unsafe { obj_exts::owners(vector, Cache::of_slab(self.page).nr_objects()) };
        &owners[self.obj_idx as usize]
    }

    /// What a free object's first word holds while it waits in a sheaf: its address, scrambled, so that the word of a
    /// live object is this by chance only once in 2^64.
    fn mark_of(address: NonNull<u8>) -> u64 {
        static SALT: u8 = 0;
        // The address of a static differs from run to run.
        (address.as_ptr() as u64 ^ (&raw const SALT) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[inline]
    fn is_marked(&self) -> bool {
        // SAFETY: every object has at least 8 bytes, is aligned to 8, and is the engine's from here on. Volatile: the
        // user may have left the bytes uninitialised, any value will do.
        unsafe { self.address.cast::<u64>().read_volatile() == Self::mark_of(self.address) }
    }

    #[inline]
    fn mark(&self) {
        // SAFETY: as in `is_marked`.
        unsafe { self.address.cast::<u64>().write(Self::mark_of(self.address)) };
    }

    /// Removes the mark of an object that is handed out.
    #[inline]
    fn clear_mark(address: NonNull<u8>) {
        // SAFETY: the object was just taken out of a sheaf, so it is the engine's; it has at least 8 aligned bytes.
        unsafe { address.cast::<u64>().write(0) };
    }

    #[cold]
    #[inline(never)]
    fn report_double_free(&self) -> ! {
        die!("{:p}: double free of an object of {} bytes", self.address, Cache::of_slab(self.page).size())
    }
}

/// The owner ids of a slab's objects, if it has any; ids of free objects are 0.
///
/// The slice is good only while the page lock is held, as it is during [`page_alloc::for_each_object_run`].
pub(crate) fn owners_of_slab(head: &Page) -> Option<&[AtomicU32]> {
    let vector: &AtomicPtr<AtomicU32> = &head.obj_exts;
    let vector = NonNull::new(vector.load(Ordering::Acquire))?;
    // SAFETY: the page lock keeps the slab, and its vector is freed only after the slab.
    Some(unsafe { obj_exts::owners(vector, Cache::of_slab(head).nr_objects()) })
}
