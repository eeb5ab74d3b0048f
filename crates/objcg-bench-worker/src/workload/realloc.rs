//! A buffer that grows by doubling, as a `Vec` does, and is freed; what is new of it is written.
//!
//! `small` grows from 16 bytes to 4 KiB, with a byte written in each word, `large` from 4 KiB to 16 MiB, with one in each
//! page. An operation is
//! one growth; the allocation and the free of the buffer are in it.

use super::Answer;
use crate::affinity;
use crate::clock::Effort;
use crate::object::Object;
use crate::protocol::Job;
use crate::rival::{group_of, within};

struct Growth {
    name: &'static str,
    from: usize,
    to: usize,
    step: usize,
}

const GROWTHS: [Growth; 2] = [
    Growth { name: "small", from: 16, to: 4 << 10, step: 8 },
    Growth { name: "large", from: 4 << 10, to: 16 << 20, step: 4 << 10 },
];

pub(super) fn run(job: &Job, effort: Effort, answer: &mut Answer) -> Result<(), String> {
    affinity::stay_with_others(job.seed);
    let group = group_of(job.mode)?;
    for growth in &GROWTHS {
        let nr_doublings = (growth.to / growth.from).ilog2().into();
        let ns =
            within(group.as_ref(), || effort.repeat(nr_doublings, |nr_steps| growth.buffers(nr_steps / nr_doublings)));
        answer.add_case(growth.name, ns);
    }
    Ok(())
}

impl Growth {
    fn buffers(&self, nr_buffers: u64) {
        for _ in 0..nr_buffers {
            let mut buffer = Object::new(self.from);
            while buffer.size() < self.to {
                let old_size = buffer.size();
                buffer = buffer.resize(2 * old_size);
                buffer.touch_from(old_size, self.step);
            }
        }
    }
}
