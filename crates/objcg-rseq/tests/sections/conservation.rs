//! Nothing is lost and nothing is there twice, on any stack, word or counter.

use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use objcg_rseq::Sum;

use crate::area::{Area, LIMIT, NR_PLACES, assert_conserved, nr_cpus, number, object};
use crate::child::{NO_LIBC_RSEQ, in_child};
use crate::storm::{NR_ROUNDS, NR_THREADS, let_handlers_use, storm};

/// Fewer than the places of one stack.
pub(crate) const NR_OBJECTS: usize = NR_PLACES / 2;

/// An area with [`NR_OBJECTS`] objects on whatever stacks.
pub(crate) fn filled_area() -> Area {
    let area = Area::new();
    assert!(objcg_rseq::register_thread());
    (0..NR_OBJECTS).for_each(|number| assert!(area.push(object(number))));
    area
}

fn count_in_a_storm() {
    let area = Area::new();
    storm(|_, _| assert!(area.add(1)));
    assert_eq!(area.count(), (NR_THREADS * NR_ROUNDS) as u64);
}

fn swap_objects_in_a_storm() {
    let area = filled_area();
    storm(|_, round| {
        let taken: Vec<NonNull<u8>> = (0..1 + round % 5).map_while(|_| area.pop()).collect();
        taken.into_iter().for_each(|object| {
            number(object);
            assert!(area.push(object));
        });
    });
    assert_conserved(area.drain_all(), NR_OBJECTS);
}

#[test]
fn counts_are_exact() {
    count_in_a_storm();
}

#[test]
fn counts_are_exact_under_own_registration() {
    let name = "conservation::counts_are_exact_under_own_registration";
    in_child(name, &[NO_LIBC_RSEQ], || {
        count_in_a_storm();
        assert_eq!(objcg_rseq::registration(), objcg_rseq::Registration::Own);
    });
}

#[test]
fn every_turn_of_a_counter_is_told_once() {
    // A few additions go around: the turns make up for what the counters have lost.
    const DELTA: i64 = 1 << 61;
    let area = Area::new();
    let nr_turns = AtomicI64::new(0);
    storm(|_, round| {
        let delta = if round % 3 == 0 { -DELTA } else { DELTA };
        match area.add_overflowing(delta) {
            Sum::Added => {}
            Sum::Overflowed => _ = nr_turns.fetch_add(delta.signum(), Ordering::Relaxed),
            Sum::GaveUp => panic!("every thread is registered"),
        }
    });
    let of_one: i64 = (0..NR_ROUNDS).map(|round| if round % 3 == 0 { -1 } else { 1 }).sum();
    let counts = i128::from(area.signed_count_in(DELTA)) + i128::from(nr_turns.into_inner()) * 8;
    assert_eq!(counts, i128::from(of_one) * NR_THREADS as i128);
}

#[test]
fn every_entry_is_there_once() {
    swap_objects_in_a_storm();
}

#[test]
fn every_entry_is_there_once_under_own_registration() {
    let name = "conservation::every_entry_is_there_once_under_own_registration";
    in_child(name, &[NO_LIBC_RSEQ], swap_objects_in_a_storm);
}

#[test]
fn words_of_two_tags_agree_with_their_sums_and_never_pass_a_limit() {
    let area = Area::new();
    let sums = [AtomicI64::new(0), AtomicI64::new(0)];
    storm(|thread, round| {
        let (idx, size) = (round % 2, 1 + (thread % 3) as i64);
        let delta = if (round / 2 + thread) % 2 == 0 { size } else { -size };
        if area.compare_add(idx, delta) {
            sums[idx].fetch_add(delta, Ordering::Relaxed);
        }
        assert!(!area.compare_add(idx, i64::from(LIMIT) + 1), "never fits");
    });
    assert_eq!([0, 1].map(|idx| area.balance(idx)), sums.map(AtomicI64::into_inner));
}

/// Each CPU's stack is of one set of places or of the other; a thread that is on the CPU swaps them whole, under a lock that
/// only those who swap take.
#[test]
fn whole_stacks_are_exchanged_while_others_pop_and_push() {
    let (area, spare) = (filled_area(), Area::new());
    // SAFETY: nobody uses the spare area's stacks but by these tops.
    let spares: Vec<_> = (0..nr_cpus()).map(|cpu| Mutex::new(unsafe { (*spare.part(cpu)).stack.addr() })).collect();
    storm(|thread, round| {
        if let Some(cpu) = objcg_rseq::current_cpu().filter(|_| thread == 0 && round % 4 == 0) {
            let mut spare_top = spares[cpu as usize].lock().expect("nobody panics");
            if let Some(top) = area.exchange_top(cpu, std::ptr::with_exposed_provenance_mut(*spare_top)) {
                *spare_top = top.expose_provenance();
            }
        } else if let Some(object) = area.pop() {
            number(object);
            assert!(area.push(object));
        }
    });
    let spare_tops = spares.into_iter().map(|top| top.into_inner().expect("nobody panics"));
    let mut numbers = area.drain_all();
    numbers.extend(spare_tops.flat_map(|top| area.drain(std::ptr::with_exposed_provenance_mut(top)).1));
    assert_conserved(numbers, NR_OBJECTS);
}

#[test]
fn handlers_use_sections_inside_of_sections() {
    in_child("conservation::handlers_use_sections_inside_of_sections", &[], || {
        let area = filled_area();
        let nr_additions = let_handlers_use(area);
        let mut nr_storms = 0;
        // A storm may pass between two signals.
        while nr_storms == 0 || nr_additions.load(Ordering::Relaxed) == 0 {
            storm(|_, _| {
                assert!(area.add(1));
                if let Some(object) = area.pop() {
                    assert!(area.push(object));
                }
            });
            nr_storms += 1;
        }
        assert_eq!(area.count(), (nr_storms * NR_THREADS * NR_ROUNDS) as u64 + nr_additions.load(Ordering::Relaxed));
        assert_conserved(area.drain_all(), NR_OBJECTS);
    });
}
