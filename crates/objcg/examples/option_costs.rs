//! What each option of `OBJCG_OPTIONS` costs: the time of an allocation and its free, by size, and what is held for 10,000
//! live objects of 100 bytes, both as multiples of what they are without options.
//!
//! Each option runs in a process of its own, all of them in turn, several times; the smallest figure of each counts.

#![expect(unsafe_code, reason = "frees what it allocates")]

use std::error::Error;
use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use objcg_core::{kmalloc, stat};

const OPTIONS: [&str; 9] = [
    "",
    "random",
    "poison",
    "redzone",
    "stack",
    "quarantine=1m",
    "guard_pages",
    "poison:redzone",
    "poison:redzone:stack:random:guard_pages:quarantine=1m",
];
const SIZES: [usize; 3] = [100, 4000, 100_000];
const NR_ROUNDS: usize = 15;
/// Objects that live at a time: past what a sheaf keeps, and less than a program has.
const NR_LIVE: usize = 64;
const NR_HELD: usize = 10_000;
const CHILD: &str = "OBJCG_OPTION_COSTS_CHILD";

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::var_os(CHILD).is_some() {
        let times = SIZES.map(|nr_bytes| nanoseconds_of(nr_bytes).to_string());
        println!("{} {}", times.join(" "), held_bytes());
        return Ok(());
    }
    let mut smallest = [[f64::INFINITY; SIZES.len() + 1]; OPTIONS.len()];
    for _ in 0..NR_ROUNDS {
        for (options, smallest) in OPTIONS.iter().zip(&mut smallest) {
            let mut child = Command::new(std::env::current_exe()?);
            let output = child.env(CHILD, "1").env("OBJCG_OPTIONS", options).output()?;
            if !output.status.success() {
                let report = String::from_utf8_lossy(&output.stderr);
                return Err(format!("OBJCG_OPTIONS={options}: {}: {report}", output.status).into());
            }
            let text = String::from_utf8(output.stdout)?;
            for (figure, smallest) in text.split_whitespace().zip(smallest) {
                *smallest = smallest.min(figure.parse()?);
            }
        }
    }
    println!("| option | 100 B | 4,000 B | 100,000 B | held for 10,000 × 100 B |");
    println!("|---|---:|---:|---:|---:|");
    let [without, rest @ ..] = smallest;
    for (options, figures) in OPTIONS[1..].iter().zip(rest) {
        let ratios: [f64; SIZES.len() + 1] = std::array::from_fn(|nth| figures[nth] / without[nth]);
        let [small, middle, large, held] = ratios.map(multiple);
        println!("| `{options}` | {small} | {middle} | {large} | {held} |");
    }
    Ok(())
}

/// With two digits that count.
fn multiple(ratio: f64) -> String {
    if ratio < 10.0 { format!("{ratio:.1}") } else { format!("{ratio:.0}") }
}

/// Of an allocation and its free, first in, first out.
fn nanoseconds_of(nr_bytes: usize) -> f64 {
    let nr_pairs = if nr_bytes > 32 << 10 { 4_000 } else { 60_000 };
    let mut live = [None; NR_LIVE];
    let mut start = Instant::now();
    for nth in 0..2 * nr_pairs {
        // The first half is for warming up.
        if nth == nr_pairs {
            start = Instant::now();
        }
        let taken = black_box(kmalloc::alloc(nr_bytes, 8));
        if let Some(oldest) = std::mem::replace(&mut live[nth % NR_LIVE], taken) {
            // SAFETY: live, and nothing uses it.
            unsafe { kmalloc::free(oldest) };
        }
    }
    start.elapsed().as_nanos() as f64 / nr_pairs as f64
}

fn held_bytes() -> usize {
    let before = stat::heap().held_bytes();
    let taken: Vec<_> = (0..NR_HELD).map(|_| kmalloc::alloc(100, 8)).collect();
    let held = stat::heap().held_bytes() - before;
    // SAFETY: each is live, and nothing uses it.
    taken.into_iter().flatten().for_each(|object| unsafe { kmalloc::free(object) });
    usize::try_from(held).unwrap_or(0)
}
