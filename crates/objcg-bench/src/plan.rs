//! Who runs what, and in which order.
//!
//! In a round each allocator has a process. They take turns of a repetition each: A, B, C, A, B, C. What slows the machine
//! for longer than that then slows all of them, and a ratio is taken between repetitions of the same sweep. Each round begins
//! with another allocator and, where there are many, goes around in other steps, so that none is always the first to meet what the workload
//! before left behind, or always follows the same other. Heaps, of which a thousand take seconds and gigabytes, run after a round, one
//! after the other: their ratios are to another time. Unless the scale is full, all rounds but the first leave them out,
//! and the look at memory after a while.

use crate::protocol::{Job, Mode, Scale};
use crate::rivals::Rival;
use crate::workloads::Workload;

/// An allocator and how it is used: a line of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Series {
    pub(crate) rival: &'static Rival,
    pub(crate) mode: Mode,
}

/// One process.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) workload: &'static Workload,
    pub(crate) series: Series,
    pub(crate) round: u32,
    pub(crate) job: Job,
}

impl Series {
    /// The allocator's name, with how it is used where that is not clear.
    pub(crate) fn name(&self) -> String {
        if self.mode == Mode::Heaps || self.rival.modes().len() > 1 {
            format!("{} {}", self.rival.name, self.mode.name())
        } else {
            self.rival.name.to_owned()
        }
    }
}

/// The lines of a table: who takes part in a workload, and how.
pub(crate) fn series(workload: &Workload, variant: &str, rivals: &[&'static Rival], scale: Scale) -> Vec<Series> {
    let of = |rival: &&'static Rival| {
        let rival = *rival;
        workload.modes(rival, variant, scale).into_iter().map(move |mode| Series { rival, mode })
    };
    rivals.iter().flat_map(of).collect()
}

