//! Threads that come and go: each allocates three hundred objects, frees them and ends.
//!
//! Two at a time, by `std::thread`. An operation is a pair of an allocation and a free, with its share of the making and
//! the end of a thread, which is most of it.

use std::thread;

use super::{Answer, NR_THREADS};
use crate::clock::{Clock, Effort};
use crate::object::Object;
use crate::pages::Pages;
use crate::protocol::Job;
use crate::random::{Random, Sizes};
use crate::rival::{group_of, within};

const NR_OBJECTS: usize = 300;
/// Rounds of threads for each unit of effort.
const NR_ROUNDS: usize = 20;

pub(super) fn run(job: &Job, effort: Effort, answer: &mut Answer) -> Result<(), String> {
    let group = group_of(job.mode)?;
    let group = group.as_ref();
    let sizes = Sizes::of_a_server();
    let mut lanes: [Pages<Option<Object>>; NR_THREADS] = std::array::from_fn(|_| Pages::new(NR_OBJECTS, |_| None));
    let nr_rounds = NR_ROUNDS * effort.factor;
    let nr_ops = (NR_THREADS * nr_rounds * NR_OBJECTS) as u64;
    let times = effort.repeat_whole(|| {
        Clock::Wall.per_op(nr_ops, || {
            for round in 0..nr_rounds {
                thread::scope(|scope| {
                    for (nth, objects) in lanes.iter_mut().enumerate() {
                        let random = Random::new(job.seed ^ (round * NR_THREADS + nth) as u64);
                        scope.spawn(|| within(group, || one_thread(objects, &sizes, random)));
                    }
                });
            }
        })
    });
    answer.add_case("all", times);
    Ok(())
}

fn one_thread(objects: &mut Pages<Option<Object>>, sizes: &Sizes, mut random: Random) {
    for place in objects.iter_mut() {
        *place = Some(Object::new(sizes.draw(&mut random)));
    }
    for place in objects.iter_mut() {
        *place = None;
    }
}
