//! Each CPU's two sheaves of a cache, and the moves between sheaf, spare, barn and slabs.
//!
//! Allocation pops from the main sheaf; when it is empty the spare takes its place, then a full sheaf from the barn, then
//! another CPU's spare where slabs have nothing left ([`super::retire`]), then a refill from the slabs. Free is the mirror image; a batch of objects
//! moves under one lock. When the spare changed places to be taken from and is wanted to be put to next, or the other way round, both get
//! half of the objects: one that is full next to one that is empty would change places at every few steps of a random walk.
//!
//! # The two arms
//!
//! On the rseq arm the main sheaf lies on the CPU's stack in the per-CPU area ([`crate::cpu`]), where restartable sequences
//! take from it and put onto it without a lock. Everything else happens under the slot's lock: the thread takes the sheaf off
//! the stack, works on the pair, and lays it there again. Threads without rseq work on the pair under the lock for every call,
//! with a main sheaf of their own.
//!
//! | who | may |
//! |---|---|
//! | a section on that CPU | move the top of a stack that is not empty of places |
//! | the lock's holder, on that CPU | exchange the top, by a section: `take_down`, `lay` |
//! | the lock's holder, elsewhere | replace the top by the empty stack's and fence: `take_down_from_afar` |
//!
//! The empty stack has no place to pop from or push to, so no section moves it: it is a stopper.

#![expect(unsafe_code, reason = "one array of slots a cache, reached through a pointer")]

use core::mem;
use core::ptr::NonNull;

use super::cache::Cache;
use super::free_object::FreeObject;
use super::sheaf::{OnStack, Sheaf};
use super::{SlabObject, in_kind, meta, retire, sheaf_size};
use crate::cpu::{self, CpuId, Stacks, nr_cpus};
use crate::hardening;
use crate::hooks::{self, Purse};
use crate::memcg::ROOT_VESSEL;
use crate::options::{self, RANDOM};
use crate::page_alloc::Lookup;
use crate::report::die;
use crate::sync::{Guard, Lock, Ordering};

/// A CPU's slot: 4 bytes of lock, four pointers, a group, a byte. A cache line of its own, so that CPUs do not share it.
#[repr(align(64))]
pub(super) struct CpuSheaves(Lock<Pair>);

/// What a CPU has of a cache, but for what sections do to the sheaf on its stack.
pub(super) struct Pair {
    main: Option<Sheaf>,
    spare: Option<Sheaf>,
    on_stack: Option<OnStack>,
    /// The main sheaf of threads without rseq.
    portable: Option<Sheaf>,
    /// The group for which objects last came from the slabs.
    refilled_for: u32,
    last_change: Changed,
}

/// What the CPU last did when its main sheaf was empty or full.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Changed {
    /// It traded with the barn, another CPU or the slabs, or nothing yet. 0, as new slots are.
    Otherwise = 0,
    /// It took the spare's objects, or half of them, for an empty main sheaf.
    ToTake,
    /// It had the spare, or half of a full main sheaf, as the main sheaf.
    ToPut,
}

const _: () = assert!(size_of::<CpuSheaves>() == 64);

impl Cache {
    /// An object, charged to the current group; `None` if a limit refuses or without memory.
    #[inline]
    pub(crate) fn alloc(&'static self) -> Option<NonNull<u8>> {
        match Cache::alloc_from(self.stacks()) {
            Ok(address) => Some(address),
            Err(object) => self.alloc_rest(object),
        }
    }

    /// The top object of this CPU's stack, if it is the current group's already and nobody wrote to it since it was freed;
    /// else the object, if there was one, for [`Cache::alloc_rest`].
    #[inline(always)]
    pub(crate) fn alloc_from(stacks: Stacks) -> Result<NonNull<u8>, Option<FreeObject>> {
        let object = FreeObject::at(stacks.pop().ok_or(None)?);
        if !object.is_currents() {
            return Err(Some(object));
        }
        Ok(object.hand_out())
    }

