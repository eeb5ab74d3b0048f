//! A sheaf: a bounded array of free objects of one cache, the kernel's `struct slab_sheaf`.
//!
//! A [`Sheaf`] is owned and move-only: a CPU's slot or the barn holds it, and whoever holds it may change it. While it lies
//! on a CPU's stack, sections of that CPU take from it and put onto it, and only the top of the stack says how many objects
//! it has; what is left of the owned sheaf meanwhile is [`OnStack`].
//!
//! # Layout
//!
//! Places of a word, so that sections need not know its bounds:
//!
//! | place | holds |
//! |---|---|
//! | header | how many objects, how many fit; the bottom: 1, or in a pile the sheaf below |
//! | 1 … capacity | an object's address |
//! | lid | 1 |
//!
//! Whose an object is, its mark says ([`super::free_object`]).

#![expect(unsafe_code, reason = "the places follow the header in one allocation of the engine's memory")]

use core::mem::{self, ManuallyDrop};
use core::ptr::NonNull;

use super::barn::Piled;
use super::free_object::FreeObject;
use super::meta;
use crate::cpu::{self, END};
use crate::hardening;

#[repr(C)]
struct Header {
    nr_objects: u32,
    capacity: u32,
    bottom: Bottom,
}

/// A word: [`END`], where no object and no sheaf is, except in a pile.
#[repr(C)]
union Bottom {
    word: usize,
    below: ManuallyDrop<Option<Sheaf>>,
}

/// So many objects are fetched ahead: at most 8 KiB of cache lines. Of objects of large powers of two they share few sets of a first-level cache.
const NR_PREFETCHED: usize = 128;

const PLACE_BYTES: usize = size_of::<usize>();
const _: () = assert!(size_of::<Header>() == 2 * PLACE_BYTES);

/// An owned sheaf.
///
/// # Invariants
/// Points to a `Header` whose `bottom` is [`END`], or `below` if it lies on another in a pile; followed by `capacity` places, of which
/// the first `nr_objects` are set, and a lid; `nr_objects ≤ capacity`. Nobody else refers to it.
#[repr(transparent)]
pub(crate) struct Sheaf(NonNull<Header>);

/// A sheaf that lies on a CPU's stack.
///
/// # Invariants
/// As for [`Sheaf`], but sections of one CPU use the places, and `nr_objects` is out of date.
pub(super) struct OnStack(NonNull<Header>);

// SAFETY: a sheaf owns its memory and is not tied to a thread.
unsafe impl Send for Sheaf {}
// SAFETY: as above; what sections do to it they do as the CPU's stack allows.
unsafe impl Send for OnStack {}

impl Sheaf {
    /// An empty sheaf; `None` without memory.
    pub(super) fn new(capacity: u32) -> Option<Sheaf> {
        let header = meta::alloc(nr_bytes(capacity))?.cast::<Header>();
        // SAFETY: the memory is new, aligned to 8 and large enough for the header.
        unsafe { header.write(Header { nr_objects: 0, capacity, bottom: Bottom { word: END } }) };
        // INVARIANT: the allocation has room for the header, `capacity` places and the lid.
        let sheaf = Sheaf(header);
        // SAFETY: the lid's place is inside the allocation.
        unsafe { sheaf.place(capacity + 1).write(END) };
        Some(sheaf)
    }

    /// Gives the memory of a sheaf back. It must be empty, or its objects are lost.
    pub(super) fn free(self) {
        let nr_bytes = nr_bytes(self.header().capacity);
        // SAFETY: the sheaf is consumed here, and by its invariant nobody else refers to it.
        unsafe { meta::free(self.0.cast(), nr_bytes) };
    }

    fn header(&self) -> &Header {
        // SAFETY: by the invariant the header is valid and not shared.
        unsafe { self.0.as_ref() }
    }

    fn header_mut(&mut self) -> &mut Header {
        // SAFETY: by the invariant the header is valid, and `self` is borrowed mutably.
        unsafe { self.0.as_mut() }
    }

