//! Many tenants of a server, each with some live objects, and requests that replace them.
//!
//! A tenant has 20 to 400 objects of 16 to 2,048 bytes, half of them below 128. They are allocated a few at a time, in
//! turns, so that those of different tenants lie side by side where the allocator lets them. A request picks a tenant at
//! random, frees 4 to 28 of its objects at random and allocates about as many of other sizes. Each page of an object is
//! touched. When each object was replaced some times, live and resident bytes are compared; again when every second tenant
//! is gone, and after half a second of rest, if the job says so.
//!
//! An operation is a pair of an allocation and a free. With two threads, either handles any tenant, and the time of an
//! operation is the time that passes. `create` and `delete` are times of a group, or of a heap, without its objects.

#[cfg(any(feature = "jemalloc", feature = "mimalloc-v2", feature = "mimalloc-v3"))]
mod heaped;
mod home;

use std::sync::{Barrier, Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::Duration;

use home::{Grouped, Home, Shared};

use super::{Answer, burst};
use crate::clock::{Clock, Effort, WARM_UP};
use crate::pages::Pages;
use crate::protocol::{Job, Mode};
use crate::random::{Random, Sizes};
use crate::resident;
use crate::rival::Group;
use crate::turns;

const MIN_OBJECTS: usize = 20;
const MAX_OBJECTS: usize = 400;
/// Objects that a tenant gets in a turn while the server fills.
const TURN: usize = 10;
const MIN_REPLACED: usize = 4;
const MAX_REPLACED: usize = 28;
/// Pairs of a repetition, for each unit of effort; more if there are many tenants.
const NR_PAIRS: usize = 10_000;
const REST: Duration = Duration::from_millis(500);

pub(super) fn run(job: &Job, effort: Effort, answer: &mut Answer) -> Result<(), String> {
    let shape = Shape::parse(&job.variant, job.seed)?;
    match job.mode {
        Mode::Off => serve(job, &shape, effort, answer, |_| Ok(Shared)),
        Mode::On => {
            let server = Group::top()?;
            serve(job, &shape, effort, answer, |nth| server.child(nth).map(Grouped))
        }
        Mode::Limit => Err("tenants have no limits here".to_owned()),
        Mode::Heaps => serve_heaps(job, &shape, effort, answer),
    }
}

#[cfg(any(feature = "jemalloc", feature = "mimalloc-v2", feature = "mimalloc-v3"))]
fn serve_heaps(job: &Job, shape: &Shape, effort: Effort, answer: &mut Answer) -> Result<(), String> {
    if shape.nr_threads > 1 {
        return Err("heaps of one thread".to_owned());
    }
    serve(job, shape, effort, answer, |_| heaped::Heaped::new())
}

#[cfg(not(any(feature = "jemalloc", feature = "mimalloc-v2", feature = "mimalloc-v3")))]
fn serve_heaps(_job: &Job, _shape: &Shape, _effort: Effort, _answer: &mut Answer) -> Result<(), String> {
    Err("this allocator has no heaps to give away".to_owned())
}

/// How many tenants, and how many threads serve them: `1000` or `1000x2`.
struct Shape {
    nr_tenants: usize,
    nr_threads: usize,
    seed: u64,
}

impl Shape {
    fn parse(variant: &str, seed: u64) -> Result<Shape, String> {
        let (tenants, threads) = variant.split_once('x').unwrap_or((variant, "1"));
        let number = |text: &str| text.parse::<usize>().ok().filter(|number| *number > 0);
        match (number(tenants), number(threads)) {
            (Some(nr_tenants), Some(nr_threads)) => Ok(Shape { nr_tenants, nr_threads, seed }),
            _ => Err(format!("no number of tenants: {variant}")),
        }
    }
}

/// One tenant: its home, and its objects.
struct Tenant<'a, H: Home> {
    home: Option<H>,
    objects: &'a mut [Option<H::Object>],
    len: usize,
    /// How many objects it has when the server is full.
    nr_at_first: usize,
}

struct Server<'a, H: Home> {
    tenants: Pages<Mutex<Tenant<'a, H>>>,
    sizes: Sizes,
    nr_threads: usize,
}

fn serve<H: Home>(
    job: &Job,
    shape: &Shape,
    effort: Effort,
    answer: &mut Answer,
    mut new_home: impl FnMut(usize) -> Result<H, String>,
) -> Result<(), String> {
    let mut random = Random::new(shape.seed);
    let mut room: Pages<Option<H::Object>> = Pages::new(shape.nr_tenants * MAX_OBJECTS, |_| None);
    let mut rooms = room.chunks_mut(MAX_OBJECTS);
    let tenants = Pages::new(shape.nr_tenants, |_| {
        let nr_at_first = MIN_OBJECTS + random.below(MAX_OBJECTS - MIN_OBJECTS + 1);
        Mutex::new(Tenant { home: None, objects: rooms.next().expect("as many"), len: 0, nr_at_first })
    });
    let server = Server { tenants, sizes: Sizes::of_a_server(), nr_threads: shape.nr_threads };
    answer.add_point("before", resident::now_bytes());

    let start = Clock::Thread.now();
    for (nth, tenant) in server.tenants.iter().enumerate() {
        lock(tenant).home = Some(new_home(nth)?);
    }
    let create_ns = (Clock::Thread.now() - start).as_nanos() as f64 / shape.nr_tenants as f64;
    let churn_ns = server.fill_and_churn(shape.seed, effort, answer);
    answer.add_case("churn", churn_ns);
    let delete_ns = server.remove_every_second();
    if H::COSTS {
        answer.add_case("create", vec![create_ns]);
        answer.add_case("delete", vec![delete_ns]);
    }

    answer.add_point("half-live", server.live_bytes());
    answer.add_point("half", resident::now_bytes());
    if job.rests {
        turns::wait_for_rest();
        burst::rest(REST);
        answer.add_point("half-later", resident::now_bytes());
    }
    server.tenants.iter().for_each(|tenant| lock(tenant).clear());
    Ok(())
}

