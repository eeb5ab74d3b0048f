//! The sections' logic without a kernel that helps: each test's thread writes a CPU's number into its own area, where the
//! sections read it as long as `init` is not called. So these run on an emulator as well.

use core::sync::atomic::Ordering;
use std::boxed::Box;
use std::vec::Vec;

use super::{
    END, PerCpu, Stack, Stopper, Sum, TaggedWord, add, add_overflowing, compare_add, exchange, pop, pop_many, push,
    push_many,
};
use crate::arch;
use crate::read_mostly::{self, READ_MOSTLY};
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

const SHIFT: u32 = 8;
const NR_CPUS: u32 = 2;
const NR_PLACES: usize = 4;
/// Parts of threads that are not registered, before those of the CPUs.
const NR_UNREGISTERED: usize = 2;
/// All parts, with one of a CPU that has no data but a stopper.
const NR_PARTS: usize = NR_UNREGISTERED + NR_CPUS as usize + 1;

static STOPPER: Stopper = Stopper::new();

#[repr(C, align(256))]
struct Part {
    stack: Stack,
    places: [usize; NR_PLACES + 2],
    guard: u32,
    word: TaggedWord,
    counter: u64,
    cell: usize,
}

const _: () = assert!(size_of::<Part>() == 1 << SHIFT);

fn parts() -> *mut Part {
    let part = |_: usize| Part {
        stack: ptr::null_mut(),
        places: [0; NR_PLACES + 2],
        guard: 0,
        word: TaggedWord { word: 7 << 32 | 10, limit: 20 },
        counter: 0,
        cell: 0,
    };
    let parts = Box::leak(Box::new([0; NR_PARTS].map(part)));
    for part in parts.iter_mut() {
        part.stack = core::ptr::with_exposed_provenance_mut(STOPPER.top());
    }
    let parts = &mut parts[NR_UNREGISTERED..];
    for part in &mut parts[..NR_CPUS as usize] {
        part.places[0] = END;
        part.places[NR_PLACES + 1] = END;
        part.stack = part.places.as_mut_ptr();
    }
    parts.as_mut_ptr()
}

/// Has the sections use the threads' own areas.
fn allow() {
    read_mostly::set_offset(arch::own_offset());
    READ_MOSTLY.nr_cpus.store(NR_CPUS, Ordering::Relaxed);
}

fn pretend(cpu: u32) {
    allow();
    // SAFETY: the area is not registered: nobody else writes it.
    unsafe { arch::thread_store::<4>(arch::own_offset(), cpu) };
}

fn object(number: usize) -> NonNull<u8> {
    NonNull::new(ptr::without_provenance_mut(number * 16)).expect("not 0")
}

fn stack_of(parts: *mut Part) -> PerCpu<Stack, SHIFT> {
    // SAFETY: within the leaked parts.
    PerCpu::new(unsafe { &raw mut (*parts).stack })
}

