//! Repetitions, how long each is, and by which clock.
#![expect(unsafe_code, reason = "the thread's clock")]

use std::time::Duration;

use crate::protocol::Scale;
use crate::turns;

/// Longer than anything that a worker does at once.
pub(crate) const TOO_LONG: Duration = Duration::from_secs(300);
/// Longer than the others' turns take, though not if each of them takes too long.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// What time is.
#[derive(Clone, Copy)]
pub(crate) enum Clock {
    /// Time that this thread spent on a CPU, the kernel's work for it included: other processes do not count. For what one
    /// thread does without waiting.
    Thread,
    /// Time that passed. For what several threads do.
    Wall,
}

impl Clock {
    pub(crate) fn of(nr_threads: usize) -> Clock {
        if nr_threads == 1 { Clock::Thread } else { Clock::Wall }
    }

    pub(crate) fn now(self) -> Duration {
        let id = match self {
            Clock::Thread => libc::CLOCK_THREAD_CPUTIME_ID,
            Clock::Wall => libc::CLOCK_MONOTONIC,
        };
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel writes a time.
        let refusal = unsafe { libc::clock_gettime(id, &raw mut time) };
        assert!(refusal == 0, "the kernel has these clocks");
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    /// Nanoseconds an operation of `work`, which does `nr_ops` of them.
    pub(crate) fn per_op(self, nr_ops: u64, work: impl FnOnce()) -> f64 {
        let start = self.now();
        work();
        (self.now() - start).as_nanos() as f64 / nr_ops as f64
    }
}

/// Lets the kernel end the worker if it runs longer than any workload should.
pub(crate) fn give_up_after(time: Duration) {
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    // SAFETY: nobody handles the signal: it ends the process.
    unsafe { libc::alarm(seconds) };
}

/// How much a workload does at a scale.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) nr_repetitions: usize,
    /// How long a repetition of a loop of any length takes.
    repetition: Duration,
    /// By what workloads of a fixed length multiply their smallest sensible one.
    pub(crate) factor: usize,
}

/// One part in so many of a repetition is done before it and not timed: others had the caches.
pub(crate) const WARM_UP: u64 = 8;

impl Effort {
    pub(crate) fn of(scale: Scale) -> Effort {
        let (nr_repetitions, micros, factor) = match scale {
            Scale::Tiny => (2, 500, 1),
            Scale::Quick => (7, 3_000, 10),
            Scale::Full => (15, 15_000, 40),
        };
        Effort { nr_repetitions, repetition: Duration::from_micros(micros), factor }
    }

    /// Nanoseconds an operation of each repetition of `work`, which is of one thread and does as many operations as it is told,
    /// a multiple of `grain`. What warms up and finds the length is left out.
    pub(crate) fn repeat(self, grain: u64, mut work: impl FnMut(u64)) -> Vec<f64> {
        let [times] = self.alternate(grain, |_, nr_ops| work(nr_ops));
        times
    }

    /// As `repeat`, of several works, one after the other in each repetition.
    pub(crate) fn alternate<const N: usize>(self, grain: u64, mut work: impl FnMut(usize, u64)) -> [Vec<f64>; N] {
        let lengths: [u64; N] = std::array::from_fn(|which| self.calibrate(grain, &mut |nr_ops| work(which, nr_ops)));
        let mut times = [const { Vec::new() }; N];
        for _ in 0..self.nr_repetitions {
            turns::wait();
            for which in 0..N {
                work(which, (lengths[which] / grain / WARM_UP).max(1) * grain);
                times[which].push(Clock::Thread.per_op(lengths[which], || work(which, lengths[which])));
            }
        }
        times
    }

    /// What each repetition of `measure` finds, which is as long as it is: four milliseconds or more, of which it takes some tens of
    /// microseconds to have the caches back. One before them warms up.
    pub(crate) fn repeat_whole(self, mut measure: impl FnMut() -> f64) -> Vec<f64> {
        measure();
        let repetition = |_| {
            turns::wait();
            measure()
        };
        (0..self.nr_repetitions).map(repetition).collect()
    }

    /// How many operations a repetition takes.
    fn calibrate(self, grain: u64, work: &mut impl FnMut(u64)) -> u64 {
        let mut nr_ops = grain;
        loop {
            let elapsed_ns = Clock::Thread.per_op(1, || work(nr_ops));
            let wanted_ns = self.repetition.as_nanos() as f64;
            if elapsed_ns * 8.0 >= wanted_ns {
                return nr_ops * ((wanted_ns / elapsed_ns) as u64).max(1);
            }
            nr_ops *= 2;
        }
    }
}
