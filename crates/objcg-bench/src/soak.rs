//! `objcg-bench soak`: hours of a server's mix in a process of its own, watched from here.
//!
//! The process (`objcg-soak`) checks the invariants each second and says how much memory there is: `process` listens. Here
//! it is judged: `trend` says whether memory held grows over the second half, when the caches are full. `show` prints it.

mod process;
#[path = "../../objcg-soak/src/protocol.rs"]
mod protocol;
mod show;
mod trend;

use std::time::{Duration, SystemTime};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::SoakArgs;
use crate::format;
use crate::machine::Machine;
use crate::run::Outcome;
use protocol::{Counts, Line, Order, Sample};
use trend::{Trend, Verdict};

/// All that was found.
#[derive(Serialize)]
struct Findings {
    machine: Machine,
    seed: u64,
    /// Seconds that were asked for.
    nr_seconds: u32,
    /// Quiet points at which all invariants held.
    nr_checks: usize,
    /// Bytes that the engine held at the end, when all was freed.
    held_at_end: Option<u64>,
    #[serde(skip)]
    samples: Vec<Sample>,
    #[serde(skip)]
    counts: Counts,
    trends: Vec<Named>,
    /// What was wrong; empty if nothing was.
    failures: Vec<String>,
}

/// A series, and what it does in the second half.
#[derive(Serialize)]
struct Named {
    name: &'static str,
    #[serde(flatten)]
    trend: Trend,
}

/// A series by name, and its value in a sample.
type Series = (&'static str, fn(&Sample) -> f64);

/// The series that must not grow.
const SERIES: [Series; 4] = [
    ("resident", |sample| sample.resident as f64),
    ("held by the engine", |sample| sample.held as f64),
    ("held and not live", |sample| sample.held as f64 - sample.live as f64),
    ("vessels", |sample| sample.vessels as f64),
];
/// The last of them counts; the others are bytes.
const VESSELS: &str = "vessels";

pub(crate) fn run(args: &SoakArgs) -> Result<Outcome> {
    let order = Order {
        nr_seconds: args.nr_seconds(),
        seed: args.seed.unwrap_or_else(seed_of_the_clock),
        leak_bytes: args.leak,
    };
    let findings = soak(&order)?;
    let text = if args.json { show::json(&findings)? } else { show::text(&findings) };
    crate::print(&text)?;
    for failure in &findings.failures {
        eprintln!("objcg-bench: soak with seed {}: {failure}", order.seed);
    }
    Ok(if findings.failures.is_empty() { Outcome::Complete } else { Outcome::Incomplete })
}

fn seed_of_the_clock() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64 % 1_000_000_000)
}

fn soak(order: &Order) -> Result<Findings> {
    let bar = ProgressBar::new(u64::from(order.nr_seconds)).with_prefix("soaking");
    bar.set_style(ProgressStyle::with_template("{prefix} {wide_bar} {pos} of {len} s {msg}").expect("it parses"));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar.set_message("building");
    let binary = process::build()?;
    bar.set_message(format!("seed {}", order.seed));

    let mut samples: Vec<Sample> = Vec::new();
    let mut end = None;
    let outcome = process::run(&binary, order, |line| match line {
        Line::Sample(sample) => {
            bar.set_position(sample.second);
            let resident = format::bytes(sample.resident as f64);
            bar.set_message(format!("{resident}, {} allocations", show::count(sample.counts.allocations)));
            samples.push(sample);
        }
        Line::End(counts, held) => end = Some((counts, held)),
    });
    bar.finish_and_clear();
    Ok(judge(order, samples, end, outcome.err().map(|error| format!("{error:#}"))))
}

