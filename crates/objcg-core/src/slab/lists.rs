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
use crate::hooks::{self, Purse};
use crate::memcg::ROOT_VESSEL;
use crate::page_alloc::{self, PageIdx, PageKind, Run, RunHeap, SlabPlace, SlabRun, Touches, lookup, page};
use crate::report::die;
use crate::size_class::is_dear;
use crate::sync::{AtomicU32, Ordering};

pub(super) struct SlabLists {
    partial: RunHeap<SlabRun>,
    empty: RunHeap<SlabRun>,
    nr_empty: u32,
}

impl SlabLists {
    pub(super) const EMPTY: SlabLists = SlabLists { partial: RunHeap::EMPTY, empty: RunHeap::EMPTY, nr_empty: 0 };

    /// Takes up to `want` objects from partial, then from empty slabs. Those from slabs that are the purse's group's alone are paid
    /// out of it and charged; all others are nobody's.
    fn take(&mut self, cache: &Cache, want: u32, purse: &mut Purse, found: &mut impl FnMut(FreeObject)) -> u32 {
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
            match self.take_from(slab, cache, want - nr_taken, purse, found) {
                0 => break,
                nr_more => nr_taken += nr_more,
            }
        }
        nr_taken
    }

    /// The same from one partial slab; none without memory for the owner vector that this needs.
    fn take_from(
        &mut self,
        slab: PageIdx,
        cache: &Cache,
        want: u32,
        purse: &mut Purse,
        found: &mut impl FnMut(FreeObject),
    ) -> u32 {
        let head = page(slab);
        let first = cache.first_object(page_alloc::address(slab));
        let nr_free = head.nr_free().load(Ordering::Relaxed);
        let Some((nr_objects, owner)) = cache.offer(&Run::of_head(slab), nr_free.min(want), purse) else { return 0 };
        let nr_taken = free_bits::take(head, cache.nr_objects(), nr_objects, |obj_idx| {
            found(FreeObject::of_slab(cache.object_at(first, obj_idx), owner));
        });
        if nr_objects == nr_free {
            self.partial.remove(slab);
        }
        cache.change_taken(i64::from(nr_taken));
        nr_taken
    }

    /// Marks one object free. Slabs that may go are moved to `surplus`.
    fn put(&mut self, cache: &Cache, object: Homing, surplus: &mut RunHeap<SlabRun>) {
        let nr_objects = cache.nr_objects();
        let Homing { slab, obj_idx, place } = object;
        // If the slab has gone since the object was looked up, as far as can be seen, that was on its way twice.
        let is_there = lookup(slab).place() == place;
        let nr_free = if is_there { free_bits::put(page(slab), nr_objects, obj_idx) } else { None };
        let Some(nr_free) = nr_free else {
            let object = cache.object_at(cache.first_object(page_alloc::address(slab)), obj_idx);
            die!("{object:p}: double free of an object of {} bytes", cache.size());
        };
        // Here, under the lock: a vector may have come, with its old owner, since it was discharged.
        let vector = OwnerVector::load(&lookup(slab).obj_exts);
        if vector.sole_owner().is_none() {
            // SAFETY: the object was found in this slab, which the lists have until after that, if this was its last one.
            unsafe { vector.word(obj_idx) }.store(ROOT_VESSEL, Ordering::Relaxed);
        }
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

/// So many objects are put back at once.
const NR_AT_ONCE: usize = 32;

/// An object on its way into its slab.
#[derive(Clone, Copy)]
struct Homing {
    slab: PageIdx,
    obj_idx: u32,
    /// What the slab was when it was looked up.
    place: SlabPlace,
}

impl Cache {
    /// Takes up to `want` objects (at least 1) from the slabs, making a new slab if there is no free object; returns how
    /// many were found: 0 only without memory for a slab, or for the owner vector that free places of others' slabs need. Some may have
    /// been paid out of the purse.
    pub(super) fn take(&self, want: u32, purse: &mut Purse, mut found: impl FnMut(FreeObject)) -> u32 {
        let nr_taken = self.lists.lock().take(self, want, purse, &mut found);
        if nr_taken > 0 {
            return nr_taken;
        }
        if self.call_in() {
            let nr_taken = self.lists.lock().take(self, want, purse, &mut found);
            if nr_taken > 0 {
                return nr_taken;
            }
        }
        match self.new_slab() {
            Some(slab) => self.take_from_new(slab, want, purse, &mut found),
            // What is left are slabs that are somebody's alone. Their owner gets objects of them if it pays.
            None => {
                purse.fill();
                self.lists.lock().take(self, want, purse, &mut found)
            }
        }
    }

    fn take_from_new(&self, slab: PageIdx, want: u32, purse: &mut Purse, found: &mut impl FnMut(FreeObject)) -> u32 {
        // It can be its group's alone, if the group is large enough for that.
        if OwnerVector::of_sole(purse.group(), self.nr_objects()).is_some() {
            purse.fill();
        }
        let mut lists = self.lists.lock();
        lists.partial.insert(slab);
        // From this one: of others nothing may be had without memory for an owner vector.
        lists.take_from(slab, self, want, purse, found)
    }

    /// Takes one object from the slabs, for nobody.
    pub(super) fn take_one(&self) -> Option<FreeObject> {
        let mut object = None;
        self.take(1, &mut Purse::nobodys(), |found| object = Some(found));
        object
    }

    /// The same for a group, and whether it was charged up the tree for it: [`hooks::went_up`] is owed then.
    pub(super) fn take_one_for(&self, group: u32) -> (Option<FreeObject>, bool) {
        let mut object = None;
        let mut purse = Purse::of(group, 1, self.price());
        self.take(1, &mut purse, |found| object = Some(found));
        (object, purse.went_up())
    }

    /// Puts a sheaf's objects back into their slabs; empty slabs beyond those kept go back to the page layer.
    pub(super) fn put_all(&self, sheaf: &mut Sheaf) {
        self.put(sheaf.drain());
    }

    /// Puts one object back into its slab.
    pub(super) fn put_one(&self, object: FreeObject) {
        self.put(core::iter::once(object));
    }

    /// Gives the price of objects back and puts them into their slabs. They are looked up once, and without the lock.
    fn put(&self, mut objects: impl Iterator<Item = FreeObject>) {
        let mut surplus = RunHeap::EMPTY;
        let nothing = Homing { slab: PageIdx::NONE, obj_idx: 0, place: SlabPlace::NONE };
        let mut batch = [nothing; NR_AT_ONCE];
        loop {
            let mut nr_objects = 0;
            let owners = batch.iter_mut().zip(&mut objects).map(|(homing, object)| {
                let object = SlabObject::of(object.address());
                *homing = Homing { slab: object.slab(), obj_idx: object.obj_idx, place: object.place };
                nr_objects += 1;
                object.owner_id()
            });
            if self.may_have_owners() {
                hooks::discharge(owners, self.price());
            } else {
                owners.for_each(drop);
            }
            if nr_objects == 0 {
                break;
            }
            let mut lists = self.lists.lock();
            for object in &batch[..nr_objects] {
                lists.put(self, *object, &mut surplus);
            }
            self.change_taken(-(nr_objects as i64));
            drop(lists);
            if nr_objects < NR_AT_ONCE {
                break;
            }
        }
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
        let stacks = self.find_stacks()?;
        let run = self.new_run()?;
        let head = run.page();
        let inside = self.has_bits_inside().then(|| run.address());
        if !free_bits::init(head, self.nr_objects(), inside) {
            page_alloc::free(run, self.touches());
            return None;
        }
        page_alloc::mark_tails(&run);
        let place = self.place_of(run.address(), stacks);
        for page in run.lookups() {
            OwnerVector::nobodys().store(&page.obj_exts);
            // Last: whoever looks the page up finds the rest.
            page.set_place(place);
        }
        self.counters.nr_slabs.fetch_add(1, Ordering::Relaxed);
        // Only now: a walk that finds a slab may read all of its descriptor.
        page_alloc::publish_slab(run.head);
        Some(run.head)
    }

    fn new_run(&self) -> Option<Run> {
        if hardening::has_tracks() {
            page_alloc::alloc_zeroed(self.nr_pages())
        } else if self.is_engines() {
            // For whoever may hold the lists of another cache.
            page_alloc::alloc(self.nr_pages(), 1, PageKind::Engine, Touches::All)
        } else {
            page_alloc::alloc_at_peak(self.nr_pages(), 1, PageKind::Engine, self.touches())
        }
    }

    /// What is touched of a slab: of dear objects, which are larger than a page, perhaps not all.
    fn touches(&self) -> Touches {
        if is_dear(self.size()) { Touches::Some } else { Touches::All }
    }

    fn destroy_slabs(&self, mut slabs: RunHeap<SlabRun>) {
        while let Some(slab) = slabs.pop_lowest() {
            let outside = !self.has_bits_inside();
            let bits = outside.then(|| free_bits::detach(page(slab), self.nr_objects())).flatten();
            let vector = OwnerVector::load(&lookup(slab).obj_exts);
            let run = Run::of_head(slab);
            // From here on a walk finds no slab here, and a stray free no cache: before the pages go, as `is_free_in_slab` counts on.
            page_alloc::retract_slab(&run);
            run.lookups().for_each(|page| page.set_place(SlabPlace::NONE));
            page_alloc::free(run, self.touches());
            if let Some((address, nr_bytes)) = bits {
                let words = core::ptr::with_exposed_provenance_mut::<u8>(address as usize);
                let Some(words) = NonNull::new(words) else { die!("slab {slab:?}: lost its bitmap") };
                // SAFETY: the slab is gone, and with it the only reference to its bits.
                unsafe { meta::free_beside_slab(words, nr_bytes) };
            }
            if vector.sole_owner().is_none() {
                self.free_owner_vector(vector);
            }
            // Only now: a cache without slabs may become another.
            self.counters.nr_slabs.fetch_sub(1, Ordering::Release);
        }
    }

    /// How many of `nr_objects` free objects of a slab can be taken, and to whom they are charged now: to the purse's group, if it
    /// pays and the slab is its alone or unused, else to nobody. `None` without memory for the vector that this needs. With the
    /// lists held.
    fn offer(&self, slab: &Run, nr_objects: u32, purse: &mut Purse) -> Option<(u32, u32)> {
        let Some(sole) = OwnerVector::load(&lookup(slab.head).obj_exts).sole_owner() else {
            return Some((nr_objects, ROOT_VESSEL));
        };
        let group = purse.payer();
        let is_unused = slab.page().nr_free().load(Ordering::Relaxed) == self.nr_objects();
        if group != ROOT_VESSEL && (sole == group || is_unused && self.set_sole_owner(slab, sole, group)) {
            return Some((purse.pay(nr_objects), group));
        }
        if is_unused {
            self.set_sole_owner(slab, sole, ROOT_VESSEL);
        } else if sole != ROOT_VESSEL {
            self.give_vector(slab, self.make_vector()?, sole);
        }
        Some((nr_objects, ROOT_VESSEL))
    }

    /// Of an unused slab; false if the new one has no vector for that.
    fn set_sole_owner(&self, slab: &Run, old: u32, new: u32) -> bool {
        let Some(vector) = OwnerVector::of_sole(new, self.nr_objects()) else { return false };
        if old != new {
            self.note_owners();
            slab.lookups().for_each(|page| vector.store(&page.obj_exts));
        }
        true
    }

    /// The owner word of an object that is not free in its slab, in a vector that is made now if the slab has none of its own yet;
    /// `None` without memory.
    pub(crate) fn owner_word(&self, object: &SlabObject) -> Option<&'static AtomicU32> {
        object.own_word().or_else(|| self.new_owner_word(object.address))
    }

    /// The same, where the slab had none when the caller looked.
    #[cold]
    #[inline(never)]
    pub(super) fn new_owner_word(&self, address: NonNull<u8>) -> Option<&'static AtomicU32> {
        let object = SlabObject::of(address);
        let slab = Run::of_head(object.slab());
        let fresh = self.make_vector()?;
        let lists = self.lists.lock();
        let current = OwnerVector::load(&lookup(slab.head).obj_exts);
        let Some(sole) = current.sole_owner() else {
            // Another CPU was first.
            drop(lists);
            self.free_owner_vector(fresh);
            return Some(object.owner_in(current));
        };
        self.give_vector(&slab, fresh, sole);
        Some(object.owner_in(fresh))
    }

    /// Gives a slab with a sole owner a vector of its own. With the lists held.
    fn give_vector(&self, slab: &Run, fresh: OwnerVector, sole: u32) {
        let (head, nr_objects) = (slab.page(), self.nr_objects());
        let is_taken = |obj_idx| !free_bits::is_free(head, nr_objects, obj_idx);
        obj_exts::give_vector(slab.lookups().map(|page| &page.obj_exts), fresh, sole, nr_objects, is_taken);
    }

    fn make_vector(&self) -> Option<OwnerVector> {
        let vector = OwnerVector::new(meta::alloc_beside_slab(self.owner_vector_bytes())?.cast());
        self.note_owners();
        self.counters.owner_bytes.fetch_add(self.full_owner_bytes(), Ordering::Relaxed);
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
        unsafe { meta::free_beside_slab(vector.first().cast(), self.owner_vector_bytes()) };
    }
}

