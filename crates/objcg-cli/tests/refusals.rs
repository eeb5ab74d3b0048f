//! Bad input ends with exit code 2 and one line on stderr, and leaves nothing behind.

#[path = "support/cli.rs"]
mod cli;
#[path = "../../objcg-lab/tests/support/trace_file.rs"]
mod trace_file;

use std::fs;

use cli::{REPOSITORY, Scene, objcg_in};
use trace_file::{TraceFile, alloc, create, free};

#[test]
fn a_bad_trace_is_one_line_with_file_row_and_reason() {
    let scene = Scene::new();
    let twice = [create(1), alloc(1, 1, "four"), free(1, 1, "four"), free(1, 1, "four")];
    TraceFile::of(twice).write(scene.directory(), "twice.parquet");
    fs::write(scene.path("foreign.parquet"), "ts_ns,cpu\n").unwrap();
    fs::write(scene.path("empty.parquet"), "").unwrap();
    let tiny = fs::read(scene.path("tiny.parquet")).unwrap();
    fs::write(scene.path("half.parquet"), &tiny[..tiny.len() / 2]).unwrap();
    for command in [["compare"].as_slice(), &["trace", "info"]] {
        let refused = |file| scene.refused(&[command, &[file]].concat());
        assert_eq!(refused("twice.parquet"), "twice.parquet: row 4: double free of object 1");
        assert_eq!(refused("foreign.parquet"), "foreign.parquet: not a Parquet file");
        assert_eq!(refused("empty.parquet"), "empty.parquet: not a Parquet file");
        assert_eq!(refused("half.parquet"), "half.parquet: truncated Parquet file: the footer is missing");
        assert_eq!(refused("none.parquet"), "none.parquet: No such file or directory (os error 2)");
        assert_eq!(refused("."), ".: Is a directory (os error 21)");
    }
}

#[test]
fn a_bad_trace_among_good_ones_writes_nothing() {
    let scene = Scene::new();
    let arguments = ["compare", "tiny.parquet", "none.parquet", "--csv", "x.csv", "--plot", "x.svg"];
    assert_eq!(scene.refused(&arguments), "none.parquet: No such file or directory (os error 2)");
    assert!(scene.refused(&["trace", "info", "tiny.parquet", "none.parquet"]).starts_with("none.parquet: "));
}

#[test]
fn a_trace_without_a_charge_is_refused_by_compare() {
    let scene = Scene::new();
    TraceFile::of([alloc(1, 0, "four")]).write(scene.directory(), "root.parquet");
    assert_eq!(scene.refused(&["compare", "root.parquet"]), "root.parquet: the trace has no charged object");
}

#[test]
fn a_file_name_cannot_break_the_line() {
    let scene = Scene::new();
    let line = scene.refused(&["compare", "no\nsuch\u{1b}[31m.parquet"]);
    assert_eq!(line, "no?such?[31m.parquet: No such file or directory (os error 2)");
}

#[test]
fn an_output_that_cannot_be_written() {
    let scene = Scene::new();
    for option in ["--csv", "--plot"] {
        let refused = |path| scene.refused(&["compare", "tiny.parquet", option, path]);
        assert!(refused("none/x").starts_with("none/x: cannot be written: "));
        assert!(refused("tiny.parquet/x").starts_with("tiny.parquet/x: cannot be written: "));
        assert_eq!(refused("."), ".: is a directory");
        assert!(refused("/proc/x").starts_with("/proc/x: cannot be written: "));
        assert!(refused("/dev/full").starts_with("/dev/full: cannot be written: "));
    }
}

#[test]
fn an_output_that_would_replace_the_trace_or_the_other_output() {
    let scene = Scene::new();
    std::os::unix::fs::symlink("tiny.parquet", scene.path("link")).unwrap();
    for path in ["tiny.parquet", "./tiny.parquet", "link"] {
        let line = scene.refused(&["compare", "tiny.parquet", "--plot", path]);
        assert_eq!(line, format!("{path}: would replace the trace"));
    }
    let line = scene.refused(&["compare", "tiny.parquet", "--csv", "x", "--plot", "./x"]);
    assert_eq!(line, "./x: named for both --csv and --plot");
}

#[test]
fn a_bad_output_is_found_before_the_trace_is_read() {
    let line = Scene::new().refused(&["compare", "none.parquet", "--csv", "none/x"]);
    assert!(line.starts_with("none/x: "), "{line}");
}

#[test]
fn a_full_disk_at_stdout() {
    let scene = Scene::new();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_objcg"))
        .args(["compare", "tiny.parquet"])
        .current_dir(scene.directory())
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "objcg: stdout: No space left on device (os error 28)\n");
}

#[test]
fn nonsense_on_the_command_line() {
    for arguments in [
        ["--bogus"].as_slice(),
        &["compare", "--scope", "some"],
        &["compare", "--geometry", "flat"],
        &["compare", "--sheaves", "maybe"],
        &["compare", "--controllers", "page-level,arena-level"],
        &["compare", "--controllers", ","],
        &["compare", "--csv"],
        &["trace"],
        &["trace", "info"],
        &["trace", "draw"],
        &["--json", "trace", "info", "tiny.parquet"],
    ] {
        let output = objcg_in(REPOSITORY.as_ref(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}
