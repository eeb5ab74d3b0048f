//! What runs of programs found, for people and as JSON.

use std::fmt::Write;

use anyhow::Result;
use serde::Serialize;

use super::Findings;
use super::catalogue::Program;
use super::figures::{Figures, Quantity};
use crate::args::ProgramsArgs;
use crate::format::{bytes, or_dash, ratio, seconds};
use crate::machine::Machine;
use crate::report::Failure;
use crate::table::{Grid, Style, bytes_of, of_machine, of_targets};
use crate::targets::Target;

/// What is held against glibc, and what its column is called.
const RATIOS: [(Quantity, &str); 3] =
    [(Quantity::Time, "time ×"), (Quantity::CpuTime, "CPU ×"), (Quantity::PeakMemory, "RSS ×")];

pub(crate) fn render(findings: &Findings, args: &ProgramsArgs) -> Result<String> {
    if args.json {
        return Ok(serde_json::to_string_pretty(&Report::of(findings))? + "\n");
    }
    Ok(tables(findings, args.style()))
}

fn tables(findings: &Findings, style: Style) -> String {
    let figures = &findings.figures;
    let mut text = of_machine(&findings.machine);
    let floor = findings.floor_bytes.map_or_else(|| "?".to_owned(), bytes_of);
    let rounds = findings.nr_rounds;
    writeln!(text, "rounds: {rounds}; ratios against glibc; peak RSS of a program that does nothing: {floor}")
        .expect("a String takes all");
    text.push_str(&style.section("programs: unmodified, the allocator put into them by LD_PRELOAD"));
    text.push_str(&style.lay_out(&of_programs(figures)));
    let notes = notes(figures);
    if !notes.rows.is_empty() {
        text.push_str(&style.section("what they said"));
        text.push_str(&style.lay_out(&notes));
    }
    let targets = figures.targets();
    if !targets.is_empty() {
        text.push_str(&style.section("targets of programs"));
        text.push_str(&style.lay_out(&of_targets(targets)));
    }
    for failure in &findings.failures {
        writeln!(text, "failed: {}", failure.line()).expect("a String takes all");
    }
    text
}

fn of_programs(figures: &Figures) -> Grid {
    let mut header = ["", "glibc", "peak RSS"].map(str::to_owned).to_vec();
    for library in &figures.libraries[1..] {
        header.extend(RATIOS.iter().map(|(_, column)| format!("{} {column}", library.name)));
    }
    let row = |program: &Program| {
        let mut row = vec![
            program.name.to_owned(),
            or_dash(figures.value(program, 0, Quantity::Time), seconds),
            or_dash(figures.value(program, 0, Quantity::PeakMemory), bytes),
        ];
        for idx in 1..figures.libraries.len() {
            row.extend(RATIOS.iter().map(|(quantity, _)| or_dash(figures.ratio(program, idx, *quantity), ratio)));
        }
        row
    };
    Grid { header, rows: figures.programs.iter().map(|program| row(program)).collect() }
}

fn notes(figures: &Figures) -> Grid {
    let mut rows = Vec::new();
    for program in &figures.programs {
        for (idx, library) in figures.libraries.iter().enumerate() {
            let said = figures.notes(program, idx).join("; ");
            if !said.is_empty() {
                rows.push(vec![format!("{} under {}", program.name, library.name), said]);
            }
        }
    }
    Grid { header: vec![String::new(), "at the end of the last round".to_owned()], rows }
}

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    rounds: u32,
    /// Peak memory of a program that needs none.
    floor_bytes: Option<u64>,
    programs: Vec<Row<'a>>,
    targets: Vec<Target>,
    failures: &'a [Failure],
}

/// A program under a library.
#[derive(Serialize)]
struct Row<'a> {
    program: &'a str,
    library: &'a str,
    seconds: Option<f64>,
    cpu_seconds: Option<f64>,
    peak_bytes: Option<f64>,
    /// To glibc, the median of the ratios within rounds.
    time_ratio: Option<f64>,
    cpu_ratio: Option<f64>,
    peak_ratio: Option<f64>,
    /// Seconds of each round.
    rounds: Vec<f64>,
    notes: &'a [String],
}

impl<'a> Report<'a> {
    fn of(findings: &'a Findings) -> Report<'a> {
        let figures = &findings.figures;
        let mut programs = Vec::new();
        for program in &figures.programs {
            for (idx, library) in figures.libraries.iter().enumerate() {
                let value = |quantity| figures.value(program, idx, quantity);
                let ratio = |quantity| figures.ratio(program, idx, quantity);
                programs.push(Row {
                    program: program.name,
                    library: &library.name,
                    seconds: value(Quantity::Time),
                    cpu_seconds: value(Quantity::CpuTime),
                    peak_bytes: value(Quantity::PeakMemory),
                    time_ratio: ratio(Quantity::Time),
                    cpu_ratio: ratio(Quantity::CpuTime),
                    peak_ratio: ratio(Quantity::PeakMemory),
                    rounds: figures.rounds(program, idx, Quantity::Time).iter().map(|(_, time)| *time).collect(),
                    notes: figures.notes(program, idx),
                });
            }
        }
        Report {
            machine: &findings.machine,
            rounds: findings.nr_rounds,
            floor_bytes: findings.floor_bytes,
            programs,
            targets: figures.targets(),
            failures: &findings.failures,
        }
    }
}