/// What there is to be said of the samples.
fn judge(order: &Order, samples: Vec<Sample>, end: Option<(Counts, u64)>, failure: Option<String>) -> Findings {
    let second_half = &samples[samples.len() / 2..];
    let trend_of = |(name, value): &(&'static str, fn(&Sample) -> f64)| Named {
        name,
        trend: Trend::of(&second_half.iter().map(value).collect::<Vec<_>>()),
    };
    let trends: Vec<Named> = SERIES.iter().map(trend_of).collect();
    let mut failures: Vec<String> = failure.into_iter().collect();
    if failures.is_empty() && end.is_none() {
        failures.push("it ended without a last line".to_owned());
    }
    let grown = trends.iter().filter(|named| named.trend.verdict == Verdict::Grows);
    failures.extend(grown.map(|named| {
        let Trend { median, growth, allowed, .. } = named.trend;
        let number = show::number_of(named.name);
        let (median, growth, allowed) = (number(median), number(growth), number(allowed));
        format!("{} grows: by {growth} over the second half, about {median}; chance allows {allowed}", named.name)
    }));
    let counts =
        end.map_or_else(|| samples.last().map_or_else(Counts::default, |last| last.counts), |(counts, _)| counts);
    Findings {
        machine: Machine::here(),
        seed: order.seed,
        nr_seconds: order.nr_seconds,
        nr_checks: samples.len(),
        held_at_end: end.map(|(_, held)| held),
        samples,
        counts,
        trends,
        failures,
    }
}

#[cfg(test)]
mod tests {
    use super::protocol::{Counts, Line, Order, Sample};
    use super::{Verdict, judge};

    const ORDER: Order = Order { nr_seconds: 100, seed: 1, leak_bytes: 0 };

    fn samples(resident: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |second| Sample { second, resident: resident(second), held: 1000, live: 500, ..Sample::default() };
        (1..=100).map(sample).collect()
    }

    #[test]
    fn a_run_without_a_trend_is_fine() {
        // It grows for the first half: caches fill.
        let findings = judge(&ORDER, samples(|second| 1_000_000 * second.min(50)), Some((Counts::default(), 7)), None);
        assert_eq!(findings.failures, Vec::<String>::new());
        assert_eq!((findings.nr_checks, findings.held_at_end), (100, Some(7)));
    }

    #[test]
    fn growth_fails_the_run_and_is_named() {
        let findings = judge(&ORDER, samples(|second| 1_000_000 * second), Some((Counts::default(), 7)), None);
        assert_eq!(findings.trends[0].trend.verdict, Verdict::Grows);
        assert_eq!(findings.failures.len(), 1);
        assert!(
            findings.failures[0].starts_with("resident grows: by 46.7 MiB over the second half"),
            "{findings:?}",
            findings = findings.failures
        );
    }

    #[test]
    fn a_broken_invariant_and_a_missing_end_fail_the_run() {
        let broken = judge(&ORDER, Vec::new(), None, Some("I1: usage".to_owned()));
        assert_eq!(broken.failures, ["I1: usage"]);
        let cut = judge(&ORDER, samples(|_| 1), None, None);
        assert_eq!(cut.failures, ["it ended without a last line"]);
    }

    #[test]
    fn lines_and_orders_come_back_from_their_text() {
        let counts = Counts {
            requests: 1,
            allocations: 2,
            refusals: 3,
            tenants: 4,
            bursts: 5,
            forks: 6,
            threads: 7,
            compared: 8,
        };
        let sample =
            Sample { second: 9, resident: 10, held: 11, live: 12, usage: 13, vessels: 14, pause_us: 15, counts };
        assert_eq!(Line::decode(&sample.encode()), Ok(Line::Sample(sample)));
        assert_eq!(Line::decode(&counts.encode_end(16)), Ok(Line::End(counts, 16)));
        assert_eq!(Order::decode(&ORDER.encode()), Ok(ORDER));
        assert!(Line::decode("sample second=1").is_err() && Line::decode("hello").is_err());
        assert!(Order::decode(&["seconds=0".to_owned(), "seed=1".to_owned(), "leak=0".to_owned()]).is_err());
    }
}
