//! A histogram that all threads write to: `cargo run --release -p objcg --example percpu_histogram`.
//!
//! A bucket is a `PerCpuCounter`: noting a value is one addition on this CPU, and no two CPUs share a cache line.

use std::thread;

use objcg::{AllocError, Memcg, Objcg, PerCpuCounter};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const NR_THREADS: u64 = 4;
const NR_VALUES: u64 = 250_000;
const NR_BUCKETS: usize = 20;
const WIDTH: i64 = 60;

/// Bucket n counts values from 2^n on.
struct Histogram {
    buckets: Vec<PerCpuCounter>,
}

impl Histogram {
    fn new() -> Result<Histogram, AllocError> {
        Ok(Histogram { buckets: (0..NR_BUCKETS).map(|_| PerCpuCounter::new()).collect::<Result<_, _>>()? })
    }

    fn note(&self, value: u64) {
        let bucket = value.max(1).ilog2() as usize;
        self.buckets[bucket.min(NR_BUCKETS - 1)].add(1);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tenant = Memcg::root().create("latencies")?;
    let latencies = tenant.scope(Histogram::new)?;
    thread::scope(|scope| {
        for thread in 0..NR_THREADS {
            let latencies = &latencies;
            scope.spawn(move || {
                let mut state = thread + 1;
                for _ in 0..NR_VALUES {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    // Products of two are thick in the middle.
                    latencies.note((state >> 54) * (state >> 44 & 0x3ff));
                }
            });
        }
    });
    let counts: Vec<i64> = latencies.buckets.iter().map(PerCpuCounter::sum).collect();
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    for (count, bucket) in counts.iter().zip(0u32..) {
        println!("{:>7} {count:>7} {}", 1u64 << bucket, "#".repeat((count * WIDTH / most) as usize));
    }
    assert_eq!(counts.iter().sum::<i64>(), (NR_THREADS * NR_VALUES) as i64);
    println!("{} bytes on all CPUs are charged for {NR_BUCKETS} buckets", tenant.stat().percpu_bytes);
    Ok(())
}
