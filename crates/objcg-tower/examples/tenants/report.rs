//! What came of it: figures of the latencies, of each tenant and of the process, as a table or as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::AnyError;
use crate::arrivals::Arrivals;
use crate::latency::{Latencies, Ratio, Turns};
use crate::load::{Answer, Answers, BAD, Outcome, Plan, Rounds, Used};
use crate::server::Tenants;
use crate::tenant::MAX;

/// Rows of good tenants in the table; JSON has all.
const NR_GOOD_ROWS: usize = 5;
/// The p99 with somebody bad, in parts of that without, that is not to be passed.
const TO_REACH: f64 = 1.3;

pub(crate) struct Report {
    tenants: Vec<TenantRow>,
    arrivals: Arrivals,
    /// Of rounds; the first is the one in which nobody is bad.
    pub(crate) kinds: Vec<KindColumn>,
    pub(crate) rss: u64,
    /// What the process had before the first tenant.
    before: u64,
    pub(crate) limits: u64,
    /// Of kills with tasks: from the end of the last task until its memory was back.
    returns: Vec<Duration>,
}

/// The good tenants' answers in the rounds of one kind.
pub(crate) struct KindColumn {
    name: &'static str,
    used: Used,
    pub(crate) nr_requests: u64,
    pub(crate) nr_failed: u64,
    served: Latencies,
    read: Latencies,
    /// Against the rounds in which nobody is bad; they have none.
    ratio: Option<Ratio>,
    /// Of each round, and in their middle.
    p99s: Vec<Duration>,
    p99: Duration,
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

impl Report {
    /// Takes the tenants apart: each is dropped, and then what is left of it is read.
    pub(crate) fn new(plan: &Plan, outcome: Outcome, tenants: Tenants, before: u64, rss: u64) -> Report {
        let good = || outcome.rounds.iter().flatten().flatten();
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
                does: BAD.get(number).copied().unwrap_or("serve"),
                answers,
                peak: memcg.peak(),
                reclaimed,
                events: memcg.events(),
                latencies: (number >= BAD.len()).then(|| Latencies::of(own().map(|answer| answer.served))),
                left: memcg.usage(),
            }
        });
        let kinds = plan.kinds.iter().zip(&outcome.used).zip(&outcome.rounds);
        Report {
            tenants: rows.collect(),
            kinds: kinds
                .map(|((kind, used), rounds)| KindColumn::new(kind.name, *used, rounds, &outcome.rounds[0]))
                .collect(),
            rss,
            before,
            limits,
            arrivals: plan.arrivals,
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
        println!("… and {} more that serve, in `--json`", good.len().saturating_sub(NR_GOOD_ROWS));
        println!("\nrefused: {}", refusals(bad));
        println!("\ngood requests come at {} distances", self.arrivals.name());
        self.print_row(&format!("the {} good tenants; bad are:", good.len()), |kind| kind.name.to_owned());
        self.print_row("requests", |kind| kind.nr_requests.to_string());
        self.print_row("failed requests", |kind| kind.nr_failed.to_string());
        self.print_row("CPUs in use, with the clients", |kind| format!("{:.2}", kind.cpus_used()));
        self.print_row("p50 of all rounds", |kind| micros(kind.served.p50));
        self.print_row("p99 of all rounds", |kind| micros(kind.served.p99));
        self.print_row("p99 until a client has read it", |kind| micros(kind.read.p99));
        self.print_row("p99 of a round, median", |kind| micros(kind.p99));
        self.print_row("  / with nobody bad, median", |kind| {
            kind.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.2}", ratio.value))
        });
        self.print_row(&format!("  its 95 % interval (wanted: {TO_REACH})"), |kind| {
            kind.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.2} to {:.2}", ratio.low, ratio.high))
        });
        println!(
            "\nresident memory          {:>14} at most, {} of it before the first tenant",
            mib(self.rss),
            mib(self.before)
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

    fn print_row(&self, name: &str, cell: impl Fn(&KindColumn) -> String) {
        let cells = self.kinds.iter().map(|kind| format!("{:>14}", cell(kind))).collect::<String>();
        println!("{name:34}{cells}");
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "tenants": self.tenants.iter().map(TenantRow::json).collect::<Vec<_>>(),
            "arrivals": self.arrivals.name(),
            "good": self.kinds.iter().map(KindColumn::json).collect::<Vec<_>>(),
            "rss_bytes": self.rss,
            "rss_before_bytes": self.before,
            "limits_bytes": self.limits,
            "memory_back_micros": all_micros(&self.returns),
            "left_bytes": self.left(),
        })
    }
}

impl KindColumn {
    fn new(name: &'static str, used: Used, rounds: &Rounds, without: &Rounds) -> KindColumn {
        let answers = || rounds.iter().flatten();
        let is_baseline = std::ptr::eq(rounds, without);
        let p99s = served(rounds).into_iter().map(|round| Latencies::of(round.into_iter()).p99).collect::<Vec<_>>();
        KindColumn {
            name,
            used,
            nr_requests: answers().count() as u64,
            nr_failed: answers().filter(|answer| answer.status != 200).count() as u64,
            served: Latencies::of(answers().map(|answer| answer.served)),
            read: Latencies::of(answers().map(|answer| answer.read)),
            ratio: if is_baseline { None } else { Ratio::of_p99s(&served(rounds), &served(without)) },
            p99: Latencies::of(p99s.iter().copied()).p50,
            p99s,
        }
    }

    /// How many CPUs the whole process was using, its clients with it.
    fn cpus_used(&self) -> f64 {
        self.used.cpu.as_secs_f64() / self.used.time.as_secs_f64()
    }

    fn json(&self) -> Value {
        json!({
            "bad": self.name,
            "cpus_used": self.cpus_used(),
            "requests": self.nr_requests,
            "failed": self.nr_failed,
            "served": self.served.json(),
            "read": self.read.json(),
            "p99_ratio": self.ratio.map(|ratio| json!({ "value": ratio.value, "low": ratio.low, "high": ratio.high })),
            "p99_micros_of_rounds": all_micros(&self.p99s),
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

fn served(rounds: &Rounds) -> Turns {
    rounds.iter().map(|answers| answers.iter().map(|answer| answer.served).collect()).collect()
}

fn all_micros(times: &[Duration]) -> Vec<u64> {
    times.iter().map(|time| time.as_micros() as u64).collect()
}

fn statuses<'a>(answers: impl Iterator<Item = &'a Answer>) -> Answers {
    let mut statuses = Answers::new();
    answers.for_each(|answer| *statuses.entry(answer.status).or_default() += 1);
    statuses
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

/// What the kernel has counted of this process's resident memory: `VmRSS:` is now, `VmHWM:` is the most that it was.
pub(crate) fn resident_bytes(field: &str) -> Result<u64, AnyError> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)).ok_or_else(|| format!("no {field} in status"))?;
    let kib = line.trim().trim_end_matches(" kB").trim().parse::<u64>()?;
    Ok(kib * 1024)
}
