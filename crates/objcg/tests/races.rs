//! A storm for sanitizers: threads that allocate, resize, hand over and free in groups that come and go under limits.
//!
//! Its threads meet in the engine, in locks of its own, and at their start and end; no lock or channel of the standard library
//! is used in between. ThreadSanitizer sees all of that though the standard library is not instrumented, so that every report
//! is one of the engine. It has no harness, whose threads would be reported. As any test it ends at exactly nothing (I1, I4).

use std::alloc::{Layout, alloc, dealloc, realloc};
use std::cell::UnsafeCell;
use std::hint;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use objcg::{Memcg, MemcgStat, Objcg, OomPolicy, PerCpuCounter};

#[path = "support/random.rs"]
mod random;
use random::Random;

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const NR_THREADS: usize = 4;
const NR_OPERATIONS: usize = 20_000;
const NR_PLACES: usize = 16;
const MAX_OBJECTS: usize = 150;
const MIB: usize = 1 << 20;

/// A lock of atomics that are compiled here, which a sanitizer sees.
struct Spin<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `with` gives the value to one thread at a time.
unsafe impl<T: Send> Sync for Spin<T> {}

impl<T> Spin<T> {
    const fn new(value: T) -> Spin<T> {
        Spin { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        while self.taken.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            hint::spin_loop();
            thread::yield_now();
        }
        // SAFETY: `taken` is ours until it is given back.
        let result = work(unsafe { &mut *self.value.get() });
        self.taken.store(false, Ordering::Release);
        result
    }
}

struct Object {
    memory: *mut u8,
    layout: Layout,
}

// SAFETY: an object has one holder at a time.
unsafe impl Send for Object {}

impl Object {
    fn alloc(random: &mut Random) -> Option<Object> {
        let nr_bytes = match random.below(200) {
            0 => 1 + random.below(5 * MIB),
            1..=10 => 1 + random.below(64 << 10),
            _ => 1 + random.below(1000),
        };
        let layout = Layout::from_size_align(nr_bytes, 8).expect("a small size");
        // SAFETY: the size is not 0.
        let memory = unsafe { alloc(layout) };
        let object = Object { memory, layout };
        (!memory.is_null()).then(|| object.written())
    }

    /// Every byte up to 256 of them: plain writes, which race with whoever else holds the memory.
    fn written(self) -> Object {
        // SAFETY: the object's own bytes.
        unsafe { self.memory.write_bytes(self.layout.size() as u8, self.layout.size().min(256)) };
        self
    }

    fn resized(mut self, nr_bytes: usize) -> Object {
        // SAFETY: the object has this layout, and the size is not 0.
        let moved = unsafe { realloc(self.memory, self.layout, nr_bytes) };
        if !moved.is_null() {
            self = Object { memory: moved, layout: Layout::from_size_align(nr_bytes, 8).expect("a small size") };
        }
        self.written()
    }

    fn free(self) {
        for place in 0..self.layout.size().min(256) {
            // SAFETY: the object's own byte.
            let byte = unsafe { self.memory.add(place) };
            // SAFETY: `written` wrote it.
            assert_eq!(unsafe { byte.read() }, self.layout.size() as u8, "byte {place} of {:?}", self.layout);
        }
        // SAFETY: the object has this layout, and is given up here.
        unsafe { dealloc(self.memory, self.layout) };
    }
}

static GROUPS: [Spin<Option<Memcg>>; NR_PLACES] = [const { Spin::new(None) }; NR_PLACES];
static MAIL: [Spin<Vec<Object>>; NR_THREADS] = [const { Spin::new(Vec::new()) }; NR_THREADS];
static COUNTER: Spin<Option<PerCpuCounter>> = Spin::new(None);

/// Some group, which others may delete at any moment.
fn some_group(top: &Memcg, random: &mut Random) -> Memcg {
    GROUPS[random.below(NR_PLACES)].with(|group| group.clone()).unwrap_or_else(|| top.clone())
}

fn work(top: &Memcg, thread: usize, mut random: Random) {
    let mut held: Vec<Object> = Vec::with_capacity(2 * MAX_OBJECTS);
    for _ in 0..NR_OPERATIONS {
        let group = some_group(top, &mut random);
        match random.below(40) {
            0 => {
                let name = format!("g{}", random.below(100));
                // The name may be taken, the parent deleted, or at its limit.
                let created = group.create(&name).ok();
                let replaced = GROUPS[random.below(NR_PLACES)].with(|place| std::mem::replace(place, created));
                drop(replaced);
            }
            // It may be deleted already, or have children.
            1 if group != *top => drop(group.delete()),
            2 if group != *top => drop(group.set_max(Some((MIB + random.below(8 * MIB)) as u64))),
            3 => group.drain(),
            4 => drop(group.stat()),
            5 => drop((group.usage(), group.peak(), group.events(), group.children(), group.path())),
            6 => COUNTER.with(|counter| match counter {
                Some(counter) => counter.add(1),
                None => *counter = group.scope(PerCpuCounter::new).ok(),
            }),
            7 => drop(COUNTER.with(Option::take)),
            8..=12 if !held.is_empty() => {
                let object = held.swap_remove(random.below(held.len()));
                let nr_bytes = 1 + random.below(4000);
                held.push(group.scope(|| object.resized(nr_bytes)));
            }
            13..=18 if !held.is_empty() => {
                let object = held.swap_remove(random.below(held.len()));
                MAIL[(thread + 1) % NR_THREADS].with(|mail| mail.push(object));
            }
            19..=29 if held.len() < MAX_OBJECTS => held.extend(group.scope(|| Object::alloc(&mut random))),
            _ if !held.is_empty() => {
                let object = held.swap_remove(random.below(held.len()));
                group.scope(|| object.free());
            }
            _ => {}
        }
        MAIL[thread].with(std::mem::take).into_iter().for_each(Object::free);
    }
    held.into_iter().for_each(Object::free);
}

fn main() {
    let mut random = Random::from_environment();
    let top = Memcg::root().create("races").expect("a new name");
    top.set_oom_policy(Some(OomPolicy::Fail)).expect("alive");
    top.set_max(Some(32 << 20)).expect("alive");
    let threads: Vec<_> = (0..NR_THREADS)
        .map(|thread| {
            let (top, own) = (top.clone(), Random::seeded(random.below(1 << 30) as u64));
            thread::spawn(move || work(&top, thread, own))
        })
        .collect();
    for thread in threads {
        assert!(thread.join().is_ok(), "a thread found something");
    }
    for mail in &MAIL {
        mail.with(std::mem::take).into_iter().for_each(Object::free);
    }
    drop(COUNTER.with(Option::take));
    GROUPS.iter().for_each(|place| drop(place.with(Option::take)));
    top.drain();
    assert_eq!((top.usage(), top.stat()), (0, MemcgStat::default()), "nothing is left");
    assert_eq!((objcg::nr_groups(), objcg::nr_dying()), (1, 0));
    println!("races: {NR_THREADS} threads, {NR_OPERATIONS} operations each: ok");
}
