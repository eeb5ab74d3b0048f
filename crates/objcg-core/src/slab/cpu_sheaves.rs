//! Each CPU's two sheaves of a cache, and the moves between sheaf, spare, barn and slabs.
//!
//! Allocation pops from the main sheaf; when it is empty the spare takes its place, then a full sheaf from the barn, then
//! a refill from the slabs. Free is the mirror image. So a loop on the boundary of a sheaf swaps two pointers; a batch of
//! objects moves under one lock. This is the portable arm: the slot is behind a lock that only threads of one CPU meet.

#![expect(unsafe_code, reason = "one array of slots a cache, reached through a pointer")]

use core::ptr::NonNull;

use super::SlabObject;
use super::cache::{Cache, barn_limit};
use super::meta;
use super::sheaf::Sheaf;
use crate::cpu::{CpuId, nr_cpus};
use crate::sync::{Lock, Ordering};

/// A CPU's slot: 4 bytes of lock, two pointers. A cache line of its own, so that CPUs do not share it.
#[repr(align(64))]
pub(super) struct CpuSheaves(Lock<Pair>);

struct Pair {
    main: Option<Sheaf>,
    spare: Option<Sheaf>,
}

const _: () = assert!(size_of::<CpuSheaves>() == 64);

impl Cache {
    /// Takes an object through `cpu`'s sheaves; `None` without memory.
    #[inline]
    pub(crate) fn alloc(&self, cpu: CpuId) -> Option<NonNull<u8>> {
        let Some(slot) = self.slot(cpu) else { return self.take_one() };
        let mut pair = slot.0.lock();
        let popped = pair.main.as_mut().and_then(Sheaf::pop);
        let object = match popped {
            Some(object) => object,
            None => pair.alloc_slow(self)?,
        };
        drop(pair);
        SlabObject::clear_mark(object);
        Some(object)
    }

    /// Gives an object back through `cpu`'s sheaves.
    #[inline]
    pub(crate) fn free(&self, cpu: CpuId, object: &SlabObject) {
        let Some(slot) = self.slot(cpu) else { return self.put(core::iter::once(object.address)) };
        if object.is_marked() {
            self.check_double_free(object);
        }
        object.mark();
        let mut pair = slot.0.lock();
        let pushed = pair.main.as_mut().is_some_and(|main| main.push(object.address));
        if !pushed {
            pair.free_slow(self, object.address);
        }
    }

    /// This cache's slot of a CPU; `None` without sheaves or without memory for the slots.
    #[inline]
    fn slot(&self, cpu: CpuId) -> Option<&CpuSheaves> {
        // Acquire pairs with the Release in `make_slots`.
        let mut slots = self.cpu_sheaves.load(Ordering::Acquire);
        if slots.is_null() {
            slots = self.make_slots()?.as_ptr();
        }
        // SAFETY: there is one slot for each CPU id.
        let slot = unsafe { slots.add(cpu.index()) };
        // SAFETY: slots are initialised before they are published and live as long as the cache has users.
        Some(unsafe { &*slot })
    }

    #[cold]
    #[inline(never)]
    fn make_slots(&self) -> Option<NonNull<CpuSheaves>> {
        if self.sheaf_capacity() == 0 {
            return None;
        }
        // Zero is a free lock and no sheaves.
        let slots = meta::alloc(slot_bytes())?.cast::<CpuSheaves>();
        let exchanged = self.cpu_sheaves.compare_exchange(
            core::ptr::null_mut(),
            slots.as_ptr(),
            Ordering::Release,
            Ordering::Acquire,
        );
        let Err(winner) = exchanged else { return Some(slots) };
        // SAFETY: the slots were not published.
        unsafe { meta::free(slots.cast(), slot_bytes()) };
        NonNull::new(winner)
    }

    /// Empties all sheaves and the barn into the slabs and gives empty slabs back until `keep` are left.
    pub(crate) fn shrink_to(&self, keep: u32) {
        if !self.cpu_sheaves.load(Ordering::Acquire).is_null() {
            for cpu in CpuId::all() {
                let Some(slot) = self.slot(cpu) else { break };
                let mut pair = slot.0.lock();
                let sheaves = [pair.main.take(), pair.spare.take()];
                drop(pair);
                sheaves.into_iter().flatten().for_each(|sheaf| self.retire(sheaf));
            }
        }
        while let Some(sheaf) = self.barn.take_full().or_else(|| self.barn.take_empty()) {
            self.retire(sheaf);
        }
        self.trim_empty(keep);
    }

