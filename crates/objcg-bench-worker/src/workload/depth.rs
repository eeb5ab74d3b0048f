//! Groups at depth 1, 4 and 16, in turn in one process: does a deep tree cost more?
//!
//! `batch` allocates and frees a thousand objects of 256 bytes, more than a stock holds, so that charges go up the tree;
//! `lifo` is a pair of 64 bytes.

use super::batch::{Batches, NR_OBJECTS};
use super::{Answer, lifo};
use crate::clock::Effort;
use crate::protocol::{Job, Mode};
use crate::rival::Group;

const DEPTHS: [usize; 3] = [1, 4, 16];

pub(super) fn run(job: &Job, effort: Effort, answer: &mut Answer) -> Result<(), String> {
    if job.mode != Mode::On {
        return Err("depth is a workload of groups".to_owned());
    }
    let mut groups = Vec::new();
    for depth in DEPTHS {
        groups.push(at_depth(depth)?);
    }
    let mut batches = Batches::new(job.seed);
    let of_batch: [_; DEPTHS.len()] =
        effort.alternate(NR_OBJECTS as u64, |which, nr_pairs| groups[which].scope(|| batches.pairs(256, nr_pairs)));
    let of_lifo: [_; DEPTHS.len()] =
        effort.alternate(lifo::GRAIN, |which, nr_pairs| groups[which].scope(|| lifo::pairs(64, nr_pairs)));
    for (name, times) in [("batch", of_batch), ("lifo", of_lifo)] {
        for (depth, ns) in DEPTHS.iter().zip(times) {
            answer.add_case(format!("{name}-{depth}"), ns);
        }
    }
    Ok(())
}

fn at_depth(depth: usize) -> Result<Group, String> {
    let mut group = Group::top()?;
    for _ in 1..depth {
        group = group.child(0)?;
    }
    Ok(group)
}
