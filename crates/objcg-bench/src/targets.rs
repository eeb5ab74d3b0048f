//! What objcg promises, held against the figures.
//!
//! A ratio against several rivals is the one against the best of them, which is the largest; a ratio of several cases is
//! the largest as well, unless it says that it is a mean.

use serde::Serialize;

use crate::figures::{Figures, Line};
use crate::format;
use crate::plan::Series;
use crate::protocol::Mode;
use crate::rivals::RIVALS;
use crate::statistics::geometric_mean;

/// A promise, and what became of it.
#[derive(Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) bound: Bound,
    /// `None` if something for it was not measured.
    pub(crate) value: Option<f64>,
    pub(crate) verdict: Verdict,
    /// The case or the rival that decides.
    #[serde(rename = "where")]
    pub(crate) place: String,
    #[serde(skip)]
    pub(crate) format: fn(f64) -> String,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Met,
    NotMet,
    NotMeasured,
}

/// A value, and what decided it.
pub(crate) type Found = Option<(f64, String)>;

impl Target {
    pub(crate) fn new(name: impl Into<String>, bound: Bound, found: Found, format: fn(f64) -> String) -> Target {
        let (value, place) = found.unzip();
        let verdict = match value {
            None => Verdict::NotMeasured,
            Some(value) if bound.holds(value) => Verdict::Met,
            Some(_) => Verdict::NotMet,
        };
        Target { name: name.into(), bound, value, verdict, place: place.unwrap_or_default(), format }
    }
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Bound::AtMost(most) => value <= most,
            Bound::AtLeast(least) => value >= least,
        }
    }
}

impl Verdict {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Verdict::Met => "met",
            Verdict::NotMet => "not met",
            Verdict::NotMeasured => "not measured",
        }
    }
}

/// All promises.
pub(crate) fn all(figures: &Figures) -> Vec<Target> {
    let judge = Judge { figures };
    let mut targets = judge.micro();
    targets.extend(judge.programs());
    targets.extend(judge.accounting());
    targets.extend(judge.memory());
    targets.extend(judge.percpu());
    targets
}

struct Judge<'a> {
    figures: &'a Figures,
}

const MIMALLOC: &[&str] = &["mimalloc-v3"];
const FASTEST: &[&str] = &["mimalloc-v2", "mimalloc-v3", "snmalloc"];
const LEANEST: &[&str] = &["jemalloc", "snmalloc"];

