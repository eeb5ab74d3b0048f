//! Runs the command.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::Path;
use std::process::{Command, Output};

/// Runs `objcg-bench` in `directory`.
pub(crate) fn objcg_bench_in(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_objcg-bench")).args(arguments).current_dir(directory).output().unwrap()
}

pub(crate) fn objcg_bench(arguments: &[&str]) -> Output {
    objcg_bench_in(Path::new("."), arguments)
}

/// Asserts that it succeeded in silence, and gives back what it printed.
pub(crate) fn printed(output: &Output) -> String {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}
