//! An object is allocated, its first word written, and it is freed: the shortest way through an allocator.
//!
//! An operation is a pair of an allocation and a free. Before each repetition, and what warms up for it, one object more is kept, so that each is of another
//! place: a loop over one object can meet an address that something else in it has the low bits of, and then takes up to half as long
//! again.

use super::Answer;
use crate::affinity;
use crate::clock::Effort;
use crate::object::Object;
use crate::pages::Pages;
use crate::protocol::Job;
use crate::rival::{group_of, within};

/// As many repetitions, what warms up for them, and calls that find how long they are have a place of their own.
const NR_KEPT: usize = 64;
/// Pairs that are too few to time.
pub(super) const GRAIN: u64 = 1000;

pub(super) fn run(job: &Job, effort: Effort, sizes: &[usize], answer: &mut Answer) -> Result<(), String> {
    affinity::stay_with_others(job.seed);
    let group = group_of(job.mode)?;
    for &size in sizes {
        let mut kept: Pages<Option<Object>> = Pages::new(NR_KEPT, |_| None);
        let mut nr_kept = 0;
        let repetition = |nr_pairs| {
            kept[nr_kept % NR_KEPT] = Some(Object::new(size));
            nr_kept += 1;
            pairs(size, nr_pairs);
        };
        let ns = within(group.as_ref(), || effort.repeat(GRAIN, repetition));
        answer.add_case(size.to_string(), ns);
    }
    Ok(())
}

#[inline(always)]
pub(super) fn pairs(size: usize, nr_pairs: u64) {
    for _ in 0..nr_pairs {
        drop(Object::new(size));
    }
}
