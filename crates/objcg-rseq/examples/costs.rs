//! What sections cost on this machine, against atomic instructions that do the same without contention.
//!
//! `cargo run --release -p objcg-rseq --example costs`

use std::hint::black_box;
use std::mem;
use std::ptr::{self, NonNull};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use objcg_rseq::{END, PerCpu, Registration, Stack, Stopper, TaggedWord};

const SHIFT: u32 = 12;
const NR_SAMPLES: usize = 51;
const NR_LOOPS: u32 = 100_000;
const NR_FENCES: u32 = 2_000;

#[repr(C, align(4096))]
struct Part {
    stack: Stack,
    counter: u64,
    word: TaggedWord,
    guard: u32,
    cell: usize,
    places: [usize; 10],
}

static OBJECT: u64 = 0;

/// Parts of threads that are not registered, before those of the CPUs.
const NR_UNREGISTERED: usize = 2;

static STOPPER: Stopper = Stopper::new();

const _: () = assert!(size_of::<Part>() == 1 << SHIFT);

fn main() {
    let nr_cpus = thread::available_parallelism().map_or(1, usize::from) as u32;
    let area = area(nr_cpus);
    if objcg_rseq::init(nr_cpus) == Registration::Absent || !objcg_rseq::register_thread() || !pin(0) {
        println!("no restartable sequences here");
        return;
    }
    atomics();
    sections(area);
    fences(nr_cpus);
}

fn area(nr_cpus: u32) -> *mut Part {
    let parts = (0..NR_UNREGISTERED + nr_cpus as usize).map(|_| Part {
        stack: ptr::null_mut(),
        counter: 0,
        word: TaggedWord { word: 7 << 32, limit: u32::MAX },
        guard: 0,
        cell: 0,
        places: [0; 10],
    });
    let parts = Box::leak(parts.collect());
    let (unregistered, parts) = parts.split_at_mut(NR_UNREGISTERED);
    for part in unregistered {
        part.stack = ptr::with_exposed_provenance_mut(STOPPER.top());
    }
    for part in parts.iter_mut() {
        part.places[0] = END;
        part.places[9] = END;
        part.stack = part.places.as_mut_ptr();
    }
    parts.as_mut_ptr()
}

fn pin(cpu: u32) -> bool {
    // SAFETY: a set without CPUs is all zeroes.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the CPU's number is below the set's size.
    unsafe { libc::CPU_SET(cpu as usize, &mut set) };
    // SAFETY: the set is valid.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) == 0 }
}

/// Prints the median, the least and the most of a call's time.
fn measure(name: &str, nr_loops: u32, mut call: impl FnMut()) {
    let mut samples: Vec<f64> = (0..NR_SAMPLES)
        .map(|_| {
            let start = Instant::now();
            (0..nr_loops).for_each(|_| call());
            start.elapsed().as_secs_f64() * 1e9 / f64::from(nr_loops)
        })
        .collect();
    report(name, &mut samples);
}

fn report(name: &str, samples: &mut [f64]) {
    samples.sort_by(f64::total_cmp);
    let [least, median, most] = [0, samples.len() / 2, samples.len() - 1].map(|idx| samples[idx]);
    println!("{name:44} {median:9.2} ns   ({least:.2} to {most:.2})");
}

fn atomics() {
    let counter = AtomicU64::new(0);
    measure("a plain addition", NR_LOOPS, || {
        let counter = black_box(&counter);
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    });
    measure("an atomic addition", NR_LOOPS, || {
        black_box(&counter).fetch_add(1, Ordering::Relaxed);
    });
    measure("a loop of compare-exchange", NR_LOOPS, || {
        let _ = black_box(&counter).fetch_update(Ordering::AcqRel, Ordering::Relaxed, |count| Some(count ^ 1));
    });
}

fn sections(area: *mut Part) {
    // SAFETY: the area is never freed.
    let counter = PerCpu::<u64, SHIFT>::new(unsafe { &raw mut (*area).counter });
    measure("add", NR_LOOPS, || {
        // SAFETY: the area is valid for all CPUs.
        assert!(unsafe { objcg_rseq::add(black_box(counter), 1) });
    });
    // SAFETY: the area is never freed.
    let word = PerCpu::<TaggedWord, SHIFT>::new(unsafe { &raw mut (*area).word });
    // SAFETY: the area is never freed.
    let guard = PerCpu::<u32, SHIFT>::new(unsafe { &raw mut (*area).guard });
    measure("compare_add", NR_LOOPS, || {
        // SAFETY: the area is valid for all CPUs.
        assert!(unsafe { objcg_rseq::compare_add(black_box(word), guard, 7, 1) });
    });
    // SAFETY: the area is never freed.
    let cell = PerCpu::<usize, SHIFT>::new(unsafe { &raw mut (*area).cell });
    measure("exchange", NR_LOOPS, || {
        // SAFETY: the area is valid for all CPUs.
        assert!(unsafe { objcg_rseq::exchange(black_box(cell), 0, 1) }.is_some());
    });
    // SAFETY: the area is never freed.
    let stack = PerCpu::<Stack, SHIFT>::new(unsafe { &raw mut (*area).stack });
    let object = NonNull::from(&OBJECT).cast();
    measure("push and pop", NR_LOOPS, || {
        // SAFETY: the area is valid for all CPUs.
        assert!(unsafe { objcg_rseq::push(black_box(stack), object) });
        // SAFETY: as above.
        assert!(unsafe { objcg_rseq::pop(black_box(stack)) }.is_some());
    });
}

fn fences(nr_cpus: u32) {
    let fence = |cpu| assert!(objcg_rseq::fence(cpu));
    measure("fence, alone in the process", NR_FENCES, || fence(nr_cpus - 1));
    if nr_cpus < 2 {
        return;
    }
    let (is_over, start) = (AtomicBool::new(false), Barrier::new(2));
    thread::scope(|scope| {
        let idle = scope.spawn(|| {
            start.wait();
            while !is_over.load(Ordering::Relaxed) {
                thread::park();
            }
        });
        start.wait();
        measure("fence, no thread of ours on that CPU", NR_FENCES, || fence(nr_cpus - 1));
        is_over.store(true, Ordering::Relaxed);
        idle.thread().unpark();
    });
    fences_against_a_running_thread(nr_cpus - 1);
}

/// Each call is timed by itself, at a moment when the other thread has just been seen running.
fn fences_against_a_running_thread(cpu: u32) {
    let (is_over, nr_beats) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(cpu);
            while !is_over.load(Ordering::Relaxed) {
                nr_beats.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut samples: Vec<f64> = (0..NR_FENCES)
            .map(|_| {
                let nr_seen = nr_beats.load(Ordering::Relaxed);
                while nr_beats.load(Ordering::Relaxed) == nr_seen {
                    std::hint::spin_loop();
                }
                let start = Instant::now();
                assert!(objcg_rseq::fence(cpu));
                start.elapsed().as_secs_f64() * 1e9
            })
            .collect();
        is_over.store(true, Ordering::Relaxed);
        report("fence, a thread of ours runs on that CPU", &mut samples);
    });
}
