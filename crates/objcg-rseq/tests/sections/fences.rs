//! Another CPU's data: after a stopper and a fence nobody else has it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use objcg_rseq::Stack;

use crate::area::{Area, LIMIT, assert_conserved, nr_cpus, number};
use crate::conservation::{NR_OBJECTS, filled_area};
use crate::many::{pop_many, push_many};
use crate::storm::{NR_THREADS, storm};

/// Threads that take; the others use their own CPU's data.
const NR_TAKERS: usize = 2;
const NR_ROUNDS_BETWEEN_TAKES: usize = 8;
/// Tries for a stack that is away while its taker works.
const MAX_TRIES: u32 = 10_000_000;

fn takes(thread: usize, round: usize) -> bool {
    thread < NR_TAKERS && round.is_multiple_of(NR_ROUNDS_BETWEEN_TAKES)
}

/// Takes the stack away: sections find the stopper. A commit of a section that began before may move it, or replace it; then
/// try again.
fn take(area: Area, cpu: u32) -> Stack {
    let (top, stopper, stopper_top) = (area.top(cpu), area.stopper(cpu), area.stopper_top(cpu));
    loop {
        let taken = top.swap(stopper_top, Ordering::AcqRel);
        assert!(objcg_rseq::fence(cpu));
        if let Some(drift) = stopper.drift(top.load(Ordering::Acquire).addr()) {
            top.store(stopper_top, Ordering::Relaxed);
            return taken.wrapping_byte_offset(drift);
        }
    }
}

#[test]
fn a_stack_behind_a_stopper_and_a_fence_is_the_takers_alone() {
    let (area, nr_objects) = (filled_area(), NR_OBJECTS);
    let locks: Vec<_> = (0..nr_cpus()).map(|_| Mutex::new(())).collect();
    let mine: [Mutex<Vec<usize>>; NR_THREADS] = Default::default();
    storm(|thread, round| {
        if takes(thread, round) {
            let cpu = (round / NR_ROUNDS_BETWEEN_TAKES) as u32 % nr_cpus();
            let _lock = locks[cpu as usize].lock().expect("nobody panics");
            let taken = take(area, cpu);
            let (bottom, numbers) = area.drain(taken);
            // Every other time the taker keeps what it found, for a while.
            let top = if round % (2 * NR_ROUNDS_BETWEEN_TAKES) == 0 { taken } else { bottom };
            if top == bottom {
                mine[thread].lock().expect("nobody panics").extend(numbers);
            }
            // Release: sections that find the stack find what is on it.
            area.top(cpu).store(top, Ordering::Release);
        } else if thread < NR_TAKERS {
            let mut mine = mine[thread].lock().expect("nobody panics");
            if let Some(number) = mine.pop()
                && !area.push(crate::area::object(number))
            {
                mine.push(number);
            }
        } else {
            let mut objects = pop_many(area, 1 + round % 3);
            objects.extend(area.pop());
            objects.iter().for_each(|object| assert!(number(*object) < nr_objects));
            // The stack may be away, but comes back.
            for nr_tries in 0.. {
                objects.drain(..push_many(area, &objects));
                if objects.is_empty() {
                    break;
                }
                assert!(nr_tries < MAX_TRIES, "the stack is lost");
                thread::yield_now();
            }
        }
    });
    let mut numbers = area.drain_all();
    mine.into_iter().for_each(|mine| numbers.extend(mine.into_inner().expect("nobody panics")));
    assert_conserved(numbers, nr_objects);
}

#[test]
fn words_behind_a_guard_and_a_fence_are_the_takers_alone() {
    let area = Area::new();
    let sum = AtomicI64::new(0);
    let locks: Vec<_> = (0..nr_cpus()).map(|_| Mutex::new(())).collect();
    storm(|thread, round| {
        if !takes(thread, round) {
            let delta = if round % 2 == 0 { 1 } else { -1 };
            if area.compare_add(0, delta) {
                sum.fetch_add(delta, Ordering::Relaxed);
            }
            return;
        }
        let cpu = (round / NR_ROUNDS_BETWEEN_TAKES) as u32 % nr_cpus();
        let _lock = locks[cpu as usize].lock().expect("nobody panics");
        let guard = area.guard_word(cpu);
        guard.store(1, Ordering::Release);
        assert!(objcg_rseq::fence(cpu));
        // SAFETY: sections keep away from the word, and the lock keeps other takers away.
        let word = unsafe { &mut (*area.part(cpu)).words[0].word };
        let number = i64::from(*word as u32);
        let half = i64::from(LIMIT / 2);
        *word = *word - number as u64 + half as u64;
        sum.fetch_add(half - number, Ordering::Relaxed);
        guard.store(0, Ordering::Release);
    });
    assert_eq!(area.balance(0), sum.into_inner());
}

#[test]
fn a_fence_on_a_cpu_that_is_not_there_is_none() {
    crate::area::init();
    assert!(objcg_rseq::fence(nr_cpus() + 1000), "nothing can be under way there");
}
