//! The findings for people: a table a workload, who served, and what became of the targets.

use std::fmt::Write;

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

use crate::figures::{Figures, Line};
use crate::format::{bytes, nanoseconds, or_dash, ratio, share};
use crate::machine::Machine;
use crate::plan::Series;
use crate::rivals::Rival;
use crate::run::Findings;
use crate::targets::{self, Bound, Target};
use crate::workloads::{Workload, WorkloadKind};

/// A column beside the times.
type Column = (&'static str, fn(&Figures, Line<'_>) -> String);

const PEAK: &[Column] = &[("peak RSS", |f, l| or_dash(f.peak(l), bytes))];

const OF_BURST: &[Column] = &[
    ("live", |f, l| or_dash(f.point(l, "live"), bytes)),
    ("RSS full", |f, l| or_dash(f.point(l, "full"), bytes)),
    ("RSS after", |f, l| or_dash(f.point(l, "after"), bytes)),
    ("after 2 s of rest", |f, l| or_dash(f.point(l, "later"), bytes)),
];

const OF_PERCPU: &[Column] = &[
    ("used", |f, l| or_dash(f.point(l, "used"), bytes)),
    ("used/populated", |f, l| or_dash(f.share(l, "used", "populated"), share)),
    ("held/used", |f, l| or_dash(f.share(l, "held", "used"), share)),
];

const OF_TENANTS: &[Column] = &[
    ("RSS", |f, l| or_dash(f.point(l, "after"), bytes)),
    ("live/RSS", |f, l| or_dash(f.share(l, "live", "after"), share)),
    ("half gone", |f, l| or_dash(f.share(l, "half-live", "half"), share)),
    ("after 0.5 s of rest", |f, l| or_dash(f.share(l, "half-live", "half-later"), share)),
];

/// How tables look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// For terminals.
    Text,
    /// For documents.
    Markdown,
}

/// A table before it is laid out: names in the first column, figures in the others.
pub(crate) struct Grid {
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

pub(crate) fn render(findings: &Findings, style: Style) -> String {
    let mut text = of_machine(&findings.machine);
    writeln!(text, "scale: {}; ratios against {}", findings.scale, findings.baseline.name())
        .expect("a String takes all");
    let figures = &findings.figures;
    for (workload, variant) in figures.tables() {
        text.push_str(&one_workload(figures, workload, variant, findings.baseline, style));
    }
    text.push_str(&style.section("who served"));
    text.push_str(&style.lay_out(&who_served(findings)));
    text.push_str(&style.section("targets"));
    text.push_str(&style.lay_out(&of_targets(targets::all(figures))));
    for failure in &findings.failures {
        writeln!(text, "failed: {}", failure.line()).expect("a String takes all");
    }
    text
}

/// The line above tables.
pub(crate) fn of_machine(machine: &Machine) -> String {
    format!(
        "{}, {} CPUs, {}, Linux {}, huge pages: {}\n",
        machine.cpu,
        machine.cpus,
        bytes_of(machine.memory_bytes),
        machine.kernel,
        machine.huge_pages,
    )
}

fn one_workload(figures: &Figures, workload: &Workload, variant: &str, baseline: Series, style: Style) -> String {
    let columns = match workload.kind {
        WorkloadKind::Burst => OF_BURST,
        WorkloadKind::Tenants => OF_TENANTS,
        WorkloadKind::PerCpu => OF_PERCPU,
        _ => PEAK,
    };
    let cases = figures.cases(workload.name, variant);
    let against = Line { workload: workload.name, variant, series: baseline };
    let lines = figures.lines(workload.name, variant);
    // Columns of ratios would say 1 to everybody where the baseline takes no part.
    let has_ratio = |case: &str| lines.len() > 1 && figures.ns(against, case).is_some();
    let mut header = vec![String::new()];
    for case in &cases {
        header.push(if *case == "all" { "ns".to_owned() } else { (*case).to_owned() });
        if has_ratio(case) {
            header.push("×".to_owned());
        }
    }
    header.extend(columns.iter().map(|(name, _)| (*name).to_owned()));
    let mut rows = Vec::new();
    for line in &lines {
        let mut row = vec![line.series.name()];
        for case in &cases {
            row.push(or_dash(figures.ns(*line, case), nanoseconds));
            if has_ratio(case) {
                row.push(or_dash(figures.ratio(*line, against, case), ratio));
            }
        }
        row.extend(columns.iter().map(|(_, column)| column(figures, *line)));
        rows.push(row);
    }
    let variant = if variant == "-" { String::new() } else { format!(" {variant}") };
    let title =
        style.section(&format!("{}{variant}: {}; ns for {}", workload.name, workload.about, workload.operation));
    title + &style.lay_out(&Grid { header, rows })
}

fn who_served(findings: &Findings) -> Grid {
    let proof = |rival: &&Rival| findings.figures.proof(rival.name).unwrap_or("did not run").to_owned();
    let rows = findings.rivals.iter().map(|rival| vec![rival.name.to_owned(), proof(rival)]).collect();
    Grid { header: vec![String::new(), "how that is known".to_owned()], rows }
}

pub(crate) fn of_targets(targets: Vec<Target>) -> Grid {
    let row = |target: Target| {
        let bound = match target.bound {
            Bound::AtMost(most) => format!("≤ {}", (target.format)(most)),
            Bound::AtLeast(least) => format!("≥ {}", (target.format)(least)),
        };
        let found = or_dash(target.value, target.format);
        vec![target.name, bound, found, target.verdict.name().to_owned(), target.place]
    };
    let header = ["target", "bound", "found", "", "decided by"].map(str::to_owned).to_vec();
    Grid { header, rows: targets.into_iter().map(row).collect() }
}

impl Style {
    pub(crate) fn section(self, title: &str) -> String {
        match self {
            Style::Text => format!("\n{title}\n"),
            Style::Markdown => format!("\n### {title}\n\n"),
        }
    }

    pub(crate) fn lay_out(self, grid: &Grid) -> String {
        match self {
            Style::Text => as_text(grid),
            Style::Markdown => as_markdown(grid),
        }
    }
}

/// Names to the left, figures to the right, one rule below the header; no blanks at the ends of lines.
fn as_text(grid: &Grid) -> String {
    const RULE: LineStyle = LineStyle::none().fill('─').junction('─');
    let mut table = Table::new();
    table.set_header(&grid.header);
    table.add_rows(&grid.rows);
    table.load_style(TableStyle::new().header_separator(RULE));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string().lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

fn as_markdown(grid: &Grid) -> String {
    let line = |cells: &Vec<String>| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|---|{}\n", "--:|".repeat(grid.header.len() - 1));
    line(&grid.header) + &rule + &grid.rows.iter().map(line).collect::<String>()
}

#[expect(clippy::cast_precision_loss, reason = "memory of a machine")]
pub(crate) fn bytes_of(nr_bytes: u64) -> String {
    bytes(nr_bytes as f64)
}
