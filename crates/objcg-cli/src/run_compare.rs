//! `objcg compare`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use objcg_lab::{Comparison, Report, Trace, compare};

use crate::args::CompareArgs;
use crate::output::{self, Destination};
use crate::{plot, series_csv, table};

/// The trace that the repository carries, from its root.
const OWN_TRACE: &str = "traces/mixed.parquet";

pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    let csv = args.csv.as_deref().map(Destination::check).transpose()?;
    let svg = args.plot.as_deref().map(Destination::check).transpose()?;
    let traces = traces(args)?;
    check_distinct(csv.as_ref(), svg.as_ref(), &traces)?;

    let mut comparisons = Vec::new();
    for path in traces {
        comparisons.push(compare_one(&path, args)?);
    }

    // Everything is rendered before anything is put in its place.
    let csv = csv.map(|file| anyhow::Ok((file, series_csv::render(&comparisons)?))).transpose()?;
    let svg = svg.map(|file| anyhow::Ok((file, plot::render(&comparisons)?.into_bytes()))).transpose()?;
    let text = render(&comparisons, args)?;
    for (file, content) in csv.into_iter().chain(svg) {
        file.write(&content)?;
    }
    output::print(&text)
}

/// A recording cannot be made again: no output may take its place, nor that of the other output.
fn check_distinct(csv: Option<&Destination<'_>>, svg: Option<&Destination<'_>>, traces: &[PathBuf]) -> Result<()> {
    for output in csv.into_iter().chain(svg) {
        if traces.iter().any(|trace| output.replaces(trace)) {
            anyhow::bail!("{}: would replace the trace", output.path().display());
        }
    }
    if let (Some(csv), Some(svg)) = (csv, svg)
        && csv.replaces(svg.path())
    {
        anyhow::bail!("{}: named for both --csv and --plot", svg.path().display());
    }
    Ok(())
}

fn traces(args: &CompareArgs) -> Result<Vec<PathBuf>> {
    if !args.traces.is_empty() {
        return Ok(args.traces.clone());
    }
    let here = Path::new(OWN_TRACE);
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(OWN_TRACE);
    if here.exists() {
        Ok(vec![here.to_owned()])
    } else if let Ok(built_from) = built_from.canonicalize() {
        Ok(vec![built_from])
    } else {
        anyhow::bail!("no trace given, and {OWN_TRACE} is neither here nor where objcg was built")
    }
}

fn compare_one(path: &Path, args: &CompareArgs) -> Result<Comparison> {
    // Hidden by itself unless stderr is a terminal.
    let bar = ProgressBar::new_spinner().with_prefix("reading");
    bar.set_style(ProgressStyle::with_template("{prefix} {wide_bar} {percent:>3} % {msg:12}")?);
    // Reading is too short for a bar of its own, and long enough to wonder.
    bar.tick();
    let trace = Trace::open(path)?;
    bar.set_prefix(trace.name());
    let comparison = compare(&trace, &args.controllers(), args.settings(), &mut |progress| {
        bar.set_length(progress.total);
        bar.set_message(progress.controller.name());
        bar.set_position(progress.done);
    });
    bar.finish_and_clear();
    comparison.with_context(|| path.display().to_string())
}

fn render(comparisons: &[Comparison], args: &CompareArgs) -> Result<String> {
    let traces: Vec<_> = comparisons.iter().map(|comparison| comparison.report.clone()).collect();
    if args.json {
        return Ok(serde_json::to_string_pretty(&Report { traces })? + "\n");
    }
    Ok(traces.iter().map(table::render).collect::<Vec<_>>().join("\n"))
}
