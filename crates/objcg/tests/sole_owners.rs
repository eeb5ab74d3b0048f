//! Slabs of one large group share an owner vector; as soon as one of their objects is another's they have their own (I1, I2, I4).

use std::thread;

use objcg::{Memcg, MemcgStat, Objcg, OomPolicy};
use objcg_core::kmem_cache::{CacheConfig, KmemCache};
use objcg_core::stat;

#[path = "support/groups.rs"]
mod groups;
use groups::{MIB, alone, group, strict};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

/// A size that nothing else here has, of a class of few objects a slab.
const OBJECT_BYTES: usize = 700;
const SLOT_BYTES: u64 = 704;
const NR_OBJECTS: usize = 6000;

fn objects(nr_objects: usize) -> Vec<Vec<u8>> {
    (0..nr_objects).map(|_| vec![1; OBJECT_BYTES]).collect()
}

/// Bytes of the class's own owner vectors, and of its slabs.
fn class() -> (u64, u64) {
    let class = stat::size_classes().find(|class| class.size as u64 == SLOT_BYTES).expect("a class of that size");
    (class.owner_bytes, class.slab_bytes)
}

/// Usage and what a walk finds are the same, and the walk finds so many objects.
fn check(group: &Memcg, nr_objects: usize) {
    group.drain();
    let stat = group.stat();
    assert_eq!((group.usage(), stat.slab_objects), (stat.total_bytes(), nr_objects as u64), "I1 of {group:?}");
}

/// A group that is large already, by an object that is not in a slab.
struct Large {
    group: Memcg,
    ballast: Vec<u8>,
}

impl Large {
    fn new(name: &str) -> Large {
        let group = group(name);
        let ballast = group.scope(|| vec![0; MIB as usize]);
        Large { group, ballast }
    }

    fn end(self) {
        drop(self.ballast);
        self.group.drain();
        assert_eq!((self.group.usage(), self.group.stat()), (0, MemcgStat::default()), "nothing is left");
    }
}

#[test]
fn i1_a_large_groups_slabs_share_their_owner_words() {
    let _alone = alone();
    let large = Large::new("large");
    let before = class();
    let held = large.group.scope(|| objects(NR_OBJECTS));
    let after = class();
    assert!(after.1 >= NR_OBJECTS as u64 * SLOT_BYTES, "they are of that class");
    let nr_words = (after.1 - before.1) / SLOT_BYTES;
    assert!((after.0 - before.0) < 4 * nr_words / 10, "{} bytes of owner words for {nr_words}", after.0 - before.0);
    check(&large.group, NR_OBJECTS);
    drop(held);
    large.end();
}

#[test]
fn i2_objects_of_a_shared_vector_go_to_another_group() {
    let _alone = alone();
    let (first, second) = (Large::new("first"), Large::new("second"));
    let mut held = first.group.scope(|| objects(NR_OBJECTS));
    // Every third object goes, in no group; the other group gets the places while the neighbours live.
    let mut nth = 0;
    held.retain(|_| {
        nth += 1;
        nth % 3 != 0
    });
    let others = second.group.scope(|| objects(NR_OBJECTS / 3));
    check(&first.group, held.len());
    check(&second.group, others.len());
    // Freed by another thread, in the wrong group.
    thread::scope(|scope| {
        scope.spawn(|| second.group.scope(|| drop(held)));
    });
    check(&second.group, others.len());
    check(&first.group, 0);
    drop(others);
    first.end();
    second.end();
}

#[test]
fn i2_an_object_of_a_shared_vector_is_adopted() {
    let _alone = alone();
    let (first, second) = (Large::new("giver"), Large::new("taker"));
    let mut held = first.group.scope(|| objects(NR_OBJECTS));
    for object in held.iter_mut().step_by(10) {
        second.group.adopt(object).expect("no limit");
    }
    check(&second.group, NR_OBJECTS.div_ceil(10));
    check(&first.group, NR_OBJECTS - NR_OBJECTS.div_ceil(10));
    drop(held);
    first.end();
    second.end();
}

#[test]
fn i4_a_shared_vector_outlives_its_group() {
    let _alone = alone();
    let parent = group("parent");
    let tenant = parent.create("tenant").expect("a new name");
    let ballast = tenant.scope(|| vec![0_u8; MIB as usize]);
    let held = tenant.scope(|| objects(NR_OBJECTS));
    drop(tenant);
    check(&parent, NR_OBJECTS);
    // A group of the same name, and perhaps of the same number, has nothing of it.
    let tenant = parent.create("tenant").expect("the name is free");
    check(&tenant, 0);
    let more = tenant.scope(|| objects(NR_OBJECTS));
    check(&tenant, NR_OBJECTS);
    check(&parent, 2 * NR_OBJECTS);
    drop((held, ballast));
    check(&parent, NR_OBJECTS);
    drop(more);
    drop(tenant);
    parent.drain();
    assert_eq!((parent.usage(), parent.stat()), (0, MemcgStat::default()), "nothing is left");
}

#[test]
fn i3_a_limit_that_is_met_in_shared_vectors_holds() {
    let _alone = alone();
    let large = Large::new("limited");
    large.group.set_oom_policy(Some(OomPolicy::Fail)).expect("alive");
    large.group.set_max(Some(4 * MIB)).expect("more than it has");
    let held = large.group.scope(|| {
        let mut held: Vec<Vec<u8>> = Vec::with_capacity(NR_OBJECTS);
        loop {
            let mut object = Vec::new();
            if object.try_reserve_exact(OBJECT_BYTES).is_err() || held.len() == held.capacity() {
                break held;
            }
            object.resize(OBJECT_BYTES, 1_u8);
            held.push(object);
        }
    });
    assert!(large.group.peak() <= 4 * MIB);
    // All that was left of the limit is in objects, but for less than one.
    let room = 3 * MIB - (NR_OBJECTS * size_of::<Vec<u8>>()) as u64;
    assert!(held.len() as u64 >= room / (SLOT_BYTES + 4) - 8, "{} objects", held.len());
    large.group.drain();
    assert_eq!(large.group.usage(), large.group.stat().total_bytes());
    drop(held);
    large.end();
}

/// Refused objects change nothing in a group's peak.
fn check_refusals(group: &Memcg, object_bytes: usize) {
    let before = group.peak();
    let cache = KmemCache::create(&CacheConfig::new(object_bytes)).expect("a sound shape");
    for _ in 0..5 {
        assert!(group.scope(|| cache.alloc()).is_none(), "{object_bytes} bytes and an owner word in {group:?}");
    }
    assert_eq!(group.peak(), before, "{group:?}");
}

#[test]
fn i8_what_is_paid_ahead_for_refused_objects_leaves_no_peak() {
    let _alone = alone();
    // Limits of which a CPU's share is a few bytes, but less than an object.
    for max in [100, 200, 400, 640] {
        let group = strict("poor");
        group.set_max(Some(max)).expect("no memory is charged yet");
        // From now on its stocks may keep something.
        let held = group.scope(|| Box::new(7_u64));
        check_refusals(&group, 640);
        drop(held);
        group.drain();
        assert_eq!(group.usage(), 0, "under {max}");
    }
    // A group that is large enough for slabs of its own, with room for less than an object.
    for room in [100, 6000, 15_000] {
        let large = Large::new("rich");
        large.group.set_oom_policy(Some(OomPolicy::Fail)).expect("alive");
        large.group.drain();
        large.group.set_max(Some(large.group.usage() + room)).expect("more than it has");
        check_refusals(&large.group, 16_000);
        large.end();
    }
}
