//! The options of the command.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use objcg_lab::{ControllerKind, Geometry, Scope, Settings, SheafMode};

use crate::size::size;

const EXAMPLES: &str = "\
Examples:
  objcg                                       replay the repository's own trace
  objcg compare --json --sheaves off FILE...  first fit, as JSON
  objcg compare --scope all --plot x.svg      charged objects or not, with a plot
  objcg trace info FILE                       what a trace holds
  objcg run --max 256M -- python3 server.py   any program, limited and counted";

const RUN_EXAMPLES: &str = "\
Examples:
  objcg run -- git gc                             what it holds, and its peak
  objcg run --max 256M -- python3 report.py       allocations past it fail
  objcg run --max 1G --high 800M --stat stat.json --json -- ./server
  objcg run --group-by thread -- redis-server     who of its threads holds what
  objcg run --children --max 64M -- make -j2      each process by itself
  PYTHONMALLOC=malloc objcg run -- python3 x.py   small objects of Python, too

Counted is what the program gets from malloc and its kin; a limit makes them return
null. Sizes are in bytes, or with K, M, G, T (powers of 1024). The exit status is the
program's; 126 and 127 if it cannot be run or found, 2 for bad arguments.";

const COMPARE_EXAMPLES: &str = "\
Examples:
  objcg compare
  objcg compare --json --sheaves off traces/mixed.parquet
  objcg compare --controllers cache-level,object-level --csv series.csv
  objcg compare --scope all --geometry engine --plot mixed.svg";

const TRACE_EXAMPLES: &str = "\
Examples:
  objcg trace info traces/mixed.parquet";

const INFO_EXAMPLES: &str = "\
Examples:
  objcg trace info traces/mixed.parquet
  objcg trace info --json *.parquet";

/// Run programs in memory groups, and compare the kernel's three ways of accounting on recorded allocations.
///
/// Without a command: compare.
#[derive(Debug, Parser)]
#[command(name = "objcg", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) compare: CompareArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a program in a group: limit its memory, and see who holds it.
    Run(RunArgs),
    /// Replay traces under page-level, cache-level and object-level accounting.
    Compare(CompareArgs),
    /// Look at a trace.
    #[command(after_help = TRACE_EXAMPLES)]
    Trace {
        #[command(subcommand)]
        command: TraceCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TraceCommand {
    /// Counts, groups, caches, peak and time span.
    Info(InfoArgs),
}

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// The most memory that the program may have from malloc: more is refused.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max: Option<u64>,
    /// A soft limit: charges above it are counted, and none is refused.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) high: Option<u64>,
    /// Where the report goes: a file, or - for standard output. Otherwise standard error.
    #[arg(long, value_name = "FILE")]
    pub(crate) stat: Option<PathBuf>,
    /// Report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// A group for each thread, named after it. Otherwise threads are in the group of whoever started them.
    #[arg(long, value_name = "WHAT", value_parser = ["thread"])]
    pub(crate) group_by: Option<String>,
    /// Processes that the program starts run so as well, each with the limits and a line in the report.
    #[arg(long)]
    pub(crate) children: bool,
    /// The program and its arguments.
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(after_help = COMPARE_EXAMPLES)]
pub(crate) struct CompareArgs {
    /// Traces; without any, traces/mixed.parquet of the repository.
    #[arg(value_name = "TRACE")]
    pub(crate) traces: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Which controllers, and in which order.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = one_of(ControllerKind::ALL, ControllerKind::name), default_value = "page-level,cache-level,object-level")]
    pub(crate) controllers: Vec<ControllerKind>,
    /// Which objects: those that are charged to a cgroup, or all in slabs.
    #[arg(long, value_name = "SCOPE", value_parser = one_of(Scope::ALL, Scope::name), default_value = "charged")]
    pub(crate) scope: Scope,
    /// Whose slabs: the recording kernel's, or what the engine would choose.
    #[arg(long, value_name = "WHOSE", value_parser = one_of(Geometry::ALL, Geometry::name), default_value = "kernel")]
    pub(crate) geometry: Geometry,
    /// Free objects kept at hand on each CPU (sheaves) as in production, or first fit.
    #[arg(long, value_name = "WHETHER", value_parser = one_of(SheafMode::ALL, SheafMode::name), default_value = "on")]
    pub(crate) sheaves: SheafMode,
    /// Write the time series as CSV.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Write a plot of utilisation and slab bytes against time as SVG.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = INFO_EXAMPLES)]
pub(crate) struct InfoArgs {
    /// Traces.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) traces: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl CompareArgs {
    pub(crate) fn settings(&self) -> Settings {
        Settings { scope: self.scope, geometry: self.geometry, sheaves: self.sheaves }
    }

    /// The controllers, each once.
    pub(crate) fn controllers(&self) -> Vec<ControllerKind> {
        let mut kinds = Vec::new();
        for &kind in &self.controllers {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds
    }
}

/// Accepts what the lab calls its choices.
fn one_of<T, const N: usize>(all: [T; N], name: fn(T) -> &'static str) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    PossibleValuesParser::new(all.map(name))
        .map(move |text| *all.iter().find(|choice| name(**choice) == text).expect("one of the possible values"))
}
