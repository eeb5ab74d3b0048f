//! The options of the command.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::programs::catalogue::{PROGRAMS, Program};
use crate::protocol::Scale;
use crate::rivals::{RIVALS, Rival};
use crate::table::Style;
use crate::workloads::{WORKLOADS, Workload};

const EXAMPLES: &str = "\
Examples:
  objcg-bench all --quick                         everything, in some minutes
  objcg-bench lifo batch --rivals objcg,snmalloc  two workloads, two allocators
  objcg-bench tenants --json --plot plots         as JSON, with plots
  objcg-bench all --markdown > report.md          for a document
  objcg-bench programs                            programs of this system, under objcg and under glibc
  objcg-bench soak --minutes 20                   a server's mix for 20 minutes, invariants checked each second
  objcg-bench list                                what there is";

const LIST_EXAMPLES: &str = "\
Examples:
  objcg-bench list
  objcg-bench list --json";

const PROGRAMS_EXAMPLES: &str = "\
Examples:
  objcg-bench programs --check                    does everything work? Once, without figures
  objcg-bench programs --only redis,git           two of them, with figures
  objcg-bench programs --library target/release/libobjcg_malloc.so --library jemalloc=/usr/lib/libjemalloc.so.2
  objcg-bench programs --rounds 9 --markdown      for a document
  objcg-bench programs --list                     what there is, and what it needs";

const SOAK_EXAMPLES: &str = "\
Examples:
  objcg-bench soak                                for 2 minutes
  objcg-bench soak --minutes 0.1                  for 6 seconds: invariants, no trend
  objcg-bench soak --minutes 20 --seed 7 --json   as JSON, with each second's figures";

/// Unless the user says otherwise.
const PROGRAM_ROUNDS: u32 = 5;

/// What the command line calls all workloads.
const ALL: &str = "all";

/// Compare objcg with other allocators: time and resident memory, each allocator in processes of its own.
#[derive(Debug, Parser)]
#[command(name = "objcg-bench", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The allocators, with versions and licences, and the workloads.
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Programs of this system, unmodified, with an allocator put into them by LD_PRELOAD, against glibc.
    ///
    /// Each must succeed and print what it prints under glibc. Ratios are medians of those within rounds; the exit code
    /// is 1 if a program fails.
    #[command(after_help = PROGRAMS_EXAMPLES)]
    Programs(ProgramsArgs),
    /// A server's mix on objcg in a process of its own, with the invariants checked each second.
    ///
    /// Tenants come and go, objects outlive them; bursts, limits that refuse, forks, threads that start and end, per-CPU
    /// memory. Each second all work pauses: usage must be what a walk over the heap finds, and each object must have its
    /// content. Over the second half memory held must show no trend; in the end everything must be back. Else the exit
    /// code is 1. The seed is printed; with the same one the threads make the same requests, in an order that differs.
    #[command(after_help = SOAK_EXAMPLES)]
    Soak(SoakArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ProgramsArgs {
    /// How often each program runs under each allocator; without, 5 times.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Which programs; without, all.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = program_names())]
    only: Vec<String>,
    /// What serves, may be given several times: [NAME=]PATH; without, objcg's library, which is built.
    #[arg(long = "library", value_name = "LIBRARY", value_parser = library)]
    pub(crate) libraries: Vec<LibraryArg>,
    /// What to do about programs that are not installed.
    #[arg(long, value_enum, default_value_t = Missing::Fail)]
    pub(crate) missing: Missing,
    /// Run each once and print whether it works, without figures.
    #[arg(long, conflicts_with_all = ["rounds", "json", "markdown"])]
    pub(crate) check: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print Markdown.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print the programs, and what each needs.
    #[arg(long, exclusive = true)]
    pub(crate) list: bool,
}

/// What to do about programs that are not installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Missing {
    /// Leave out what needs them.
    Skip,
    /// Run nothing, and say what is missing.
    Fail,
}

/// A library, and what it is called if not after its file.
#[derive(Clone, Debug)]
pub(crate) struct LibraryArg {
    pub(crate) name: Option<String>,
    pub(crate) path: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    /// For how long; parts of a minute may be given.
    #[arg(long, value_name = "N", default_value_t = 2.0, value_parser = minutes)]
    minutes: f64,
    /// What the random numbers start from; without, the clock.
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Lose as many bytes each second: shows that it is found.
    #[arg(long, value_name = "BYTES", hide = true, default_value_t = 0)]
    pub(crate) leak: usize,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What to run.
    #[arg(value_name = "WORKLOAD", required = true, value_parser = workload_names())]
    workloads: Vec<String>,
    /// Which allocators; without, all.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = rival_by_name())]
    rivals: Vec<&'static Rival>,
    /// What ratios are against; without, mimalloc-v3 if it is among the allocators, else the first of them.
    #[arg(long, value_name = "RIVAL", value_parser = rival_by_name())]
    baseline: Option<&'static Rival>,
    /// How often each process runs; without, as often as suits the workload: 5 to 15 times, 3 to 11 with --quick.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,
    /// Shorter and less often: a first look.
    #[arg(long)]
    quick: bool,
    /// As short as can be, once: shows that everything works.
    #[arg(long, hide = true, conflicts_with = "quick")]
    tiny: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print Markdown.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Write a plot of each workload as SVG.
    #[arg(long, value_name = "DIR")]
    pub(crate) plot: Option<PathBuf>,
}

