//! A library of C's kind with the crate inside, for the test that loads it: its thread-local storage has to find room in
//! threads that run already.

use std::cell::UnsafeCell;

use objcg_rseq::PerCpu;

const SHIFT: u32 = 6;
const MAX_CPUS: usize = 1024;

#[repr(C, align(64))]
struct Counter(UnsafeCell<u64>);

// SAFETY: changed by sections only; others read it when nobody counts.
unsafe impl Sync for Counter {}

static COUNTERS: [Counter; MAX_CPUS] = [const { Counter(UnsafeCell::new(0)) }; MAX_CPUS];

/// Readies the library; 0 if there are no restartable sequences.
#[unsafe(no_mangle)]
pub extern "C" fn counting_init() -> u32 {
    u32::from(objcg_rseq::init(MAX_CPUS as u32) != objcg_rseq::Registration::Absent)
}

/// Adds 1 that many times; returns how often that worked.
#[unsafe(no_mangle)]
pub extern "C" fn counting_add(nr_times: u32) -> u32 {
    objcg_rseq::register_thread();
    let counter = PerCpu::<u64, SHIFT>::new(COUNTERS.as_ptr().cast_mut().cast());
    // SAFETY: there is a counter for each CPU.
    let nr_added = (0..nr_times).filter(|_| unsafe { objcg_rseq::add(counter, 1) }).count();
    objcg_rseq::unregister_thread();
    nr_added as u32
}

/// The sum; nobody counts any more.
#[unsafe(no_mangle)]
pub extern "C" fn counting_sum() -> u64 {
    // SAFETY: the caller's promise that nobody counts.
    COUNTERS.iter().map(|counter| unsafe { counter.0.get().read() }).sum()
}