    /// The rest of an allocation that [`Cache::alloc_from`] did not finish.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_rest(&'static self, object: Option<FreeObject>) -> Option<NonNull<u8>> {
        match object {
            Some(object) if object.exists() => Cache::hand_over(object),
            _ => self.alloc_slow(),
        }
    }

    /// Gives an object back to its cache.
    #[inline(always)]
    pub(crate) fn free(object: SlabObject) {
        let free = object.into_free();
        if !object.stacks().push(free.address()) {
            Cache::free_slow(free, object.page);
        }
    }

    /// The rest of [`Cache::free`], of an object that has its mark, in that page.
    #[cold]
    #[inline(never)]
    fn free_slow(object: FreeObject, page: &'static Lookup) {
        let cache = Cache::of_slab(page.place());
        if hardening::has_tracks() && cache.is_class() {
            return cache.free_hardened(object);
        }
        cache.put_back(object);
    }

    /// Hands out an object that was taken out of a sheaf, whosever it is; aborts if it has lost its mark.
    #[inline(always)]
    pub(crate) fn hand_over(free: FreeObject) -> Option<NonNull<u8>> {
        if !free.is_currents() {
            let object = SlabObject::of(free.address());
            let cache = object.cache();
            if !cache.change_owner(object, free) {
                cache.take_back(free);
                return None;
            }
        }
        Some(free.hand_out())
    }

    /// Charges a free object to the current group instead of its owner; false if that was refused: then it is nobody's.
    #[inline(always)]
    fn change_owner(&'static self, object: SlabObject, free: FreeObject) -> bool {
        let vector = object.vector();
        let owner = object.owner_in(vector);
        let marked = free.marked();
        if marked != u64::from(owner.load(Ordering::Relaxed)) {
            free.report_lost_mark(self.size());
        }
        let own = if vector.sole_owner().is_none() { Some(owner) } else { self.new_owner_word(free.address()) };
        let Some(owner) = own else { return false };
        // The old owner by the mark, which is here first.
        hooks::change_owner(owner, marked as u32, self.price())
    }

    /// An object that could not be handed out is free again, and nobody's: in its slab, if it could not be made nobody's outside.
    fn take_back(&'static self, object: FreeObject) {
        if self.discharge_one(object) && self.sheaf_size.has_sheaves() {
            object.mark(ROOT_VESSEL);
            self.put_back(object);
        } else {
            self.put_one(object);
        }
    }

    fn alloc_slow(&'static self) -> Option<NonNull<u8>> {
        let (object, went_up) = loop {
            let Some(cpu) = cpu::this_cpu() else { return self.alloc_on(CpuId::current()) };
            let Some(slot) = self.slot(cpu) else { break self.take_one_for(hooks::current()) };
            let mut pair = slot.0.lock();
            let Some(stacks) = self.usable_stacks() else { break pair.alloc(self) };
            if !pair.take_down(stacks, cpu) {
                continue;
            }
            let taken = pair.alloc(self);
            pair.lay(stacks, cpu);
            break taken;
        };
        self.hand_over_refilled(object, went_up)
    }

    /// Hands out what a pair gave, with the pair's lock given back.
    fn hand_over_refilled(&self, object: Option<FreeObject>, went_up: bool) -> Option<NonNull<u8>> {
        let address = object.and_then(Cache::hand_over);
        if went_up && address.is_some() {
            hooks::went_up();
        } else if went_up {
            self.shrink_to(self.keep_empty());
            hooks::went_up_in_vain();
        }
        address
    }

    /// Puts a free object into this CPU's sheaves.
    pub(super) fn put_back(&'static self, object: FreeObject) {
        loop {
            let Some(cpu) = cpu::this_cpu() else { return self.free_to(CpuId::current(), object) };
            let Some(slot) = self.slot(cpu) else { return self.put_alien(object) };
            let mut pair = slot.0.lock();
            let Some(stacks) = self.usable_stacks() else {
                let was_full = pair.free(self, object);
                drop(pair);
                return self.let_slabs_go_after(was_full);
            };
            if !pair.take_down(stacks, cpu) {
                continue;
            }
            let was_full = pair.free(self, object);
            pair.lay(stacks, cpu);
            drop(pair);
            return self.let_slabs_go_after(was_full);
        }
    }

    /// After a free, with the pair's lock given back.
    fn let_slabs_go_after(&self, was_full: bool) {
        if was_full {
            self.let_slabs_go();
        }
    }

    /// The same as [`Cache::alloc`] through the sheaves of a given CPU, under their lock.
    pub(crate) fn alloc_on(&'static self, cpu: CpuId) -> Option<NonNull<u8>> {
        let (object, went_up) = match self.slot(cpu) {
            Some(slot) => slot.0.lock().portably(|pair| pair.alloc(self)),
            None => self.take_one_for(hooks::current()),
        };
        self.hand_over_refilled(object, went_up)
    }

    /// The same as [`Cache::free`] through the sheaves of a given CPU, under their lock.
    pub(crate) fn free_on(cpu: CpuId, object: SlabObject) {
        object.cache().free_to(cpu, object.into_free());
    }

    fn free_to(&'static self, cpu: CpuId, object: FreeObject) {
        let Some(slot) = self.slot(cpu) else { return self.put_alien(object) };
        let mut pair = slot.0.lock();
        let was_full = pair.portably(|pair| pair.free(self, object));
        drop(pair);
        self.let_slabs_go_after(was_full);
    }

    /// Puts an object of a cache without sheaves back; the engine's own are nobody else's to free.
    fn put_alien(&self, object: FreeObject) {
        if self.is_engines() {
            die!("{:p}: not the address of an object", object.address());
        }
        self.put_one(object);
    }

    /// The CPUs' stacks, if sheaves can be laid on them: not while an option asks to see every call.
    fn usable_stacks(&self) -> Option<Stacks> {
        Some(self.stacks()).filter(|stacks| stacks.are_usable() && !options::are_any_on())
    }

    /// This cache's slot of a CPU; `None` without sheaves or without memory for the slots.
    fn slot(&self, cpu: CpuId) -> Option<&'static CpuSheaves> {
        // A cache of the table may have slots of the one that had the number before, and no sheaves itself.
        if !self.sheaf_size.has_sheaves() {
            return None;
        }
        // Acquire pairs with the Release in `make_slots`.
        let mut slots = self.cpu_sheaves.load(Ordering::Acquire);
        if slots.is_null() {
            slots = self.make_slots()?.as_ptr();
        }
        retire::note_cpu(cpu);
        Some(slot_of(slots, cpu))
    }

    #[cold]
    #[inline(never)]
    fn make_slots(&self) -> Option<NonNull<CpuSheaves>> {
        in_kind::init();
        // Zero is a free lock, no sheaves, no group and no change.
        let slots = meta::alloc(slot_bytes())?.cast::<CpuSheaves>();
        // With the barn held: a fork that holds it has seen all slots that there are.
        let exchanged = self.barn.held(|| {
            self.cpu_sheaves.compare_exchange(
                core::ptr::null_mut(),
                slots.as_ptr(),
                Ordering::Release,
                Ordering::Acquire,
            )
        });
        let Err(winner) = exchanged else { return Some(slots) };
        // SAFETY: the slots were not published.
        unsafe { meta::free(slots.cast(), slot_bytes()) };
        NonNull::new(winner)
    }

    /// This cache's slot of a CPU, if the cache has slots.
    pub(super) fn slot_if_made(&self, cpu: CpuId) -> Option<&'static CpuSheaves> {
        let slots = self.cpu_sheaves.load(Ordering::Acquire);
        (!slots.is_null()).then(|| slot_of(slots, cpu))
    }

    /// Runs `look` on each CPU's slot, if the cache has slots.
    pub(super) fn for_each_slot(&self, look: impl FnMut(CpuId, &'static CpuSheaves)) {
        self.for_each_of(self.cpu_sheaves.load(Ordering::Acquire), look);
    }

    fn for_each_of(&self, slots: *mut CpuSheaves, mut look: impl FnMut(CpuId, &'static CpuSheaves)) {
        if !slots.is_null() {
            CpuId::all().for_each(|cpu| look(cpu, slot_of(slots, cpu)));
        }
    }

    /// Free objects that wait in sheaves. Exact at a quiet point.
    pub(crate) fn nr_waiting(&self) -> u64 {
        let mut nr_waiting = 0;
        self.for_each_slot(|cpu, slot| nr_waiting += slot.nr_objects(self, cpu));
        self.barn.for_each_full(|sheaf| nr_waiting += u64::from(sheaf.nr_objects()));
        nr_waiting
    }

    /// Whether an object is in some sheaf, as far as can be seen while others are at work.
    pub(super) fn seems_to_hold(&self, address: NonNull<u8>) -> bool {
        let mut seen = false;
        self.for_each_slot(|cpu, slot| seen = seen || slot.seems_to_hold(self, cpu, address));
        self.barn.for_each_full(|sheaf| seen = seen || sheaf.iter().any(|object| object.address() == address));
        seen
    }

    /// Takes every lock of the cache for a `fork`, in lock order.
    pub(crate) fn hold_for_fork(&self) {
        loop {
            let slots = self.cpu_sheaves.load(Ordering::Acquire);
            self.held_for_fork.store(slots, Ordering::Relaxed);
            self.for_each_of(slots, |_, slot| slot.0.hold_for_fork());
            self.barn.hold_for_fork();
            if self.cpu_sheaves.load(Ordering::Acquire) == slots {
                break;
            }
            // Made in between, from none: none is held. The barn keeps others from making them now.
            self.barn.release_after_fork();
        }
        self.lists.hold_for_fork();
    }

    /// Gives back what [`Cache::hold_for_fork`] took.
    pub(crate) fn release_after_fork(&self) {
        // Before the lists and the barn, whose waiters may be in the slots.
        self.for_each_of(self.held_for_fork.load(Ordering::Relaxed), |_, slot| slot.0.force_unlock());
        self.lists.force_unlock();
        self.barn.release_after_fork();
    }
}

impl CpuSheaves {
    /// The slot with all its sheaves in the pair, whatever CPU this is.
    pub(super) fn take(&self, cache: &Cache, cpu: CpuId) -> Guard<'_, Pair> {
        let mut pair = self.0.lock();
        pair.take_down_from_afar(cache.stacks(), cpu);
        pair
    }

    /// The spare sheaf, if objects are in it and nobody is at work here: the caller may hold a slot already.
    pub(super) fn take_spare(&self) -> Option<Sheaf> {
        self.0.try_lock()?.spare.take_if(|spare| !spare.is_empty())
    }

    /// Whether the test is true of the owner of some object here, as far as can be seen while others are at work.
    pub(super) fn any_owner(&self, cache: &Cache, cpu: CpuId, mut test: impl FnMut(u32) -> bool) -> bool {
        let pair = self.0.lock();
        pair.sheaves().any(|sheaf| sheaf.iter().any(|object| test(SlabObject::of(object.address()).owner_id())))
            || pair.on_stack.as_ref().is_some_and(|on_stack| {
                let top = cache.stacks().top(cpu).load(Ordering::Relaxed);
                on_stack.words(top).filter_map(SlabObject::alleged_owner).any(test)
            })
    }

    fn seems_to_hold(&self, cache: &Cache, cpu: CpuId, address: NonNull<u8>) -> bool {
        let pair = self.0.lock();
        pair.sheaves().any(|sheaf| sheaf.iter().any(|object| object.address() == address))
            || pair.on_stack.as_ref().is_some_and(|on_stack| {
                let top = cache.stacks().top(cpu).load(Ordering::Relaxed);
                on_stack.words(top).any(|word| word == address.addr().get())
            })
    }

    /// Free objects here, as far as can be seen while others are at work.
    fn nr_objects(&self, cache: &Cache, cpu: CpuId) -> u64 {
        let pair = self.0.lock();
        let on_stack = pair.on_stack.as_ref();
        let on_stack = on_stack.map_or(0, |sheaf| sheaf.nr_objects(cache.stacks().top(cpu).load(Ordering::Relaxed)));
        u64::from(on_stack) + pair.sheaves().map(|sheaf| u64::from(sheaf.nr_objects())).sum::<u64>()
    }
}

