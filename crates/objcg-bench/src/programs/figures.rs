//! What runs of programs found, as medians and ratios: a ratio is the median of the ratios within rounds.

use super::catalogue::Program;
use super::library::{Library, OBJCG};
use super::session::Answer;
use crate::format;
use crate::statistics::{median, paired_ratio};
use crate::targets::{Bound, Target};

/// How much longer objcg may take than glibc, and how much more memory.
const MOST_TIME: f64 = 1.05;
const MOST_MEMORY: f64 = 1.10;

/// One good run.
pub(crate) struct Measurement {
    pub(crate) program: &'static Program,
    pub(crate) library_idx: usize,
    pub(crate) round: u32,
    pub(crate) answer: Answer,
}

/// A quantity of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// From start to end, in seconds.
    Time,
    /// Of all CPUs, in seconds.
    CpuTime,
    /// Bytes.
    PeakMemory,
}

pub(crate) struct Figures {
    pub(crate) programs: Vec<&'static Program>,
    /// glibc, and what is held against it.
    pub(crate) libraries: Vec<Library>,
    measurements: Vec<Measurement>,
}

impl Figures {
    pub(crate) fn of(programs: Vec<&'static Program>, libraries: Vec<Library>) -> Figures {
        Figures { programs, libraries, measurements: Vec::new() }
    }

    pub(crate) fn add(&mut self, measurement: Measurement) {
        self.measurements.push(measurement);
    }

    /// By round.
    pub(crate) fn rounds(&self, program: &Program, library_idx: usize, quantity: Quantity) -> Vec<(u32, f64)> {
        let of = |measurement: &&Measurement| {
            measurement.program.name == program.name && measurement.library_idx == library_idx
        };
        let value = |measurement: &Measurement| (measurement.round, quantity.of(&measurement.answer));
        self.measurements.iter().filter(of).map(value).collect()
    }

    pub(crate) fn value(&self, program: &Program, library_idx: usize, quantity: Quantity) -> Option<f64> {
        let rounds = self.rounds(program, library_idx, quantity);
        median(&rounds.iter().map(|(_, value)| *value).collect::<Vec<_>>())
    }

    /// To glibc.
    pub(crate) fn ratio(&self, program: &Program, library_idx: usize, quantity: Quantity) -> Option<f64> {
        paired_ratio(&self.rounds(program, library_idx, quantity), &self.rounds(program, 0, quantity))
    }

    /// The notes of the last run under a library.
    pub(crate) fn notes(&self, program: &Program, library_idx: usize) -> &[String] {
        let of = |measurement: &&Measurement| {
            measurement.program.name == program.name && measurement.library_idx == library_idx
        };
        self.measurements.iter().rev().find(of).map_or(&[], |measurement| &measurement.answer.notes)
    }

    /// What objcg promises, if it is among the libraries.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let Some(idx) = self.libraries.iter().position(|library| library.name == OBJCG) else { return Vec::new() };
        let largest = |quantity: Quantity| {
            let ratio = |program: &&Program| Some((self.ratio(program, idx, quantity)?, program.name.to_owned()));
            self.programs.iter().filter_map(ratio).max_by(|(one, _), (other, _)| one.total_cmp(other))
        };
        vec![
            Target::new("programs, time / glibc", Bound::AtMost(MOST_TIME), largest(Quantity::Time), format::ratio),
            Target::new(
                "programs, peak RSS / glibc",
                Bound::AtMost(MOST_MEMORY),
                largest(Quantity::PeakMemory),
                format::ratio,
            ),
        ]
    }
}

impl Quantity {
    #[expect(clippy::cast_precision_loss, reason = "bytes of a process")]
    fn of(self, answer: &Answer) -> f64 {
        match self {
            Quantity::Time => answer.usage.elapsed.as_secs_f64(),
            Quantity::CpuTime => answer.usage.cpu.as_secs_f64(),
            Quantity::PeakMemory => answer.usage.peak_bytes as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Answer, Figures, Library, Measurement, OBJCG, Quantity};
    use crate::programs::catalogue::PROGRAMS;
    use crate::programs::process::Usage;
    use crate::targets::Verdict;

    /// Seconds and bytes of objcg, in two rounds in which glibc takes 1 s and 2 s, and 100 bytes.
    fn figures(rounds: [(u64, u64); 2]) -> Figures {
        let mut objcg = Library::glibc();
        objcg.name = OBJCG.to_owned();
        let mut figures = Figures::of(vec![&PROGRAMS[0], &PROGRAMS[1]], vec![Library::glibc(), objcg]);
        for (round, (milliseconds, peak_bytes)) in (0..).zip(rounds) {
            for (library_idx, milliseconds, peak_bytes) in
                [(0, 1000 * (u64::from(round) + 1), 100), (1, milliseconds, peak_bytes)]
            {
                let usage = Usage { elapsed: Duration::from_millis(milliseconds), peak_bytes, ..Usage::default() };
                let answer = Answer { usage, ..Answer::default() };
                figures.add(Measurement { program: &PROGRAMS[0], library_idx, round, answer });
            }
        }
        figures
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let figures = figures([(1000, 100), (2200, 140)]);
        let ratio = |quantity| figures.ratio(&PROGRAMS[0], 1, quantity).unwrap();
        assert!((ratio(Quantity::Time) - 1.05).abs() < 1e-9);
        assert!((ratio(Quantity::PeakMemory) - 1.2).abs() < 1e-9);
        assert_eq!(figures.ratio(&PROGRAMS[0], 1, Quantity::CpuTime), None, "glibc took none");
        assert_eq!(figures.ratio(&PROGRAMS[1], 1, Quantity::Time), None, "it did not run");
    }

    #[test]
    fn the_largest_ratio_decides() {
        let verdicts = |rounds| figures(rounds).targets().iter().map(|target| target.verdict).collect::<Vec<_>>();
        assert_eq!(verdicts([(900, 100), (1800, 100)]), [Verdict::Met, Verdict::Met]);
        assert_eq!(verdicts([(1200, 100), (2400, 120)]), [Verdict::NotMet, Verdict::Met]);
        assert_eq!(figures([(1200, 100), (2400, 120)]).targets()[0].place, PROGRAMS[0].name);
    }
}
