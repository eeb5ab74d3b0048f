//! What a user wants to know at the end.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use anyhow::Result;
use comfy_table::Table;
use objcg_report::{COMPLETE, CUT_SHORT, Class, Order, RUNNING, Report, Threads, name_bytes};
use serde_json::{Value, json};

use crate::format::{bytes, count, percent};
use crate::table::lay_out;

/// Size classes that are listed; JSON has all.
const MAX_CLASSES: usize = 8;
/// Names of threads that are listed; JSON has all.
const MAX_THREADS: usize = 20;

/// A run that is over.
pub(super) struct Outcome<'a> {
    program: String,
    status: ExitStatus,
    max: Option<u64>,
    high: Option<u64>,
    order: &'a Order<'a>,
    /// The program's own; `None` if it ran without the library.
    own: Option<Report>,
    children: Vec<Report>,
}

impl<'a> Outcome<'a> {
    pub(super) fn of(name: &OsStr, status: ExitStatus, pid: u32, order: &'a Order<'a>, reports: Vec<Report>) -> Self {
        let (own, children): (Vec<_>, Vec<_>) = reports.into_iter().partition(|report| report.pid == u64::from(pid));
        Outcome {
            program: name.display().to_string(),
            status,
            max: order.max,
            high: order.high,
            order,
            own: own.into_iter().next(),
            children,
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("objcg: {}: {}\n", self.program, describe(self.status));
        match &self.own {
            Some(report) => self.describe_process(&mut text, report),
            None => text.push_str("  no report: the program ran without the library, or ended before it was there\n"),
        }
        if self.order.with_children && !self.children.is_empty() {
            text.push_str(&self.children_table());
        }
        text
    }

    fn describe_process(&self, text: &mut String, report: &Report) {
        let counters = &report.counters;
        let mut line = |what: &str, value: String| writeln!(text, "  {what:<18}{value}").expect("a String takes all");
        let limit = self.max.map(|max| format!(" of {}", bytes(max))).unwrap_or_default();
        line("peak", format!("{}{limit}", bytes(counters.peak)));
        match report.state {
            COMPLETE => {
                let objects = count(report.live_objects);
                line("at the end", format!("{} in {objects} objects", bytes(counters.usage)));
            }
            CUT_SHORT => line("at the end", format!("{}, by _exit or abort", bytes(counters.usage))),
            _ => line("at the end", format!("{}, when it was killed or replaced", bytes(counters.usage))),
        }
        if let Some(max) = self.max {
            let refused = match counters.refusals {
                0 => "never".to_owned(),
                1 => format!("once, by the limit of {}", bytes(max)),
                times => format!("{} times, by the limit of {}", count(times), bytes(max)),
            };
            line("refused", refused);
        }
        if let Some(high) = self.high {
            let above =
                if counters.high_events == 0 { "never".to_owned() } else { count(counters.high_events) + " times" };
            line("charged above", format!("{}: {above}", bytes(high)));
        }
        if report.state != RUNNING {
            line("utilisation", format!("{} of slabs", percent(report.utilisation())));
            if report.state == COMPLETE {
                line("held", format!("{} of the system", bytes(report.held_bytes)));
            }
            line("peak resident", bytes(report.peak_rss));
        }
        if !report.threads().is_empty() {
            text.push_str(&threads_table(report.threads()));
        }
        if !report.classes().is_empty() {
            text.push_str(&classes_table(report.classes()));
        }
    }

    fn children_table(&self) -> String {
        let mut table = Table::new();
        table.set_header(["process", "peak", "at the end", "refused"]);
        for child in &self.children {
            let name = String::from_utf8_lossy(name_bytes(&child.command));
            table.add_row([
                format!("{} {name}", child.pid),
                bytes(child.counters.peak),
                bytes(child.counters.usage),
                count(child.counters.refusals),
            ]);
        }
        lay_out(table)
    }

    /// For machines.
    pub(super) fn json(&self) -> Result<String> {
        let run = json!({
            "program": self.program,
            "exit_code": self.status.code(),
            "signal": self.status.signal(),
            "max": self.max,
            "high": self.high,
            "process": self.own.as_ref().map(process_json),
            "children": self.children.iter().map(process_json).collect::<Vec<_>>(),
        });
        Ok(serde_json::to_string_pretty(&run)? + "\n")
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
            format!("killed by {name}")
        }
        (None, None) => "ended".to_owned(),
    }
}

