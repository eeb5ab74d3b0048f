//! Programs allocate whenever they like: before `main`, while libraries are loaded, as threads end, around `fork`.

#[path = "support/programs.rs"]
mod programs;

use programs::{Program, Way, build_plugin};

#[test]
fn memory_is_there_at_all_times() {
    let plugin = build_plugin("tests/programs/plugin.c");
    for way in Way::ALL {
        Program::build("tests/programs/worlds.c", way).pass(|command| {
            command.env("PLUGIN", &plugin);
        });
    }
}

#[test]
fn a_process_forks_while_its_threads_allocate() {
    for way in Way::ALL {
        let program = Program::build("../objcg-bench/programs/fork_storm.c", way);
        let output = program.command().output().expect("it was built");
        assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"300 children\n"[..]), "{way:?}: {output:?}");
    }
}
