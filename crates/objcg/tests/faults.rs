//! The failure walks: each call of the operating system and each charge of a workload fails once, and after each the books
//! agree (I1) and what failed has left nothing (I8).
//!
//! The workload is the same every time: groups, objects of every kind, resizes, per-CPU memory, a typed cache, a trim. The points
//! at which something can fail are walked up to the first that a run does not reach.

use std::ptr::NonNull;

use objcg::{Memcg, MemcgStat};
use objcg_core::faults::{Site, fail_nth, pass_all};
use objcg_core::kmem_cache::{CacheConfig, KmemCache};
use objcg_core::{kmalloc, percpu, stat};

const MIB: usize = 1 << 20;
const NR_ROUNDS: usize = 80;
/// Points of both kinds that are walked at least.
const NR_POINTS: u64 = 2000;

/// What a run holds, and what of it belongs to the group.
#[derive(Default)]
struct Held {
    objects: Vec<NonNull<u8>>,
    percpu: Vec<NonNull<u8>>,
    groups: Vec<Memcg>,
    nr_failed: usize,
}

impl Held {
    /// Runs what may fail; the group's peak stays if it does, and so does what is counted there.
    fn try_one<T>(&mut self, top: &Memcg, work: impl FnOnce() -> Option<T>) -> Option<T> {
        let peak = top.peak();
        let done = work();
        if done.is_none() {
            self.nr_failed += 1;
            assert_eq!(top.peak(), peak, "I8: a failure raises no peak");
            self.check(top);
        }
        done
    }

    /// I1: the counter, the heap and this list agree.
    fn check(&self, top: &Memcg) {
        let found = top.stat();
        assert_eq!(top.usage(), found.total_bytes(), "I1: the counter against the heap: {found:?}");
        assert_eq!(found.slab_objects + found.large_objects, self.objects.len() as u64, "I8: no object but these");
        assert_eq!(found.percpu_objects, self.percpu.len() as u64, "I8: nor per-CPU memory");
        let usable = |object: &NonNull<u8>| {
            // SAFETY: live.
            unsafe { kmalloc::usable_size(*object) as u64 }
        };
        assert_eq!(found.slab_bytes + found.large_bytes, self.objects.iter().map(usable).sum::<u64>());
    }
}

/// The workload: returns how many of its operations failed.
fn work() -> usize {
    // A group that cannot be made is not there.
    let Ok(top) = Memcg::root().create("faulty") else { return 1 };
    let mut held = Held::default();
    for round in 0..NR_ROUNDS {
        let made = held.try_one(&top, || top.create(&format!("g{round}")).ok());
        held.groups.extend(made);
        let group = held.groups.last().cloned().unwrap_or_else(|| top.clone());
        for nth in 0..12 {
            let nr_bytes = [24, 100, 1000, 9000, 40_000, 200_000][nth % 6] + round * 8;
            let object = held.try_one(&top, || group.scope(|| kmalloc::alloc(nr_bytes, 8)));
            held.objects.extend(object);
        }
        for nr_bytes in [5 * MIB, 6 * MIB] {
            if let Some(object) = held.try_one(&top, || group.scope(|| kmalloc::alloc_zeroed(nr_bytes, 8))) {
                held.objects.push(object);
                // Grown, then shrunk to a large one: that moves.
                for nr_bytes in [9 * MIB, 10 * MIB, 8 * MIB] {
                    let last = held.objects.len() - 1;
                    let old = held.objects[last];
                    // SAFETY: live, of this alignment, and the old address is not used any more if it moves.
                    let moved = held.try_one(&top, || group.scope(|| unsafe { kmalloc::realloc(old, nr_bytes, 8) }));
                    held.objects[last] = moved.unwrap_or(old);
                }
            }
        }
        let memory = held.try_one(&top, || group.scope(|| percpu::alloc(5000 + round, 8)).ok());
        held.percpu.extend(memory);
        if round % 3 == 0 {
            // Half of it goes, some of it in a group that has nothing to do with it.
            let kept = held.objects.len() / 2;
            let others = held.objects.split_off(kept);
            // SAFETY: each is live, and nothing uses it.
            top.scope(|| others.into_iter().for_each(|object| unsafe { kmalloc::free(object) }));
            // Pages go back to the system, if it takes them.
            kmalloc::trim();
        }
        if round % 4 == 3 {
            let deleted = held.groups.swap_remove(round % held.groups.len().max(1));
            deleted.delete().expect("alive, and without children");
        }
    }
    held.check(&top);
    // SAFETY: each is live, and nothing uses it.
    held.objects.drain(..).for_each(|object| unsafe { kmalloc::free(object) });
    // SAFETY: as above.
    held.percpu.drain(..).for_each(|memory| unsafe { percpu::free(memory) });
    held.groups.clear();
    typed_cache();
    top.drain();
    assert_eq!((top.usage(), top.stat()), (0, MemcgStat::default()), "nothing is left");
    held.nr_failed
}

fn typed_cache() {
    let Ok(cache) = KmemCache::create(&CacheConfig::new(640)) else { return };
    let objects: Vec<_> = (0..50).filter_map(|_| cache.alloc()).collect();
    // SAFETY: each is live, of this cache, and nothing uses it.
    objects.into_iter().for_each(|object| unsafe { cache.free(object) });
}

/// What must be the same after every run, whatever failed in it.
fn left() -> (usize, usize, u64) {
    (objcg::nr_groups(), objcg::nr_vessels(), stat::heap().live_bytes())
}

#[test]
fn i1_i8_hold_after_each_failure_of_a_walk() {
    // Tables and caches reach their size, which is not given back.
    work();
    kmalloc::trim();
    let before = left();
    let mut nr_walked = 0;
    for site in [Site::Os, Site::Charge] {
        fail_nth(site, 0);
        assert_eq!(work(), 0, "nothing fails");
        assert!(pass_all(site) > 0, "{site:?}: a walk has points");
        let mut nr_noticed = 0;
        // How many there are depends on what the runs before have left: the walk is over when one is not reached any more.
        let nr_points = (1..).find(|nth| {
            fail_nth(site, *nth);
            let nr_failed = work();
            nr_noticed += usize::from(nr_failed > 0);
            assert_eq!(left(), before, "{site:?}, point {nth}");
            pass_all(site) < *nth
        });
        let nr_points = nr_points.expect("it ends") - 1;
        println!("{site:?}: {nr_points} points, {nr_noticed} failures that an operation could not answer itself");
        assert!(nr_noticed > 0, "{site:?}: failures are real");
        nr_walked += nr_points;
    }
    assert!(nr_walked >= NR_POINTS, "{nr_walked} points only");
    many_fail();
}

/// Orders are the process's: this is no test of its own.
fn many_fail() {
    for seed in 0..40 {
        for (site, millionths) in [(Site::Os, 300_000), (Site::Charge, 100_000)] {
            objcg_core::faults::fail_often(site, millionths, seed);
        }
        work();
        pass_all(Site::Os);
        pass_all(Site::Charge);
    }
}