impl Pair {
    /// The sheaves that are in the pair.
    pub(super) fn sheaves(&self) -> impl Iterator<Item = &Sheaf> {
        [&self.main, &self.spare, &self.portable].into_iter().flatten()
    }

    /// Takes the sheaves that are in the pair.
    pub(super) fn take_sheaves(&mut self) -> [Option<Sheaf>; 3] {
        [self.main.take(), self.spare.take(), self.portable.take()]
    }

    /// Runs `work` with the main sheaf of threads without rseq.
    fn portably<R>(&mut self, work: impl FnOnce(&mut Pair) -> R) -> R {
        mem::swap(&mut self.main, &mut self.portable);
        let result = work(self);
        mem::swap(&mut self.main, &mut self.portable);
        result
    }

    /// Takes the sheaf off this CPU's stack; false if the thread was moved to another CPU.
    fn take_down(&mut self, stacks: Stacks, cpu: CpuId) -> bool {
        let Some(top) = stacks.exchange(cpu, cpu::empty()) else { return false };
        self.took_down(top);
        true
    }

    /// Takes the sheaf off a CPU's stack from any CPU, if one is there and the kernel allows a fence.
    fn take_down_from_afar(&mut self, stacks: Stacks, cpu: CpuId) {
        if self.on_stack.is_none() {
            return;
        }
        // Forbidden since the start, by a filter on system calls: the stack stays where it is.
        if !cpu::fence(CpuId::current()) {
            return;
        }
        let fence = || {
            if !cpu::fence(cpu) {
                die!("membarrier was forbidden while it was in use");
            }
        };
        self.took_down(cpu::take_top(stacks.top(cpu), cpu::empty(), fence, cpu::drift));
    }

