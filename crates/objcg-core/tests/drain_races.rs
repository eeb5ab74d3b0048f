//! A drain looks at objects that lie on another CPU's stack, while that CPU uses them: meanwhile their slabs go, and the descriptors of
//! their pages.
//!
//! The drainer is held up by a signal whose handler sleeps, as a preemption would, at a moment at which it has looked an object up, if
//! the round is lucky: a round takes milliseconds, and one in some hundred is.

use std::hint;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use objcg_core::kmalloc;
use objcg_core::memcg::Memcg;

/// Dear ones: their slabs go as soon as they are empty, and none waits in a barn.
const SIZES: [usize; 7] = [9000, 10_000, 12_000, 14_000, 20_000, 24_000, 28_000];
/// Of each size: more than stay dirty.
const NR_EACH: usize = 25;
const HELD_UP: Duration = Duration::from_millis(3);
/// Steps of the wait before the signal: some microseconds.
const NR_MOMENTS: u32 = 1000;
const DURATION: Duration = Duration::from_secs(5);

/// How often the drainer has come into the handler, and out of it.
static NR_ENTERED: AtomicU32 = AtomicU32::new(0);
static NR_LEFT: AtomicU32 = AtomicU32::new(0);

struct Batch(Vec<NonNull<u8>>);

// SAFETY: objects belong to whoever has the batch.
unsafe impl Send for Batch {}

impl Batch {
    fn take(nr_each: usize) -> Batch {
        let sizes = (0..nr_each).flat_map(|_| SIZES);
        Batch(sizes.map(|size| kmalloc::alloc(size, 8).expect("memory")).collect())
    }

    fn give_back(self) {
        // SAFETY: live, and nobody else has them.
        self.0.into_iter().for_each(|object| unsafe { kmalloc::free(object) });
    }
}

extern "C" fn hold_up(_signal: libc::c_int) {
    NR_ENTERED.fetch_add(1, Ordering::Release);
    // SAFETY: may be called in a handler.
    unsafe { libc::usleep(HELD_UP.as_micros() as u32) };
    NR_LEFT.fetch_add(1, Ordering::Release);
}

fn wait_for(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::yield_now();
    }
}

fn run_on(cpu: usize) {
    // SAFETY: all zero is a set without a CPU.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the CPU is one of the set's.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set is as long as is said. Where it is refused the thread runs anywhere.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}

#[test]
fn a_drain_survives_that_what_it_looks_at_goes() {
    if thread::available_parallelism().is_ok_and(|nr_cpus| nr_cpus.get() < 2) {
        return;
    }
    // SAFETY: the handler calls nothing that may not be called in one.
    unsafe { libc::signal(libc::SIGUSR1, hold_up as *const () as libc::sighandler_t) };
    let [unrelated, tenant] = ["unrelated", "tenant"].map(|name| Memcg::root().create(name).expect("a new name"));
    let (unrelated, tenant) = (&unrelated, &tenant);
    let stop = &AtomicBool::new(false);
    let drainer = &AtomicU64::new(0);
    let (send, receive) = sync_channel::<[Batch; 2]>(0);
    let (done, is_done) = sync_channel::<()>(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            run_on(1);
            // SAFETY: no precondition.
            drainer.store(unsafe { libc::pthread_self() } as u64, Ordering::Release);
            while !stop.load(Ordering::Relaxed) {
                unrelated.drain();
            }
        });
        scope.spawn(move || {
            run_on(1);
            // What was popped while the drainer was held up first: then all of its slabs are empty.
            for [most, popped] in receive {
                popped.give_back();
                most.give_back();
                done.send(()).expect("somebody waits");
            }
        });
        scope.spawn(move || {
            run_on(0);
            let _inside = tenant.enter();
            wait_for(|| drainer.load(Ordering::Acquire) != 0);
            let end = Instant::now() + DURATION;
            for nth in 0_u32.. {
                if Instant::now() > end {
                    break;
                }
                let mut most = Batch::take(NR_EACH);
                // One of each size lies on the stack, among neighbours in the middle.
                let middle = NR_EACH / 2 * SIZES.len();
                Batch(most.0.drain(middle..middle + SIZES.len()).collect()).give_back();
                // At another moment of the drain each time.
                (0..nth % NR_MOMENTS).for_each(|_| hint::spin_loop());
                // SAFETY: the drainer lives until this thread says stop.
                unsafe { libc::pthread_kill(drainer.load(Ordering::Acquire) as libc::pthread_t, libc::SIGUSR1) };
                wait_for(|| NR_ENTERED.load(Ordering::Acquire) > nth);
                send.send([most, Batch::take(1)]).expect("somebody takes it");
                is_done.recv().expect("it is given back");
                wait_for(|| NR_LEFT.load(Ordering::Acquire) > nth);
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
    tenant.drain();
    assert_eq!(tenant.usage(), 0);
}
