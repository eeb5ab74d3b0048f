//! The options of the command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use objcg_lab::{ControllerKind, Geometry, Scope, Settings, SheafMode};

const EXAMPLES: &str = "\
Examples:
  objcg                                          replay the trace carried in the repository
  objcg compare --json --sheaves off FILE...     first fit, as JSON
  objcg compare --scope all --plot out.svg FILE  charged and uncharged objects, with a plot
  objcg trace info FILE                          what a trace holds";

const COMPARE_EXAMPLES: &str = "\
Examples:
  objcg compare
  objcg compare --json --sheaves off traces/mixed.parquet
  objcg compare --controllers cache-level,object-level --csv out.csv traces/mixed.parquet
  objcg compare --scope all --geometry engine --plot out.svg traces/mixed.parquet";

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
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "page-level,cache-level,object-level")]
    pub(crate) controllers: Vec<ControllerArg>,
    /// Which objects: those that are charged to a cgroup, or all in slabs.
    #[arg(long, value_name = "SCOPE", default_value = "charged")]
    pub(crate) scope: ScopeArg,
    /// Whose slabs: the recording kernel's, or what the engine would choose.
    #[arg(long, value_name = "WHOSE", default_value = "kernel")]
    pub(crate) geometry: GeometryArg,
    /// Per-CPU sheaves as in production, or first fit.
    #[arg(long, value_name = "WHETHER", default_value = "on")]
    pub(crate) sheaves: SheavesArg,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ControllerArg {
    PageLevel,
    CacheLevel,
    ObjectLevel,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ScopeArg {
    Charged,
    All,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum GeometryArg {
    Kernel,
    Engine,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SheavesArg {
    On,
    Off,
}

impl CompareArgs {
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            scope: match self.scope {
                ScopeArg::Charged => Scope::Charged,
                ScopeArg::All => Scope::All,
            },
            geometry: match self.geometry {
                GeometryArg::Kernel => Geometry::Kernel,
                GeometryArg::Engine => Geometry::Engine,
            },
            sheaves: match self.sheaves {
                SheavesArg::On => SheafMode::On,
                SheavesArg::Off => SheafMode::Off,
            },
        }
    }

    /// The controllers, each once.
    pub(crate) fn controllers(&self) -> Vec<ControllerKind> {
        let mut kinds = Vec::new();
        for argument in &self.controllers {
            let kind = match argument {
                ControllerArg::PageLevel => ControllerKind::PageLevel,
                ControllerArg::CacheLevel => ControllerKind::CacheLevel,
                ControllerArg::ObjectLevel => ControllerKind::ObjectLevel,
            };
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds
    }
}