#[test]
fn a_thread_that_is_not_registered_gives_up() {
    allow();
    let stack = stack_of(parts());
    // What a thread's number is at first, and what libc makes of it if the kernel refuses.
    for unregistered in [u32::MAX, u32::MAX - 1] {
        pretend(unregistered);
        // SAFETY: the parts are valid.
        assert_eq!(unsafe { pop(stack) }, None);
        // SAFETY: as above.
        assert!(!unsafe { push(stack, object(1)) });
    }
    for at in stack.of_unregistered() {
        // SAFETY: as above.
        assert_eq!(unsafe { at.read() }.expose_provenance(), STOPPER.top());
    }
    // SAFETY: as above.
    assert_eq!(unsafe { push_many(stack, &[object(1)]) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { pop_many(stack, &mut [MaybeUninit::uninit()]) }, 0);
}

#[test]
fn a_cpu_without_data_gives_up() {
    pretend(NR_CPUS);
    let parts = parts();
    // SAFETY: within the leaked parts.
    let counter = PerCpu::<u64, SHIFT>::new(unsafe { &raw mut (*parts).counter });
    // SAFETY: the parts are valid.
    assert!(!unsafe { add(counter, 1) });
    // SAFETY: as above.
    assert_eq!(unsafe { add_overflowing(PerCpu::<i64, SHIFT>::new(counter.of_cpu(0).cast()), 1) }, Sum::GaveUp);
    // SAFETY: the parts are valid.
    assert!(!unsafe { push(stack_of(parts), object(1)) });
}

#[test]
fn a_stack_gives_back_what_was_put_last_between_its_bottom_and_its_lid() {
    pretend(1);
    let stack = stack_of(parts());
    // SAFETY: the parts are valid.
    assert_eq!(unsafe { pop(stack) }, None);
    for number in 1..=NR_PLACES {
        // SAFETY: the parts are valid.
        assert!(unsafe { push(stack, object(number)) });
    }
    // SAFETY: as above.
    assert!(!unsafe { push(stack, object(9)) }, "it is full");
    for number in (1..=NR_PLACES).rev() {
        // SAFETY: as above.
        assert_eq!(unsafe { pop(stack) }, Some(object(number)));
    }
    // SAFETY: as above.
    assert_eq!(unsafe { pop(stack) }, None);
}

#[test]
fn the_object_on_top_is_not_put_twice() {
    pretend(0);
    let stack = stack_of(parts());
    // SAFETY: the parts are valid.
    assert!(unsafe { push(stack, object(1)) });
    // SAFETY: as above.
    assert!(!unsafe { push(stack, object(1)) });
}

#[test]
fn many_go_and_come_in_order_as_far_as_there_is_room() {
    pretend(1);
    let stack = stack_of(parts());
    let objects: Vec<_> = (1..=6).map(object).collect();
    // SAFETY: the parts are valid.
    assert_eq!(unsafe { push_many(stack, &[]) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { push_many(stack, &objects) }, NR_PLACES);
    let mut room = [MaybeUninit::uninit(); 3];
    // SAFETY: as above.
    assert_eq!(unsafe { pop_many(stack, &mut room) }, 3);
    // SAFETY: all three were written.
    let taken = room.map(|object| unsafe { object.assume_init() });
    assert_eq!(taken, [object(4), object(3), object(2)]);
    // SAFETY: the parts are valid.
    assert_eq!(unsafe { pop_many(stack, &mut room) }, 1);
    // SAFETY: as above.
    assert_eq!(unsafe { pop_many(stack, &mut room) }, 0);
}

#[test]
fn a_word_changes_only_under_its_tag_within_its_limit_and_unguarded() {
    pretend(1);
    let parts = parts();
    // SAFETY: within the leaked parts.
    let word = PerCpu::<TaggedWord, SHIFT>::new(unsafe { &raw mut (*parts).word });
    // SAFETY: as above.
    let guard = PerCpu::<u32, SHIFT>::new(unsafe { &raw mut (*parts).guard });
    // SAFETY: the parts are valid.
    let change = |tag, delta| unsafe { compare_add(word, guard, tag, delta) };
    assert!(change(7, 10), "to the limit");
    assert!(!change(7, 1), "over it");
    assert!(!change(8, -1), "another's");
    assert!(!change(7, -21), "below zero");
    assert!(change(7, -20), "to zero");
    // SAFETY: no section is under way in this thread.
    unsafe { guard.of_cpu(1).write(1) };
    assert!(!change(7, 1), "guarded");
    // SAFETY: the parts are valid.
    assert_eq!(unsafe { (*word.of_cpu(1)).word }, 7 << 32);
    // SAFETY: the parts are valid.
    assert_eq!(unsafe { (*word.of_cpu(0)).word }, 7 << 32 | 10, "the other CPU's");
}

#[test]
fn a_counter_and_a_cell_change_on_this_cpu_only() {
    pretend(1);
    let parts = parts();
    // SAFETY: within the leaked parts.
    let counter = PerCpu::<u64, SHIFT>::new(unsafe { &raw mut (*parts).counter });
    // SAFETY: the parts are valid.
    assert!(unsafe { add(counter, 5) });
    // SAFETY: as above.
    assert!(unsafe { add(counter, 7u64.wrapping_neg()) });
    // SAFETY: as above.
    assert_eq!(unsafe { counter.of_cpu(1).read() }, 2u64.wrapping_neg());
    // SAFETY: within the leaked parts.
    let cell = PerCpu::<usize, SHIFT>::new(unsafe { &raw mut (*parts).cell });
    // SAFETY: the parts are valid.
    assert_eq!(unsafe { exchange(cell, 1, 3) }, Some(0));
    // SAFETY: as above.
    assert_eq!(unsafe { exchange(cell, 1, 4) }, Some(3));
    // SAFETY: as above.
    assert_eq!(unsafe { exchange(cell, 0, 5) }, None, "the thread is not there");
}

#[test]
fn a_counter_says_when_it_goes_around() {
    pretend(1);
    let parts = parts();
    // SAFETY: within the leaked parts.
    let counter = PerCpu::<i64, SHIFT>::new(unsafe { (&raw mut (*parts).counter).cast() });
    // SAFETY: the parts are valid.
    let change = |delta| unsafe { add_overflowing(counter, delta) };
    assert_eq!(change(i64::MAX), Sum::Added, "to the end");
    assert_eq!(change(1), Sum::Overflowed, "to the other end");
    assert_eq!(change(-1), Sum::Overflowed, "and back");
    assert_eq!(change(i64::MIN), Sum::Added);
    assert_eq!(change(i64::MIN), Sum::Overflowed);
    assert_eq!(change(-8), Sum::Added);
    // SAFETY: the parts are valid.
    assert_eq!([0, 1].map(|cpu| unsafe { counter.of_cpu(cpu).read() }), [0, i64::MAX - 8]);
}

#[test]
fn the_threads_word_is_its_own() {
    assert_eq!(crate::thread_word(), crate::THREAD_WORD_AT_FIRST);
    assert_eq!(crate::replace_thread_word(5), crate::THREAD_WORD_AT_FIRST);
    assert_eq!(crate::thread_word(), 5);
    assert_eq!(std::thread::spawn(crate::thread_word).join().expect("it ran"), crate::THREAD_WORD_AT_FIRST);
}