impl Judge<'_> {
    fn micro(&self) -> Vec<Target> {
        let at_most = |name: &str, most: f64, workload: &str, mode: Mode, rivals: &[&str]| {
            Target::new(name, Bound::AtMost(most), self.worst_case(workload, mode, rivals), format::ratio)
        };
        vec![
            at_most("lifo in no group / mimalloc v3", 0.9, "lifo", Mode::Off, MIMALLOC),
            at_most("lifo under limits / mimalloc v3", 1.1, "lifo", Mode::Limit, MIMALLOC),
            at_most("lifo under limits / tracking-allocator", 0.35, "lifo", Mode::Limit, &["tracking-allocator"]),
            at_most("lifo under limits / header", 1.0, "lifo", Mode::Limit, &["header"]),
            at_most("batch in a group / mimalloc v3", 1.1, "batch", Mode::On, MIMALLOC),
            at_most("cross in a group / mimalloc v3", 0.6, "cross", Mode::On, MIMALLOC),
            at_most("large in a group / mimalloc v3", 1.0, "large", Mode::On, MIMALLOC),
        ]
    }

    fn programs(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        for workload in ["larson", "mstress", "threads"] {
            let name = format!("{workload} in a group / best of mimalloc v2, v3, snmalloc");
            let found = self.worst_case(workload, Mode::On, FASTEST);
            targets.push(Target::new(name, Bound::AtMost(1.0), found, format::ratio));
            let name = format!("{workload} in a group, peak RSS / best of jemalloc, snmalloc");
            let of = |rival: &&str| {
                let (own, other) = (self.line(workload, "-", "objcg", Mode::On), self.of_rival(workload, "-", rival));
                Some((self.figures.peak_ratio(own, other)?, (*rival).to_owned()))
            };
            let found = largest(LEANEST.iter().filter_map(of));
            targets.push(Target::new(name, Bound::AtMost(1.0), found, format::ratio));
        }
        targets
    }

    fn accounting(&self) -> Vec<Target> {
        let at_most =
            |name: &str, most: f64, found: Found| Target::new(name, Bound::AtMost(most), found, format::ratio);
        let depth = self.line("depth", "-", "objcg", Mode::On);
        let deep = ["batch", "lifo"].iter().filter_map(|case| {
            let ratio = self.figures.ratio_of_cases(depth, &format!("{case}-16"), &format!("{case}-1"))?;
            Some((ratio, (*case).to_owned()))
        });
        let interleave = self.line("interleave", "-", "objcg", Mode::On);
        let interleaved = self.figures.ratio_of_cases(interleave, "1000", "1").map(|ratio| (ratio, String::new()));
        vec![
            at_most("in a group / in none, geometric mean", 1.10, self.mean(Mode::On, Mode::Off)),
            at_most("under limits / in a group, geometric mean", 1.03, self.mean(Mode::Limit, Mode::On)),
            at_most("depth 16 / depth 1", 1.03, largest(deep)),
            at_most("1,000 groups interleaved / one group", 4.0, interleaved),
        ]
    }

    fn memory(&self) -> Vec<Target> {
        const MIB: f64 = 1_048_576.0;
        let mut targets = Vec::new();
        for (variant, least) in [("1000", 0.85), ("4000", 0.85), ("1000x2", 0.80)] {
            let of = self.line("tenants", variant, "objcg", Mode::On);
            let share = self.figures.share(of, "live", "after").map(|share| (share, String::new()));
            let name = format!("{}, live / RSS", tenants(variant));
            targets.push(Target::new(name, Bound::AtLeast(least), share, format::share));
            if variant.contains('x') {
                continue;
            }
            let shared = self.line("tenants", variant, "mimalloc-v3", Mode::Off);
            let ratio = self.figures.ratio(of, shared, "churn").map(|ratio| (ratio, String::new()));
            let name = format!("{} / mimalloc v3 for all of them", tenants(variant));
            targets.push(Target::new(name, Bound::AtMost(1.1), ratio, format::ratio));
            let both = |(create, delete): (f64, f64)| (create + delete, String::new());
            let times = self.figures.ns(of, "create").zip(self.figures.ns(of, "delete")).map(both);
            let name = format!("{}, ns to create and delete a group", tenants(variant));
            targets.push(Target::new(name, Bound::AtMost(1000.0), times, format::nanoseconds));
        }
        // Nothing is live after the burst, so the bound has only its constant.
        let burst = self.line("burst", "-", "objcg", Mode::On);
        let later = self.figures.point(burst, "later").map(|bytes| (bytes, String::new()));
        let name = "burst, RSS after two seconds of rest";
        targets.push(Target::new(name, Bound::AtMost(8.0 * MIB), later, format::bytes));
        targets
    }

    fn percpu(&self) -> Vec<Target> {
        let of = self.line("percpu", "-", "objcg", Mode::On);
        let found = |value: Option<f64>| value.map(|value| (value, String::new()));
        let ratio = |case, against| found(self.figures.ratio_of_cases(of, case, against));
        let ns = |case| found(self.figures.ns(of, case));
        let share = |part, whole| found(self.figures.share(of, part, whole));
        vec![
            Target::new(
                "per-CPU counter / thread's number",
                Bound::AtMost(1.5),
                ratio("counter", "local"),
                format::ratio,
            ),
            Target::new(
                "shared atomic / per-CPU counter, 2 threads",
                Bound::AtLeast(5.0),
                ratio("sharedx2", "counterx2"),
                format::ratio,
            ),
            Target::new("ns to allocate 4 bytes on each CPU", Bound::AtMost(200.0), ns("alloc"), format::nanoseconds),
            Target::new("ns to free them", Bound::AtMost(200.0), ns("free"), format::nanoseconds),
            Target::new("per-CPU memory, held / used", Bound::AtMost(1.25), share("held", "used"), format::share),
            Target::new(
                "per-CPU memory, used / populated",
                Bound::AtLeast(0.9),
                share("used", "populated"),
                format::share,
            ),
        ]
    }

    /// The largest ratio to any of the rivals in any case.
    fn worst_case(&self, workload: &str, mode: Mode, rivals: &[&str]) -> Found {
        let own = self.line(workload, "-", "objcg", mode);
        let cases = self.figures.cases(workload, "-");
        let of_rival = |rival: &&str| {
            let other = self.of_rival(workload, "-", rival);
            let of = |case: &&str| {
                let place =
                    [*rival, *case].into_iter().filter(|part| (rivals.len() > 1 || part != rival) && *part != "all");
                Some((self.figures.ratio(own, other, case)?, place.collect::<Vec<_>>().join(" ")))
            };
            cases.iter().filter_map(of).collect::<Vec<_>>()
        };
        largest(rivals.iter().flat_map(of_rival))
    }

    /// The geometric mean of the ratios of two modes over all cases that have both.
    fn mean(&self, mode: Mode, against: Mode) -> Found {
        let mut ratios = Vec::new();
        for (workload, variant) in self.figures.tables() {
            let line = |mode| self.line(workload.name, variant, "objcg", mode);
            for case in self.figures.cases(workload.name, variant) {
                ratios.extend(self.figures.ratio(line(mode), line(against), case));
            }
        }
        Some((geometric_mean(&ratios)?, format!("{} cases", ratios.len())))
    }

    fn of_rival<'a>(&self, workload: &'a str, variant: &'a str, name: &str) -> Line<'a> {
        let rival = RIVALS.iter().find(|rival| rival.name == name).expect("targets name rivals that there are");
        self.line(workload, variant, name, rival.modes()[0])
    }

    fn line<'a>(&self, workload: &'a str, variant: &'a str, name: &str, mode: Mode) -> Line<'a> {
        let rival = RIVALS.iter().find(|rival| rival.name == name).expect("targets name rivals that there are");
        Line { workload, variant, series: Series { rival, mode } }
    }
}

