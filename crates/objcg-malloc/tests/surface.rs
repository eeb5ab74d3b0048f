//! glibc's rules for `malloc` and its kin are kept, however a program comes to this library.

#[path = "support/programs.rs"]
mod programs;

use programs::{Program, Way};

#[test]
fn malloc_and_its_kin_keep_glibcs_rules() {
    for way in Way::ALL {
        Program::build("tests/programs/surface.c", way).pass(|_| {});
    }
}

#[test]
fn cpps_operators_get_their_memory_here() {
    let flags = ["-std=c++17", "-O1", "-fno-builtin", "-Wall", "-Wextra", "-Werror"];
    for way in [Way::Linked, Way::Static] {
        Program::build_with("tests/programs/operators.cc", way, "g++", &flags).pass(|_| {});
    }
}

#[test]
fn malloc_stats_prints_on_standard_error() {
    let program = Program::build("tests/programs/stats.c", Way::Linked);
    let output = program.command().output().expect("it was built");
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.lines().all(|line| line.starts_with("objcg: ")), "{text}");
    // One object of 20,000 bytes lives, in a slot of 20,480.
    let is_live = |line: &str| line.split_whitespace().take(3).eq(["objcg:", "20480", "1"]);
    assert!(text.lines().any(is_live), "{text}");
}
