//! Threads, many more than CPUs, that are moved between CPUs and struck by signals while they work.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Barrier, Once};
use std::{mem, ptr, thread};

use crate::area::{self, Area};

pub(crate) const NR_THREADS: usize = 12;

/// How often a thread does what a test is about.
pub(crate) const NR_ROUNDS: usize = if cfg!(feature = "delay") { 4_000 } else { 150_000 };

/// Loops inside of each section, where there is the feature.
pub(crate) const DELAY: u64 = 20_000;

/// What the handler works on, and how many additions it made; null: nothing.
static HANDLERS_AREA: AtomicPtr<Area> = AtomicPtr::new(ptr::null_mut());
static HANDLERS_ADDITIONS: AtomicU64 = AtomicU64::new(0);

/// Runs `work(thread, round)` on many threads, [`NR_ROUNDS`] times each; another thread moves and strikes them.
pub(crate) fn storm(work: impl Fn(usize, usize) + Sync) {
    area::init();
    catch_signals();
    stretch(DELAY);
    let threads: [AtomicI32; NR_THREADS] = Default::default();
    let is_over = AtomicBool::new(false);
    let start = Barrier::new(NR_THREADS + 1);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..NR_THREADS)
            .map(|idx| {
                let (threads, start, work) = (&threads, &start, &work);
                scope.spawn(move || {
                    assert!(objcg_rseq::register_thread());
                    threads[idx].store(own_id(), Ordering::Relaxed);
                    start.wait();
                    (0..NR_ROUNDS).for_each(|round| work(idx, round));
                    threads[idx].store(0, Ordering::Relaxed);
                    objcg_rseq::unregister_thread();
                })
            })
            .collect();
        scope.spawn(|| {
            start.wait();
            pester(&threads, &is_over);
        });
        let results: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        results.into_iter().for_each(|result| result.expect("a thread of the storm"));
    });
}

/// Stretches all sections of the process, where there is the feature.
pub(crate) fn stretch(nr_loops: u64) {
    #[cfg(feature = "delay")]
    objcg_rseq::set_delay(nr_loops);
    #[cfg(not(feature = "delay"))]
    let _ = nr_loops;
}

/// Has the signal handler add to the area's counters, and take an object and put it back; not more than one area a process.
/// The result says how many additions it made.
pub(crate) fn let_handlers_use(area: Area) -> &'static AtomicU64 {
    HANDLERS_AREA.store(Box::leak(Box::new(area)), Ordering::Release);
    &HANDLERS_ADDITIONS
}

pub(crate) fn own_id() -> i32 {
    // SAFETY: no memory is passed.
    unsafe { libc::gettid() }
}

/// Pins a thread (0: the caller) to a CPU. False if it has ended.
pub(crate) fn pin(thread: i32, cpu: u32) -> bool {
    // SAFETY: a set without CPUs is all zeroes.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the CPU's number is below the set's size.
    unsafe { libc::CPU_SET(cpu as usize, &mut set) };
    // SAFETY: the set is valid.
    unsafe { libc::sched_setaffinity(thread, size_of_val(&set), &raw const set) == 0 }
}

/// Strikes one thread of this process.
pub(crate) fn strike(thread: i32) {
    // SAFETY: no memory is passed. A thread that has ended is an error that nobody minds.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, libc::SIGUSR1) };
}

fn pester(threads: &[AtomicI32], is_over: &AtomicBool) {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    while !is_over.load(Ordering::Relaxed) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let thread = threads[(random >> 33) as usize % threads.len()].load(Ordering::Relaxed);
        if thread == 0 {
            thread::yield_now();
        } else if random >> 63 == 0 {
            strike(thread);
        } else {
            pin(thread, (random >> 60) as u32 % area::nr_cpus());
        }
    }
}

pub(crate) fn catch_signals() {
    static CAUGHT: Once = Once::new();
    CAUGHT.call_once(|| {
        // SAFETY: zeroes are a valid description of no handler.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = on_signal as extern "C" fn(i32) as usize;
        action.sa_flags = libc::SA_RESTART;
        for signal in [libc::SIGUSR1, libc::SIGALRM] {
            // SAFETY: the handler calls only what is safe in one: sections and atomics.
            let result = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
            assert_eq!(result, 0);
        }
    });
}

extern "C" fn on_signal(_: i32) {
    let area = HANDLERS_AREA.load(Ordering::Acquire);
    if area.is_null() {
        return;
    }
    // SAFETY: leaked by whoever has put it there.
    let area = unsafe { *area };
    if area.add(1) {
        HANDLERS_ADDITIONS.fetch_add(1, Ordering::Relaxed);
    }
    if let Some(object) = area.pop() {
        // A place is free on each CPU: the stacks hold all objects.
        while !area.push(object) {}
    }
}
