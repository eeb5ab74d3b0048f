//! The options of the command.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use objcg_lab::{ControllerKind, Geometry, Scope, Settings, SheafMode};

const EXAMPLES: &str = "\
Examples:
  objcg                                       replay the repository's own trace
  objcg compare --json --sheaves off FILE...  first fit, as JSON
  objcg compare --scope all --plot x.svg      charged objects or not, with a plot
  objcg trace info FILE                       what a trace holds";

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

/// Replay recorded kernel allocations under three ways of accounting, and see what each costs.
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
