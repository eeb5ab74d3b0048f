//! What workers answered, as medians and ratios.
//!
//! A round's time is the median of the process's repetitions; a figure is the median of the rounds. A round's ratio is the
//! median of the ratios between repetitions of the same sweep; a ratio is the median of those.

use crate::plan::Series;
use crate::protocol::{Answer, Mode};
use crate::rivals::RIVALS;
use crate::statistics::{least, median, paired_ratio};
use crate::workloads::Workload;

/// What one process answered.
pub(crate) struct Measurement {
    pub(crate) workload: &'static Workload,
    pub(crate) variant: String,
    pub(crate) series: Series,
    pub(crate) round: u32,
    pub(crate) answer: Answer,
}

/// All answers.
#[derive(Default)]
pub(crate) struct Figures {
    measurements: Vec<Measurement>,
}

/// A line of a table: a workload, one of its variants, an allocator and how it is used.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    pub(crate) workload: &'a str,
    pub(crate) variant: &'a str,
    pub(crate) series: Series,
}

/// Values by round.
type Rounds = Vec<(u32, f64)>;

impl Figures {
    pub(crate) fn add(&mut self, measurement: Measurement) {
        self.measurements.push(measurement);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.measurements.is_empty()
    }

    /// How it is known that an allocator served: the last answer's words.
    pub(crate) fn proof(&self, rival: &str) -> Option<&str> {
        let mut measurements = self.measurements.iter().rev();
        measurements.find(|measurement| measurement.series.rival.name == rival).map(|found| found.answer.proof.as_str())
    }

    /// Workloads and variants, as they were run.
    pub(crate) fn tables(&self) -> Vec<(&'static Workload, &str)> {
        let mut tables = Vec::new();
        for measurement in &self.measurements {
            let table = (measurement.workload, measurement.variant.as_str());
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        tables
    }

    /// Who has answered, in the order of [`RIVALS`]; who has heaps comes last.
    pub(crate) fn lines<'a>(&'a self, workload: &'a str, variant: &'a str) -> Vec<Line<'a>> {
        let mut lines: Vec<Line<'a>> = Vec::new();
        for measurement in &self.measurements {
            let is_known = lines.iter().any(|line| line.series == measurement.series);
            if measurement.workload.name == workload && measurement.variant == variant && !is_known {
                lines.push(Line { workload, variant, series: measurement.series });
            }
        }
        let nth = |rival| RIVALS.iter().position(|known| known == rival);
        lines.sort_by_key(|line| (line.series.mode == Mode::Heaps, nth(line.series.rival), line.series.mode));
        lines
    }

    /// The cases of a workload: those of everybody, then those that only some have.
    pub(crate) fn cases(&self, workload: &str, variant: &str) -> Vec<&str> {
        let mut cases = Vec::new();
        let of = |found: &&Measurement| found.workload.name == workload && found.variant == variant;
        for case in self.measurements.iter().filter(of).flat_map(|found| &found.answer.cases) {
            if !cases.contains(&&*case.name) {
                cases.push(&case.name);
            }
        }
        cases
    }

    /// The names of a workload's moments of memory.
    pub(crate) fn point_names<'a>(&'a self, line: Line<'a>) -> Vec<&'a str> {
        let first = self.answers(line).next();
        first.map_or_else(Vec::new, |(_, answer)| answer.points.iter().map(|(name, _)| &**name).collect())
    }

    /// Nanoseconds an operation in each round.
    pub(crate) fn rounds(&self, line: Line<'_>, case: &str) -> Rounds {
        self.repetitions(line, case).filter_map(|(round, times)| Some((round, median(times)?))).collect()
    }

    /// Nanoseconds an operation.
    pub(crate) fn ns(&self, line: Line<'_>, case: &str) -> Option<f64> {
        median_of(&self.rounds(line, case))
    }

    /// The fastest repetition of all rounds.
    pub(crate) fn least_ns(&self, line: Line<'_>, case: &str) -> Option<f64> {
        least(&self.repetitions(line, case).filter_map(|(_, times)| least(times)).collect::<Vec<_>>())
    }

    /// How much longer an operation takes than another line's. `None` of heaps against what has none: they have no sweep in common.
    pub(crate) fn ratio(&self, line: Line<'_>, against: Line<'_>, case: &str) -> Option<f64> {
        self.ratio_of((line, case), (against, case))
    }

    /// How much longer one case takes than another in the same processes.
    pub(crate) fn ratio_of_cases(&self, line: Line<'_>, case: &str, against: &str) -> Option<f64> {
        self.ratio_of((line, case), (line, against))
    }

    fn ratio_of(&self, (line, case): (Line<'_>, &str), (against, base): (Line<'_>, &str)) -> Option<f64> {
        if line.series != against.series && [line, against].iter().any(|line| line.series.mode == Mode::Heaps) {
            return None;
        }
        let of_round = |(round, times): (u32, &[f64])| {
            let (_, base_times) = self.repetitions(against, base).find(|(other, _)| *other == round)?;
            paired_ratio(&numbered(times), &numbered(base_times))
        };
        median(&self.repetitions(line, case).filter_map(of_round).collect::<Vec<_>>())
    }

    /// Nanoseconds an operation of each repetition, by round.
    fn repetitions<'a>(&'a self, line: Line<'a>, case: &'a str) -> impl Iterator<Item = (u32, &'a [f64])> {
        let of = move |answer: &'a Answer| answer.cases.iter().find(|found| found.name == case);
        self.answers(line).filter_map(move |(round, answer)| Some((round, &*of(answer)?.ns)))
    }

    /// The most bytes resident.
    pub(crate) fn peak(&self, line: Line<'_>) -> Option<f64> {
        median_of(&self.peaks(line))
    }

    pub(crate) fn peak_ratio(&self, line: Line<'_>, against: Line<'_>) -> Option<f64> {
        paired_ratio(&self.peaks(line), &self.peaks(against))
    }

    /// Bytes at a moment.
    pub(crate) fn point(&self, line: Line<'_>, name: &str) -> Option<f64> {
        median_of(&self.points(line, name))
    }

    /// One moment's bytes as a share of another's.
    pub(crate) fn share(&self, line: Line<'_>, of: &str, whole: &str) -> Option<f64> {
        paired_ratio(&self.points(line, of), &self.points(line, whole))
    }

    fn points(&self, line: Line<'_>, name: &str) -> Rounds {
        let of = |answer: &Answer| answer.points.iter().find(|(found, _)| found == name).map(|(_, bytes)| *bytes);
        self.answers(line).filter_map(|(round, answer)| Some((round, as_f64(of(answer)?)))).collect()
    }

    fn peaks(&self, line: Line<'_>) -> Rounds {
        self.answers(line).map(|(round, answer)| (round, as_f64(answer.peak_bytes))).collect()
    }

    fn answers<'a>(&'a self, line: Line<'a>) -> impl Iterator<Item = (u32, &'a Answer)> {
        let is_of = move |found: &&Measurement| {
            found.workload.name == line.workload && found.variant == line.variant && found.series == line.series
        };
        self.measurements.iter().filter(is_of).map(|found| (found.round, &found.answer))
    }
}

