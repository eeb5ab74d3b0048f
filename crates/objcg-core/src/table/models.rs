//! Models of the table: numbers of slots that cross from thread to thread by nothing but the table itself.

use core::mem::MaybeUninit;

use super::chunked::{Slot, Table};
use crate::sync::{AtomicU32, Ordering};

/// A chunk is one slot, so that every number is a new chunk's.
pub(super) const CHUNK_BYTES: usize = size_of::<Numbered>();

/// What the page layer gives, but for loom's atomics, for which zeroed memory is no valid value. It is never freed, as there.
pub(super) fn new_chunk() -> Option<*mut u8> {
    let chunk: &'static mut Numbered = Box::leak(Box::default());
    Some(core::ptr::from_mut(chunk).cast())
}

#[derive(Default)]
struct Numbered {
    value: AtomicU32,
    next_free: AtomicU32,
}

#[expect(unsafe_code, reason = "vouches for a type that `new_chunk` makes valid values of")]
const _: () = {
    // SAFETY: every field is an atomic, and chunks start as valid values.
    unsafe impl Slot for Numbered {
        fn next_free(&self) -> &AtomicU32 {
            &self.next_free
        }
    }
};

const _: () = assert!(size_of::<MaybeUninit<Numbered>>() == CHUNK_BYTES);

#[cfg(test)]
mod tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::{Numbered, Ordering, Table};

    /// A walk over all numbers while slots are made: each number below the bound leads to a slot that is there.
    #[test]
    fn loom_every_number_below_the_bound_has_a_slot() {
        loom::model(|| {
            let table = Arc::new(Table::<Numbered, 2>::new());
            let other = Arc::clone(&table);
            let walker = thread::spawn(move || {
                for idx in 0..other.nr_made() {
                    assert!([0, 7].contains(&other.get(idx).value.load(Ordering::Relaxed)));
                }
            });
            let idx = table.alloc().expect("there is room for two");
            table.get(idx).value.store(7, Ordering::Relaxed);
            walker.join().unwrap();
            assert_eq!(idx, 0);
        });
    }

    /// Two threads take slots, and one gives its slot back: nobody has another's, and the third finds the free one.
    #[test]
    fn loom_no_slot_is_handed_out_twice() {
        loom::model(|| {
            let table = Arc::new(Table::<Numbered, 2>::new());
            let other = Arc::clone(&table);
            let brief = thread::spawn(move || {
                let idx = other.alloc().expect("there is room for two");
                assert_eq!(other.get(idx).value.fetch_add(1, Ordering::Relaxed), 0, "another's slot");
                other.get(idx).value.fetch_sub(1, Ordering::Relaxed);
                other.free(idx);
            });
            let mine = table.alloc().expect("there is room for two");
            assert_eq!(table.get(mine).value.fetch_add(1, Ordering::Relaxed), 0, "another's slot");
            brief.join().unwrap();
            let third = table.alloc().expect("one is free");
            assert_ne!(mine, third);
            assert_eq!((table.alloc(), table.nr_used()), (None, 2));
        });
    }
}
