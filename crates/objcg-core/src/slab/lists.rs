//! The slabs of a cache that have free objects, and the moves between their states (table in [`super`]).
//!
//! Partial slabs are taken lowest address first: low slabs fill up, high ones empty and go back. One lock a cache; pages
//! and the engine's memory are taken and given back outside it.

#![expect(unsafe_code, reason = "object addresses are computed, detached metadata is freed")]

use core::ptr::NonNull;

use super::cache::Cache;
use super::free_object::FreeObject;
use super::obj_exts::{self, OwnerVector};
use super::sheaf::Sheaf;
use super::{SlabObject, free_bits, meta};
use crate::hardening;
use crate::hooks;
use crate::os::PAGE_SIZE;
use crate::page_alloc::{self, Lookup, PageIdx, PageKind, Run, RunHeap, lookup, page};
use crate::report::die;
use crate::sync::{AtomicU32, Ordering};

pub(super) struct SlabLists {
    partial: RunHeap,
    empty: RunHeap,
    nr_empty: u32,
}

impl SlabLists {
    pub(super) const EMPTY: SlabLists = SlabLists { partial: RunHeap::EMPTY, empty: RunHeap::EMPTY, nr_empty: 0 };

    /// Takes up to `want` objects from partial, then from empty slabs.
    fn take(&mut self, cache: &Cache, want: u32, found: &mut impl FnMut(FreeObject)) -> u32 {
        let mut nr_taken = 0;
        while nr_taken < want {
            let slab = match self.partial.lowest() {
                Some(slab) => slab,
                None => match self.empty.pop_lowest() {
                    Some(slab) => {
                        self.nr_empty -= 1;
                        self.partial.insert(slab);
                        slab
                    }
                    None => break,
                },
            };
            let head = page(slab);
            let base = page_alloc::address(slab);
            nr_taken += free_bits::take(head, cache.nr_objects(), want - nr_taken, |obj_idx| {
                // SAFETY: objects of a slab lie inside its run.
                let address = unsafe { base.add(obj_idx as usize * cache.size()) };
                found(FreeObject::of_slab(address));
            });
            if head.nr_free().load(Ordering::Relaxed) == 0 {
                self.partial.remove(slab);
            }
        }
        nr_taken
    }

    /// Marks one object free. Slabs that may go are moved to `surplus`.
    fn put(&mut self, cache: &Cache, object: &SlabObject, surplus: &mut RunHeap) {
        let nr_objects = cache.nr_objects();
        let slab = object.slab();
        let Some(nr_free) = free_bits::put(page(slab), nr_objects, object.obj_idx) else {
            die!("{:p}: double free of an object of {} bytes", object.address, cache.size());
        };
        if nr_free == 1 && nr_objects > 1 {
            self.partial.insert(slab);
        }
        if nr_free < nr_objects {
            return;
        }
        if nr_objects > 1 {
            self.partial.remove(slab);
        }
        if self.nr_empty < cache.keep_empty() {
            self.empty.insert(slab);
            self.nr_empty += 1;
        } else {
            surplus.insert(slab);
        }
    }
}

impl Cache {
    /// Takes up to `want` objects (at least 1) from the slabs, making a new slab if there is no free object; returns how
    /// many were found: 0 only without memory.
    pub(super) fn take(&self, want: u32, mut found: impl FnMut(FreeObject)) -> u32 {
        let mut nr_taken = self.lists.lock().take(self, want, &mut found);
        if nr_taken == 0 {
            let Some(slab) = self.new_slab() else { return 0 };
            let mut lists = self.lists.lock();
            lists.partial.insert(slab);
            nr_taken = lists.take(self, want, &mut found);
        }
        self.counters.nr_taken.fetch_add(u64::from(nr_taken), Ordering::Relaxed);
        nr_taken
    }

    /// Takes one object from the slabs.
    pub(super) fn take_one(&self) -> Option<FreeObject> {
        let mut object = None;
        self.take(1, |found| object = Some(found));
        object
    }

    /// Puts a sheaf's objects back into their slabs; empty slabs beyond those kept go back to the page layer.
    pub(super) fn put_all(&self, sheaf: &mut Sheaf) {
        if self.has_owners() {
            hooks::discharge(
                sheaf.iter().filter_map(|object| SlabObject::of(object.address()).real_owner()),
                self.price(),
            );
        }
        self.put(sheaf.drain());
    }

    /// Puts one object back into its slab.
    pub(super) fn put_one(&self, object: FreeObject) {
        if let Some(owner) = SlabObject::of(object.address()).real_owner() {
            hooks::discharge_one(owner, self.price());
        }
        self.put(core::iter::once(object));
    }

    /// Puts objects that nobody is charged for back into their slabs.
    fn put(&self, objects: impl Iterator<Item = FreeObject>) {
        let mut surplus = RunHeap::EMPTY;
        let mut nr_put = 0;
        let mut lists = self.lists.lock();
        for object in objects {
            lists.put(self, &SlabObject::of(object.address()), &mut surplus);
            nr_put += 1;
        }
        drop(lists);
        self.counters.nr_taken.fetch_sub(nr_put, Ordering::Relaxed);
        self.destroy_slabs(surplus);
    }

    /// Gives empty slabs back until `keep` are left.
    pub(super) fn trim_empty(&self, keep: u32) {
        let mut surplus = RunHeap::EMPTY;
        let mut lists = self.lists.lock();
        while lists.nr_empty > keep {
            let Some(slab) = lists.empty.pop_lowest() else { break };
            lists.nr_empty -= 1;
            surplus.insert(slab);
        }
        drop(lists);
        self.destroy_slabs(surplus);
    }

