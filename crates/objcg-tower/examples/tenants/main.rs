//! A hundred tenants in one server, three of them bad: `cargo run --release --example tenants`.
//!
//! An axum server on the loopback interface. Each tenant has a group with limits and a cache that can be shrunk. One tenant leaks,
//! one asks for 10 GB, one spawns tasks without end; the others serve. Rounds in which nobody is bad, in which one tenant leaks,
//! in which another one does the same work and keeps nothing, and in which all three are bad alternate, so that the good tenants'
//! latencies can be compared. At the end the tenants are dropped, and nothing is charged to them any more.

mod arrivals;
mod client;
mod latency;
mod load;
mod report;
mod server;
mod tenant;
mod working_set;

use std::process::ExitCode;
use std::time::Duration;

use arrivals::Arrivals;
use client::Epoch;
use load::{ALL, BUSY, KINDS, Kind, LEAK, NONE, Plan};
use objcg::Objcg;
use report::{Report, resident_bytes};
use server::{Server, Tenants};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

pub(crate) type AnyError = Box<dyn std::error::Error + Send + Sync>;

const HELP: &str =
    "A hundred tenants in one server: one leaks, one asks for 10 GB, one spawns without end, the others serve.

Usage: tenants [--bad KIND]... [--arrivals HOW] [--json] [--help]

  --bad KIND  compares rounds in which this tenant is bad with rounds in which nobody is: leak, huge, spawn,
              or all for all three; or busy, in which a tenant does the work of the one that leaks and keeps nothing;
              unless it is said, `--bad leak --bad busy --bad all`
  --arrivals HOW
              when good requests come: random, as those of many who know nothing of each other (the default), or even,
              at the same distance, so that they seldom meet each other
  --json      prints the figures of all tenants and rounds as one JSON object
  --help      prints this";

const NR_TENANTS: usize = 100;
const NR_TURNS: usize = 12;
const ROUND: Duration = Duration::from_millis(800);
/// Between the requests of a connection.
const INTERVAL: Duration = Duration::from_millis(48);

/// The longest that a bad tenant is held back at a time.
const MAX_DELAY: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    if options.wants_help {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let plan = Plan {
        nr_tenants: NR_TENANTS,
        kinds: options.kinds,
        nr_turns: NR_TURNS,
        round: ROUND,
        arrivals: options.arrivals,
        interval: INTERVAL,
    };
    let nr_rounds = plan.nr_turns * plan.kinds.len();
    match run(&plan, |number| eprint!("\rround {:>2} of {nr_rounds}", number + 1)) {
        Ok(report) => {
            eprintln!();
            if options.is_json {
                println!("{:#}", report.json());
            } else {
                report.print();
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\n{error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    /// Of rounds; the first is the one in which nobody is bad.
    kinds: Vec<Kind>,
    arrivals: Arrivals,
    is_json: bool,
    wants_help: bool,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options { kinds: vec![NONE], arrivals: Arrivals::Random, is_json: false, wants_help: false };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bad" => {
                    let name = arguments.next().ok_or("--bad needs a kind")?;
                    let kind = KINDS.into_iter().find(|kind| kind.name == name);
                    let kind = kind.ok_or_else(|| format!("nobody is bad in the way of {name:?}"))?;
                    if !options.kinds.contains(&kind) {
                        options.kinds.push(kind);
                    }
                }
                "--arrivals" => {
                    let name = arguments.next().ok_or("--arrivals needs random or even")?;
                    let arrivals = Arrivals::of_name(&name);
                    options.arrivals =
                        arrivals.ok_or_else(|| format!("requests do not come {name:?}: random or even"))?;
                }
                "--json" => options.is_json = true,
                "--help" | "-h" => options.wants_help = true,
                other => return Err(format!("unknown argument {other:?}")),
            }
        }
        if options.kinds == [NONE] {
            options.kinds.extend([LEAK, BUSY, ALL]);
        }
        Ok(options)
    }
}

