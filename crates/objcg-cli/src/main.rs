//! `objcg`: programs in groups, and the lab, on the command line.
//!
//! `args` declares the options; `run`, `run_compare` and `trace_info` do the work; `table`, `series_csv` and `plot` show it.
//! Files are written whole or not at all (`output`). Bad input ends with one line on stderr and exit code 2.
#![forbid(unsafe_code)]

mod args;
mod format;
mod output;
mod plot;
mod run;
mod run_compare;
mod series_csv;
mod size;
mod table;
mod trace_info;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, TraceCommand};

/// Exit code of bad input: that of clap for bad arguments.
const BAD_INPUT: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let success = |()| ExitCode::SUCCESS;
    let outcome = match cli.command {
        None => run_compare::run(&cli.compare).map(success),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Compare(args)) => run_compare::run(&args).map(success),
        Some(Command::Trace { command: TraceCommand::Info(args) }) => trace_info::run(&args).map(success),
    };
    outcome.unwrap_or_else(|error| {
        say(&format!("{error:#}"));
        ExitCode::from(BAD_INPUT)
    })
}

/// One line on stderr, whatever characters a path in it has.
fn say(what: &str) {
    let line = what.replace(char::is_control, "?");
    // Not eprintln!: it panics when stderr has gone away.
    let _unheard = writeln!(io::stderr(), "objcg: {line}");
}