impl SlabObject {
    /// Aborts if the object is free. Free ones bear a mark; a live one may by what its user wrote, so that is looked into.
    pub(crate) fn check_live(&self) {
        if FreeObject::at(self.address).is_of(self.owner_id()) {
            self.look_whether_free();
        }
    }

    /// Whether its slab has it among its free objects, or is gone.
    fn is_free_in_slab(&self, cache: &Cache) -> bool {
        let _lists = cache.lists.lock();
        // The cache's slabs may be going: pages that are no slab's are found to be none, and none that are a slab's go before its bits
        // are read.
        page_alloc::while_no_run_goes(|| {
            SlabObject::find(self.address).is_none_or(|now| {
                !core::ptr::eq(now.cache(), cache)
                    || free_bits::is_free(page(now.slab()), cache.nr_objects(), now.obj_idx)
            })
        })
    }

    #[cold]
    #[inline(never)]
    fn look_whether_free(&self) {
        // Objects in sheaves count as taken: they go to their slabs first, and those stay.
        let cache = self.cache();
        // First as it is, a few locks for a moment each: whoever chooses what is in memory can have this called each time.
        if !cache.seems_to_hold(self.address) && !self.is_free_in_slab(cache) {
            return;
        }
        cache.shrink_to(u32::MAX);
        if self.is_free_in_slab(cache) {
            die!("{:p}: realloc of a free object of {} bytes", self.address, cache.size());
        }
    }
}
