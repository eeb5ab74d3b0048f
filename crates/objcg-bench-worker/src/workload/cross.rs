//! One thread allocates, another on another CPU frees: batches of 512 objects go through a bounded queue.
//!
//! The receiver reads each object's first word. An operation is a pair of an allocation and a free; its time is the time
//! that passes, with both threads at work.

use std::thread;

use super::Answer;
use super::ring::{BATCH, Ring};
use crate::affinity;
use crate::clock::{Clock, Effort};
use crate::object::Object;
use crate::protocol::Job;
use crate::rival::{Group, group_of, within};

/// Pairs of a repetition, for each unit of effort; the start of a thread is lost in them.
const NR_PAIRS: u64 = 80 * BATCH as u64;

pub(super) fn run(job: &Job, effort: Effort, answer: &mut Answer) -> Result<(), String> {
    let group = group_of(job.mode)?;
    let ring = Ring::new();
    for size in [16, 64, 256, 1024] {
        let nr_pairs = NR_PAIRS * effort.factor as u64;
        let times =
            effort.repeat_whole(|| Clock::Wall.per_op(nr_pairs, || pairs(&ring, group.as_ref(), size, nr_pairs)));
        answer.add_case(size.to_string(), times);
    }
    Ok(())
}

/// Whole batches.
fn pairs(ring: &Ring, group: Option<&Group>, size: usize, nr_pairs: u64) {
    let nr_batches = nr_pairs / BATCH as u64;
    thread::scope(|scope| {
        scope.spawn(|| {
            affinity::stay_on(1);
            within(group, || consume(ring, nr_batches));
        });
        scope.spawn(|| {
            affinity::stay_on(0);
            within(group, || produce(ring, size, nr_batches));
        });
    });
}

fn produce(ring: &Ring, size: usize, nr_batches: u64) {
    for _ in 0..nr_batches {
        ring.put(|batch| {
            for place in batch {
                *place = Some(Object::new(size));
            }
        });
    }
}

fn consume(ring: &Ring, nr_batches: u64) {
    for _ in 0..nr_batches {
        ring.take(|batch| {
            for place in batch {
                if let Some(object) = place.take() {
                    object.read();
                }
            }
        });
    }
}
