//! Everything at once on many threads: groups come, go and change their limits under objects of all sizes that are
//! allocated, resized, handed over and freed by others, while an observer looks at it all (I1, I2, I3, I4, I8).
//!
//! What can be said in the middle is said (contents, alignment, limits); the rest at the end: exactly nothing is left.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use objcg::{CreateError, DeleteError, Memcg, MemcgStat, Objcg, OomPolicy};

#[path = "support/random.rs"]
mod random;
use random::Random;

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const NR_THREADS: usize = 4;
const NR_OPERATIONS: usize = 40_000;
const MAX_OBJECTS: usize = 300;
const MAX_GROUPS: usize = 60;
const MAX: u64 = 64 << 20;
const MIB: usize = 1 << 20;

struct Object {
    memory: *mut u8,
    layout: Layout,
    tag: u8,
}

// SAFETY: an object has one holder at a time.
unsafe impl Send for Object {}

impl Object {
    fn alloc(layout: Layout, tag: u8) -> Option<Object> {
        let take = if tag & 1 == 0 { alloc } else { alloc_zeroed };
        // SAFETY: no layout here has size 0.
        let memory = unsafe { take(layout) };
        if memory.is_null() {
            return None;
        }
        assert!(memory.addr().is_multiple_of(layout.align()), "{layout:?}");
        let object = Object { memory, layout, tag };
        if tag & 1 == 1 {
            object.places(layout.size()).for_each(|place| assert_eq!(object.read(place), 0, "{layout:?} at {place}"));
        }
        object.write();
        Some(object)
    }

    /// Both ends, and a byte of each page.
    fn places(&self, nr_bytes: usize) -> impl Iterator<Item = usize> + use<> {
        let ends = (0..nr_bytes.min(64)).chain(nr_bytes.saturating_sub(64)..nr_bytes);
        ends.chain((0..nr_bytes).step_by(4096))
    }

    fn byte(&self, place: usize) -> *mut u8 {
        // SAFETY: places are inside the object.
        unsafe { self.memory.add(place) }
    }

    fn read(&self, place: usize) -> u8 {
        // SAFETY: initialised by `write` or `alloc_zeroed`.
        unsafe { self.byte(place).read() }
    }

    fn write(&self) {
        for place in self.places(self.layout.size()) {
            // SAFETY: the object's own byte.
            unsafe { self.byte(place).write(self.tag) };
        }
    }

    fn check(&self) {
        for place in self.places(self.layout.size()) {
            assert_eq!(self.read(place), self.tag, "byte {place} of {:?} was overwritten", self.layout);
        }
    }

    fn resize(&mut self, nr_bytes: usize) {
        self.check();
        // SAFETY: the object has this layout, and the new size is not 0.
        let moved = unsafe { realloc(self.memory, self.layout, nr_bytes) };
        if moved.is_null() {
            return self.check();
        }
        let kept = self.layout.size().min(nr_bytes);
        self.layout = Layout::from_size_align(nr_bytes, self.layout.align()).expect("a small size");
        self.memory = moved;
        (0..kept.min(64)).for_each(|place| assert_eq!(self.read(place), self.tag, "realloc lost byte {place}"));
        self.write();
    }

    fn free(self) {
        self.check();
        // SAFETY: the object has this layout and is given up here.
        unsafe { dealloc(self.memory, self.layout) };
    }
}

fn layout(random: &mut Random) -> Layout {
    let nr_bytes = match random.below(1000) {
        0 => 1 + random.below(40 * MIB),
        1..=9 => 1 + random.below(5 * MIB),
        10..=60 => 1 + random.below(MIB / 4),
        _ => 1 + random.below(3000),
    };
    let align = match random.below(100) {
        0 => 1 << random.below(22),
        1..=9 => 1 << random.below(13),
        _ => 8,
    };
    Layout::from_size_align(nr_bytes, align).expect("a small size")
}

/// What all threads share: a bounded list of handles, which hold their groups.
struct Forest {
    top: Memcg,
    groups: Mutex<Vec<Memcg>>,
}

impl Forest {
    fn groups(&self) -> std::sync::MutexGuard<'_, Vec<Memcg>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some group, which may be deleted at any moment.
    fn any(&self, random: &mut Random) -> Memcg {
        let groups = self.groups();
        let nth = random.below(groups.len() + 1);
        groups.get(nth).unwrap_or(&self.top).clone()
    }