fn median_of(rounds: &[(u32, f64)]) -> Option<f64> {
    median(&rounds.iter().map(|(_, value)| *value).collect::<Vec<_>>())
}

/// Times with the number of their repetition.
fn numbered(times: &[f64]) -> Vec<(u32, f64)> {
    (0..).zip(times.iter().copied()).collect()
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a process")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::{Figures, Line, Measurement};
    use crate::plan::Series;
    use crate::protocol::{Answer, Case, Mode};
    use crate::rivals::RIVALS;
    use crate::workloads::WORKLOADS;

    #[test]
    fn lines_are_in_the_order_of_rivals_and_heaps_are_last_and_have_no_ratio() {
        let mut figures = Figures::default();
        let arrivals = [(3, Mode::Heaps), (0, Mode::On), (5, Mode::Off), (0, Mode::Off), (3, Mode::Off)];
        for (rival, mode) in arrivals {
            let cases = vec![Case { name: "churn".into(), ns: vec![1.0] }];
            let (series, answer) = (Series { rival: &RIVALS[rival], mode }, Answer { cases, ..Answer::default() });
            figures.add(Measurement { workload: &WORKLOADS[0], variant: "1".to_owned(), series, round: 0, answer });
        }
        let lines = figures.lines(WORKLOADS[0].name, "1");
        let [off, on, other, plain, heaps] =
            [(0, Mode::Off), (0, Mode::On), (3, Mode::Off), (5, Mode::Off), (3, Mode::Heaps)]
                .map(|(rival, mode)| Series { rival: &RIVALS[rival], mode });
        assert_eq!(lines.iter().map(|line| line.series).collect::<Vec<_>>(), [off, on, other, plain, heaps]);
        assert_eq!(figures.ratio(lines[4], lines[2], "churn"), None);
        assert_eq!(figures.ratio(lines[3], lines[2], "churn"), Some(1.0));
    }

    const LINES: [Series; 2] =
        [Series { rival: &RIVALS[0], mode: Mode::Off }, Series { rival: &RIVALS[1], mode: Mode::Off }];

    fn ratio(of: [&[f64]; 2], against: [&[f64]; 2]) -> Option<f64> {
        let mut figures = Figures::default();
        for (series, rounds) in LINES.iter().zip([of, against]) {
            for (round, ns) in (0..).zip(rounds) {
                let cases = vec![Case { name: "16".into(), ns: ns.to_vec() }];
                let answer = Answer { cases, ..Answer::default() };
                let (workload, variant) = (&WORKLOADS[0], "-".to_owned());
                figures.add(Measurement { workload, variant, series: *series, round, answer });
            }
        }
        let line = |series| Line { workload: WORKLOADS[0].name, variant: "-", series };
        figures.ratio(line(LINES[0]), line(LINES[1]), "16")
    }

    #[test]
    fn a_ratio_is_between_repetitions_of_the_same_sweep() {
        // The machine's pace halves in the middle: the medians of the rounds are 4 and 2, and 3 and 6.
        let (of, against) = ([2.0, 4.0, 4.0], [1.0, 2.0, 2.0]);
        assert_eq!(ratio([&of, &of], [&against, &against]), Some(2.0));
        assert_eq!(ratio([&[3.0, 3.0, 6.0], &[3.0, 3.0, 6.0]], [&[3.0, 6.0, 6.0], &[2.0, 2.0, 4.0]]), Some(1.25));
    }

    #[test]
    fn a_ratio_is_of_what_both_have() {
        assert_eq!(ratio([&[2.0, 9.0], &[8.0]], [&[1.0], &[4.0, 1.0]]), Some(2.0));
        assert_eq!(ratio([&[2.0], &[]], [&[0.0], &[]]), None);
    }
}