    fn retire(&self, mut sheaf: Sheaf) {
        self.put(sheaf.drain());
        sheaf.free();
    }

    /// Gives the slots' memory back. The cache has no users any more and its sheaves are flushed.
    pub(super) fn free_cpu_sheaves(&self) {
        let slots = self.cpu_sheaves.swap(core::ptr::null_mut(), Ordering::Relaxed);
        if let Some(slots) = NonNull::new(slots) {
            // SAFETY: the cache is being destroyed by its last user, so nobody is in a slot.
            unsafe { meta::free(slots.cast(), slot_bytes()) };
        }
    }

    /// An object that carries the mark of a free one: searched for before anything is believed.
    #[cold]
    #[inline(never)]
    fn check_double_free(&self, object: &SlabObject) {
        let has = |sheaf: &Sheaf| sheaf.iter().any(|free| free == object.address);
        let in_slots = CpuId::all().filter_map(|cpu| self.slot(cpu)).any(|slot| {
            let pair = slot.0.lock();
            pair.main.as_ref().is_some_and(has) || pair.spare.as_ref().is_some_and(has)
        });
        if in_slots || self.barn.any_full(has) || self.is_free_in_slab(object) {
            object.report_double_free();
        }
    }

    /// Takes every lock of the cache for a `fork`, in lock order.
    pub(crate) fn hold_for_fork(&self) {
        if !self.cpu_sheaves.load(Ordering::Acquire).is_null() {
            CpuId::all().filter_map(|cpu| self.slot(cpu)).for_each(|slot| slot.0.hold_for_fork());
        }
        self.barn.hold_for_fork();
        self.lists.hold_for_fork();
    }

    /// Gives back what [`Cache::hold_for_fork`] took.
    pub(crate) fn release_after_fork(&self) {
        self.lists.force_unlock();
        self.barn.release_after_fork();
        if !self.cpu_sheaves.load(Ordering::Acquire).is_null() {
            CpuId::all().filter_map(|cpu| self.slot(cpu)).for_each(|slot| slot.0.force_unlock());
        }
    }
}

impl Pair {
    #[cold]
    #[inline(never)]
    fn alloc_slow(&mut self, cache: &Cache) -> Option<NonNull<u8>> {
        if self.spare.as_ref().is_some_and(|spare| !spare.is_empty()) {
            core::mem::swap(&mut self.main, &mut self.spare);
            return self.main.as_mut().and_then(Sheaf::pop);
        }
        let Some(main) = self.main.take().or_else(|| Sheaf::new(cache.sheaf_capacity())) else {
            return cache.take_one();
        };
        let main = match cache.barn.trade_empty(main) {
            Ok(traded) => {
                if let Some(surplus) = traded.surplus {
                    surplus.free();
                }
                traded.sheaf
            }
            Err(main) => main,
        };
        let main = self.main.insert(main);
        if main.is_empty() {
            // Half a sheaf: the other half is room for frees, and unused objects pin slabs.
            let want = main.room().div_ceil(2);
            cache.take(want, |object| {
                main.push(object);
            });
        }
        main.pop()
    }

    #[cold]
    #[inline(never)]
    fn free_slow(&mut self, cache: &Cache, object: NonNull<u8>) {
        if self.spare.as_ref().is_none_or(|spare| spare.room() == 0) {
            self.make_room(cache);
        } else {
            core::mem::swap(&mut self.main, &mut self.spare);
        }
        let pushed = self.main.as_mut().is_some_and(|main| main.push(object));
        if !pushed {
            cache.put(core::iter::once(object));
        }
    }

    /// Main and spare are full or missing: makes main one with room, if memory allows.
    fn make_room(&mut self, cache: &Cache) {
        let Some(full) = self.main.take() else {
            self.main = cache.barn.take_empty().or_else(|| Sheaf::new(cache.sheaf_capacity()));
            return;
        };
        if self.spare.is_none() {
            self.spare = Some(full);
            self.main = cache.barn.take_empty().or_else(|| Sheaf::new(cache.sheaf_capacity()));
            return;
        }
        self.main = match cache.barn.trade_full(full, barn_limit()) {
            Ok(empty) => empty.or_else(|| Sheaf::new(cache.sheaf_capacity())),
            Err(mut full) => {
                cache.put(full.drain());
                Some(full)
            }
        };
    }
}

fn slot_bytes() -> usize {
    nr_cpus() * size_of::<CpuSheaves>()
}
