//! A thousand groups, a different one for each object, against the same loop with one group.
//!
//! A thousand objects of 64 bytes are allocated, each in the next group of a random order, then freed in another order
//! outside the groups. Entering and leaving is part of the loop in both cases. An operation is a pair of an allocation and
//! a free.

use super::Answer;
use crate::clock::Effort;
use crate::object::Object;
use crate::pages::Pages;
use crate::protocol::{Job, Mode};
use crate::random::Random;
use crate::rival::Group;

const NR_GROUPS: usize = 1000;
const SIZE: usize = 64;
/// Groups of the two cases.
const CASES: [usize; 2] = [1, NR_GROUPS];

pub(super) fn run(job: &Job, effort: Effort, answer: &mut Answer) -> Result<(), String> {
    if job.mode != Mode::On {
        return Err("interleave is a workload of groups".to_owned());
    }
    let parent = Group::top()?;
    let mut groups = Vec::with_capacity(NR_GROUPS);
    for nth in 0..NR_GROUPS {
        groups.push(parent.child(nth)?);
    }
    let mut random = Random::new(job.seed);
    let mut order = || {
        let mut order: [u16; NR_GROUPS] = std::array::from_fn(|at| at as u16);
        random.shuffle(&mut order);
        order
    };
    let (group_order, free_order) = (order(), order());
    let mut objects: Pages<Option<Object>> = Pages::new(NR_GROUPS, |_| None);
    let times: [_; CASES.len()] = effort.alternate(NR_GROUPS as u64, |which, nr_pairs| {
        for _ in 0..nr_pairs as usize / NR_GROUPS {
            for (place, &nth) in objects.iter_mut().zip(&group_order) {
                let group = &groups[usize::from(nth) % CASES[which]];
                *place = Some(group.scope(|| Object::new(SIZE)));
            }
            for &at in &free_order {
                objects[usize::from(at)] = None;
            }
        }
    });
    for (nr_groups, ns) in CASES.iter().zip(times) {
        answer.add_case(nr_groups.to_string(), ns);
    }
    Ok(())
}
