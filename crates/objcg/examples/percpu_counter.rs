//! A server's request counter, and what an addition costs: `cargo run --release -p objcg --example percpu_counter`.
//!
//! Counts requests on all threads, then prints nanoseconds per addition to a `PerCpuCounter`, to a plain thread-local number and
//! to one shared atomic, with 1 and 2 threads. Rounds of the three alternate, so that what disturbs one disturbs all.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use objcg::{Objcg, PerCpuCounter};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const NR_ROUNDS: usize = 101;
const NR_ADDS: usize = 500_000;

thread_local! {
    static OWN: Cell<u64> = const { Cell::new(0) };
}

fn main() -> Result<(), objcg::AllocError> {
    count_requests()?;
    println!("\nns per addition, median of {NR_ROUNDS} rounds   thread-local   per-CPU counter   shared atomic");
    for nr_threads in [1, 2] {
        let counter = PerCpuCounter::new()?;
        let shared = AtomicU64::new(0);
        let kinds: [&(dyn Fn() + Sync); 3] = [
            &|| add_many(|| OWN.with(|own| own.set(black_box(own.get() + 1)))),
            &|| add_many(|| counter.add(1)),
            &|| add_many(|| _ = shared.fetch_add(1, Ordering::Relaxed)),
        ];
        let times = measure(nr_threads, &kinds);
        let [own, per_cpu, atomic] = times.map(median);
        println!(
            "{nr_threads} thread{:<35} {own:>12.2} {per_cpu:>17.2} {atomic:>15.2}",
            if nr_threads == 1 { "" } else { "s" }
        );
        println!("  per-CPU counter against the others {:>21.2} ×{:>31.2} ×", per_cpu / own, atomic / per_cpu);
        assert_eq!(counter.sum(), (NR_ROUNDS * NR_ADDS * nr_threads) as i64);
    }
    Ok(())
}

fn count_requests() -> Result<(), objcg::AllocError> {
    const NR_REQUESTS: usize = 100_000;
    let requests = PerCpuCounter::new()?;
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..NR_REQUESTS).for_each(|_| requests.add(1)));
        }
    });
    println!("8 threads have served {} requests", requests.sum());
    println!("approximately {}, at most {} off", requests.approximate(), requests.bound());
    Ok(())
}

fn add_many(add: impl Fn()) {
    (0..NR_ADDS).for_each(|_| add());
}

/// Runs the kinds in turns on all threads at once; nanoseconds per addition of each round.
fn measure<const N: usize>(nr_threads: usize, kinds: &[&(dyn Fn() + Sync); N]) -> [Vec<f64>; N] {
    let barrier = Barrier::new(nr_threads);
    let per_thread = thread::scope(|scope| {
        let start = |nth| {
            let barrier = &barrier;
            move || {
                pin_to_nth_cpu(nth);
                rounds(barrier, kinds)
            }
        };
        let threads = (0..nr_threads).map(|nth| scope.spawn(start(nth))).collect::<Vec<_>>();
        threads.into_iter().map(|thread| thread.join().expect("it ran")).collect::<Vec<_>>()
    });
    // A round is over when its slowest thread is.
    let slowest = |kind: usize, round: usize| per_thread.iter().map(|times| times[kind][round]).fold(0.0, f64::max);
    std::array::from_fn(|kind| (0..NR_ROUNDS).map(|round| slowest(kind, round)).collect())
}

fn rounds<const N: usize>(barrier: &Barrier, kinds: &[&(dyn Fn() + Sync); N]) -> [Vec<f64>; N] {
    let mut times = [const { Vec::new() }; N];
    for _ in 0..NR_ROUNDS {
        for (kind, times) in kinds.iter().zip(&mut times) {
            barrier.wait();
            let start = Instant::now();
            kind();
            times.push(start.elapsed().as_secs_f64() * 1e9 / NR_ADDS as f64);
        }
    }
    times
}

/// Has this thread run on the nth of the CPUs that it may run on; anywhere if there are fewer.
fn pin_to_nth_cpu(nth: usize) {
    // SAFETY: zero is an empty set of CPUs.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `allowed` is a valid set of that size.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut allowed) } != 0 {
        return;
    }
    // SAFETY: the numbers are below the set's size.
    let mut numbers = (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &allowed) });
    let Some(cpu) = numbers.nth(nth) else { return };
    // SAFETY: as above.
    let mut own: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the number is below the set's size.
    unsafe { libc::CPU_SET(cpu, &mut own) };
    // SAFETY: `own` is a valid set of that size.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const own) };
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
