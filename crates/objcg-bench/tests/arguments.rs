//! What the command line takes and refuses, and the lists.

#[path = "support/cli.rs"]
mod cli;

use cli::{objcg_bench, objcg_bench_in, printed};
use serde_json::Value;
use tempfile::TempDir;

#[test]
fn the_list_names_versions_licences_and_workloads() {
    let text = printed(&objcg_bench(&["list"]));
    for wanted in ["  jemalloc              tikv-jemallocator 0.", ", MPL-2.0\n", "  tenants   ", "  residue   "] {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
}

#[test]
fn the_list_as_json_has_the_same_allocators_in_the_same_order() {
    let list: Value = serde_json::from_str(&printed(&objcg_bench(&["list", "--json"]))).unwrap();
    let rivals = list["rivals"].as_array().unwrap();
    assert_eq!(rivals.len(), 12);
    assert_eq!(rivals[0]["name"], "objcg");
    assert_eq!(rivals[1]["version"], Value::Null);
    assert!(rivals.iter().skip(2).all(|rival| rival["version"].is_string() && rival["licence"].is_string()));
    assert_eq!(list["workloads"].as_array().unwrap().len(), 14);
}

#[test]
fn nonsense_on_the_command_line() {
    for arguments in [
        [].as_slice(),
        &["fifo"],
        &["--quick"],
        &["lifo", "--rivals", "objcg,malloc"],
        &["lifo", "--rivals", ","],
        &["lifo", "--baseline", "malloc"],
        &["lifo", "--rounds", "0"],
        &["lifo", "--rounds", "many"],
        &["lifo", "--quick", "--tiny"],
        &["lifo", "--plot"],
        &["list", "lifo"],
        &["lifo", "list"],
    ] {
        let output = objcg_bench(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

/// Asserts exit code 2 and nothing printed, and gives back the one line of stderr.
fn refused(directory: &TempDir, arguments: &[&str]) -> String {
    let output = objcg_bench_in(directory.path(), arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn what_cannot_work_is_found_before_anything_is_built() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let line = refused(&directory, &["lifo", "--rivals", "objcg,glibc", "--baseline", "snmalloc"]);
    assert_eq!(line, "objcg-bench: the baseline snmalloc is not among the rivals\n");
    let line = refused(&directory, &["lifo", "--plot", "file"]);
    assert!(line.starts_with("objcg-bench: file: cannot be written: "), "{line}");
    let line = refused(&directory, &["lifo", "--plot", "file/plots"]);
    assert!(line.starts_with("objcg-bench: file/plots: cannot be written: "), "{line}");
    let line = refused(&directory, &["depth", "--rivals", "glibc"]);
    assert_eq!(line, "objcg-bench: nothing was measured: nobody takes part\n");
}

#[test]
fn help_has_examples() {
    for (arguments, example) in
        [(["--help"].as_slice(), "objcg-bench all --quick"), (&["list", "--help"], "objcg-bench list --json")]
    {
        let text = printed(&objcg_bench(arguments));
        assert!(text.contains(example), "{text}");
    }
}