/// Largest first.
fn sorted<T: Copy>(rows: &[T], bytes: fn(&T) -> u64) -> Vec<T> {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| std::cmp::Reverse(bytes(row)));
    rows
}

fn classes_table(classes: &[Class]) -> String {
    let mut table = Table::new();
    table.set_header(["size class", "objects", "bytes"]);
    let sorted = sorted(classes, |class| class.object_bytes);
    for class in sorted.iter().take(MAX_CLASSES) {
        let size = if class.size == 0 { "pages".to_owned() } else { count(class.size) };
        table.add_row([size, count(class.nr_objects), bytes(class.object_bytes)]);
    }
    if let Some(rest) = sorted.get(MAX_CLASSES..).filter(|rest| !rest.is_empty()) {
        let nr_objects = rest.iter().map(|class| class.nr_objects).sum();
        let rest_bytes = rest.iter().map(|class| class.object_bytes).sum();
        table.add_row([format!("{} others", rest.len()), count(nr_objects), bytes(rest_bytes)]);
    }
    lay_out(table)
}

fn threads_table(threads: &[Threads]) -> String {
    let mut table = Table::new();
    table.set_header(["threads", "alive", "holding", "peak"]);
    let sorted = sorted(threads, |threads| threads.usage);
    for row in sorted.iter().take(MAX_THREADS) {
        table.add_row([thread_name(row), count(row.nr_threads), bytes(row.usage), bytes(row.peak)]);
    }
    if let Some(rest) = sorted.get(MAX_THREADS..).filter(|rest| !rest.is_empty()) {
        let usage = rest.iter().map(|row| row.usage).sum();
        let nr_threads = rest.iter().map(|row| row.nr_threads).sum();
        table.add_row([format!("{} others", rest.len()), count(nr_threads), bytes(usage), String::new()]);
    }
    lay_out(table)
}

fn thread_name(threads: &Threads) -> String {
    String::from_utf8_lossy(name_bytes(&threads.name)).into_owned()
}

/// What was not looked at, because the program went otherwise, is null.
fn process_json(report: &Report) -> Value {
    let counters = &report.counters;
    let if_complete = |number: u64| (report.state == COMPLETE).then_some(number);
    let is_over = report.state != RUNNING;
    let class = |class: &Class| json!({ "size": class.size, "objects": class.nr_objects, "bytes": class.object_bytes });
    let threads = |row: &Threads| json!({ "name": thread_name(row), "alive": row.nr_threads, "usage": row.usage, "peak": row.peak });
    json!({
        "pid": report.pid,
        "command": String::from_utf8_lossy(name_bytes(&report.command)),
        "state": match report.state { COMPLETE => "complete", CUT_SHORT => "cut_short", _ => "killed" },
        "peak": counters.peak,
        "usage": counters.usage,
        "refusals": counters.refusals,
        "max_events": counters.max_events,
        "high_events": counters.high_events,
        "live_objects": if_complete(report.live_objects),
        "live_bytes": if_complete(report.live_bytes),
        "utilisation": is_over.then(|| report.utilisation()),
        "held_bytes": if_complete(report.held_bytes),
        "peak_rss": is_over.then_some(report.peak_rss),
        "classes": report.classes().iter().map(class).collect::<Vec<_>>(),
        "threads": report.threads().iter().map(threads).collect::<Vec<_>>(),
    })
}
