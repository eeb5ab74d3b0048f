//! What groups cost: `cargo run --release -p objcg --example groups`.
//!
//! Creates and deletes empty groups, keeps 100,000 alive, and lets 1,000,000 die that leave one object each; prints the
//! time and the memory of each, measured here and now.

use std::hint::black_box;
use std::time::Instant;

use objcg::{Memcg, Objcg};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const NR_PAIRS: usize = 200_000;
const NR_ROUNDS: usize = 5;
const NR_LIVE: usize = 100_000;
const NR_DEAD: usize = 1_000_000;

type AnyError = Box<dyn std::error::Error>;

fn main() -> Result<(), AnyError> {
    empty_groups()?;
    live_groups()?;
    dead_groups()
}

/// The median of a few rounds, in nanoseconds a pair.
fn empty_groups() -> Result<(), AnyError> {
    let parent = Memcg::root().create("pairs")?;
    let mut rounds = Vec::with_capacity(NR_ROUNDS);
    for _ in 0..NR_ROUNDS {
        let start = Instant::now();
        for _ in 0..NR_PAIRS {
            drop(black_box(parent.create("tenant")?));
        }
        rounds.push(start.elapsed().as_nanos() / NR_PAIRS as u128);
    }
    rounds.sort_unstable();
    println!("create + delete of an empty group     {:>9} ns (median of {NR_ROUNDS})", rounds[NR_ROUNDS / 2]);
    Ok(())
}

fn live_groups() -> Result<(), AnyError> {
    let parent = Memcg::root().create("live")?;
    let names: Vec<String> = (0..NR_LIVE).map(|nth| format!("tenant-{nth}")).collect();
    let mut groups = Vec::with_capacity(NR_LIVE);
    let before = resident_bytes()?;
    let start = Instant::now();
    for name in &names {
        groups.push(parent.create(name)?);
    }
    let elapsed = start.elapsed();
    let grown = resident_bytes()?.saturating_sub(before);
    parent.drain();
    println!("{NR_LIVE} live empty groups");
    println!("  to create one                       {:>9} ns", elapsed.as_nanos() / NR_LIVE as u128);
    println!("  charged to the parent               {:>9} bytes each", parent.usage() / NR_LIVE as u64);
    println!("  resident memory                     {:>9} bytes each", grown / NR_LIVE as u64);
    Ok(())
}

fn dead_groups() -> Result<(), AnyError> {
    let grandparent = Memcg::root().create("dead")?;
    let parent = grandparent.create("parent")?;
    let mut survivors: Vec<Box<u64>> = Vec::with_capacity(NR_DEAD);
    let groups_before = objcg::nr_groups();
    let vessels_before = objcg::nr_vessels();
    let start = Instant::now();
    for nth in 0..NR_DEAD {
        let tenant = parent.create("tenant")?;
        survivors.push(tenant.scope(|| Box::new(nth as u64)));
    }
    let elapsed = start.elapsed();
    parent.drain();
    let stat = parent.stat();
    println!("{NR_DEAD} groups created and deleted, each leaving one object");
    println!("  create + allocate + delete          {:>9} ns each", elapsed.as_nanos() / NR_DEAD as u128);
    println!("  groups left                         {:>9}", objcg::nr_groups() - groups_before);
    println!("  groups pinned                       {:>9}", objcg::nr_dying());
    println!("  vessels left                        {:>9}", objcg::nr_vessels() - vessels_before);
    println!("  bytes left of each group            {:>9.1}", stat.group_bytes as f64 / NR_DEAD as f64);
    println!("  objects that are the parent's now   {:>9}", stat.slab_objects);
    let start = Instant::now();
    parent.delete()?;
    println!("  deleting their common parent        {:>9.1} us", start.elapsed().as_nanos() as f64 / 1e3);
    let start = Instant::now();
    drop(survivors);
    println!("  freeing a survivor                  {:>9} ns each", start.elapsed().as_nanos() / NR_DEAD as u128);
    drop(parent);
    grandparent.drain();
    println!("  usage and vessels left at the end   {:>9} bytes, {}", grandparent.usage(), objcg::nr_vessels() - 1);
    Ok(())
}

/// Resident bytes of this process.
fn resident_bytes() -> Result<u64, AnyError> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).ok_or("no Rss in smaps_rollup")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}