    fn took_down(&mut self, top: usize) {
        let Some(on_stack) = self.on_stack.take() else { return };
        debug_assert!(self.main.is_none(), "a main sheaf beside the one on the stack");
        self.main = Some(on_stack.into_sheaf(top));
    }

    /// Lays the main sheaf on this CPU's stack; it stays in the pair if the thread was moved.
    fn lay(&mut self, stacks: Stacks, cpu: CpuId) {
        let Some(main) = self.main.take() else { return };
        let (top, on_stack) = main.into_stack();
        if stacks.exchange(cpu, top).is_some() {
            self.on_stack = Some(on_stack);
        } else {
            self.main = Some(on_stack.unlaid());
        }
    }

    /// An object, and whether the current group was charged up the tree for others that came with it: [`hooks::went_up`] is owed then.
    fn alloc(&mut self, cache: &Cache) -> (Option<FreeObject>, bool) {
        if options::is_on(RANDOM) {
            self.main.iter_mut().for_each(Sheaf::shuffle_top);
        }
        let mut went_up = false;
        let popped = self.main.as_mut().and_then(Sheaf::pop);
        (popped.or_else(|| self.alloc_slow(cache, &mut went_up)), went_up)
    }

    /// Puts an object into the main sheaf; true if that was full, and the sheaves changed.
    fn free(&mut self, cache: &Cache, object: FreeObject) -> bool {
        if self.main.as_ref().and_then(Sheaf::last) == Some(object) {
            die!("{:p}: double free of an object of {} bytes", object.address(), cache.size());
        }
        let pushed = self.main.as_mut().is_some_and(|main| main.push(object));
        if !pushed {
            self.free_slow(cache, object);
        }
        !pushed
    }

