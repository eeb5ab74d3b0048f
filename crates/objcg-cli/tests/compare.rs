//! What `objcg compare` prints and writes.

#[path = "support/cli.rs"]
mod cli;
#[path = "../../objcg-lab/tests/support/trace_file.rs"]
mod trace_file;

use std::fs;
use std::io;
use std::process::Command;

use cli::{REPOSITORY, Scene, objcg_in, printed};
use serde_json::Value;
use trace_file::{TraceFile, alloc, create, percpu_alloc, percpu_free};

const TINY: [&str; 4] = ["compare", "tiny.parquet", "--sheaves", "off"];
/// The fields that users rely on.
const OF_TRACE: [&str; 9] =
    ["trace", "events", "groups", "deleted", "scope", "geometry", "sheaves", "controllers", "saving_vs_cache_level"];
const OF_CONTROLLER: [&str; 13] = [
    "controller",
    "live_bytes",
    "slab_bytes",
    "owner_bytes",
    "utilization",
    "groups_pinned",
    "rss_bytes",
    "ns_per_op",
    "create_ns",
    "delete_ns",
    "percpu_bytes",
    "percpu_charged_bytes",
    "percpu_uncharged_bytes",
];
/// What the lab adds to them.
const MORE_OF_TRACE: [&str; 3] = ["file", "peak", "not_replayed"];
const MORE_OF_CONTROLLER: [&str; 3] = ["slab_utilization", "slabs", "caches"];

fn assert_keys(value: &Value, promised: &[&str], more: &[&str]) {
    let mut expected: Vec<&str> = promised.iter().chain(more).copied().collect();
    let mut found: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
}

fn json(scene: &Scene, more: &[&str]) -> Value {
    serde_json::from_str(&scene.printed(&[&TINY, ["--json"].as_slice(), more].concat())).unwrap()
}

fn column<'a>(trace: &'a Value, field: &str) -> Vec<&'a Value> {
    trace["controllers"].as_array().unwrap().iter().map(|controller| &controller[field]).collect()
}

#[test]
fn json_has_the_fields_that_users_rely_on() {
    let report = json(&Scene::new(), &[]);
    assert_keys(&report, &["traces"], &[]);
    let trace = &report["traces"][0];
    assert_keys(trace, &OF_TRACE, &MORE_OF_TRACE);
    for controller in trace["controllers"].as_array().unwrap() {
        assert_keys(controller, &OF_CONTROLLER, &MORE_OF_CONTROLLER);
    }
}

#[test]
fn json_has_sane_values() {
    let report = json(&Scene::new(), &[]);
    let trace = &report["traces"][0];
    assert_eq!((&trace["trace"], &trace["events"]), (&"tiny".into(), &7.into()));
    assert_eq!((&trace["groups"], &trace["deleted"]), (&2.into(), &1.into()));
    assert_eq!(
        (&trace["scope"], &trace["geometry"], &trace["sheaves"]),
        (&"charged".into(), &"kernel".into(), &"off".into())
    );
    assert_eq!(column(trace, "controller"), ["page-level", "cache-level", "object-level"]);
    assert_eq!(column(trace, "live_bytes"), [2560, 2560, 2560]);
    assert_eq!(column(trace, "slab_bytes"), [3 * 4096, 3 * 4096, 2 * 4096]);
    assert_eq!(column(trace, "owner_bytes"), [0, 0, 16 + 32]);
    assert_eq!(column(trace, "groups_pinned"), [1, 0, 0]);
    let near = |value: &Value, wanted: f64| (value.as_f64().expect("a number") - wanted).abs() < 1e-12;
    assert!(near(column(trace, "utilization")[2], 2560.0 / 8240.0));
    assert!(near(&trace["saving_vs_cache_level"], 1.0 - 8240.0 / 12288.0));
    for time in ["ns_per_op", "create_ns", "delete_ns"] {
        assert!(column(trace, time).iter().all(|value| value.as_f64().is_some_and(|ns| ns > 0.0)), "{time}");
    }
    assert!(column(trace, "rss_bytes").iter().all(|value| value.is_i64()));
}

#[test]
fn percpu_memory_is_charged_by_object_level_alone() {
    let scene = Scene::new();
    let rows = [create(1), percpu_alloc(1, 1, 40), alloc(2, 1, "four"), percpu_free(1, 1, 40)];
    TraceFile::of(rows).write(scene.directory(), "percpu.parquet");
    let report: Value = serde_json::from_str(&scene.printed(&["compare", "percpu.parquet", "--json"])).unwrap();
    let trace = &report["traces"][0];
    let on_all_cpus = column(trace, "percpu_bytes")[0].as_u64().expect("a count");
    assert!(on_all_cpus >= 40 && on_all_cpus.is_multiple_of(40), "{on_all_cpus}");
    assert_eq!(column(trace, "percpu_bytes"), [on_all_cpus; 3]);
    assert_eq!(column(trace, "percpu_charged_bytes"), [0, 0, on_all_cpus + 4]);
    assert_eq!(column(trace, "percpu_uncharged_bytes"), [on_all_cpus, on_all_cpus, 0]);
    let text = scene.printed(&["compare", "percpu.parquet"]);
    let line = text.lines().find(|line| line.contains("charged to nobody")).expect("a line of the table");
    assert!(line.ends_with(" 0 B"), "{line}");
}

