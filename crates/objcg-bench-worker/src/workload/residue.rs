//! A pair in a loop, for each number of bytes that a stock may hold when the loop begins.
//!
//! A scheme that charges in batches has boundaries, and a loop that sits on one charges and gives back each time. Here the
//! stock is emptied, some objects of 16 bytes are allocated to shift what it holds, and pairs of 64 bytes run; once for
//! each number of objects that fits a batch. Of each residue the fastest of five tries counts, which an interruption does
//! not reach and a boundary does. The cases are the best, the median and the worst residue.

use super::Answer;
use crate::clock::Effort;
use crate::protocol::Job;

#[cfg(feature = "objcg")]
pub(super) fn run(job: &Job, effort: Effort, answer: &mut Answer) -> Result<(), String> {
    use super::lifo;
    use crate::clock::Clock;
    use crate::object::Object;
    use crate::pages::Pages;
    use crate::protocol::Mode;
    use crate::rival::Group;

    /// More objects of 16 bytes than the largest batch is bytes.
    const NR_RESIDUES: usize = 3500;
    const NR_TRIES: usize = 5;
    const NR_PAIRS: u64 = 1000;

    if job.mode != Mode::On {
        return Err("residue is a workload of groups".to_owned());
    }
    let group = Group::top()?;
    let mut extra: Pages<Option<Object>> = Pages::new(NR_RESIDUES, |_| None);
    let mut times: Pages<f64> = Pages::new(NR_RESIDUES, |_| f64::INFINITY);
    // Small effort looks at residues that stand apart.
    let step = 40 / effort.factor;
    for nr_extra in (0..NR_RESIDUES).step_by(step) {
        group.drain();
        group.scope(|| {
            extra[..nr_extra].iter_mut().for_each(|place| *place = Some(Object::new(16)));
            lifo::pairs(64, NR_PAIRS / 10);
            for _ in 0..NR_TRIES {
                times[nr_extra] = times[nr_extra].min(Clock::Thread.per_op(NR_PAIRS, || lifo::pairs(64, NR_PAIRS)));
            }
        });
        extra[..nr_extra].iter_mut().for_each(|place| *place = None);
    }
    times.sort_by(f64::total_cmp);
    let nr_measured = NR_RESIDUES.div_ceil(step);
    answer.add_case("min", vec![times[0]]);
    answer.add_case("median", vec![times[nr_measured / 2]]);
    answer.add_case("max", vec![times[nr_measured - 1]]);
    Ok(())
}

#[cfg(not(feature = "objcg"))]
pub(super) fn run(_job: &Job, _effort: Effort, _answer: &mut Answer) -> Result<(), String> {
    Err("residue is a workload of objcg".to_owned())
}
