//! The figures of `objcg compare` for people: one controller a column, so that three fit in 80 columns.

use std::fmt::Write;

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use objcg_lab::{ControllerReport, Geometry, Scope, SheafMode, TraceReport};

use crate::format::{bytes, count, nanoseconds, percent, seconds, signed_bytes};

type Figure = (&'static str, fn(&ControllerReport, &TraceReport) -> String);

const FIGURES: [Figure; 14] = [
    ("live objects", |c, _| bytes(c.live_bytes)),
    ("slab pages held", |c, _| bytes(c.slab_bytes)),
    ("owner vectors", |c, _| bytes(c.owner_bytes)),
    ("utilisation", |c, _| percent(c.utilization)),
    ("  owner vectors left out", |c, _| percent(c.slab_utilization)),
    ("per-CPU memory", |c, _| bytes(c.percpu_bytes)),
    ("  charged, with owners", |c, _| bytes(c.percpu_charged_bytes)),
    ("  charged to nobody", |c, _| bytes(c.percpu_uncharged_bytes)),
    ("slab caches", |c, _| count(c.caches)),
    ("groups pinned at the end", |c, t| format!("{} of {}", count(c.groups_pinned), count(t.deleted))),
    ("resident set grew by", |c, _| signed_bytes(c.rss_bytes)),
    ("ns per alloc or free", |c, _| nanoseconds(c.ns_per_op)),
    ("ns to create a group", |c, _| nanoseconds(c.create_ns)),
    ("ns to delete a group", |c, _| nanoseconds(c.delete_ns)),
];

/// What a newcomer cannot know.
const WORDS: &str = "\
Utilisation: live objects / (slab pages + owner vectors).
Owner vector: says of each object of a slab which group it is charged to.
Per-CPU memory: the same place for each CPU, a little on each of many pages.
Pinned: a deleted group that memory left behind keeps from going.
";

const OF_SHEAVES: &str = "\
Sheaf: free objects that a CPU keeps at hand, for each cache. Caches of each
group's own have sheaves of their own; --sheaves off shows the slabs alone.
";

pub(crate) fn render(report: &TraceReport) -> String {
    let mut table = Table::new();
    let names = report.controllers.iter().map(|controller| controller.controller.name().to_owned());
    table.set_header(std::iter::once(String::new()).chain(names));
    for (name, figure) in FIGURES {
        let figures = report.controllers.iter().map(|controller| figure(controller, report));
        table.add_row(std::iter::once(name.to_owned()).chain(figures));
    }
    let mut text = heading(report);
    text.push_str(&lay_out(table));
    text.push_str(&footing(report));
    text
}

/// Names to the left, figures to the right, one rule below the header; no blanks at the ends of lines.
pub(crate) fn lay_out(mut table: Table) -> String {
    const RULE: LineStyle = LineStyle::none().fill('─').junction('─');
    table.load_style(TableStyle::new().header_separator(RULE));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string().lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

fn heading(report: &TraceReport) -> String {
    let scope = match report.scope {
        Scope::Charged => "charged objects",
        Scope::All => "all slab objects",
    };
    let geometry = match report.geometry {
        Geometry::Kernel => "the kernel's slabs",
        Geometry::Engine => "the engine's slabs",
    };
    let sheaves = match report.sheaves {
        SheafMode::On => "per-CPU sheaves",
        SheafMode::Off => "first fit",
    };
    format!(
        "{}: {} events, {} groups, {} of them deleted\n\
         {scope}, {geometry}, {sheaves}\n\
         at {:.2} s, when most charged bytes were live\n",
        report.trace,
        count(report.events),
        count(report.groups),
        count(report.deleted),
        seconds(report.peak.ts_ns),
    )
}

fn footing(report: &TraceReport) -> String {
    let mut text = String::new();
    if let Some(saving) = report.saving_vs_cache_level {
        let (verb, share) = if saving < 0.0 { ("costs", -saving) } else { ("saves", saving) };
        writeln!(text, "Object-level {verb} {} of what cache-level holds.", percent(Some(share)))
            .expect("a String takes all");
    }
    let left_out = &report.not_replayed;
    let reasons = [
        (left_out.large_events, "kmalloc-large events (whole pages, no slab)"),
        (left_out.uncharged_events, "events of uncharged objects (--scope all has them)"),
    ];
    for (rows, reason) in reasons.into_iter().filter(|(rows, _)| *rows > 0) {
        writeln!(text, "Not replayed: {} {reason}.", count(rows)).expect("a String takes all");
    }
    text.push_str(WORDS);
    if report.sheaves == SheafMode::On {
        text.push_str(OF_SHEAVES);
    }
    text
}