#[test]
fn controllers_run_in_the_order_of_the_list_each_once() {
    let report = json(&Scene::new(), &["--controllers", "object-level,page-level,object-level"]);
    let trace = &report["traces"][0];
    assert_eq!(column(trace, "controller"), ["object-level", "page-level"]);
    assert!(trace["saving_vs_cache_level"].is_null());
}

#[test]
fn several_traces_are_reported_in_order() {
    let scene = Scene::new();
    fs::copy(scene.path("tiny.parquet"), scene.path("other.parquet")).unwrap();
    let report = json(&scene, &["other.parquet"]);
    let names: Vec<&Value> = report["traces"].as_array().unwrap().iter().map(|trace| &trace["trace"]).collect();
    assert_eq!(names, ["tiny", "other"]);
}

#[test]
fn the_table_fits_a_terminal() {
    let text = Scene::new().printed(&TINY);
    for wanted in
        ["tiny: 7 events, 2 groups, 1 of them deleted", "page-level", "1 of 1", "2.5 KiB", "Object-level saves"]
    {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
    let wide = text.lines().find(|line| line.chars().count() > 80 || line.ends_with(' '));
    assert_eq!(wide, None);
}

#[test]
fn bare_it_replays_the_repositorys_trace_from_anywhere() {
    let elsewhere = Scene::new();
    for directory in [REPOSITORY.as_ref(), elsewhere.directory()] {
        let text = printed(&objcg_in(directory, &[]));
        assert!(text.starts_with("mixed: 1,471,082 events, 206 groups, 111 of them deleted\n"), "{text}");
        assert!(text.contains("109 of 111"), "{text}");
    }
}

#[test]
fn csv_has_a_row_a_controller_and_moment() {
    let scene = Scene::new();
    let text = scene.printed(&[&TINY, ["--csv", "x.csv", "--plot", "x.svg"].as_slice()].concat());
    assert!(text.starts_with("tiny: "));
    let mut reader = csv::Reader::from_path(scene.path("x.csv")).unwrap();
    let header = "trace,controller,ts_ns,live_bytes,slab_bytes,owner_bytes,groups_alive,groups_pinned";
    assert_eq!(reader.headers().unwrap(), header.split(',').collect::<Vec<_>>());
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows.len(), 3 * 7, "one a controller and row of the trace");
    assert_eq!(rows[6], vec!["tiny", "page-level", "6000", "2048", "8192", "0", "1", "1"]);
    assert_eq!(rows[20], vec!["tiny", "object-level", "6000", "2048", "4096", "16", "1", "0"]);
    let moments: Vec<u64> = rows.iter().map(|row| row[2].parse().unwrap()).collect();
    assert_eq!(moments, [0, 1000, 2000, 3000, 4000, 5000, 6000].repeat(3));
}

#[test]
fn svg_is_well_formed_whatever_the_trace_is_called() {
    let scene = Scene::new();
    fs::copy(scene.path("tiny.parquet"), scene.path("a<b>&\"c\u{1}.parquet")).unwrap();
    scene.printed(&["compare", "tiny.parquet", "a<b>&\"c\u{1}.parquet", "--plot", "x.svg"]);
    let text = fs::read_to_string(scene.path("x.svg")).unwrap();
    let svg = roxmltree::Document::parse(&text).unwrap();
    assert!(svg.root_element().has_tag_name(("http://www.w3.org/2000/svg", "svg")));
    assert_eq!(svg.root_element().attribute("width"), Some("800"));
    let lines = svg.descendants().filter(|node| node.tag_name().name() == "polyline").count();
    assert!(lines >= 2 * 2 * 3, "a line a trace, panel and controller: {lines}");
    for label in ["page-level", "cache-level", "object-level"] {
        let labels = svg
            .descendants()
            .filter(|node| node.is_text() && node.text().is_some_and(|text| text.trim().starts_with(label)));
        assert_eq!(labels.count(), 4, "{label}");
    }
}

#[test]
fn an_output_replaces_what_was_there() {
    let scene = Scene::new();
    fs::write(scene.path("x.csv"), "an older one, longer than nothing").unwrap();
    scene.printed(&[&TINY, ["--csv", "x.csv"].as_slice()].concat());
    assert!(fs::read_to_string(scene.path("x.csv")).unwrap().starts_with("trace,controller,"));
    assert_eq!(fs::read_dir(scene.directory()).unwrap().count(), 2, "no temporary file is left");
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let scene = Scene::new();
    for arguments in [TINY.as_slice(), &["compare", "--json", "tiny.parquet"], &["trace", "info", "tiny.parquet"]] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_objcg"))
            .args(arguments)
            .current_dir(scene.directory())
            .stdout(writer)
            .output()
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}