    fn create(&self, random: &mut Random) {
        let parent = self.any(random);
        match parent.create(&format!("g{}", random.below(200))) {
            Ok(group) if self.groups().len() < MAX_GROUPS => self.groups().push(group),
            Ok(group) => drop(group),
            Err(CreateError::Exists | CreateError::ParentDeleted | CreateError::Limit(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn delete(&self, random: &mut Random) {
        let mut groups = self.groups();
        if groups.is_empty() {
            return;
        }
        let nth = random.below(groups.len());
        let group = groups.swap_remove(nth);
        drop(groups);
        if random.below(2) == 0 {
            assert!(matches!(group.delete(), Ok(()) | Err(DeleteError::Deleted | DeleteError::HasChildren)));
        }
    }

    fn limit(&self, random: &mut Random) {
        let group = self.any(random);
        let max = (random.below(4) != 0).then(|| random.below(8 * MIB) as u64);
        if group != self.top && !group.is_deleted() {
            // It may be deleted between the question and this.
            let _ = group.set_max(max);
        }
    }
}

fn work(forest: &Forest, mut random: Random, inbox: &mpsc::Receiver<Object>, outbox: &mpsc::Sender<Object>) {
    let mut held: Vec<Object> = Vec::with_capacity(2 * MAX_OBJECTS);
    for _ in 0..NR_OPERATIONS {
        match random.below(40) {
            0 => forest.create(&mut random),
            1 => forest.delete(&mut random),
            2 => forest.limit(&mut random),
            3 => forest.any(&mut random).drain(),
            4..=6 if !held.is_empty() => {
                let (nth, group) = (random.below(held.len()), forest.any(&mut random));
                let nr_bytes = layout(&mut random).size();
                group.scope(|| held[nth].resize(nr_bytes));
            }
            7..=10 if !held.is_empty() => {
                let nth = random.below(held.len());
                outbox.send(held.swap_remove(nth)).expect("the neighbour's inbox outlives the threads");
            }
            11..=25 if held.len() < MAX_OBJECTS => {
                let (layout, tag) = (layout(&mut random), random.below(255) as u8 + 1);
                held.extend(forest.any(&mut random).scope(|| Object::alloc(layout, tag)));
            }
            _ if !held.is_empty() => {
                let (nth, group) = (random.below(held.len()), forest.any(&mut random));
                let object = held.swap_remove(nth);
                group.scope(|| object.free());
            }
            _ => {}
        }
        inbox.try_iter().for_each(Object::free);
    }
    held.into_iter().for_each(Object::free);
}

/// Looks at everything that can be looked at; nothing of it may hang, crash or break a limit.
fn observe(forest: &Forest, mut random: Random, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let group = forest.any(&mut random);
        assert!(forest.top.usage() <= MAX, "usage over a limit that never changed");
        let stat = group.stat();
        assert!(stat.slab_bytes >= stat.slab_objects * 8 && stat.large_bytes >= stat.large_objects * 4096);
        let path = group.path();
        assert!(path.starts_with("/storm") || path.starts_with("(deleted)/"), "{path}");
        if let Some(parent) = group.parent() {
            assert!(parent.path().len() < group.path().len() || group.is_deleted() || parent.is_deleted());
        }
        let _ = (group.events(), group.peak(), group.max(), objcg::nr_dying());
    }
}

#[test]
fn i1_i4_a_storm_ends_at_exactly_nothing() {
    let mut random = Random::from_environment();
    Memcg::root().drain();
    let before = (objcg::nr_groups(), objcg::nr_dying(), objcg::nr_vessels());
    let top = Memcg::root().create("storm").expect("a new name");
    top.set_oom_policy(Some(OomPolicy::Fail)).expect("alive");
    top.set_max(Some(MAX)).expect("alive");
    let forest = Forest { top: top.clone(), groups: Mutex::new(Vec::with_capacity(2 * MAX_GROUPS)) };
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..NR_THREADS).map(|_| mpsc::channel::<Object>()).unzip();
    let stop = AtomicBool::new(false);
    let receivers: Vec<_> = thread::scope(|scope| {
        let observer = Random::seeded(random.below(1 << 30) as u64);
        scope.spawn(|| observe(&forest, observer, &stop));
        let workers: Vec<_> = receivers
            .into_iter()
            .enumerate()
            .map(|(nth, inbox)| {
                let outbox = senders[(nth + 1) % NR_THREADS].clone();
                let (forest, own) = (&forest, Random::seeded(random.below(1 << 30) as u64));
                scope.spawn(move || {
                    work(forest, own, &inbox, &outbox);
                    inbox
                })
            })
            .collect();
        // A failed worker must not leave the observer looking for ever.
        let ended: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        ended.into_iter().map(|worker| worker.expect("the worker ends well")).collect()
    });
    receivers.iter().flat_map(mpsc::Receiver::try_iter).for_each(Object::free);
    drop(forest);
    top.drain();
    assert_eq!((top.usage(), top.stat()), (0, MemcgStat::default()), "nothing is left, not even a vessel");
    assert_eq!(top.children(), []);
    drop(top);
    Memcg::root().drain();
    assert_eq!((objcg::nr_groups(), objcg::nr_dying(), objcg::nr_vessels()), before);
    assert_eq!(Memcg::root().usage(), 0);
}
