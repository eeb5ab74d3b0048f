//! Slabs that are one group's alone, while there is no memory for owner vectors: nothing is lost, and their owner gets their free places.
//!
//! The operating system refuses everything and the pages that are there are used up. Orders are the process's: tests run one after the
//! other.

use std::iter;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use objcg_core::faults::{MILLION, Site, fail_often, pass_all};
use objcg_core::kmalloc;
use objcg_core::kmem_cache::{CacheConfig, KmemCache, Sheaves};
use objcg_core::memcg::Memcg;

/// A size of which a slab has few enough to share a vector, and a vector of its own is no size of an object's.
const OBJECT_BYTES: usize = 712;
const PRICE: u64 = OBJECT_BYTES as u64 + 4;
const BALLAST_BYTES: usize = 1 << 20;

type Objects = Vec<NonNull<u8>>;

/// A group that is large enough for slabs of its own, with such a cache; what holds all memory that there was.
struct Exhausted {
    group: Memcg,
    cache: KmemCache,
    ballast: NonNull<u8>,
    held: Objects,
}

impl Exhausted {
    fn new(name: &str) -> Exhausted {
        let group = Memcg::root().create(name).expect("a new name");
        let cache = KmemCache::create(&CacheConfig::new(OBJECT_BYTES)).expect("a sound shape");
        let ballast = within(&group, || kmalloc::alloc(BALLAST_BYTES, 8)).expect("memory");
        Exhausted { group, cache, ballast, held: Vec::with_capacity(1 << 20) }
    }

    /// As many of the group's as there are.
    fn take(&self, at_most: usize) -> Objects {
        within(&self.group, || iter::from_fn(|| self.cache.alloc()).take(at_most).collect())
    }

    fn give_back(&self, objects: Objects) {
        // SAFETY: callers hand over what they took, once.
        objects.into_iter().for_each(|object| unsafe { self.cache.free(object) });
    }

    /// From here on there is no memory: pages, then slabs of all classes.
    fn use_up(&mut self) {
        fail_often(Site::Os, MILLION, 0);
        let slabs = (1..=256).rev().map(|step| step * 16);
        for nr_bytes in [256 << 10, 40 << 10, 32 << 10].into_iter().chain(slabs) {
            self.held.extend(iter::from_fn(|| kmalloc::alloc(nr_bytes, 8)));
        }
    }

    /// With memory again nothing is left of the group, and no slab of the cache.
    fn end(self) {
        pass_all(Site::Os);
        // SAFETY: live, and nothing uses them.
        self.held.into_iter().chain([self.ballast]).for_each(|object| unsafe { kmalloc::free(object) });
        self.cache.shrink();
        let stat = self.cache.stat();
        assert_eq!((stat.nr_objects, stat.nr_slabs), (0, 0), "a slab that nobody uses is given back");
        self.group.drain();
        assert_eq!(self.group.usage(), 0);
    }
}

fn within<R>(group: &Memcg, work: impl FnOnce() -> R) -> R {
    let _inside = group.enter();
    work()
}

/// Tests run one after the other.
fn alone() -> impl Drop {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn i8_what_was_charged_for_objects_that_are_not_there_is_not_taken_without_a_peak() {
    let _alone = alone();
    let mut exhausted = Exhausted::new("peak");
    let mut objects = exhausted.take(100);
    // A charge of one object by itself: from then on stocks keep two batches of today's size.
    let shape = CacheConfig { sheaves: Sheaves::Off, ..CacheConfig::new(96) };
    let others = KmemCache::create(&shape).expect("a sound shape");
    let one = || within(&exhausted.group, || others.alloc()).expect("memory");
    let mut small = vec![one()];
    exhausted.use_up();
    objects.extend(exhausted.take(usize::MAX));
    exhausted.group.drain();
    assert!(exhausted.take(1).is_empty());
    pass_all(Site::Os);
    let group = &exhausted.group;
    for _ in 0..2000 {
        small.push(within(group, || others.alloc()).expect("memory"));
        let live = BALLAST_BYTES as u64 + objects.len() as u64 * PRICE + small.len() as u64 * (96 + 4);
        assert!(group.peak() >= live, "peak {} of {live} live bytes", group.peak());
    }
    // SAFETY: live, and nothing uses them.
    small.into_iter().for_each(|object| unsafe { others.free(object) });
    others.shrink();
    exhausted.give_back(objects);
    exhausted.end();
}

#[test]
fn free_places_of_a_groups_own_slabs_are_there_for_it() {
    let _alone = alone();
    let mut exhausted = Exhausted::new("own places");
    let objects = exhausted.take(20_000);
    let (kept, freed): (Vec<_>, Vec<_>) = objects.into_iter().enumerate().partition(|(nth, _)| nth % 10 == 0);
    let nr_freed = freed.len();
    exhausted.give_back(freed.into_iter().map(|(_, object)| object).collect());
    exhausted.cache.shrink();
    exhausted.use_up();
    let again = exhausted.take(nr_freed);
    assert_eq!(again.len(), nr_freed, "free places, and no vector needed");
    exhausted.give_back(again);
    exhausted.give_back(kept.into_iter().map(|(_, object)| object).collect());
    exhausted.end();
}
