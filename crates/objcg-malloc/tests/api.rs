//! The C API as C sees it.

#[path = "support/programs.rs"]
mod programs;

use programs::{Program, Way};

#[test]
fn groups_limits_and_percpu_memory_work_from_c() {
    for way in [Way::Linked, Way::Static] {
        Program::build("tests/programs/api.c", way).pass(|_| {});
    }
}
