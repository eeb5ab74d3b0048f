//! What came of it: figures of the latencies, of each tenant and of the process, as a table or as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::AnyError;
use crate::load::{Answer, Answers, BAD, Outcome};
use crate::server::Tenants;
use crate::tenant::MAX;

/// Rows of good tenants in the table; JSON has all.
const NR_GOOD_ROWS: usize = 5;

pub(crate) struct Report {
    tenants: Vec<TenantRow>,
    quiet: Latencies,
    noisy: Latencies,
    /// The median over the pairs of p99 with the bad tenants / p99 without.
    ratio: f64,
    pub(crate) nr_failed: u64,
    pub(crate) nr_requests: u64,
    rss: u64,
    /// Without what the process had before the first tenant.
    grown: u64,
    limits: u64,
    /// Of kills with tasks: from the end of the last task until its memory was back.
    returns: Vec<Duration>,
}

pub(crate) struct TenantRow {
    pub(crate) name: String,
    pub(crate) does: &'static str,
    pub(crate) answers: Answers,
    peak: u64,
    reclaimed: u64,
    pub(crate) events: objcg::Events,
    /// Those of the bad are not measured.
    latencies: Option<Latencies>,
    /// Bytes that are charged once the tenant is gone.
    pub(crate) left: u64,
}

#[derive(Clone, Copy, Default)]
struct Latencies {
    p50: Duration,
    p99: Duration,
}

impl Latencies {
    fn of<'a>(answers: impl Iterator<Item = &'a Answer>) -> Latencies {
        let mut sorted = answers.map(|answer| answer.latency).collect::<Vec<_>>();
        sorted.sort_unstable();
        let at = |share: usize| sorted.get(sorted.len() * share / 100).copied().unwrap_or_default();
        Latencies { p50: at(50), p99: at(99) }
    }
}

impl Report {
    /// Takes the tenants apart: each is dropped, and then what is left of it is read.
    pub(crate) fn new(outcome: &Outcome, tenants: Tenants, before: u64, rss: u64) -> Report {
        let good = || outcome.pairs.iter().flat_map(|pair| pair.quiet.iter().chain(&pair.noisy));
        let mut returns = tenants.returns.into_inner().expect("nobody panics with it");
        returns.sort_unstable();
        let limits = tenants.all.len() as u64 * MAX;
        let rows = tenants.all.into_iter().enumerate().map(|(number, tenant)| {
            let own = || good().filter(move |answer| answer.tenant == number);
            let answers = outcome.bad.get(number).cloned().unwrap_or_else(|| statuses(own()));
            let (memcg, name) = (tenant.memcg.clone(), tenant.name.clone());
            let reclaimed = tenant.reclaimed_bytes();
            drop(tenant);
            memcg.drain();
            TenantRow {
                name,
                does: BAD.get(number).copied().unwrap_or("read"),
                answers,
                peak: memcg.peak(),
                reclaimed,
                events: memcg.events(),
                latencies: (number >= BAD.len()).then(|| Latencies::of(own())),
                left: memcg.usage(),
            }
        });
        Report {
            tenants: rows.collect(),
            quiet: Latencies::of(outcome.pairs.iter().flat_map(|pair| &pair.quiet)),
            noisy: Latencies::of(outcome.pairs.iter().flat_map(|pair| &pair.noisy)),
            ratio: median_ratio(outcome),
            nr_failed: good().filter(|answer| answer.status != 200).count() as u64,
            nr_requests: good().count() as u64,
            rss,
            grown: rss.saturating_sub(before),
            limits,
            returns,
        }
    }

    pub(crate) fn bad(&self) -> &[TenantRow] {
        &self.tenants[..BAD.len()]
    }

    pub(crate) fn left(&self) -> u64 {
        self.tenants.iter().map(|tenant| tenant.left).sum()
    }

