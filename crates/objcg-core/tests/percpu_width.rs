//! Machines with more possible CPUs than this one: prices, values and counters of all of them.
//!
//! Each width is a process of its own, this test binary again: the number of CPUs is asked for once.

use std::env;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use objcg_core::cpu::{CpuId, nr_cpus, set_nr_cpus};
use objcg_core::memcg::Memcg;
use objcg_core::percpu::{self, Sum, Words};

const WIDTH: &str = "OBJCG_TEST_WIDTH";

fn on_a_machine_of(width: usize) {
    assert!(set_nr_cpus(width));
    assert_eq!((nr_cpus(), CpuId::all().count()), (width, width));
    assert!(!set_nr_cpus(width + 1), "what was made for one number stays");
    let tenant = Memcg::root().create("wide").expect("a new name");
    let inside = tenant.enter();
    let memory = percpu::alloc(100, 4).expect("memory");
    let words = Words::new().expect("memory");
    drop(inside);
    tenant.drain();
    assert_eq!(tenant.usage(), 108 * width as u64 + 8);
    assert_eq!(tenant.stat().percpu_bytes, 108 * width as u64);
    for cpu in CpuId::all() {
        // SAFETY: the allocation is live.
        let of_cpu = unsafe { percpu::of_cpu(memory, cpu) };
        // SAFETY: 100 bytes on this CPU, ours.
        unsafe { of_cpu.write_bytes(cpu.index() as u8, 100) };
    }
    for cpu in CpuId::all() {
        // SAFETY: the allocation is live.
        let of_cpu = unsafe { percpu::of_cpu(memory, cpu) };
        // SAFETY: 100 bytes on this CPU, which were written.
        let bytes = unsafe { of_cpu.cast::<[u8; 100]>().read() };
        assert_eq!(bytes, [cpu.index() as u8; 100]);
    }
    count_from_many_threads(&words);
    drop(words);
    // SAFETY: the allocation is live, and nothing uses it any more.
    unsafe { percpu::free(memory) };
    tenant.drain();
    assert_eq!(tenant.usage(), 0);
}

/// Threads that run on CPUs above the count are told so, and do not touch the words of the others.
fn count_from_many_threads(words: &Words) {
    const NR_THREADS: usize = 6;
    const NR_ADDS: usize = 300_000;
    let elsewhere = AtomicI64::new(0);
    thread::scope(|scope| {
        for _ in 0..NR_THREADS {
            scope.spawn(|| {
                let nr_refused = (0..NR_ADDS).filter(|_| words.add(1) == Sum::GaveUp).count();
                elsewhere.fetch_add(nr_refused as i64, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(words.iter().sum::<i64>() + elsewhere.into_inner(), (NR_THREADS * NR_ADDS) as i64);
}

#[test]
fn every_possible_cpu_counts() {
    if let Ok(width) = env::var(WIDTH) {
        return on_a_machine_of(width.parse().expect("a number"));
    }
    for width in ["1", "64", "512", "1024"] {
        let mut child = Command::new(env::current_exe().expect("the test's own path"));
        child.args(["every_possible_cpu_counts", "--exact", "--nocapture"]).env(WIDTH, width);
        let output = child.output().expect("the test can run itself");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{width} CPUs: {text}");
    }
}