    fn alloc_slow(&mut self, cache: &Cache, went_up: &mut bool) -> Option<FreeObject> {
        if self.spare.as_ref().is_some_and(|spare| !spare.is_empty()) {
            let is_turn = mem::replace(&mut self.last_change, Changed::ToTake) == Changed::ToPut;
            if !(is_turn && Sheaf::halve(&mut self.spare, &mut self.main)) {
                mem::swap(&mut self.main, &mut self.spare);
            }
            self.main.iter().for_each(Sheaf::prefetch);
            return self.main.as_mut().and_then(Sheaf::pop);
        }
        let empty = self.main.take().and_then(|empty| cache.resized(empty)).or_else(|| cache.new_sheaf());
        self.last_change = Changed::Otherwise;
        let Some(empty) = empty else {
            let (object, is_charged) = cache.take_one_for(hooks::current());
            *went_up = is_charged;
            return object;
        };
        let main = match cache.barn.trade_empty(empty) {
            Ok(traded) => {
                cache.sheaf_size.note_trade(cache.nr_places());
                cache.sheaf_size.unshelve(traded.sheaf.nr_objects());
                if let Some(surplus) = traded.surplus {
                    surplus.free();
                }
                traded.sheaf.prefetch();
                self.main.insert(traded.sheaf)
            }
            Err(empty) => match cache.take_over() {
                Some(full) => {
                    cache.sheaf_size.note_trade(cache.nr_places());
                    empty.free();
                    full.prefetch();
                    self.main.insert(full)
                }
                None => self.refill(cache, empty, went_up),
            },
        };
        main.pop()
    }