    fn new_slab(&self) -> Option<PageIdx> {
        self.find_stacks();
        let run = page_alloc::alloc(self.nr_pages(), 1, PageKind::Engine)?;
        if hardening::has_tracks() && !run.zeroed {
            // SAFETY: the run is ours alone, and has so many bytes.
            unsafe { run.address().write_bytes(0, self.nr_pages() as usize * PAGE_SIZE) };
        }
        let head = run.page();
        if !free_bits::init(head, self.nr_objects()) {
            page_alloc::free(run);
            return None;
        }
        page_alloc::mark_tails(&run);
        for page in run.lookups() {
            page.start.store(run.address().addr().get() as u32, Ordering::Relaxed);
            page.obj_exts.store(OwnerVector::nobodys().as_ptr(), Ordering::Relaxed);
            page.cache.store(self.as_page_field(), Ordering::Relaxed);
            // Release pairs with the Acquire of whoever looks a page up: the rest is there.
            page.reciprocal.store(self.reciprocal(), Ordering::Release);
        }
        self.counters.nr_slabs.fetch_add(1, Ordering::Relaxed);
        // Only now: a walk that finds a slab may read all of its descriptor.
        page_alloc::publish_slab(run.head);
        Some(run.head)
    }

    fn destroy_slabs(&self, mut slabs: RunHeap) {
        while let Some(slab) = slabs.pop_lowest() {
            let bits = free_bits::detach(page(slab), self.nr_objects());
            let vector = obj_exts::load(&lookup(slab).obj_exts).if_real();
            self.counters.nr_slabs.fetch_sub(1, Ordering::Relaxed);
            let run = Run::of_head(slab);
            // From here on a walk finds no slab here, and a stray free no cache.
            page_alloc::retract_slab(&run);
            run.lookups().for_each(|page| page.reciprocal.store(0, Ordering::Relaxed));
            page_alloc::free(run);
            if let Some((address, nr_bytes)) = bits {
                let words = core::ptr::with_exposed_provenance_mut::<u8>(address as usize);
                let Some(words) = NonNull::new(words) else { die!("slab {slab:?}: lost its bitmap") };
                // SAFETY: the slab is gone, and with it the only reference to its bits.
                unsafe { meta::free(words, nr_bytes) };
            }
            if let Some(vector) = vector {
                self.free_owner_vector(vector);
            }
        }
    }

    /// The owner word of an object, in a vector that is made now if the slab has none yet; `None` without memory.
    pub(crate) fn owner_word(&self, object: &SlabObject) -> Option<&'static AtomicU32> {
        if let Some(vector) = obj_exts::load(&object.page.obj_exts).if_real() {
            return Some(object.owner_in(vector));
        }
        let run = Run::of_head(object.slab());
        let vector = match obj_exts::load(&lookup(run.head).obj_exts).if_real() {
            Some(vector) => vector,
            None => self.make_vector(lookup(run.head))?,
        };
        // Every page of the slab gets it before the object is handed out: whoever frees it sees it. Release pairs with the
        // Acquire in `load`.
        run.lookups().for_each(|page| page.obj_exts.store(vector.as_ptr(), Ordering::Release));
        Some(object.owner_in(vector))
    }

    fn make_vector(&self, head: &Lookup) -> Option<OwnerVector> {
        let fresh = OwnerVector::new(meta::alloc(self.owner_vector_bytes())?.cast());
        self.counters.owner_bytes.fetch_add(self.full_owner_bytes(), Ordering::Relaxed);
        let (vector, mine) = obj_exts::install(&head.obj_exts, OwnerVector::nobodys().as_ptr(), fresh);
        if !mine {
            self.free_owner_vector(fresh);
        }
        Some(vector)
    }

    fn owner_vector_bytes(&self) -> usize {
        self.nr_objects() as usize * size_of::<AtomicU32>()
    }

    fn full_owner_bytes(&self) -> u64 {
        meta::full_size(self.owner_vector_bytes()) as u64
    }

    fn free_owner_vector(&self, vector: OwnerVector) {
        self.counters.owner_bytes.fetch_sub(self.full_owner_bytes(), Ordering::Relaxed);
        // SAFETY: the vector was never installed, or its slab is gone: nothing refers to it.
        unsafe { meta::free(vector.first().cast(), self.owner_vector_bytes()) };
    }
}

impl SlabObject {
    /// Aborts if the object is free. Free ones bear a mark; a live one may by what its user wrote, so that is looked into.
    pub(crate) fn check_live(&self) {
        if FreeObject::at(self.address).is_of(self.owner_id()) {
            self.look_whether_free();
        }
    }

    #[cold]
    #[inline(never)]
    fn look_whether_free(&self) {
        // Objects in sheaves count as taken: they go to their slabs first, and those stay.
        self.cache.shrink_to(u32::MAX);
        let _lists = self.cache.lists.lock();
        let is_live = SlabObject::find(self.address).is_some_and(|now| {
            let nr_objects = now.cache.nr_objects();
            !free_bits::is_free(page(now.slab()), nr_objects, now.obj_idx)
        });
        if !is_live {
            die!("{:p}: realloc of a free object of {} bytes", self.address, self.cache.size());
        }
    }
}
