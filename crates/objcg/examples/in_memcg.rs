//! What a group costs a future: `cargo run --release -p objcg --example in_memcg`.
//!
//! Polls the same future bare and in a group, in alternating rounds, and prints the medians of the time a poll and of their
//! difference; then what `enter` and the end of its guard cost.

use std::future::poll_fn;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use objcg::{FutureExt, Memcg, Objcg};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const NR_POLLS: u32 = 1_000_000;
const NR_ROUNDS: usize = 31;

/// Nanoseconds a poll of a future that is never ready.
fn poll_all<F: Future>(mut future: Pin<&mut F>) -> f64 {
    let mut context = Context::from_waker(Waker::noop());
    let start = Instant::now();
    for _ in 0..NR_POLLS {
        assert!(black_box(future.as_mut()).poll(&mut context).is_pending());
    }
    per_operation(start)
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

fn main() -> Result<(), objcg::CreateError> {
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
    println!("enter and drop: {:.2} ns", median(rounds));
    Ok(())
}