    pub(crate) fn print(&self) {
        println!(
            "\n{:12} {:6} {:>8} {:>7} {:>6} {:>6} {:>6} {:>6} {:>6} {:>9} {:>9} {:>8} {:>8}",
            "tenant", "does", "peak", "shrunk", "high", "max", "oom", "kill", "200", "refused", "left", "p50", "p99"
        );
        let (bad, good) = (self.bad(), &self.tenants[BAD.len()..]);
        bad.iter().chain(good.iter().take(NR_GOOD_ROWS)).for_each(TenantRow::print);
        println!("… and {} more that read, in `--json`", good.len().saturating_sub(NR_GOOD_ROWS));
        println!("\nrefused: {}", refusals(bad));
        println!("\nthe {} good tenants        without the bad    with the bad", good.len());
        println!("  p50                    {:>14}  {:>14}", micros(self.quiet.p50), micros(self.noisy.p50));
        println!("  p99                    {:>14}  {:>14}", micros(self.quiet.p99), micros(self.noisy.p99));
        println!("  p99 with / without     {:>14.2} (median of the pairs of rounds; to reach: 1.3)", self.ratio);
        println!("  failed requests        {:>14} of {}", self.nr_failed, self.nr_requests);
        println!(
            "resident memory          {:>14} at most, {} of it before the first tenant",
            mib(self.rss),
            mib(self.rss - self.grown)
        );
        println!("sum of limits            {:>14}", mib(self.limits));
        if let (Some(last), Some(middle)) = (self.returns.last(), self.returns.get(self.returns.len() / 2)) {
            println!(
                "memory of killed tasks   {:>14} after the end of the last (median of {}; at most {})",
                micros(*middle),
                self.returns.len(),
                micros(*last)
            );
        }
        println!("left in the groups       {:>14} bytes", self.left());
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "tenants": self.tenants.iter().map(TenantRow::json).collect::<Vec<_>>(),
            "good": {
                "requests": self.nr_requests,
                "failed": self.nr_failed,
                "without_bad": self.quiet.json(),
                "with_bad": self.noisy.json(),
                "p99_ratio": self.ratio,
            },
            "rss_bytes": self.rss,
            "rss_grown_bytes": self.grown,
            "limits_bytes": self.limits,
            "memory_back_micros": self.returns.iter().map(Duration::as_micros).map(|micros| micros as u64).collect::<Vec<_>>(),
            "left_bytes": self.left(),
        })
    }
}

impl TenantRow {
    fn print(&self) {
        let nr_good = self.answers.get(&200).copied().unwrap_or(0);
        let nr_all = self.answers.values().sum::<u64>();
        println!(
            "{:12} {:6} {:>8} {:>7} {:>6} {:>6} {:>6} {:>6} {:>6} {:>9} {:>9} {:>8} {:>8}",
            self.name,
            self.does,
            mib(self.peak),
            mib(self.reclaimed),
            self.events.high,
            self.events.max,
            self.events.oom,
            self.events.oom_kill,
            nr_good,
            nr_all - nr_good,
            self.left,
            self.latencies.map_or_else(|| "-".to_owned(), |latencies| micros(latencies.p50)),
            self.latencies.map_or_else(|| "-".to_owned(), |latencies| micros(latencies.p99)),
        );
    }

    fn json(&self) -> Value {
        let answers = self.answers.iter().map(|(status, nr)| (status.to_string(), json!(nr)));
        json!({
            "name": self.name,
            "does": self.does,
            "answers": answers.collect::<serde_json::Map<_, _>>(),
            "peak_bytes": self.peak,
            "reclaimed_bytes": self.reclaimed,
            "events": {
                "high": self.events.high,
                "max": self.events.max,
                "oom": self.events.oom,
                "oom_kill": self.events.oom_kill,
            },
            "latency": self.latencies.map(|latencies| latencies.json()),
            "left_bytes": self.left,
        })
    }
}

impl Latencies {
    fn json(&self) -> Value {
        json!({ "p50_micros": self.p50.as_micros() as u64, "p99_micros": self.p99.as_micros() as u64 })
    }
}

fn statuses<'a>(answers: impl Iterator<Item = &'a Answer>) -> Answers {
    let mut statuses = Answers::new();
    answers.for_each(|answer| *statuses.entry(answer.status).or_default() += 1);
    statuses
}

fn median_ratio(outcome: &Outcome) -> f64 {
    let p99 = |answers: &[Answer]| Latencies::of(answers.iter()).p99.as_secs_f64();
    let mut ratios = outcome.pairs.iter().map(|pair| p99(&pair.noisy) / p99(&pair.quiet)).collect::<Vec<_>>();
    ratios.sort_unstable_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
}

fn refusals(bad: &[TenantRow]) -> String {
    let of = |row: &TenantRow| {
        let refused = row.answers.iter().filter(|(status, _)| **status != 200);
        let list = refused.map(|(status, nr)| format!("{nr} times {status}")).collect::<Vec<_>>().join(", ");
        format!("{} got {}", row.does, if list.is_empty() { "nothing" } else { &list })
    };
    bad.iter().map(of).collect::<Vec<_>>().join("; ")
}

fn mib(nr_bytes: u64) -> String {
    format!("{:.1}M", nr_bytes as f64 / (1 << 20) as f64)
}

fn micros(time: Duration) -> String {
    format!("{} us", time.as_micros())
}

/// Resident bytes of this process.
pub(crate) fn resident_bytes() -> Result<u64, AnyError> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).ok_or("no Rss in smaps_rollup")?;
    let kib = line.trim().trim_end_matches(" kB").trim().parse::<u64>()?;
    Ok(kib * 1024)
}