impl<H: Home> Server<'_, H> {
    /// Lets the threads fill the server and serve requests; times of a pair. Memory is looked at while the threads live.
    fn fill_and_churn(&self, seed: u64, effort: Effort, answer: &mut Answer) -> Vec<f64> {
        let nr_pairs = (NR_PAIRS * effort.factor).max(self.tenants.len() * MAX_OBJECTS / 4);
        // By one thread, also where there are two.
        let nr_warming_up = nr_pairs / WARM_UP as usize;
        let nr_timed = nr_pairs - nr_warming_up;
        let barrier = Barrier::new(self.nr_threads);
        let clock = Clock::of(self.nr_threads);
        let mut times = Vec::with_capacity(effort.nr_repetitions);
        thread::scope(|scope| {
            for nth in 1..self.nr_threads {
                let barrier = &barrier;
                scope.spawn(move || {
                    self.fill(nth, seed);
                    barrier.wait();
                    let mut random = Random::new(seed ^ (nth as u64) << 32);
                    for _ in 0..effort.nr_repetitions {
                        barrier.wait();
                        self.churn(nr_timed / self.nr_threads, &mut random);
                        barrier.wait();
                    }
                    // Until memory was looked at.
                    barrier.wait();
                });
            }
            self.fill(0, seed);
            barrier.wait();
            let mut random = Random::new(seed);
            for _ in 0..effort.nr_repetitions {
                turns::wait();
                self.churn(nr_warming_up, &mut random);
                barrier.wait();
                times.push(clock.per_op(nr_timed as u64, || {
                    self.churn(nr_timed / self.nr_threads, &mut random);
                    barrier.wait();
                }));
            }
            answer.add_point("live", self.live_bytes());
            answer.add_point("after", resident::now_bytes());
            barrier.wait();
        });
        times
    }

    /// A thread's share of filling the server: each tenant in its turn, in an order that changes.
    fn fill(&self, thread: usize, seed: u64) {
        let mut random = Random::new(seed);
        let mut order = Pages::new(self.tenants.len(), |at| at);
        for turn in 0..MAX_OBJECTS / TURN {
            random.shuffle(&mut order);
            for &nth in order.iter().filter(|nth| (**nth + turn) % self.nr_threads == thread) {
                let tenant = &mut *lock(&self.tenants[nth]);
                let wanted = tenant.nr_at_first.min((turn + 1) * TURN);
                tenant.add(wanted.saturating_sub(tenant.len), &self.sizes, &mut random);
            }
        }
    }

    /// Requests until `nr_pairs` objects were replaced.
    fn churn(&self, nr_pairs: usize, random: &mut Random) {
        let mut nr_done = 0;
        while nr_done < nr_pairs {
            let tenant = &self.tenants[random.below(self.tenants.len())];
            match tenant.try_lock() {
                Ok(mut tenant) => nr_done += tenant.request(&self.sizes, random),
                // The other thread has it: another tenant.
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Poisoned(_)) => panic!("a thread died"),
            }
        }
    }

    /// Ends every second tenant; nanoseconds to delete what an empty one has.
    fn remove_every_second(&self) -> f64 {
        let removed = || self.tenants.iter().step_by(2);
        removed().for_each(|tenant| lock(tenant).clear());
        let nr_removed = removed().count() as u64;
        Clock::Thread.per_op(nr_removed, || removed().for_each(|tenant| lock(tenant).home = None))
    }

    fn live_bytes(&self) -> u64 {
        let of =
            |tenant: &Tenant<'_, H>| tenant.objects.iter().flatten().map(|object| H::size(object) as u64).sum::<u64>();
        self.tenants.iter().map(|tenant| of(&lock(tenant))).sum()
    }
}

impl<H: Home> Tenant<'_, H> {
    /// Frees some objects and allocates others; how many pairs that is.
    fn request(&mut self, sizes: &Sizes, random: &mut Random) -> usize {
        let nr_freed = MIN_REPLACED + random.below((self.len / 2).min(MAX_REPLACED) - MIN_REPLACED + 1);
        // The number of objects wanders by up to two.
        let nr_left = self.len - nr_freed;
        let nr_after = (self.len + random.below(5)).saturating_sub(2).clamp(MIN_OBJECTS, MAX_OBJECTS);
        let home = self.home.as_ref().expect("a tenant that is served has a home");
        let objects = &mut *self.objects;
        home.visit(|| {
            for last in (nr_left..self.len).rev() {
                objects.swap(random.below(last + 1), last);
                home.free(objects[last].take().expect("as many objects"));
            }
            for place in &mut objects[nr_left..nr_after] {
                *place = Some(home.alloc(sizes.draw(random)));
            }
        });
        self.len = nr_after;
        nr_freed
    }

    fn add(&mut self, nr_more: usize, sizes: &Sizes, random: &mut Random) {
        let home = self.home.as_ref().expect("a tenant that is filled has a home");
        let places = &mut self.objects[self.len..self.len + nr_more];
        home.visit(|| places.iter_mut().for_each(|place| *place = Some(home.alloc(sizes.draw(random)))));
        self.len += nr_more;
    }

    fn clear(&mut self) {
        let Some(home) = &self.home else { return };
        self.objects[..self.len].iter_mut().filter_map(Option::take).for_each(|object| home.free(object));
        self.len = 0;
    }
}

fn lock<T>(tenant: &Mutex<T>) -> MutexGuard<'_, T> {
    tenant.lock().expect("nothing panics with a tenant")
}