/// All processes, in their order; those that take turns with each other together.
pub(crate) fn sweeps(
    workloads: &[&'static Workload],
    rivals: &[&'static Rival],
    scale: Scale,
    rounds: Option<u32>,
) -> Vec<Vec<Step>> {
    let mut sweeps = Vec::new();
    for workload in workloads {
        for variant in workload.variants(scale) {
            let lines = series(workload, variant, rivals, scale);
            let (heaps, lines): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.mode == Mode::Heaps);
            for round in 0..rounds.unwrap_or(workload.rounds(scale)) {
                let is_whole = round == 0 || scale == Scale::Full;
                let step = |&series: &Series| {
                    let job = Job {
                        workload: workload.name.to_owned(),
                        variant: (*variant).to_owned(),
                        mode: series.mode,
                        scale,
                        rests: is_whole,
                        // The same work for all, another in each round.
                        seed: u64::from(round) + 1,
                    };
                    Step { workload, series, round, job }
                };
                sweeps.push(order(lines.len(), round as usize).map(|at| step(&lines[at])).collect());
                sweeps.extend(heaps.iter().filter(|_| is_whole).map(|series| vec![step(series)]));
            }
        }
    }
    sweeps
}

/// All numbers below `len`, from another one on in each round and in other steps: not of one, forwards or backwards, if there are
/// others, since an allocator's lines are next to each other.
fn order(len: usize, round: usize) -> impl Iterator<Item = usize> {
    // tidy: allow(saturating_sub): of nothing there are no steps
    let steps = (2..len.saturating_sub(1)).filter(|step| gcd(*step, len) == 1);
    let step = steps.clone().nth(round % steps.count().max(1)).unwrap_or(1);
    (0..len).map(move |nth| (round + nth * step) % len)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::{order, series, sweeps};
    use crate::protocol::{Mode, Scale};
    use crate::rivals::RIVALS;
    use crate::workloads::WORKLOADS;

    fn all() -> Vec<&'static crate::rivals::Rival> {
        RIVALS.iter().collect()
    }

    #[test]
    fn a_round_is_a_sweep_of_all() {
        let lifo: Vec<_> = WORKLOADS.iter().filter(|workload| workload.name == "lifo").collect();
        let plan = sweeps(&lifo, &all()[1..4], Scale::Quick, Some(4));
        let names: Vec<Vec<_>> =
            plan.iter().map(|sweep| sweep.iter().map(|step| step.series.rival.name).collect()).collect();
        let [a, b, c] = ["glibc", "jemalloc", "mimalloc-v2"];
        assert_eq!(names, [[a, b, c], [b, c, a], [c, a, b], [a, b, c]]);
        for (round, sweep) in (0..).zip(&plan) {
            assert!(sweep.iter().all(|step| step.round == round));
        }
    }

    #[test]
    fn each_round_goes_around_all_in_another_order() {
        for len in 0..20 {
            for round in 0..40 {
                let mut numbers: Vec<_> = order(len, round).collect();
                let are_apart = |pair: &[usize]| ![1, len - 1].contains(&pair[0].abs_diff(pair[1]));
                assert!(matches!(len, 0..=4 | 6) || numbers.windows(2).all(are_apart), "{numbers:?}");
                numbers.sort_unstable();
                assert!(numbers.into_iter().eq(0..len));
            }
        }
        let before_last = |round| {
            let numbers: Vec<_> = order(14, round).collect();
            let at = numbers.iter().position(|number| *number == 13).unwrap();
            numbers[(at + 13) % 14]
        };
        let mut all_before: Vec<_> = (0..4).map(before_last).collect();
        all_before.sort_unstable();
        all_before.dedup();
        assert_eq!(all_before.len(), 4);
    }

    #[test]
    fn heaps_run_alone_and_at_quick_scale_only_after_the_first_round() {
        let tenants: Vec<_> = WORKLOADS.iter().filter(|workload| workload.name == "tenants").collect();
        for (scale, nr_rounds_with) in [(Scale::Quick, 1), (Scale::Full, 3)] {
            let plan = sweeps(&tenants, &all()[2..4], scale, Some(3));
            let of_hundred = |sweep: &&Vec<super::Step>| sweep[0].job.variant == "100";
            let hundred: Vec<_> = plan.iter().filter(of_hundred).collect();
            let modes = hundred.iter().map(|sweep| sweep.iter().map(|step| step.series.mode).collect());
            let modes: Vec<Vec<_>> = modes.collect();
            let (shared, alone) = (vec![Mode::Off, Mode::Off], vec![Mode::Heaps]);
            assert_eq!(modes[..3], [shared, alone.clone(), alone.clone()]);
            assert_eq!(modes.iter().filter(|modes| **modes == alone).count(), 2 * nr_rounds_with);
            let rests = |step: &super::Step| step.job.rests == (step.round < nr_rounds_with as u32);
            assert!(hundred.into_iter().flatten().all(rests));
        }
    }

    #[test]
    fn everybody_does_the_same_work_in_a_round() {
        let plan = sweeps(&WORKLOADS.iter().collect::<Vec<_>>(), &all(), Scale::Full, None).concat();
        for step in &plan {
            assert_eq!(step.job.seed, u64::from(step.round) + 1);
            assert_eq!(step.job.mode, step.series.mode);
        }
        let nr_once = plan.iter().filter(|step| step.round == 0).count();
        let mut names: Vec<_> = plan
            .iter()
            .filter(|step| step.round == 0)
            .map(|step| (&step.job.workload, &step.job.variant, step.series.name()))
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), nr_once, "a line appears twice");
    }

    #[test]
    fn only_those_take_part_who_can() {
        let of = |name: &str, variant: &str| {
            let workload = WORKLOADS.iter().find(|workload| workload.name == name).unwrap();
            series(workload, variant, &all(), Scale::Quick).iter().map(super::Series::name).collect::<Vec<_>>()
        };
        assert_eq!(of("depth", "-"), ["objcg on"]);
        assert_eq!(of("interleave", "-"), ["objcg on", "header", "tracking-allocator"]);
        assert!(of("tenants", "1000").contains(&"jemalloc heaps".to_owned()));
        assert!(!of("tenants", "1000x2").iter().any(|name| name.ends_with("heaps")));
        assert!(!of("tenants", "100").contains(&"cap".to_owned()));
        assert_eq!(of("lifo", "-").len(), RIVALS.len() + 2);
        let limits = |name: &&String| name.ends_with(Mode::Limit.name());
        assert_eq!(of("burst", "-").iter().filter(limits).count(), 0);
    }
}
