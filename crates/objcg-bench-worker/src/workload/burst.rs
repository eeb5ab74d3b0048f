//! A burst: a quarter of a gigabyte of small objects is allocated and freed. What stays resident?
//!
//! Resident bytes are taken before, with all objects live, right after the last was freed, and, if the job says so, after two seconds of rest, in
//! which the process does little: allocators that give memory back only while they are called are called now and then. An
//! operation is a pair of an allocation and a free.

use std::thread;
use std::time::{Duration, Instant};

use super::Answer;
use crate::clock::{Clock, Effort};
use crate::object::Object;
use crate::pages::Pages;
use crate::protocol::Job;
use crate::random::{Random, Sizes};
use crate::resident;
use crate::rival::{group_of, within};
use crate::turns;

/// Live bytes for each unit of effort, up to the most.
const NR_BYTES: u64 = 8 << 20;
const MAX_BYTES: u64 = 256 << 20;
/// The least that any object is, on average.
const SMALLEST_MEAN: u64 = 128;
/// For each unit of effort, up to the most.
const QUIET: Duration = Duration::from_millis(200);
const MAX_QUIET: Duration = Duration::from_secs(2);

pub(super) fn run(job: &Job, effort: Effort, answer: &mut Answer) -> Result<(), String> {
    let group = group_of(job.mode)?;
    let nr_bytes = (NR_BYTES * effort.factor as u64).min(MAX_BYTES);
    let sizes = Sizes::of_a_server();
    let mut random = Random::new(job.seed);
    let mut objects: Pages<Option<Object>> = Pages::new((nr_bytes / SMALLEST_MEAN) as usize, |_| None);
    answer.add_point("before", resident::now_bytes());

    let (mut nr_objects, mut live) = (0, 0);
    let start = Clock::Thread.now();
    within(group.as_ref(), || {
        while live < nr_bytes {
            let object = Object::new_touched(sizes.draw(&mut random));
            live += object.size() as u64;
            objects[nr_objects] = Some(object);
            nr_objects += 1;
        }
    });
    let mut elapsed = Clock::Thread.now() - start;
    answer.add_point("live", live);
    answer.add_point("full", resident::now_bytes());

    let start = Clock::Thread.now();
    within(group.as_ref(), || objects[..nr_objects].iter_mut().for_each(|place| *place = None));
    elapsed += Clock::Thread.now() - start;
    answer.add_point("after", resident::now_bytes());
    if job.rests {
        turns::wait_for_rest();
        rest((QUIET * effort.factor as u32).min(MAX_QUIET));
        answer.add_point("later", resident::now_bytes());
    }
    answer.add_case("all", vec![elapsed.as_nanos() as f64 / nr_objects as f64]);
    Ok(())
}

/// Lets time pass, in which a request comes every ten milliseconds and allocates a few kilobytes for a moment.
pub(super) fn rest(time: Duration) {
    const NR_OBJECTS: usize = 64;
    let start = Instant::now();
    let mut objects = [const { None }; NR_OBJECTS];
    while start.elapsed() < time {
        for (nth, place) in objects.iter_mut().enumerate() {
            *place = Some(Object::new(16 << (nth % 8)));
        }
        objects.iter_mut().for_each(|place| *place = None);
        thread::sleep(Duration::from_millis(10));
    }
}
