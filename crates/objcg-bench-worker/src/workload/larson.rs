//! A server's connections: threads replace random objects of an array, and hand the array on to a thread of its own.
//!
//! After the shape of Larson and Krishnan's benchmark: each of two lanes has an array of a thousand objects of 16 to 1,024
//! bytes. A thread frees and allocates ten thousand of them at random, starts its successor and ends. An operation is the
//! free of one object and the allocation of another.

use std::thread::{self, Scope};

use super::{Answer, NR_THREADS};
use crate::clock::{Clock, Effort};
use crate::object::Object;
use crate::pages::Pages;
use crate::protocol::Job;
use crate::random::Random;
use crate::rival::{Group, group_of, within};

const NR_OBJECTS: usize = 1000;
const NR_REPLACED: u64 = 10_000;
const MIN_SIZE: usize = 16;
const MAX_SIZE: usize = 1024;
/// Threads of a lane, one after the other, for each unit of effort.
const NR_GENERATIONS: usize = 2;

/// With cache lines of its own: each step writes to it.
#[repr(align(128))]
struct Lane {
    objects: Pages<Option<Object>>,
    random: Random,
}

pub(super) fn run(job: &Job, effort: Effort, answer: &mut Answer) -> Result<(), String> {
    let group = group_of(job.mode)?;
    let mut random = Random::new(job.seed);
    let mut lanes: [Lane; NR_THREADS] = std::array::from_fn(|nth| Lane {
        objects: within(group.as_ref(), || Pages::new(NR_OBJECTS, |_| Some(Object::new(size(&mut random))))),
        random: Random::new(job.seed ^ (nth as u64 + 1) << 32),
    });
    let nr_generations = NR_GENERATIONS * effort.factor;
    let nr_ops = NR_THREADS as u64 * nr_generations as u64 * NR_REPLACED;
    let times = effort.repeat_whole(|| {
        Clock::Wall.per_op(nr_ops, || {
            thread::scope(|scope| {
                for lane in &mut lanes {
                    let group = group.as_ref();
                    scope.spawn(move || generation(scope, lane, group, nr_generations));
                }
            });
        })
    });
    answer.add_case("all", times);
    Ok(())
}

/// One thread's life.
fn generation<'scope>(
    scope: &'scope Scope<'scope, '_>,
    lane: &'scope mut Lane,
    group: Option<&'scope Group>,
    nr_left: usize,
) {
    within(group, || {
        for _ in 0..NR_REPLACED {
            let size = size(&mut lane.random);
            let place = &mut lane.objects[lane.random.below(NR_OBJECTS)];
            *place = None;
            *place = Some(Object::new(size));
        }
        if nr_left > 1 {
            scope.spawn(move || generation(scope, lane, group, nr_left - 1));
        }
    });
}

#[inline(always)]
fn size(random: &mut Random) -> usize {
    MIN_SIZE + random.below(MAX_SIZE - MIN_SIZE + 1)
}