fn tenants(variant: &str) -> String {
    match variant.split_once('x') {
        Some((nr_tenants, nr_threads)) => format!("{nr_tenants} tenants, {nr_threads} threads"),
        None => format!("{variant} tenants"),
    }
}

fn largest(found: impl Iterator<Item = (f64, String)>) -> Found {
    found.max_by(|a, b| a.0.total_cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::{Bound, Verdict, all};
    use crate::figures::{Figures, Measurement};
    use crate::plan::Series;
    use crate::protocol::{Answer, Case, Mode};
    use crate::rivals::RIVALS;
    use crate::workloads::WORKLOADS;

    fn lifo(rival: &str, mode: Mode, times: [f64; 2]) -> Measurement {
        let cases = ["16", "64"].iter().zip(times).map(|(name, ns)| Case { name: (*name).into(), ns: vec![ns] });
        Measurement {
            workload: WORKLOADS.iter().find(|workload| workload.name == "lifo").unwrap(),
            variant: "-".to_owned(),
            series: Series { rival: RIVALS.iter().find(|known| known.name == rival).unwrap(), mode },
            round: 0,
            answer: Answer { cases: cases.collect(), ..Answer::default() },
        }
    }

    #[test]
    fn the_worst_case_decides_and_what_is_missing_is_not_judged() {
        let mut figures = Figures::default();
        figures.add(lifo("mimalloc-v3", Mode::Off, [4.0, 4.0]));
        figures.add(lifo("objcg", Mode::Off, [2.0, 3.8]));
        figures.add(lifo("objcg", Mode::Limit, [4.0, 4.2]));
        let targets = all(&figures);
        let of = |name: &str| targets.iter().find(|target| target.name == name).unwrap();
        let off = of("lifo in no group / mimalloc v3");
        assert_eq!((off.verdict, off.value, off.place.as_str()), (Verdict::NotMet, Some(0.95), "64"));
        let limit = of("lifo under limits / mimalloc v3");
        assert_eq!((limit.verdict, limit.value), (Verdict::Met, Some(1.05)));
        assert_eq!(of("lifo under limits / header").verdict, Verdict::NotMeasured);
        assert_eq!(of("1000 tenants, live / RSS").verdict, Verdict::NotMeasured);
    }

    #[test]
    fn bounds_include_their_value() {
        assert!(Bound::AtMost(1.0).holds(1.0) && !Bound::AtMost(1.0).holds(1.01));
        assert!(Bound::AtLeast(0.85).holds(0.85) && !Bound::AtLeast(0.85).holds(0.84));
    }
}
