//! Runs the plan: builds workers, lets their processes take turns, shows what they found.

use std::fs;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::RunArgs;
use crate::figures::{Figures, Measurement};
use crate::machine::Machine;
use crate::plan::{Series, Step, sweeps};
use crate::protocol::Answer;
use crate::report::{Failure, Report};
use crate::rivals::Rival;
use crate::workers::{Process, Worker};
use crate::{plot, table};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Complete,
    /// Some allocator did not build, or some worker died.
    Incomplete,
}

/// All that a run found.
pub(crate) struct Findings {
    pub(crate) machine: Machine,
    pub(crate) baseline: Series,
    pub(crate) scale: &'static str,
    pub(crate) rivals: Vec<&'static Rival>,
    pub(crate) figures: Figures,
    pub(crate) failures: Vec<Failure>,
}

pub(crate) fn run(args: &RunArgs) -> Result<Outcome> {
    let baseline = args.baseline()?;
    if let Some(folder) = &args.plot {
        // Before the work, so that a bad one fails at once.
        fs::create_dir_all(folder).with_context(|| format!("{}: cannot be written", folder.display()))?;
    }
    let mut findings = Findings {
        machine: Machine::here(),
        baseline: Series { rival: baseline, mode: baseline.modes()[0] },
        scale: args.scale().name(),
        rivals: args.rivals(),
        figures: Figures::default(),
        failures: Vec::new(),
    };
    let plan = sweeps(&args.workloads(), &findings.rivals, args.scale(), args.rounds);
    let workers = build(&plan, &mut findings);
    measure(&plan, &workers, &mut findings);
    if findings.figures.is_empty() {
        let reasons: Vec<_> = findings.failures.iter().map(Failure::line).collect();
        let reasons = if reasons.is_empty() { "nobody takes part".to_owned() } else { reasons.join("; ") };
        anyhow::bail!("nothing was measured: {reasons}");
    }
    let text = if args.json {
        serde_json::to_string_pretty(&Report::of(&findings))? + "\n"
    } else {
        table::render(&findings, args.style())
    };
    crate::print(&text)?;
    if let Some(folder) = &args.plot {
        for (name, svg) in plot::render(&findings.figures)? {
            let path = folder.join(name);
            fs::write(&path, svg).with_context(|| format!("{}: cannot be written", path.display()))?;
        }
    }
    Ok(if findings.failures.is_empty() { Outcome::Complete } else { Outcome::Incomplete })
}

/// Builds the workers that the plan needs, as many at a time as there are CPUs: much of it is configure scripts.
fn build(plan: &[Vec<Step>], findings: &mut Findings) -> Vec<(&'static Rival, Worker)> {
    let takes_part = |rival: &&'static Rival| plan.iter().flatten().any(|step| step.series.rival == *rival);
    let needed: Vec<_> = findings.rivals.iter().copied().filter(takes_part).collect();
    let bar = ProgressBar::new(needed.len() as u64).with_prefix("building");
    bar.set_style(style());
    // Compiling takes a while, in which the bar must not look dead.
    bar.enable_steady_tick(Duration::from_millis(200));
    let waiting = Mutex::new(needed.iter());
    let built = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..findings.machine.cpus {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("nothing panics with it").next();
                    let Some(rival) = next else { break };
                    bar.set_message(rival.name);
                    let outcome = Worker::build(rival);
                    built.lock().expect("nothing panics with it").push((*rival, outcome));
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut workers = Vec::new();
    for (rival, outcome) in built.into_inner().expect("nothing panics with it") {
        match outcome {
            Ok(worker) => workers.push((rival, worker)),
            Err(error) => {
                let failure = Failure { what: format!("{} does not build", rival.name), reason: format!("{error:#}") };
                eprintln!("objcg-bench: {}\n{}", failure.what, failure.reason);
                findings.failures.push(failure);
            }
        }
    }
    workers
}

/// Runs the processes of those allocators that were built.
fn measure(plan: &[Vec<Step>], workers: &[(&'static Rival, Worker)], findings: &mut Findings) {
    let nr_steps = plan.iter().map(Vec::len).sum::<usize>();
    let bar = ProgressBar::new(nr_steps as u64).with_prefix("measuring");
    bar.set_style(style());
    for sweep in plan {
        let mut running = Vec::new();
        for step in sweep {
            let Some((_, worker)) = workers.iter().find(|(rival, _)| *rival == step.series.rival) else {
                // It did not build, which is a failure already.
                bar.inc(1);
                continue;
            };
            match worker.start(&step.job) {
                Ok(process) => running.push((step, process)),
                Err(error) => findings.fail(step, &error, &bar),
            }
        }
        while !running.is_empty() {
            go_around(&mut running, findings, &bar);
        }
    }
    bar.finish_and_clear();
}

/// Lets each process have a turn, or all that are left their rest; those that have answered are gone then.
fn go_around(running: &mut Vec<(&Step, Process)>, findings: &mut Findings, bar: &ProgressBar) {
    // Who is at rest waits for the others, whose turns it would disturb.
    let all_rest = running.iter().all(|(_, process)| process.is_at_rest());
    if all_rest {
        running.iter_mut().for_each(|(_, process)| process.go_on());
    }
    running.retain_mut(|(step, process)| {
        if !all_rest && process.is_at_rest() {
            return true;
        }
        if !all_rest {
            bar.set_message(format!("{} {}", step.workload.name, step.series.name()));
            process.go_on();
        }
        match process.hear() {
            Ok(None) => return true,
            Ok(Some(answer)) => findings.add(step, answer, bar),
            Err(error) => findings.fail(step, &error, bar),
        }
        false
    });
}

impl Findings {
    /// Notes what a process answered.
    fn add(&mut self, step: &Step, answer: Answer, bar: &ProgressBar) {
        let (variant, series, round) = (step.job.variant.clone(), step.series, step.round);
        self.figures.add(Measurement { workload: step.workload, variant, series, round, answer });
        bar.inc(1);
    }

    /// Notes that a process did not answer, and says so.
    fn fail(&mut self, step: &Step, error: &anyhow::Error, bar: &ProgressBar) {
        let variant = if step.job.variant == "-" { "" } else { &step.job.variant };
        let what = [step.workload.name, variant, &step.series.name()].join(" ").replace("  ", " ");
        let failure = Failure { what: format!("{what}, round {}", step.round), reason: format!("{error:#}") };
        bar.suspend(|| eprintln!("objcg-bench: {}", failure.line()));
        self.failures.push(failure);
        bar.inc(1);
    }
}

/// How progress looks.
pub(crate) fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} {wide_bar} {pos} of {len} {msg:28}").expect("a template that parses")
}
