//! An object is allocated, its first word written, and it is freed: the shortest way through an allocator.
//!
//! An operation is a pair of an allocation and a free.

use super::Answer;
use crate::clock::Effort;
use crate::object::Object;
use crate::protocol::Job;
use crate::rival::{group_of, within};

/// Pairs that are too few to time.
pub(super) const GRAIN: u64 = 1000;

pub(super) fn run(job: &Job, effort: Effort, sizes: &[usize], answer: &mut Answer) -> Result<(), String> {
    let group = group_of(job.mode)?;
    for &size in sizes {
        let ns = within(group.as_ref(), || effort.repeat(GRAIN, |nr_pairs| pairs(size, nr_pairs)));
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
