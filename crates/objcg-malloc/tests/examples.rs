//! The examples run, and print what they are for.

#[path = "support/programs.rs"]
mod programs;

use std::process::Command;

use programs::{Program, Way, crate_folder, library, succeed};

#[test]
fn tenants_in_c() {
    let flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror"];
    for way in [Way::Linked, Way::Static] {
        let printed = succeed(&mut Program::build_with("examples/tenants.c", way, "gcc", &flags).command());
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!((lines[0], lines[2]), ("ann: 3000 of 3000 rows", "cleo: 5000 of 5000 rows"), "{printed}");
        assert!(lines[1].starts_with("bob: 8") && lines[1].ends_with(" of 20000 rows, out of memory"), "{printed}");
        assert_eq!(lines[3], "ann holds 3000 objects in 3000 KiB; refused: 0");
        assert!(lines[4].starts_with("bob holds 8") && lines[4].ends_with("refused: 1"), "{printed}");
    }
}

#[test]
fn tenants_in_python() {
    let mut python = Command::new("python3");
    python.arg(crate_folder().join("examples/tenants.py"));
    python.env("LD_PRELOAD", library()).env("PYTHONMALLOC", "malloc").env_remove("PYTHONPATH");
    let printed = succeed(&mut python);
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines[0].starts_with("ann: 5,000 rows, "), "{printed}");
    assert!(lines[1].starts_with("bob: MemoryError after ") && lines[1].ends_with(" rows and 31 MiB"), "{printed}");
    assert!(lines[2].starts_with("cleo: 10,000 rows, "), "{printed}");
    assert_eq!(lines[3], "and on: 15000 rows are there");
}
