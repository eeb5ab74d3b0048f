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

    /// Lays its newest objects onto another sheaf, in the same order: so many, or as many as there are and as there is room for. Returns how
    /// many.
    fn give_newest(&mut self, nr_objects: u32, to: &mut Sheaf) -> u32 {
        let nr_given = nr_objects.min(self.nr_objects()).min(to.room());
        self.header_mut().nr_objects -= nr_given;
        let (from, onto) = (self.place(self.nr_objects() + 1), to.place(to.nr_objects() + 1));
        // SAFETY: so many places are set above those that remain, and so many are there above what the other sheaf has; both sheaves are
        // owned and borrowed mutably, so they are two.
        unsafe { from.copy_to_nonoverlapping(onto, nr_given as usize) };
        to.header_mut().nr_objects += nr_given;
        nr_given
    }

    /// If `full` has more than half of a sheaf more than `empty`, gives it the newest half of that, but leaves it room for one more. Returns
    /// whether any went over.
    pub(super) fn halve(full: &mut Option<Sheaf>, empty: &mut Option<Sheaf>) -> bool {
        let (Some(full), Some(empty)) = (full, empty) else { return false };
        let Some(nr_more) = full.nr_objects().checked_sub(empty.nr_objects()) else { return false };
        let Some(room) = empty.room().checked_sub(1) else { return false };
        if nr_more <= full.capacity() / 2 {
            return false;
        }
        full.give_newest((nr_more / 2).min(room), empty) > 0
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

#[cfg(all(test, not(loom)))]
mod tests {
    use core::ptr::NonNull;
    use std::vec::Vec;

    use super::{FreeObject, Sheaf};

    /// A sheaf of objects at these addresses, the oldest first; nobody looks at them.
    fn sheaf(capacity: u32, addresses: impl IntoIterator<Item = usize>) -> Option<Sheaf> {
        let mut sheaf = Sheaf::new(capacity).unwrap();
        for address in addresses {
            let address = NonNull::new(core::ptr::without_provenance_mut(address)).unwrap();
            assert!(sheaf.push(FreeObject::at(address)));
        }
        Some(sheaf)
    }

    /// The addresses of a sheaf's objects, the oldest first; the sheaf is gone.
    fn addresses(sheaf: Option<Sheaf>) -> Vec<usize> {
        let sheaf = sheaf.unwrap();
        let addresses = sheaf.iter().map(|object| object.address().addr().get()).collect();
        sheaf.free();
        addresses
    }

    #[test]
    fn the_newest_half_goes_to_the_other_sheaf_in_its_order() {
        let (mut full, mut empty) = (sheaf(9, 1..=9), sheaf(9, []));
        assert!(Sheaf::halve(&mut full, &mut empty));
        assert!(!Sheaf::halve(&mut full, &mut empty) && !Sheaf::halve(&mut empty, &mut full), "it is done");
        assert_eq!(empty.as_mut().and_then(Sheaf::pop).map(|object| object.address().addr().get()), Some(9));
        assert_eq!([addresses(full), addresses(empty)], [Vec::from([1, 2, 3, 4, 5]), Vec::from([6, 7, 8])]);
    }

    #[test]
    fn sheaves_of_other_sizes_are_halved_as_far_as_there_is_room_for_one_more() {
        let (mut full, mut small) = (sheaf(20, 1..=20), sheaf(5, 101..=102));
        assert!(Sheaf::halve(&mut full, &mut small));
        assert!(!Sheaf::halve(&mut full, &mut small), "there is room for one");
        assert_eq!(addresses(small), [101, 102, 19, 20]);
        // Nothing of what has less, or is missing.
        let mut more = sheaf(40, 101..=140);
        assert!(!Sheaf::halve(&mut full, &mut more) && !Sheaf::halve(&mut full, &mut None));
        assert_eq!((addresses(full).len(), addresses(more).len()), (18, 40));
    }
}
