//! The findings as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::figures::{Figures, Line};
use crate::machine::Machine;
use crate::rivals::version;
use crate::run::Findings;
use crate::targets::{self, Target};

#[derive(Serialize)]
pub(crate) struct Report<'a> {
    machine: &'a Machine,
    scale: &'a str,
    baseline: String,
    rivals: Vec<RivalReport<'a>>,
    times: Vec<Time<'a>>,
    memory: Vec<Memory<'a>>,
    targets: Vec<Target>,
    failures: &'a [Failure],
}

/// Something that was not measured.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    pub(crate) what: String,
    pub(crate) reason: String,
}

impl Failure {
    /// On one line.
    pub(crate) fn line(&self) -> String {
        format!("{}: {}", self.what, self.reason.replace('\n', " | "))
    }
}

#[derive(Serialize)]
struct RivalReport<'a> {
    name: &'a str,
    package: Option<&'a str>,
    version: Option<&'a str>,
    licence: &'a str,
    /// How it is known that it served; `None` if it did not.
    proof: Option<&'a str>,
}

/// The time of one case.
#[derive(Serialize)]
struct Time<'a> {
    workload: &'a str,
    variant: &'a str,
    case: &'a str,
    rival: &'a str,
    mode: &'a str,
    ns_per_op: f64,
    /// The fastest repetition.
    ns_min: Option<f64>,
    /// To the baseline: see `Figures::ratio`.
    ratio: Option<f64>,
    /// The median of each round's repetitions.
    rounds: Vec<f64>,
}

/// What was resident.
#[derive(Serialize)]
struct Memory<'a> {
    workload: &'a str,
    variant: &'a str,
    rival: &'a str,
    mode: &'a str,
    peak_bytes: Option<f64>,
    /// Bytes at moments that have names.
    points: BTreeMap<&'a str, f64>,
}

impl<'a> Report<'a> {
    pub(crate) fn of(findings: &'a Findings) -> Report<'a> {
        let figures = &findings.figures;
        let rivals = findings.rivals.iter().map(|rival| RivalReport {
            name: rival.name,
            package: rival.package,
            version: rival.package.and_then(version),
            licence: rival.licence,
            proof: figures.proof(rival.name),
        });
        let mut times = Vec::new();
        let mut memory = Vec::new();
        for (workload, variant) in figures.tables() {
            let against = Line { workload: workload.name, variant, series: findings.baseline };
            for line in figures.lines(workload.name, variant) {
                let cases = figures.cases(workload.name, variant);
                times.extend(cases.into_iter().filter_map(|case| Time::of(figures, line, against, case)));
                memory.push(Memory::of(figures, line));
            }
        }
        Report {
            machine: &findings.machine,
            scale: findings.scale,
            baseline: findings.baseline.name(),
            rivals: rivals.collect(),
            times,
            memory,
            targets: targets::all(figures),
            failures: &findings.failures,
        }
    }
}

impl<'a> Time<'a> {
    fn of(figures: &Figures, line: Line<'a>, against: Line<'_>, case: &'a str) -> Option<Time<'a>> {
        Some(Time {
            workload: line.workload,
            variant: line.variant,
            case,
            rival: line.series.rival.name,
            mode: line.series.mode.name(),
            ns_per_op: figures.ns(line, case)?,
            ns_min: figures.least_ns(line, case),
            ratio: figures.ratio(line, against, case),
            rounds: figures.rounds(line, case).into_iter().map(|(_, ns)| ns).collect(),
        })
    }
}

impl<'a> Memory<'a> {
    fn of(figures: &'a Figures, line: Line<'a>) -> Memory<'a> {
        let names = figures.point_names(line);
        Memory {
            workload: line.workload,
            variant: line.variant,
            rival: line.series.rival.name,
            mode: line.series.mode.name(),
            peak_bytes: figures.peak(line),
            points: names.into_iter().filter_map(|name| Some((name, figures.point(line, name)?))).collect(),
        }
    }
}
