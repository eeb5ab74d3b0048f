//! A type-stable table: slots of one type that are handed out by number and never change type or address.
//!
//! A slot that was given back may be handed out again, but stays mapped and stays a `T`; so a reference to a slot is
//! always sound, and generation numbers or counts inside `T` tell a reader whether it is still the one that it meant.
//! Slots live in chunks of the page layer, found through a fixed directory: nothing moves, look-ups take no lock.

#[cfg(loom)]
mod models;

mod chunked {
    #![expect(unsafe_code, reason = "slots are reached through chunk pointers")]

    #[cfg(loom)]
    use super::models::{CHUNK_BYTES, new_chunk};
    #[cfg(not(loom))]
    use crate::os::PAGE_SIZE;
    #[cfg(not(loom))]
    use crate::page_alloc;
    use crate::sync::{AtomicPtr, AtomicU32, Lock, Ordering};

    #[cfg(not(loom))]
    const CHUNK_PAGES: u32 = 64;
    #[cfg(not(loom))]
    const CHUNK_BYTES: usize = CHUNK_PAGES as usize * PAGE_SIZE;

    /// A type whose slots can live in a [`Table`].
    ///
    /// # Safety
    /// All bytes zero is a valid value, every field is an atomic or a lock, and its alignment is at most a page.
    pub(crate) unsafe trait Slot: Sync + 'static {
        /// Where a free slot keeps the number of the next free one. Only the table uses it while the slot is free.
        fn next_free(&self) -> &AtomicU32;
    }

    pub(crate) struct Table<T, const NR_CHUNKS: usize> {
        chunks: [AtomicPtr<T>; NR_CHUNKS],
        free: Lock<FreeSlots>,
        /// Numbers ever handed out. Changed under the lock; read without it, as a bound.
        nr_made: AtomicU32,
    }

    /// `first` is one more than the number of the first free slot, or 0.
    struct FreeSlots {
        first: u32,
        nr_used: u32,
    }

    impl<T: Slot, const NR_CHUNKS: usize> Table<T, NR_CHUNKS> {
        const PER_CHUNK: u32 = (CHUNK_BYTES / size_of::<T>()) as u32;

        #[cfg(not(loom))]
        pub(crate) const fn new() -> Self {
            Table {
                chunks: [const { AtomicPtr::new(core::ptr::null_mut()) }; NR_CHUNKS],
                free: Lock::new(FreeSlots { first: 0, nr_used: 0 }),
                nr_made: AtomicU32::new(0),
            }
        }

        #[cfg(loom)]
        pub(crate) fn new() -> Self {
            Table {
                chunks: core::array::from_fn(|_| AtomicPtr::new(core::ptr::null_mut())),
                free: Lock::new(FreeSlots { first: 0, nr_used: 0 }),
                nr_made: AtomicU32::new(0),
            }
        }

        /// A slot that the caller owns: new ones are zero, reused ones as they were left.
        pub(crate) fn alloc(&self) -> Option<u32> {
            self.alloc_below(u32::MAX)
        }

        /// The same, with a number below `bound`, if no other call ever asks for more.
        pub(crate) fn alloc_below(&self, bound: u32) -> Option<u32> {
            let mut free = self.free.lock();
            if free.first != 0 {
                let idx = free.first - 1;
                free.first = self.get(idx).next_free().load(Ordering::Relaxed);
                free.nr_used += 1;
                return Some(idx);
            }
            let idx = self.nr_made.load(Ordering::Relaxed);
            if idx >= bound {
                return None;
            }
            let chunk = self.chunks.get((idx / Self::PER_CHUNK) as usize)?;
            if chunk.load(Ordering::Relaxed).is_null() {
                // Release pairs with the Acquire in `get`. The memory is zero: a valid `T` in every slot.
                chunk.store(new_chunk()?.cast(), Ordering::Release);
            }
            free.nr_used += 1;
            // Release pairs with the Acquire in `nr_made`: numbers below it have a chunk.
            self.nr_made.store(idx + 1, Ordering::Release);
            Some(idx)
        }

        /// Gives a slot back. The caller owned it.
        pub(crate) fn free(&self, idx: u32) {
            let mut free = self.free.lock();
            self.get(idx).next_free().store(free.first, Ordering::Relaxed);
            free.first = idx + 1;
            free.nr_used -= 1;
        }

        /// The slot of a number that [`Table::alloc`] once returned.
        #[inline]
        pub(crate) fn get(&self, idx: u32) -> &'static T {
            let chunk = (idx / Self::PER_CHUNK) as usize;
            // Acquire pairs with the Release in `alloc`.
            let slots = self.chunks[chunk].load(Ordering::Acquire);
            debug_assert!(!slots.is_null());
            // SAFETY: numbers that were handed out have a chunk, and the remainder is inside it.
            let slot = unsafe { slots.add((idx % Self::PER_CHUNK) as usize) };
            // SAFETY: chunks are never freed, and `Slot` promises that zeroed memory is a `T` of atomics.
            unsafe { &*slot }
        }

        /// How many numbers were ever handed out: all valid numbers are below.
        pub(crate) fn nr_made(&self) -> u32 {
            self.nr_made.load(Ordering::Acquire)
        }

        /// How many slots are handed out now.
        pub(crate) fn nr_used(&self) -> u32 {
            self.free.lock().nr_used
        }

        #[cfg(not(loom))]
        pub(crate) fn hold_for_fork(&self) {
            self.free.hold_for_fork();
        }

        #[cfg(not(loom))]
        pub(crate) fn release_after_fork(&self) {
            self.free.force_unlock();
        }
    }

    #[cfg(not(loom))]
    fn new_chunk() -> Option<*mut u8> {
        Some(page_alloc::alloc_zeroed(CHUNK_PAGES)?.address().as_ptr())
    }
}

#[cfg(not(loom))]
pub(crate) use chunked::{Slot, Table};

/// The same contract for models: a few slots, made beforehand.
#[cfg(loom)]
mod fixed {
    use crate::sync::AtomicU32;

    pub(crate) trait Slot {
        fn next_free(&self) -> &AtomicU32;
    }

    pub(crate) struct Table<T, const NR_SLOTS: usize> {
        slots: Vec<T>,
        free: std::sync::Mutex<Vec<u32>>,
    }

    impl<T: Slot + Default, const NR_SLOTS: usize> Table<T, NR_SLOTS> {
        pub(crate) fn new() -> Self {
            let slots = (0..NR_SLOTS).map(|_| T::default()).collect();
            Table { slots, free: std::sync::Mutex::new((0..NR_SLOTS as u32).rev().collect()) }
        }

        pub(crate) fn alloc(&self) -> Option<u32> {
            self.free.lock().unwrap().pop()
        }

        pub(crate) fn free(&self, idx: u32) {
            let mut free = self.free.lock().unwrap();
            assert!(!free.contains(&idx), "slot {idx} is freed twice");
            free.push(idx);
        }

        pub(crate) fn get(&self, idx: u32) -> &T {
            &self.slots[idx as usize]
        }

        pub(crate) fn nr_used(&self) -> u32 {
            (NR_SLOTS - self.free.lock().unwrap().len()) as u32
        }
    }
}

#[cfg(loom)]
pub(crate) use fixed::{Slot, Table};
