//! What a group costs a future: `cargo run --release -p objcg --example in_memcg`.
//!
//! Polls the same future bare and in a group, in alternating rounds, and prints the medians of the time a poll and of their
//! difference; then what a future costs that is pending once and dropped, what `enter` and the end of its guard cost, and how soon a
//! kill has woken ten thousand futures that wait.

use std::future::{pending, poll_fn};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use objcg::{FutureExt, Memcg, Objcg};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

/// Short rounds: most of them run from end to end on a busy machine too.
const NR_POLLS: u32 = 100_000;
const NR_ROUNDS: usize = 301;
const NR_SHORT: u32 = 1000;
const NR_WAITING: usize = 10_000;

/// Nanoseconds a poll of a future that is never ready.
fn poll_all<F: Future>(mut future: Pin<&mut F>) -> f64 {
    let mut context = Context::from_waker(Waker::noop());
    let start = Instant::now();
    for _ in 0..NR_POLLS {
        assert!(black_box(future.as_mut()).poll(&mut context).is_pending());
    }
    per_operation(start)
}

/// Nanoseconds for a future that is made, polled once and dropped.
fn drop_all<F: Future>(make: impl Fn() -> F) -> f64 {
    let mut context = Context::from_waker(Waker::noop());
    let start = Instant::now();
    for _ in 0..NR_SHORT {
        assert!(black_box(pin!(make())).poll(&mut context).is_pending());
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(NR_SHORT)
}

/// Counts down, and wakes the thread that waits at the end.
struct Countdown {
    left: AtomicUsize,
    waiting: Thread,
}

impl Wake for Countdown {
    fn wake(self: Arc<Self>) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.waiting.unpark();
        }
    }
}

/// From the kill of a group until the last of its futures was woken.
fn kill_all(memcg: &Memcg) -> Result<Duration, objcg::LimitError> {
    let countdown = Arc::new(Countdown { left: AtomicUsize::new(NR_WAITING), waiting: thread::current() });
    let waker = Waker::from(Arc::clone(&countdown));
    let mut context = Context::from_waker(&waker);
    let mut futures = (0..NR_WAITING).map(|_| Box::pin(pending::<()>().in_memcg(memcg))).collect::<Vec<_>>();
    for future in &mut futures {
        assert!(future.as_mut().poll(&mut context).is_pending());
    }
    let start = Instant::now();
    memcg.kill()?;
    while countdown.left.load(Ordering::Relaxed) > 0 {
        thread::park();
    }
    Ok(start.elapsed())
}

fn enter_all(memcg: &Memcg) -> f64 {
    let start = Instant::now();
    for _ in 0..NR_POLLS {
        drop(black_box(black_box(memcg).enter()));
    }
    per_operation(start)
}

fn per_operation(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e9 / f64::from(NR_POLLS)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn counting() -> impl Future<Output = ()> {
    let mut nr_polls = 0u64;
    poll_fn(move |_| {
        nr_polls = black_box(nr_polls + 1);
        Poll::Pending
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Memcg::root().create("server")?;
    let tenant = server.create("tenant")?;
    let session = tenant.create("session")?;
    let groups = [("server", &server), ("server/tenant", &tenant), ("server/tenant/session", &session)];
    println!("{:24} {:>10} {:>10} {:>10}", "future in", "bare", "in group", "more");
    for (name, memcg) in groups {
        let (mut bare, mut inside) = (pin!(counting()), pin!(counting().in_memcg(memcg)));
        let rounds = (0..NR_ROUNDS).map(|_| (poll_all(bare.as_mut()), poll_all(inside.as_mut()))).collect::<Vec<_>>();
        println!(
            "{:24} {:>7.2} ns {:>7.2} ns {:>7.2} ns",
            name,
            median(rounds.iter().map(|round| round.0).collect()),
            median(rounds.iter().map(|round| round.1).collect()),
            median(rounds.iter().map(|round| round.1 - round.0).collect()),
        );
    }
    let rounds = (0..NR_ROUNDS).map(|_| enter_all(&session)).collect::<Vec<_>>();
    println!("enter and drop                        {:>7.2} ns", median(rounds));
    let rounds = (0..NR_ROUNDS).map(|_| drop_all(|| counting().in_memcg(&session)) - drop_all(counting));
    println!("pending once and dropped, more        {:>7.2} ns", median(rounds.collect()));
    println!("from a kill until {NR_WAITING} were woken {:>10.2} ms", kill_all(&session)?.as_secs_f64() * 1e3);
    Ok(())
}
