//! The figures of `trace info` are those of the recording.

#[path = "support/trace_file.rs"]
mod trace_file;

use std::fs;

use objcg_lab::{Trace, TraceInfo};
use tempfile::TempDir;
use trace_file::{ALLOC, PERCPU_ALLOC, Row, TraceFile, alloc, create, free, remove};

const TRACES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../traces");

/// The cells of the file's line in the table of `traces/README.md`, separators taken out of the numbers.
fn cells_of_readme(file: &str) -> Vec<String> {
    let readme = fs::read_to_string(format!("{TRACES}/README.md")).unwrap();
    let line = readme.lines().find(|line| line.starts_with(&format!("| {file} |"))).expect("a line of the table");
    line.replace(',', "").trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

#[test]
fn mixed_is_what_its_readme_says() {
    let info = TraceInfo::of(&Trace::open(format!("{TRACES}/mixed.parquet")).unwrap());
    let peak = info.peak.expect("something is charged");
    #[expect(clippy::cast_precision_loss, reason = "printed with two decimals")]
    let seconds = |ns: u64| format!("{:.2}", ns as f64 / 1e9);
    let found = [
        "mixed.parquet".to_owned(),
        info.events.to_string(),
        seconds(info.span_ns),
        info.groups.to_string(),
        info.deleted.to_string(),
        info.allocs.to_string(),
        info.frees.to_string(),
        info.frees_inferred.to_string(),
        info.charged_allocs.to_string(),
        format!("{} ({} at {})", peak.charged_bytes, peak.charged_objects, seconds(peak.ts_ns)),
        info.charged_bytes_at_end.to_string(),
        info.peak_bytes_all.to_string(),
    ];
    assert_eq!(found.as_slice(), cells_of_readme("mixed.parquet"));
    assert_eq!(info.cpus, 2);
    let groups_and_percpu = u64::from(info.groups + info.deleted) + info.percpu_events;
    assert_eq!(info.allocs + info.frees + info.frees_inferred + groups_and_percpu, info.events);
}

#[test]
fn every_row_is_counted_in_its_place() {
    let large = Row { op: ALLOC, size: 9000, alloc_size: 12288, cache: "kmalloc-large", ..alloc(4, 1, "four") };
    let percpu = Row { op: PERCPU_ALLOC, size: 8, alloc_size: 32, cache: "percpu", ..alloc(5, 1, "four") };
    let rows = [
        create(1),
        alloc(1, 1, "four"),
        Row { cpu: 5, ..alloc(2, 0, "four") },
        alloc(3, 1, "eight"),
        large,
        percpu,
        free(3, 1, "eight"),
        Row { op: 2, ..free(2, 0, "four") },
        remove(1),
    ];
    let directory = TempDir::new().unwrap();
    let path = TraceFile::of(rows).write(directory.path(), "tiny.parquet");
    let info = TraceInfo::of(&Trace::open(path).unwrap());

    assert_eq!((info.trace.as_str(), info.events, info.span_ns, info.cpus), ("tiny", 9, 8000, 2));
    assert_eq!((info.groups, info.deleted), (1, 1));
    assert_eq!((info.allocs, info.frees, info.frees_inferred), (4, 1, 1));
    assert_eq!((info.percpu_events, info.large_events, info.charged_allocs), (1, 1, 2));
    let peak = info.peak.expect("something is charged");
    assert_eq!((peak.row, peak.ts_ns, peak.charged_bytes, peak.charged_objects), (4, 3000, 1536, 2));
    assert_eq!((info.charged_bytes_at_end, info.peak_bytes_all), (1024, 2560));

    let caches: Vec<_> = info.caches.iter().map(|cache| (cache.cache.as_str(), cache.bytes_at_peak)).collect();
    assert_eq!(caches, [("four", 2048), ("eight", 512)]);
    let four = &info.caches[0];
    assert_eq!((four.slot, four.objects_per_slab, four.pages_per_slab), (1024, 4, 1));
    assert_eq!((four.allocs, four.charged_allocs, four.groups, four.objects_at_peak), (2, 1, 1, 2));
}

#[test]
fn a_trace_without_a_charge_has_no_peak() {
    let directory = TempDir::new().unwrap();
    let path = TraceFile::of([alloc(1, 0, "four")]).write(directory.path(), "root.parquet");
    assert!(TraceInfo::of(&Trace::open(path).unwrap()).peak.is_none());
}
