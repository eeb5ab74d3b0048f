//! `objcg-bench`: objcg against other allocators.
//!
//! Each allocator is built into a worker of its own (`workers`), with the same source of the workloads. `plan` says who
//! runs what and in which order, `run` lets the processes of a round take turns, `figures` makes medians and ratios of what they
//! answer. `targets` holds them against what objcg promises. `table`, `plot` and `report` show it.
//!
//! `programs` is another comparison: programs of this system under objcg's library and under glibc. `soak` is no comparison: a server's mix for hours, which must
//! break no invariant and hold no more and more memory.
#![deny(unsafe_code)]

mod args;
mod figures;
mod format;
mod list;
mod machine;
mod plan;
mod plot;
mod programs;
#[path = "../../objcg-bench-worker/src/protocol.rs"]
mod protocol;
#[cfg(test)]
mod protocol_tests;
mod report;
mod rivals;
mod run;
mod soak;
mod statistics;
mod table;
mod targets;
mod workers;
mod workloads;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use args::{Cli, Command};

/// Exit code of bad input: that of clap for bad arguments.
const BAD_INPUT: u8 = 2;
/// Exit code if something could not be measured, or a soak failed; the rest is printed.
const INCOMPLETE: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Some(Command::List(args)) => list::run(&args).map(|()| run::Outcome::Complete),
        Some(Command::Programs(args)) => programs::run(&args),
        Some(Command::Soak(args)) => soak::run(&args),
        None => run::run(&cli.run),
    };
    match outcome {
        Ok(run::Outcome::Complete) => ExitCode::SUCCESS,
        Ok(run::Outcome::Incomplete) => ExitCode::from(INCOMPLETE),
        Err(error) => {
            // One line, whatever characters a path has.
            let line = format!("{error:#}").replace(char::is_control, "?");
            // Not eprintln!: it panics when stderr has gone away.
            let _unheard = writeln!(io::stderr(), "objcg-bench: {line}");
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// Prints `text` to stdout. A reader that has gone away, as in `objcg-bench list | head`, is no failure.
fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("stdout"),
    }
}