    /// Place `index` counted from the bottom, which is 0.
    fn place(&self, index: u32) -> NonNull<usize> {
        // SAFETY: `index` is at most `capacity + 1` in every caller, so the place is inside the allocation.
        unsafe { self.0.cast::<usize>().add(1 + index as usize) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.header().nr_objects == 0
    }

    pub(super) fn nr_objects(&self) -> u32 {
        self.header().nr_objects
    }

    pub(super) fn capacity(&self) -> u32 {
        self.header().capacity
    }

    pub(super) fn room(&self) -> u32 {
        self.header().capacity - self.header().nr_objects
    }

    /// The object that came last.
    pub(super) fn last(&self) -> Option<FreeObject> {
        (!self.is_empty()).then(|| self.read(self.nr_objects()))
    }

    pub(super) fn pop(&mut self) -> Option<FreeObject> {
        let last = self.header().nr_objects;
        self.header_mut().nr_objects = last.checked_sub(1)?;
        Some(self.read(last))
    }

    /// Adds an object; false if there is no room.
    pub(super) fn push(&mut self, object: FreeObject) -> bool {
        if self.room() == 0 {
            return false;
        }
        self.header_mut().nr_objects += 1;
        // SAFETY: the place is below the lid and ours to write.
        unsafe { self.place(self.nr_objects()).write(object.address().as_ptr().expose_provenance()) };
        true
    }

    /// Brings an object that is picked at random to the top.
    pub(super) fn shuffle_top(&mut self) {
        let last = self.nr_objects();
        if last == 0 {
            return;
        }
        let picked = self.place(1 + hardening::random_below(last));
        // SAFETY: both are places that are set, of a sheaf that is owned and borrowed mutably.
        unsafe { picked.swap(self.place(last)) };
    }

    fn read(&self, index: u32) -> FreeObject {
        // SAFETY: the place is inside the sheaf.
        let address = unsafe { self.place(index).read() };
        let address = core::ptr::with_exposed_provenance_mut(address);
        // SAFETY: places from 1 to the number of objects are set by `push`, or by a section that did the same: to objects.
        FreeObject::at(unsafe { NonNull::new_unchecked(address) })
    }

    /// The objects, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = FreeObject> + '_ {
        (1..=self.nr_objects()).map(|index| self.read(index))
    }

    /// The objects in the order in which they are popped.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = FreeObject> + '_ {
        (1..=self.nr_objects()).rev().map(|index| self.read(index))
    }

    /// Has the CPU fetch the objects that are popped next, all at once: each pop reads its object's mark, and would wait for it.
    pub(super) fn prefetch(&self) {
        self.newest_first().take(NR_PREFETCHED).for_each(|object| cpu::prefetch(object.address()));
    }

    /// Empties the sheaf, oldest objects first.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = FreeObject> + '_ {
        let nr_objects = core::mem::take(&mut self.header_mut().nr_objects);
        (1..=nr_objects).map(|index| self.read(index))
    }

    /// The sheaf as a CPU's stack: its top, and what to take it back by.
    pub(super) fn into_stack(self) -> (usize, OnStack) {
        (self.place(self.nr_objects()).as_ptr().expose_provenance(), OnStack(self.0))
    }
}

impl Piled for Sheaf {
    fn put_on(&mut self, below: Sheaf) {
        self.header_mut().bottom.below = ManuallyDrop::new(Some(below));
    }

    fn take_off(&mut self) -> Option<Sheaf> {
        let bottom = mem::replace(&mut self.header_mut().bottom, Bottom { word: END });
        // SAFETY: a word is valid whatever was written: an `Option<Sheaf>` is a pointer or null.
        if unsafe { bottom.word } == END {
            return None;
        }
        // SAFETY: it is not the end, which is no sheaf's address, so the sheaf lay in a pile: `below` was written.
        ManuallyDrop::into_inner(unsafe { bottom.below })
    }

    fn below_mut(&mut self) -> Option<&mut Sheaf> {
        let bottom = &mut self.header_mut().bottom;
        // SAFETY: as in `take_off`.
        if unsafe { bottom.word } == END {
            return None;
        }
        // SAFETY: as in `take_off`.
        unsafe { &mut bottom.below }.as_mut()
    }

    fn below(&self) -> Option<&Sheaf> {
        let bottom = &self.header().bottom;
        // SAFETY: as in `take_off`.
        if unsafe { bottom.word } == END {
            return None;
        }
        // SAFETY: as in `take_off`.
        unsafe { &bottom.below }.as_ref()
    }
}

impl OnStack {
    /// The sheaf again, taken off the stack with that top.
    pub(super) fn into_sheaf(self, top: usize) -> Sheaf {
        let mut sheaf = Sheaf(self.0);
        sheaf.header_mut().nr_objects = self.nr_objects(top);
        sheaf
    }

    /// The sheaf again, if it was not laid there after all.
    pub(super) fn unlaid(self) -> Sheaf {
        // The header still says how many objects it has.
        Sheaf(self.0)
    }

    pub(super) fn nr_objects(&self, top: usize) -> u32 {
        ((top - self.0.as_ptr() as usize) / PLACE_BYTES) as u32 - 1
    }

    /// The words of the places under that top, as they are at this moment: sections may be changing them. They are objects'
    /// addresses, or 0 where the top is seen before the object.
    pub(super) fn words(&self, top: usize) -> impl Iterator<Item = usize> + '_ {
        (1..=self.nr_objects(top) as usize).map(|index| {
            // SAFETY: the place is inside the sheaf, which stays while it is on the stack.
            let place = unsafe { self.0.cast::<usize>().add(1 + index) };
            // SAFETY: as just said. Volatile: a section may write it meanwhile.
            unsafe { place.read_volatile() }
        })
    }
}

/// Of the header, the places and the lid.
fn nr_bytes(capacity: u32) -> usize {
    size_of::<Header>() + (capacity as usize + 1) * PLACE_BYTES
}
