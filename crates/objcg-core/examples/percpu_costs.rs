//! What per-CPU memory costs: `cargo run --release -p objcg-core --example percpu_costs [possible CPUs]`.
//!
//! Keeps 100,000 counters of 4 bytes, frees half of them at random, fills up again, frees all; inside a group. Prints time and
//! memory of each step, for this machine's CPUs or as many as are given.

use std::env;
use std::error::Error;
use std::fs;
use std::ptr::NonNull;
use std::time::Instant;

use objcg_core::cpu::{nr_cpus, set_nr_cpus};
use objcg_core::memcg::Memcg;
use objcg_core::percpu::{self, AllocError};

const NR_COUNTERS: usize = 100_000;
const NR_ROUNDS: usize = 7;
const COUNTER_BYTES: usize = 4;

/// Nanoseconds per call of each step.
#[derive(Default)]
struct Times {
    fresh_alloc: f64,
    free_half: f64,
    refill: f64,
    free_all: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(number) = env::args().nth(1) {
        assert!(set_nr_cpus(number.parse()?), "nobody has asked before");
    }
    let tenant = Memcg::root().create("counting")?;
    println!("{NR_COUNTERS} counters of {COUNTER_BYTES} bytes on {} possible CPUs", nr_cpus());
    for (name, inside) in [("outside every group", None), ("in a group", Some(tenant.enter()))] {
        let mut rounds =
            (0..NR_ROUNDS).map(|nth| round(nth == 0 && inside.is_some())).collect::<Result<Vec<_>, _>>()?;
        let mut median = |step: fn(&Times) -> f64| {
            rounds.sort_by(|a, b| step(a).total_cmp(&step(b)));
            step(&rounds[NR_ROUNDS / 2])
        };
        println!("ns per call {name}, median of {NR_ROUNDS} rounds");
        println!("  alloc, fresh memory     {:>8.1}", median(|times| times.fresh_alloc));
        println!("  free, in random order   {:>8.1}", median(|times| times.free_half));
        println!("  alloc, used memory      {:>8.1}", median(|times| times.refill));
        println!("  free, in order          {:>8.1}", median(|times| times.free_all));
    }
    tenant.drain();
    println!("charged to the group at the end: {} bytes", tenant.usage());
    Ok(())
}

fn round(prints: bool) -> Result<Times, Box<dyn Error>> {
    let mut times = Times::default();
    let resident_before = resident_bytes()?;
    let mut counters = Vec::with_capacity(NR_COUNTERS);
    times.fresh_alloc = timed(NR_COUNTERS, || fill(&mut counters))?;
    if prints {
        print_memory("all live", resident_before)?;
    }
    shuffle(&mut counters);
    let half = counters.split_off(NR_COUNTERS / 2);
    times.free_half = timed(half.len(), || {
        free(&half);
        Ok(())
    })?;
    times.refill = timed(half.len(), || fill(&mut counters))?;
    if prints {
        print_memory("half freed at random and refilled", resident_before)?;
    }
    counters.sort_unstable();
    times.free_all = timed(counters.len(), || {
        free(&counters);
        Ok(())
    })?;
    percpu::trim();
    if prints {
        print_memory("all freed", resident_before)?;
    }
    Ok(times)
}

fn fill(counters: &mut Vec<NonNull<u8>>) -> Result<(), AllocError> {
    while counters.len() < NR_COUNTERS {
        counters.push(percpu::alloc(COUNTER_BYTES, COUNTER_BYTES)?);
    }
    Ok(())
}

fn free(counters: &[NonNull<u8>]) {
    // SAFETY: each was allocated here, is freed once, and was not used.
    counters.iter().for_each(|counter| unsafe { percpu::free(*counter) });
}

fn timed(nr_calls: usize, work: impl FnOnce() -> Result<(), AllocError>) -> Result<f64, AllocError> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e9 / nr_calls as f64)
}

fn shuffle(counters: &mut [NonNull<u8>]) {
    let mut state = 42u64;
    for last in (1..counters.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        counters.swap(last, (state >> 33) as usize % (last + 1));
    }
}

fn print_memory(moment: &str, resident_before: usize) -> Result<(), Box<dyn Error>> {
    let stat = percpu::stat();
    let share = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    println!("{moment}:");
    println!(
        "  used {} bytes, populated {} ({:.1} %)",
        stat.used_bytes,
        stat.populated_bytes,
        100.0 * share(stat.used_bytes, stat.populated_bytes)
    );
    println!("  owner words {} bytes, metadata {}", stat.owner_bytes, stat.metadata_bytes);
    println!(
        "  held / used, owner words left out: {:.3}",
        share(stat.populated_bytes + stat.metadata_bytes, stat.used_bytes)
    );
    println!("  resident set grew by {} bytes", resident_bytes()?.saturating_sub(resident_before));
    Ok(())
}

fn resident_bytes() -> Result<usize, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).ok_or("no Rss in smaps_rollup")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<usize>()? * 1024)
}