fn run(plan: &Plan, progress: impl FnMut(usize)) -> Result<Report, AnyError> {
    objcg::set_max_throttle_delay(MAX_DELAY);
    let before = resident_bytes("VmRSS:")?;
    let epoch = Epoch::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = runtime.block_on(Server::start(Tenants::new(plan.nr_tenants)?, epoch))?;
    let outcome = load::run(plan, server.address, epoch, progress);
    let rss = resident_bytes("VmHWM:")?;
    let tenants = runtime.block_on(server.stop())?;
    // What the runtime keeps for later is charged to whom it grew for.
    drop(runtime);
    Ok(Report::new(plan, outcome?, tenants, before, rss))
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    use super::load::{ALL, BUSY, Kind, LEAK, NONE};
    use super::{Arrivals, INTERVAL, Options, Plan, Report, run};

    /// The server's group has one name, and the memory that is resident is that of all that runs.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    /// Short rounds, until one ends the way that is waited for: where the machine is slow a bad tenant may be held back until the
    /// round is over.
    fn short_runs(kinds: &[Kind], is_wanted: impl Fn(&Report) -> bool) -> Report {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = Plan {
            nr_tenants: 100,
            kinds: kinds.to_vec(),
            nr_turns: 2,
            round: Duration::from_millis(400),
            arrivals: Arrivals::Random,
            // A server that is built for tests has enough to do with a tenth of the load: the bad ones must get their turn.
            interval: 10 * INTERVAL,
        };
        let mut runs = (0..10).map(|_| run(&plan, |_| {}).expect("the server and its clients run"));
        runs.find(is_wanted).expect("the tenants that leak and spawn are ended")
    }

    fn is_ended(report: &Report, bad: usize) -> bool {
        report.bad()[bad].answers.contains_key(&507)
    }

    fn nobody_else_fails(report: &Report) {
        assert!(report.kinds.iter().all(|kind| kind.nr_requests > 0));
        let nr_failed = report.kinds.iter().map(|kind| kind.nr_failed).sum::<u64>();
        assert_eq!(nr_failed, 0, "of the good requests");
        assert_eq!(report.left(), 0, "bytes are left in the groups");
    }

    #[test]
    fn bad_tenants_get_their_errors_and_nobody_else_does() {
        let report = short_runs(&[NONE, ALL], |report| is_ended(report, 0) && is_ended(report, 2));
        let [leak, huge, spawn, busy] = report.bad() else { panic!("three bad tenants and a busy one") };
        assert!(leak.events.oom_kill > 0);
        assert_eq!(huge.answers.keys().collect::<Vec<_>>(), [&413], "it asks for too much, and that is all");
        assert_eq!(huge.events.oom_kill, 0);
        assert!(spawn.events.oom_kill > 0);
        assert!(busy.answers.is_empty(), "it is not asked");
        nobody_else_fails(&report);
    }

    #[test]
    fn one_tenant_that_leaks_gets_its_errors_and_nobody_else_does() {
        let report = short_runs(&[NONE, LEAK], |report| is_ended(report, 0));
        let [leak, huge, spawn, busy] = report.bad() else { panic!("three bad tenants and a busy one") };
        assert!(leak.events.oom_kill > 0);
        assert!([huge, spawn, busy].iter().all(|tenant| tenant.answers.is_empty()), "they are not asked");
        let allowed = report.limits + report.limits / 10;
        assert!(report.rss < allowed, "{} bytes are resident, {allowed} allowed", report.rss);
        nobody_else_fails(&report);
    }

    #[test]
    fn one_tenant_that_is_busy_meets_no_limit() {
        let report = short_runs(&[NONE, BUSY], |report| !report.bad()[3].answers.is_empty());
        let [.., busy] = report.bad() else { panic!("a busy tenant") };
        assert_eq!(busy.answers.keys().collect::<Vec<_>>(), [&200]);
        assert_eq!(busy.events, objcg::Events::default());
        nobody_else_fails(&report);
    }

    #[test]
    fn kinds_of_rounds_are_those_that_are_asked_for_once_each() {
        let kinds_of = |arguments: &[&str]| {
            let options = Options::parse(arguments.iter().map(|argument| (*argument).to_owned()));
            options.map(|options| options.kinds.iter().map(|kind| kind.name).collect::<Vec<_>>())
        };
        assert_eq!(kinds_of(&[]).unwrap(), ["none", "leak", "busy", "all"]);
        assert_eq!(kinds_of(&["--bad", "spawn", "--json", "--bad", "spawn"]).unwrap(), ["none", "spawn"]);
        assert!(kinds_of(&["--bad", "none"]).is_err());
        assert!(kinds_of(&["--bad"]).is_err());
        assert!(kinds_of(&["leak"]).is_err());
    }

    #[test]
    fn good_requests_come_as_is_asked() {
        let arrivals_of = |arguments: &[&str]| {
            let options = Options::parse(arguments.iter().map(|argument| (*argument).to_owned()));
            options.map(|options| options.arrivals)
        };
        assert_eq!(arrivals_of(&[]), Ok(Arrivals::Random));
        assert_eq!(arrivals_of(&["--arrivals", "even"]), Ok(Arrivals::Even));
        assert!(arrivals_of(&["--arrivals", "seldom"]).is_err());
        assert!(arrivals_of(&["--arrivals"]).is_err());
    }
}
