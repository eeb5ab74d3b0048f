//! A hundred tenants in one server, three of them bad: `cargo run --release --example tenants`.
//!
//! An axum server on the loopback interface. Each tenant has a group with limits and a cache that can be shrunk. One tenant leaks,
//! one asks for 10 GB, one spawns tasks without end; the others read. Rounds with and without the bad ones alternate, so that the
//! good tenants' latencies can be compared. At the end the tenants are dropped, and nothing is charged to them any more.

mod load;
mod report;
mod server;
mod tenant;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use load::Plan;
use objcg::Objcg;
use report::{Report, resident_bytes};
use server::{Server, Tenants};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

pub(crate) type AnyError = Box<dyn std::error::Error + Send + Sync>;

const HELP: &str =
    "A hundred tenants in one server: one leaks, one asks for 10 GB, one spawns without end, the others read.

Usage: tenants [--json] [--help]

  --json  prints the figures of all tenants as one JSON object
  --help  prints this";

const FULL: Plan = Plan { nr_tenants: 100, nr_pairs: 12, round: Duration::from_millis(500) };

/// The longest that a bad tenant is held back at a time.
const MAX_DELAY: Duration = Duration::from_millis(20);
/// Between two looks at resident memory.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let mut is_json = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => is_json = true,
            "--help" | "-h" => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            other => {
                eprintln!("unknown argument {other:?}\n\n{HELP}");
                return ExitCode::from(2);
            }
        }
    }
    let progress = |number: usize| eprint!("\rpair of rounds {:>2} of {}", number + 1, FULL.nr_pairs);
    match run(&FULL, progress) {
        Ok(report) => {
            eprintln!();
            if is_json {
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

fn run(plan: &Plan, progress: impl FnMut(usize)) -> Result<Report, AnyError> {
    objcg::set_max_throttle_delay(MAX_DELAY);
    let before = resident_bytes()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = runtime.block_on(Server::start(Tenants::new(plan.nr_tenants)?))?;
    let is_over = AtomicBool::new(false);
    let (outcome, rss) = thread::scope(|scope| {
        let watcher = scope.spawn(|| most_resident(&is_over));
        let outcome = load::run(plan, server.address, progress);
        is_over.store(true, Ordering::Relaxed);
        (outcome, watcher.join().map_err(|_| "the watcher of memory panicked"))
    });
    let tenants = runtime.block_on(server.stop())?;
    // What the runtime keeps for later is charged to whom it grew for.
    drop(runtime);
    Ok(Report::new(&outcome?, tenants, before, rss??))
}

fn most_resident(is_over: &AtomicBool) -> Result<u64, AnyError> {
    let mut most = 0;
    while !is_over.load(Ordering::Relaxed) {
        most = most.max(resident_bytes()?);
        thread::park_timeout(LOOK_EVERY);
    }
    Ok(most)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Plan, Report, run};

    /// Short rounds: enough for every bad tenant to be refused.
    const SHORT: Plan = Plan { nr_tenants: 100, nr_pairs: 2, round: Duration::from_millis(400) };

    #[test]
    fn bad_tenants_get_their_errors_and_nobody_else_does() {
        // Where the machine is slow a bad tenant may be held back until the round is over: then it has another.
        let mut rounds = (0..10).map(|_| run(&SHORT, |_| {}).expect("the server and its clients run"));
        let is_ended = |report: &Report| [0, 2].iter().all(|bad| report.bad()[*bad].answers.contains_key(&507));
        let report = rounds.find(is_ended).expect("the tenants that leak and spawn are ended");
        let [leak, huge, spawn] = report.bad() else { panic!("three bad tenants") };
        assert!(leak.events.oom_kill > 0);
        assert_eq!(huge.answers.keys().collect::<Vec<_>>(), [&413], "it asks for too much, and that is all");
        assert_eq!(huge.events.oom_kill, 0);
        assert!(spawn.events.oom_kill > 0);
        assert!(report.nr_requests > 0);
        assert_eq!(report.nr_failed, 0, "of {} good requests", report.nr_requests);
        assert_eq!(report.left(), 0, "bytes are left in the groups");
    }
}
