//! A thousand objects are allocated, then freed in a random order.
//!
//! An operation is a pair of an allocation and a free.

use super::Answer;
use crate::affinity;
use crate::clock::Effort;
use crate::object::Object;
use crate::pages::Pages;
use crate::protocol::Job;
use crate::random::Random;
use crate::rival::{group_of, within};

pub(super) const NR_OBJECTS: usize = 1000;
/// Orders in which they are freed, in turn.
const NR_ORDERS: usize = 16;

pub(super) fn run(job: &Job, effort: Effort, answer: &mut Answer) -> Result<(), String> {
    affinity::stay_with_others(job.seed);
    let group = group_of(job.mode)?;
    let mut batches = Batches::new(job.seed);
    for size in [16, 64, 256, 1024] {
        let ns = within(group.as_ref(), || effort.repeat(NR_OBJECTS as u64, |nr_pairs| batches.pairs(size, nr_pairs)));
        answer.add_case(size.to_string(), ns);
    }
    Ok(())
}

/// Room for the objects, and the orders.
pub(super) struct Batches {
    objects: Pages<Option<Object>>,
    orders: Pages<[u16; NR_OBJECTS]>,
}

impl Batches {
    pub(super) fn new(seed: u64) -> Batches {
        let mut random = Random::new(seed);
        let orders = Pages::new(NR_ORDERS, |_| {
            let mut order: [u16; NR_OBJECTS] = std::array::from_fn(|at| at as u16);
            random.shuffle(&mut order);
            order
        });
        Batches { objects: Pages::new(NR_OBJECTS, |_| None), orders }
    }

    /// Whole batches, up to `nr_pairs` pairs: callers ask for a multiple of a thousand.
    #[inline(always)]
    pub(super) fn pairs(&mut self, size: usize, nr_pairs: u64) {
        for nth in 0..nr_pairs as usize / NR_OBJECTS {
            for place in self.objects.iter_mut() {
                *place = Some(Object::new(size));
            }
            for &at in &self.orders[nth % NR_ORDERS] {
                self.objects[usize::from(at)] = None;
            }
        }
    }
}
