//! The options of the command.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

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
  objcg-bench list                                what there is";

const LIST_EXAMPLES: &str = "\
Examples:
  objcg-bench list
  objcg-bench list --json";

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
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
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
    /// How often each process runs; without, as often as suits the workload: 5 to 15 times, 2 to 7 with --quick.
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

fn rival_by_name() -> impl TypedValueParser<Value = &'static Rival> {
    PossibleValuesParser::new(RIVALS.iter().map(|rival| rival.name))
        .map(|name| RIVALS.iter().find(|rival| rival.name == name).expect("one of the possible values"))
}
