//! A sheaf: a bounded array of free objects of one cache, the kernel's `struct slab_sheaf`.
//!
//! A [`Sheaf`] is owned and move-only: a CPU's slot or the barn holds it, and whoever holds it may change it.

#![expect(unsafe_code, reason = "the objects follow the header in one allocation of the engine's memory")]

use core::ptr::NonNull;

use super::meta;

struct Header {
    nr_objects: u32,
    capacity: u32,
}

const OBJECTS_OFFSET: usize = size_of::<Header>();

/// An owned sheaf.
///
/// # Invariants
/// Points to a `Header` followed by room for `capacity` object pointers, of which the first `nr_objects` are set;
/// `nr_objects ≤ capacity`. Nobody else refers to it.
pub(crate) struct Sheaf(NonNull<Header>);

// SAFETY: a sheaf owns its memory and is not tied to a thread.
unsafe impl Send for Sheaf {}

impl Sheaf {
    /// An empty sheaf; `None` without memory.
    pub(super) fn new(capacity: u32) -> Option<Sheaf> {
        let header = meta::alloc(nr_bytes(capacity))?.cast::<Header>();
        // SAFETY: the memory is new, aligned to 8 and large enough for the header.
        unsafe { header.write(Header { nr_objects: 0, capacity }) };
        // INVARIANT: the allocation has room for `capacity` pointers behind the header.
        Some(Sheaf(header))
    }

    /// Gives the memory of a sheaf back. It must be empty, or its objects are lost.
    pub(super) fn free(self) {
        let nr_bytes = nr_bytes(self.header().capacity);
        // SAFETY: the sheaf is consumed here, and by its invariant nobody else refers to it.
        unsafe { meta::free(self.0.cast(), nr_bytes) };
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: by the invariant the header is valid and not shared.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn header_mut(&mut self) -> &mut Header {
        // SAFETY: by the invariant the header is valid, and `self` is borrowed mutably.
        unsafe { self.0.as_mut() }
    }

    #[inline]
    fn slot(&self, index: u32) -> NonNull<NonNull<u8>> {
        // SAFETY: the first slot follows the header in the same allocation.
        let first = unsafe { self.0.byte_add(OBJECTS_OFFSET) }.cast::<NonNull<u8>>();
        // SAFETY: `index` is below the capacity in every caller, so the slot is inside the allocation.
        unsafe { first.add(index as usize) }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.header().nr_objects == 0
    }

    #[inline]
    pub(super) fn room(&self) -> u32 {
        self.header().capacity - self.header().nr_objects
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<NonNull<u8>> {
        let last = self.header().nr_objects.checked_sub(1)?;
        self.header_mut().nr_objects = last;
        // SAFETY: slots below the old `nr_objects` are set.
        Some(unsafe { self.slot(last).read() })
    }

    /// Adds an object; false if there is no room.
    #[inline]
    pub(super) fn push(&mut self, object: NonNull<u8>) -> bool {
        if self.room() == 0 {
            return false;
        }
        let last = self.header().nr_objects;
        // SAFETY: `last` is below the capacity, so the slot is ours to write.
        unsafe { self.slot(last).write(object) };
        self.header_mut().nr_objects = last + 1;
        true
    }

    /// The objects, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = NonNull<u8>> + '_ {
        // SAFETY: slots below `nr_objects` are set.
        (0..self.header().nr_objects).map(|index| unsafe { self.slot(index).read() })
    }

    /// Empties the sheaf, oldest objects first.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = NonNull<u8>> + '_ {
        let nr_objects = core::mem::take(&mut self.header_mut().nr_objects);
        // SAFETY: the first `nr_objects` slots were set, and nobody writes them while the sheaf is borrowed.
        (0..nr_objects).map(|index| unsafe { self.slot(index).read() })
    }
}

fn nr_bytes(capacity: u32) -> usize {
    OBJECTS_OFFSET + capacity as usize * size_of::<NonNull<u8>>()
}
