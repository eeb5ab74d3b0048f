//! Several objects at once, and the ends of a stack.

use std::mem::MaybeUninit;

use std::ptr::NonNull;

use crate::area::{Area, NR_PLACES, assert_conserved, nr_cpus, number, object};
use crate::child::in_child;
use crate::storm::{own_id, pin, storm};

const NR_OBJECTS: usize = NR_PLACES / 2;

pub(crate) fn push_many(area: Area, objects: &[NonNull<u8>]) -> usize {
    // SAFETY: the area is valid for all CPUs, and its stacks change as the crate's rules allow.
    unsafe { objcg_rseq::push_many(area.stack(), objects) }
}

pub(crate) fn pop_many(area: Area, nr_objects: usize) -> Vec<NonNull<u8>> {
    let mut room = vec![MaybeUninit::uninit(); nr_objects];
    // SAFETY: as above.
    let nr_taken = unsafe { objcg_rseq::pop_many(area.stack(), &mut room) };
    // SAFETY: that many were written.
    room.into_iter().take(nr_taken).map(|object| unsafe { object.assume_init() }).collect()
}

fn objects(nr_objects: usize) -> Vec<NonNull<u8>> {
    (0..nr_objects).map(object).collect()
}

fn pinned_area() -> Area {
    let area = Area::new();
    assert!(objcg_rseq::register_thread());
    assert!(pin(own_id(), nr_cpus() - 1));
    area
}

#[test]
fn many_go_and_come_whole_in_a_storm() {
    let area = Area::new();
    assert!(objcg_rseq::register_thread());
    assert_eq!(push_many(area, &objects(NR_OBJECTS)), NR_OBJECTS);
    storm(|thread, round| {
        let taken = pop_many(area, (thread + round) % 9);
        taken.iter().for_each(|object| {
            number(*object);
        });
        assert_eq!(push_many(area, &taken), taken.len());
    });
    assert_conserved(area.drain_all(), NR_OBJECTS);
}

#[test]
fn a_full_stack_takes_what_fits_and_an_empty_one_gives_what_it_has() {
    let area = pinned_area();
    assert!(pop_many(area, 3).is_empty());
    assert_eq!(area.pop(), None);
    assert_eq!(push_many(area, &objects(NR_PLACES + 5)), NR_PLACES);
    assert_eq!(push_many(area, &objects(1)), 0);
    assert!(!area.push(object(0)));
    let taken = pop_many(area, NR_PLACES + 5);
    assert!(taken.into_iter().map(number).eq((0..NR_PLACES).rev()), "the top one first");
    assert!(pop_many(area, 1).is_empty());
}

#[test]
fn single_and_many_agree_on_the_order() {
    let area = pinned_area();
    assert_eq!(push_many(area, &objects(3)), 3);
    assert!(area.push(object(3)));
    assert_eq!(area.pop(), Some(object(3)));
    assert_eq!(area.pop(), Some(object(2)));
    assert_eq!(pop_many(area, 1), [object(1)]);
    assert!(pop_many(area, 0).is_empty());
    assert_eq!(push_many(area, &[]), 0);
    assert_eq!(area.drain_all(), [0]);
}

#[test]
fn the_object_on_top_is_not_put_twice() {
    let area = pinned_area();
    assert!(area.push(object(1)));
    assert!(!area.push(object(1)));
    assert!(area.push(object(2)));
    assert_eq!(area.drain_all(), [2, 1]);
}

/// A commit of what was read would undo what the taker of a stack stores while sections find its stopper.
#[test]
fn who_finds_nothing_to_do_stores_nothing() {
    in_child("many::who_finds_nothing_to_do_stores_nothing", &[], || {
        let (empty, full) = (pinned_area(), pinned_area());
        assert_eq!(push_many(full, &objects(NR_PLACES)), NR_PLACES);
        empty.forbid_stores();
        full.forbid_stores();
        assert_eq!(empty.pop(), None);
        assert!(pop_many(empty, 3).is_empty());
        assert!(pop_many(full, 0).is_empty());
        assert_eq!(push_many(full, &objects(1)), 0);
        assert_eq!(push_many(empty, &[]), 0);
        assert!(!full.push(object(0)));
        assert!(!empty.compare_add(0, 1_000));
    });
}
