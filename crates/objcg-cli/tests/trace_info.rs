//! What `objcg trace info` prints, and the help of every command.

#[path = "support/cli.rs"]
mod cli;
#[path = "../../objcg-lab/tests/support/trace_file.rs"]
mod trace_file;

use cli::{REPOSITORY, Scene, objcg_in, printed};
use serde_json::Value;

#[test]
fn text_shows_the_recordings_figures() {
    let text = printed(&objcg_in(REPOSITORY.as_ref(), &["trace", "info", "traces/mixed.parquet"]));
    for wanted in [
        "mixed: 1,471,082 events in 12.99 s on 2 CPUs\n",
        " 206, 111 of them removed\n",
        " 793,969, 262,842 of them charged\n",
        " 602,107 seen, 65,625 inferred\n",
        " 24.5 MiB (62,015 objects) at 12.01 s, row 1,420,038\n",
        " 76, 38 of them with charged objects\n",
        " ext4_inode_cache    1128   14 in 16K   12,962    12,962       182",
        "and 61 more caches with 6.6 MiB at the peak\n",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
    let wide = text.lines().find(|line| line.chars().count() > 80 || line.ends_with(' '));
    assert_eq!(wide, None);
}

#[test]
fn json_has_all_caches() {
    let text = Scene::new().printed(&["trace", "info", "--json", "tiny.parquet", "tiny.parquet"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["traces"].as_array().unwrap().len(), 2);
    let trace = &report["traces"][1];
    for (field, wanted) in [
        ("events", 7),
        ("span_ns", 6000),
        ("cpus", 1),
        ("groups", 2),
        ("deleted", 1),
        ("allocs", 3),
        ("frees", 1),
        ("frees_inferred", 0),
        ("percpu_events", 0),
        ("large_events", 0),
        ("charged_allocs", 3),
        ("charged_bytes_at_end", 2048),
        ("peak_bytes_all", 2560),
    ] {
        assert_eq!(trace[field], wanted, "{field}");
    }
    assert_eq!((&trace["peak"]["row"], &trace["peak"]["charged_objects"]), (&5.into(), &3.into()));
    let caches: Vec<&Value> = trace["caches"].as_array().unwrap().iter().map(|cache| &cache["cache"]).collect();
    assert_eq!(caches, ["four", "eight"]);
}

#[test]
fn a_trace_without_a_charge_has_no_peak() {
    let scene = Scene::new();
    trace_file::TraceFile::of([trace_file::alloc(1, 0, "four")]).write(scene.directory(), "root.parquet");
    assert!(!scene.printed(&["trace", "info", "root.parquet"]).contains("peak of charged"));
    let report: Value = serde_json::from_str(&scene.printed(&["trace", "info", "--json", "root.parquet"])).unwrap();
    assert!(report["traces"][0]["peak"].is_null());
}

#[test]
fn the_help_of_every_command_has_examples() {
    for command in [[].as_slice(), &["compare"], &["trace"], &["trace", "info"]] {
        let text = printed(&objcg_in(REPOSITORY.as_ref(), &[command, &["--help"]].concat()));
        let (_, examples) = text.split_once("\nExamples:\n").unwrap_or_else(|| panic!("no examples of {command:?}"));
        let prefix = ["objcg"].iter().chain(command).copied().collect::<Vec<_>>().join(" ");
        assert!(examples.lines().any(|line| line.trim().starts_with(&prefix)), "{examples}");
    }
}
