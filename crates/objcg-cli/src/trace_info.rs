//! `objcg trace info`.

use std::fmt::Write;

use anyhow::Result;
use comfy_table::Table;
use objcg_lab::{Trace, TraceInfo};
use serde_json::json;

use crate::args::InfoArgs;
use crate::format::{bytes, count, seconds};
use crate::output;
use crate::table::lay_out;

/// Caches that are listed; the rest is summed up. JSON has all.
const MAX_CACHES: usize = 15;
const PAGE_KIB: u32 = objcg_lab::geometry::PAGE_SIZE / 1024;

pub(crate) fn run(args: &InfoArgs) -> Result<()> {
    let mut infos = Vec::new();
    for path in &args.traces {
        infos.push(TraceInfo::of(&Trace::open(path)?));
    }
    let text = if args.json {
        serde_json::to_string_pretty(&json!({ "traces": infos }))? + "\n"
    } else {
        infos.iter().map(render).collect::<Vec<_>>().join("\n")
    };
    output::print(&text)
}

fn render(info: &TraceInfo) -> String {
    let mut text = format!(
        "{}: {} events in {:.2} s on {} CPUs\n",
        info.trace,
        count(info.events),
        seconds(info.span_ns),
        info.cpus
    );
    for (name, value) in figures(info) {
        writeln!(text, "  {name:<26}{value}").expect("a String takes all");
    }
    let charged = info.caches.iter().filter(|cache| cache.charged_allocs > 0).count();
    writeln!(text, "  {:<26}{}, {charged} of them with charged objects", "slab caches", info.caches.len())
        .expect("a String takes all");
    text.push_str(&caches(info));
    text
}

fn figures(info: &TraceInfo) -> Vec<(&'static str, String)> {
    let mut figures = vec![
        ("cgroups", format!("{}, {} of them removed", count(info.groups.into()), count(info.deleted.into()))),
        ("allocations", format!("{}, {} of them charged", count(info.allocs), count(info.charged_allocs))),
        ("frees", format!("{} seen, {} inferred", count(info.frees), count(info.frees_inferred))),
        ("per-CPU events", count(info.percpu_events)),
        ("kmalloc-large events", count(info.large_events)),
    ];
    if let Some(peak) = &info.peak {
        let peak = format!(
            "{} ({} objects) at {:.2} s, row {}",
            bytes(peak.charged_bytes),
            count(peak.charged_objects),
            seconds(peak.ts_ns),
            count(peak.row)
        );
        figures.push(("peak of charged bytes", peak));
    }
    figures.push(("charged bytes at the end", bytes(info.charged_bytes_at_end)));
    figures.push(("peak of all slab objects", bytes(info.peak_bytes_all)));
    figures
}

fn caches(info: &TraceInfo) -> String {
    let mut table = Table::new();
    table.set_header(["cache", "slot", "slab", "allocs", "charged", "cgroups", "at peak"]);
    let (shown, rest) = info.caches.split_at(info.caches.len().min(MAX_CACHES));
    for cache in shown {
        table.add_row([
            cache.cache.clone(),
            cache.slot.to_string(),
            format!("{} in {}K", cache.objects_per_slab, cache.pages_per_slab * PAGE_KIB),
            count(cache.allocs),
            count(cache.charged_allocs),
            count(cache.groups.into()),
            bytes(cache.bytes_at_peak),
        ]);
    }
    let mut text = lay_out(table);
    if !rest.is_empty() {
        let bytes_at_peak = rest.iter().map(|cache| cache.bytes_at_peak).sum();
        writeln!(text, "and {} more caches with {} at the peak", rest.len(), bytes(bytes_at_peak))
            .expect("a String takes all");
    }
    text
}
