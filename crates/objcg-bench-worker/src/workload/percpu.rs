//! Per-CPU memory: what an addition to a counter costs, and what a hundred thousand counters take.
//!
//! `local`, `counter` and `shared` are an addition to a number of the thread, to a `PerCpuCounter` and to one atomic;
//! those that end in `x2` are made by two threads at once, each on a CPU of its own, and the slower one's time counts. `alloc`
//! and `free` are of 4 bytes on each CPU with 100,000 such live, of which half were freed at random and replaced. Then
//! `used` is what the allocations take, `populated` the pages that they lie in, `held` these and what the allocator needs
//! to know about them, without owner words.
//!
//! An operation is an addition, an allocation or a free.

#[cfg(feature = "objcg")]
pub(super) use of_objcg::run;

#[cfg(not(feature = "objcg"))]
pub(super) fn run(_: &crate::protocol::Job, _: crate::clock::Effort, _: &mut super::Answer) -> Result<(), String> {
    Err("this allocator has no per-CPU memory".to_owned())
}

#[cfg(feature = "objcg")]
mod of_objcg {
    #![expect(unsafe_code, reason = "memory by hand")]

    use std::cell::Cell;
    use std::hint::black_box;
    use std::ptr::NonNull;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use objcg::PerCpuCounter;
    use objcg_core::percpu;

    use super::super::{Answer, NR_THREADS};
    use crate::affinity;
    use crate::clock::{Clock, Effort};
    use crate::pages::Pages;
    use crate::protocol::Job;
    use crate::random::Random;
    use crate::rival::{group_of, within};

    const GRAIN: u64 = 1000;
    /// Additions of a thread, for each unit of effort, where there are two.
    const NR_ADDITIONS: u64 = 100_000;
    const NR_COUNTERS: usize = 100_000;
    const COUNTER_BYTES: usize = 4;

    thread_local! {
        static LOCAL: Cell<u64> = const { Cell::new(0) };
    }

    pub(in crate::workload) fn run(job: &Job, effort: Effort, answer: &mut Answer) -> Result<(), String> {
        let group = group_of(job.mode)?;
        within(group.as_ref(), || {
            let adders = Adders::new()?;
            let of_one: [_; KINDS.len()] = effort.alternate(GRAIN, |which, nr_ops| adders.add(KINDS[which], nr_ops));
            for (kind, times) in KINDS.iter().zip(of_one) {
                answer.add_case(kind.name(), times);
            }
            let mut of_two = [const { Vec::new() }; KINDS.len()];
            for _ in 0..effort.nr_repetitions {
                for (kind, times) in KINDS.iter().zip(&mut of_two) {
                    times.push(adders.add_by_all(*kind, NR_ADDITIONS * effort.factor as u64));
                }
            }
            for (kind, times) in KINDS.iter().zip(of_two) {
                answer.add_case(format!("{}x{NR_THREADS}", kind.name()), times);
            }
            many_counters(job.seed, effort, answer)
        })
    }

    #[derive(Clone, Copy)]
    enum Kind {
        Local,
        Counter,
        Shared,
    }

    const KINDS: [Kind; 3] = [Kind::Local, Kind::Counter, Kind::Shared];

    impl Kind {
        fn name(self) -> &'static str {
            match self {
                Kind::Local => "local",
                Kind::Counter => "counter",
                Kind::Shared => "shared",
            }
        }
    }

    struct Adders {
        counter: PerCpuCounter,
        shared: AtomicU64,
    }

    impl Adders {
        fn new() -> Result<Adders, String> {
            let counter = PerCpuCounter::new().map_err(|error| error.to_string())?;
            Ok(Adders { counter, shared: AtomicU64::new(0) })
        }

        fn add(&self, kind: Kind, nr_ops: u64) {
            match kind {
                Kind::Local => (0..nr_ops).for_each(|_| LOCAL.with(|local| local.set(black_box(local.get() + 1)))),
                Kind::Counter => (0..nr_ops).for_each(|_| self.counter.add(1)),
                Kind::Shared => (0..nr_ops).for_each(|_| _ = self.shared.fetch_add(1, Ordering::Relaxed)),
            }
        }

        /// Nanoseconds of the slower of the threads.
        fn add_by_all(&self, kind: Kind, nr_ops: u64) -> f64 {
            let start = Barrier::new(NR_THREADS);
            thread::scope(|scope| {
                let start = &start;
                let threads: [_; NR_THREADS] = std::array::from_fn(|nth| {
                    scope.spawn(move || {
                        affinity::stay_on(nth);
                        start.wait();
                        Clock::Thread.per_op(nr_ops, || self.add(kind, nr_ops))
                    })
                });
                threads.map(|thread| thread.join().expect("nothing panics")).into_iter().fold(0.0, f64::max)
            })
        }
    }

    fn many_counters(seed: u64, effort: Effort, answer: &mut Answer) -> Result<(), String> {
        let mut random = Random::new(seed);
        let mut counters = Pages::new(NR_COUNTERS, |_| None);
        let before = percpu::stat();
        fill(&mut counters)?;
        let (mut allocs, mut frees) = (Vec::new(), Vec::new());
        for _ in 0..effort.nr_repetitions {
            random.shuffle(&mut counters);
            let half = &mut counters[..NR_COUNTERS / 2];
            frees.push(Clock::Thread.per_op(half.len() as u64, || half.iter_mut().for_each(free)));
            let mut filled = Ok(());
            allocs.push(Clock::Thread.per_op(half.len() as u64, || filled = fill(half)));
            filled?;
        }
        answer.add_case("alloc", allocs);
        answer.add_case("free", frees);
        let stat = percpu::stat();
        answer.add_point("used", (stat.used_bytes - before.used_bytes) as u64);
        answer.add_point("populated", stat.populated_bytes as u64);
        answer.add_point("held", (stat.populated_bytes + stat.metadata_bytes) as u64);
        counters.iter_mut().for_each(free);
        Ok(())
    }

    type Place = Option<NonNull<u8>>;

    fn fill(places: &mut [Place]) -> Result<(), String> {
        for place in places {
            let counter = percpu::alloc(COUNTER_BYTES, COUNTER_BYTES).map_err(|error| error.to_string())?;
            *place = Some(counter);
        }
        Ok(())
    }

    fn free(place: &mut Place) {
        if let Some(counter) = place.take() {
            // SAFETY: it was allocated by `fill`, and nothing used it.
            unsafe { percpu::free(counter) };
        }
    }
}