    /// Makes an empty sheaf the main one, with objects from the slabs.
    fn refill(&mut self, cache: &Cache, empty: Sheaf, went_up: &mut bool) -> &mut Sheaf {
        let main = self.main.insert(empty);
        // Half a sheaf at most: the other half is room for frees, and unused objects pin slabs.
        cache.sheaf_size.note_take(cache.nr_places());
        let nr_objects = main.room().div_ceil(2).min(sheaf_size::refill(cache.size())).max(1);
        let group = hooks::current();
        let mut purse = Purse::of(group, nr_objects, cache.price());
        // Twice in a row for one group: the rest of them will be its, too.
        let is_its = mem::replace(&mut self.refilled_for, group) == group;
        if is_its {
            purse.fill();
        }
        cache.take(nr_objects, &mut purse, |object| {
            main.push(object);
        });
        if is_its {
            cache.charge_from(&mut purse, main);
        }
        *went_up = purse.went_up();
        main
    }

    fn free_slow(&mut self, cache: &Cache, object: FreeObject) {
        if self.spare.as_ref().is_some_and(|spare| spare.room() > 0) {
            if mem::replace(&mut self.last_change, Changed::ToPut) == Changed::ToTake {
                Sheaf::halve(&mut self.main, &mut self.spare);
            }
            mem::swap(&mut self.main, &mut self.spare);
        } else {
            self.make_room(cache);
        }
        let pushed = self.main.as_mut().is_some_and(|main| main.push(object));
        if !pushed {
            cache.put_one(object);
        }
    }

    /// Main and spare are full or missing: makes main one with room, if memory allows.
    fn make_room(&mut self, cache: &Cache) {
        self.last_change = Changed::Otherwise;
        let full = self.main.take();
        let lacks_spare = self.spare.is_none() && cache.sheaf_size.has_spare();
        let full = if lacks_spare { mem::replace(&mut self.spare, full) } else { full };
        let empty = match full.map(|full| cache.shelve(full)) {
            None => cache.barn.take_empty(),
            Some(Ok(empty)) => {
                cache.sheaf_size.note_trade(cache.nr_places());
                empty
            }
            Some(Err(mut full)) => {
                cache.sheaf_size.note_put(full.nr_objects(), cache.nr_places());
                cache.put_all(&mut full);
                cache.thin_barn();
                Some(full)
            }
        };
        self.main = empty.and_then(|empty| cache.resized(empty)).or_else(|| cache.new_sheaf());
    }
}

impl Cache {
    fn new_sheaf(&self) -> Option<Sheaf> {
        Sheaf::new(self.sheaf_size.capacity(self.nr_places()))
    }

    /// An empty sheaf, replaced by one of today's size if it is of another.
    fn resized(&self, empty: Sheaf) -> Option<Sheaf> {
        if empty.capacity() == self.sheaf_size.capacity(self.nr_places()) {
            return Some(empty);
        }
        empty.free();
        self.new_sheaf()
    }
}

/// A CPU's slot of a cache that has slots at `slots`.
fn slot_of(slots: *mut CpuSheaves, cpu: CpuId) -> &'static CpuSheaves {
    // SAFETY: there is one slot for each CPU id.
    let slot = unsafe { slots.add(cpu.index()) };
    // SAFETY: slots are initialised before they are published, and never freed.
    unsafe { &*slot }
}

fn slot_bytes() -> usize {
    nr_cpus() * size_of::<CpuSheaves>()
}
