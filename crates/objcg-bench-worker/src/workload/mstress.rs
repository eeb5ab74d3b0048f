//! Live sets that grow and shrink, in threads that hand some of their objects to each other.
//!
//! After the shape of mimalloc's stress test: two threads at a time, each with a set of its own. While the set grows three
//! of four steps allocate, while it shrinks one of four. Every eighth new object changes places with one of a common board,
//! and one of a thousand is large. What a thread has at its end it frees; the board outlives it. An operation is a pair of
//! an allocation and a free.
#![expect(unsafe_code, reason = "objects on a board of atomics")]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread;

use super::{Answer, NR_THREADS};
use crate::clock::{Clock, Effort};
use crate::object::Object;
use crate::pages::Pages;
use crate::protocol::Job;
use crate::random::{Random, Sizes};
use crate::rival::{group_of, within};

const NR_ON_BOARD: usize = 1000;
const NR_STEPS: usize = 100_000;
/// Rounds of threads in a repetition, for ten units of effort.
const NR_ROUNDS: usize = 4;

pub(super) fn run(job: &Job, effort: Effort, answer: &mut Answer) -> Result<(), String> {
    let group = group_of(job.mode)?;
    let group = group.as_ref();
    let board = Board(Pages::new(NR_ON_BOARD, |_| AtomicPtr::new(ptr::null_mut())));
    let sizes = Sizes::of_a_server();
    let mut sets: [Set; NR_THREADS] = std::array::from_fn(|_| Set::new());
    let nr_rounds = NR_ROUNDS * effort.factor.div_ceil(10);
    let times = effort.repeat_whole(|| {
        let start = Clock::Wall.now();
        let mut nr_ops = 0;
        for round in 0..nr_rounds {
            thread::scope(|scope| {
                let mut nth = round * NR_THREADS;
                let threads = sets.each_mut().map(|set| {
                    nth += 1;
                    let random = Random::new(job.seed ^ (nth as u64) << 32);
                    let (board, sizes) = (&board, &sizes);
                    scope.spawn(move || within(group, || set.one_life(board, sizes, random)))
                });
                nr_ops += threads.map(|thread| thread.join().expect("nothing panics")).iter().sum::<u64>();
            });
        }
        (Clock::Wall.now() - start).as_nanos() as f64 / nr_ops as f64
    });
    answer.add_case("all", times);
    board.clear();
    Ok(())
}

/// Where threads leave objects for each other.
struct Board(Pages<AtomicPtr<u8>>);

impl Board {
    /// Puts `object` somewhere, and takes what was there.
    fn exchange(&self, object: Object, random: &mut Random) -> Option<Object> {
        let place = &self.0[random.below(NR_ON_BOARD)];
        // Release and Acquire pair with each other: who takes an object sees its first word.
        let found = place.swap(object.into_raw(), Ordering::AcqRel);
        // SAFETY: the board has objects that were given up, and the swap gave this one to us alone.
        unsafe { Object::from_raw(found) }
    }

    fn clear(&self) {
        for place in self.0.iter() {
            // SAFETY: as in `exchange`.
            drop(unsafe { Object::from_raw(place.swap(ptr::null_mut(), Ordering::AcqRel)) });
        }
    }
}

/// A thread's objects. With cache lines of its own: each step writes to it.
#[repr(align(128))]
struct Set {
    objects: Pages<Option<Object>>,
    len: usize,
}

impl Set {
    fn new() -> Set {
        Set { objects: Pages::new(NR_STEPS, |_| None), len: 0 }
    }

    /// Grows, shrinks and empties the set; how many objects that took.
    fn one_life(&mut self, board: &Board, sizes: &Sizes, mut random: Random) -> u64 {
        let mut nr_made = 0;
        for step in 0..NR_STEPS {
            let nr_quarters_allocate = if step < NR_STEPS / 2 { 3 } else { 1 };
            if random.below(4) < nr_quarters_allocate {
                nr_made += 1;
                let object = Object::new(draw(sizes, &mut random));
                if random.below(8) > 0 {
                    self.push(object);
                } else if let Some(found) = board.exchange(object, &mut random) {
                    self.push(found);
                }
            } else if self.len > 0 {
                self.free(random.below(self.len));
            }
        }
        while self.len > 0 {
            self.free(self.len - 1);
        }
        nr_made
    }

    fn push(&mut self, object: Object) {
        self.objects[self.len] = Some(object);
        self.len += 1;
    }

    fn free(&mut self, at: usize) {
        self.len -= 1;
        let last = self.objects[self.len].take();
        if at < self.len {
            self.objects[at] = last;
        }
    }
}

fn draw(sizes: &Sizes, random: &mut Random) -> usize {
    if random.below(1000) == 0 { (4 << 10) + random.below(60 << 10) } else { sizes.draw(random) }
}