impl ProgramsArgs {
    pub(crate) fn rounds(&self) -> u32 {
        if self.check { 1 } else { self.rounds.unwrap_or(PROGRAM_ROUNDS) }
    }

    /// How tables for people look.
    pub(crate) fn style(&self) -> Style {
        if self.markdown { Style::Markdown } else { Style::Text }
    }

    /// The programs, in the list's order, each once.
    pub(crate) fn programs(&self) -> Vec<&'static Program> {
        let is_wanted = |program: &&Program| self.only.is_empty() || self.only.iter().any(|name| name == program.name);
        PROGRAMS.iter().filter(is_wanted).collect()
    }
}

impl SoakArgs {
    pub(crate) fn nr_seconds(&self) -> u32 {
        (self.minutes * 60.0).round() as u32
    }
}

impl RunArgs {
    pub(crate) fn scale(&self) -> Scale {
        match (self.tiny, self.quick) {
            (true, _) => Scale::Tiny,
            (false, true) => Scale::Quick,
            (false, false) => Scale::Full,
        }
    }

    /// How tables for people look.
    pub(crate) fn style(&self) -> Style {
        if self.markdown { Style::Markdown } else { Style::Text }
    }

    /// The workloads, in the list's order, each once.
    pub(crate) fn workloads(&self) -> Vec<&'static Workload> {
        let is_wanted = |workload: &&Workload| self.workloads.iter().any(|name| name == ALL || name == workload.name);
        WORKLOADS.iter().filter(is_wanted).collect()
    }

    /// The allocators, in the list's order, each once.
    pub(crate) fn rivals(&self) -> Vec<&'static Rival> {
        RIVALS.iter().filter(|rival| self.rivals.is_empty() || self.rivals.contains(rival)).collect()
    }

    /// What ratios are against.
    pub(crate) fn baseline(&self) -> anyhow::Result<&'static Rival> {
        let rivals = self.rivals();
        match self.baseline {
            Some(baseline) if rivals.contains(&baseline) => Ok(baseline),
            Some(baseline) => anyhow::bail!("the baseline {} is not among the rivals", baseline.name),
            None => Ok(rivals.iter().find(|rival| rival.name == "mimalloc-v3").unwrap_or(&rivals[0])),
        }
    }
}

fn workload_names() -> PossibleValuesParser {
    PossibleValuesParser::new(std::iter::once(ALL).chain(WORKLOADS.iter().map(|workload| workload.name)))
}

fn program_names() -> PossibleValuesParser {
    PossibleValuesParser::new(PROGRAMS.iter().map(|program| program.name))
}

fn library(text: &str) -> Result<LibraryArg, &'static str> {
    let (name, path) = match text.split_once('=') {
        Some((name, path)) if !name.contains('/') => (Some(name), path),
        _ => (None, text),
    };
    if path.is_empty() || name == Some("") {
        return Err("neither a path nor NAME=PATH");
    }
    Ok(LibraryArg { name: name.map(str::to_owned), path: PathBuf::from(path) })
}

/// From a second to a week.
fn minutes(text: &str) -> Result<f64, String> {
    const MAX: f64 = 7.0 * 24.0 * 60.0;
    let minutes: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (1.0 / 60.0..=MAX).contains(&minutes) { Ok(minutes) } else { Err(format!("not from 0.02 to {MAX}")) }
}

fn rival_by_name() -> impl TypedValueParser<Value = &'static Rival> {
    PossibleValuesParser::new(RIVALS.iter().map(|rival| rival.name))
        .map(|name| RIVALS.iter().find(|rival| rival.name == name).expect("one of the possible values"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{library, minutes};

    #[test]
    fn minutes_are_from_a_second_to_a_week() {
        assert_eq!((minutes("0.1"), minutes("20")), (Ok(0.1), Ok(20.0)));
        for text in ["", "x", "0", "-1", "NaN", "inf", "1e9"] {
            assert!(minutes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_library_is_a_path_or_a_name_and_a_path() {
        let parts = |text: &str| library(text).map(|arg| (arg.name, arg.path)).unwrap();
        assert_eq!(parts("a/b.so"), (None, Path::new("a/b.so").to_owned()));
        assert_eq!(parts("b=a/b.so"), (Some("b".to_owned()), Path::new("a/b.so").to_owned()));
        assert_eq!(parts("./a=b/c.so"), (None, Path::new("./a=b/c.so").to_owned()));
        assert!(library("").is_err() && library("a=").is_err() && library("=a").is_err());
    }
}
