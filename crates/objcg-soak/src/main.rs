//! `objcg-soak`: a server's mix of work on objcg, for as long as is asked for, with the invariants checked each second.
//!
//! `objcg-bench soak` starts it and judges what it prints: `protocol` has the lines. Threads of `work` serve requests on the
//! `server`: tenants that come and go, objects that outlive them, bursts, limits that refuse, forks, threads, per-CPU memory.
//! Each second they pause, and `quiet` holds the heap against what the server knows. What breaks an invariant ends the process
//! with one line on stderr and exit code 1.
#![deny(unsafe_code)]

mod fork;
mod object;
mod protocol;
mod quiet;
mod random;
mod resident;
mod server;
mod tenant;
mod work;

use std::io::{self, Write};
use std::panic;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use objcg::Objcg;
use protocol::{Counts, Order};
use server::Server;

#[global_allocator]
static GLOBAL: Objcg = Objcg;

/// Between two quiet points.
const PERIOD: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match Order::decode(&words) {
        Ok(order) => {
            end_at_first_panic();
            soak(&order);
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("objcg-soak: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Whichever thread finds something wrong, the process says it in one line and ends: other threads would wait for ever.
fn end_at_first_panic() {
    panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("a panic");
        let place = info.location().map_or_else(String::new, |place| format!(" ({}:{})", place.file(), place.line()));
        eprintln!("objcg-soak: {message}{place}");
        std::process::exit(1);
    }));
}

fn soak(order: &Order) {
    let before = quiet::Baseline::take();
    let server = Server::new(order);
    thread::scope(|scope| {
        for nth in 0..work::NR_THREADS {
            let server = &server;
            scope.spawn(move || work::serve(server, order.seed, nth as u64));
        }
        let start = Instant::now();
        for second in 1..=order.nr_seconds {
            let next = start + PERIOD * second;
            thread::sleep(next.saturating_duration_since(Instant::now()));
            let sample = server.paused(|| quiet::check(&server, u64::from(second)));
            say(&sample.encode());
            server.leak(order.leak_bytes);
        }
        server.stop.store(true, Ordering::Relaxed);
    });
    let counts = server.counts();
    server.close();
    let held_bytes = before.check_nothing_left();
    say(&Counts::encode_end(&counts, held_bytes));
}

fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    // Nobody listens any more: then nobody judges either.
    if writeln!(stdout, "{line}").and_then(|()| stdout.flush()).is_err() {
        std::process::exit(1);
    }
}
