//! I9: what is no object's address, or was freed, ends the program with one line that says which and what.

#[path = "support/programs.rs"]
mod programs;

use std::os::unix::process::ExitStatusExt;

use programs::{Program, Way};

/// What the line says, by how a fault's name begins.
const LINES: [(&str, &[&str]); 4] = [
    ("double_free", &["double free", "freed already"]),
    ("interior", &["not the start of an object", "inside a large object", "not the address of an object"]),
    ("realloc_of_freed", &["double free", "freed already", "realloc of a free object"]),
    ("foreign", &["not the address of an object"]),
];

#[test]
fn i9_faults_abort_with_one_line() {
    for way in Way::ALL {
        let program = Program::build("tests/programs/faults.c", way);
        for fault in program.cases() {
            let output = program.run(&fault);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{fault} {way:?}: {output:?}");
            assert!(said.starts_with("objcg: 0x") && said.lines().count() == 1, "{fault} {way:?}: {said}");
            let (_, texts) = LINES.iter().find(|(kind, _)| fault.starts_with(kind)).expect("a kind of fault");
            assert!(texts.iter().any(|text| said.contains(text)), "{fault} {way:?}: {said}");
        }
    }
}
