//! Limits: never overrun, refused without a trace, at any level of the tree (I3, I6, I8).

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use objcg::{CreateError, LimitError, Memcg, MemcgStat, Objcg};

#[path = "support/groups.rs"]
mod groups;
use groups::{alone, strict, try_vec};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

/// What a group costs its parent: its slot and its vessel.
const GROUP_BYTES: u64 = 288;

#[test]
fn i3_usage_never_passes_max_under_contention() {
    const NR_THREADS: u64 = 4;
    const MAX: u64 = 300_000;
    let _alone = alone();
    let tenant = strict("contention");
    tenant.set_max(Some(MAX)).unwrap();
    let stop = AtomicBool::new(false);
    let refused: usize = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert!(tenant.usage() <= MAX);
            }
        });
        let workers: Vec<_> = (0..NR_THREADS)
            .map(|nth| {
                let tenant = &tenant;
                scope.spawn(move || {
                    let mut kept = Vec::with_capacity(1 << 14);
                    let mut refused = 0;
                    for round in 0..30_000 {
                        match tenant.scope(|| try_vec(1 + (round * 37 + nth * 911) % 3000)) {
                            Some(vec) => kept.push(vec),
                            None => {
                                refused += 1;
                                kept.truncate(kept.len() / 2);
                            }
                        }
                        assert!(tenant.usage() <= MAX);
                    }
                    refused
                })
            })
            .collect();
        let refused = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        stop.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
        refused
    });
    assert!(refused > 0, "the limit was never met: the test shows nothing");
    assert!(tenant.peak() <= MAX);
    assert_eq!(tenant.events().oom, refused as u64);
    tenant.drain();
    assert_eq!(tenant.usage(), 0);
}

#[test]
fn i3_bytes_in_other_stocks_do_not_refuse_what_fits() {
    const NR_OBJECTS: u64 = 100;
    const PRICE: u64 = 1024 + 4;
    let _alone = alone();
    let tenant = strict("stocks");
    tenant.set_max(Some(NR_OBJECTS * PRICE)).unwrap();
    for _ in 0..50 {
        let objects = fill(&tenant, 1024);
        assert_eq!(objects.len() as u64, NR_OBJECTS, "all of the limit can be used, and no more");
        assert_eq!(tenant.usage(), NR_OBJECTS * PRICE);
        thread::spawn(move || drop(objects)).join().unwrap();
    }
}

/// As many objects of the group as its limit allows, in a vector that is not the group's.
fn fill(tenant: &Memcg, nr_bytes: u64) -> Vec<Vec<u8>> {
    let mut objects = Vec::with_capacity(1000);
    while let Some(object) = tenant.scope(|| try_vec(nr_bytes)) {
        objects.push(object);
    }
    objects
}

#[test]
fn i3_a_limit_of_any_size_is_exact() {
    let _alone = alone();
    let tenant = strict("small");
    for max in [0, 1, 19, 20, 100, 1000, 4096] {
        tenant.set_max(Some(max)).unwrap();
        let held = fill(&tenant, 16);
        assert_eq!(held.len() as u64, max / 20, "objects of 16 bytes and an owner slot of 4 under {max}");
        drop(held);
        tenant.drain();
        assert_eq!(tenant.usage(), 0);
    }
}

#[test]
fn i3_lowering_max_reports_what_is_over_it() {
    let _alone = alone();
    let tenant = strict("lowered");
    let held = tenant.scope(|| vec![0u8; 100_000]);
    tenant.drain();
    let usage = tenant.usage();
    assert_eq!(tenant.set_max(Some(usage)), Ok(0));
    assert_eq!(tenant.set_max(Some(usage - 1000)), Ok(1000));
    assert!(tenant.scope(|| try_vec(1)).is_none());
    assert_eq!(tenant.max(), Some(usage - 1000));
    assert_eq!(tenant.set_max(None), Ok(0));
    assert_eq!(tenant.max(), None);
    assert!(tenant.scope(|| try_vec(1)).is_some());
    drop(held);
    assert_eq!(Memcg::root().set_max(Some(1)), Err(LimitError::Root));
}

fn figures(levels: &[Memcg]) -> Vec<(u64, u64, MemcgStat)> {
    levels[0].drain();
    levels.iter().map(|level| (level.usage(), level.peak(), level.stat())).collect()
}

#[test]
fn i8_a_refused_allocation_leaves_no_trace_at_any_level() {
    let _alone = alone();
    let mut levels = vec![strict("depth")];
    for depth in 1..5 {
        let level = levels[depth - 1].create("below").unwrap();
        levels.push(level);
    }
    let leaf = levels[4].clone();
    // Limits first, so that all batches are small; every level refuses in its turn.
    for limited in (0..5).rev() {
        let held = leaf.scope(|| try_vec(5000)).expect("fits");
        levels[0].drain();
        let room = levels[limited].usage() + 2000;
        levels[limited].set_max(Some(room)).unwrap();
        let before = figures(&levels);
        let oom = levels[limited].events().oom;
        for nr_bytes in [2001, 3000, 40_000, 3 << 20, 100 << 20, u64::MAX >> 2] {
            assert!(leaf.scope(|| try_vec(nr_bytes)).is_none(), "{nr_bytes} bytes at level {limited}");
        }
        assert_eq!(figures(&levels), before, "level {limited}");
        assert!(levels[limited].events().oom >= oom + 5, "the level that refused has counted it");
        assert!(leaf.scope(|| try_vec(1790)).is_some(), "what fits still fits");
        levels[limited].set_max(None).unwrap();
        drop(held);
    }
}

#[test]
fn i8_a_refused_growth_leaves_the_object_as_it_was() {
    let _alone = alone();
    let tenant = strict("growth");
    tenant.set_max(Some(1 << 20)).unwrap();
    for nr_bytes in [100, 20_000, 200_000] {
        let mut vec = tenant.scope(|| vec![7u8; nr_bytes]);
        let before = figures(std::slice::from_ref(&tenant));
        assert!(tenant.scope(|| vec.try_reserve_exact(2 << 20)).is_err());
        assert_eq!(figures(std::slice::from_ref(&tenant)), before);
        assert!(vec.len() == nr_bytes && vec.iter().all(|byte| *byte == 7));
    }
}

#[test]
fn i6_a_groups_own_memory_is_its_parents() {
    let _alone = alone();
    let parent = strict("parent");
    let children: Vec<Memcg> = (0..100).map(|nth| parent.create(&format!("child-{nth}")).unwrap()).collect();
    parent.drain();
    assert_eq!(parent.usage(), 100 * GROUP_BYTES);
    assert_eq!(parent.stat().group_bytes, 100 * GROUP_BYTES);
    assert!(children.iter().all(|child| child.usage() == 0));
    let peak = parent.peak();
    parent.set_max(Some(parent.usage() + GROUP_BYTES - 1)).unwrap();
    match parent.create("one too many") {
        Err(CreateError::Limit(refused)) => {
            assert_eq!((refused.refused_by(), refused.nr_bytes()), (parent.id(), GROUP_BYTES));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((parent.usage(), parent.peak(), parent.children().len()), (100 * GROUP_BYTES, peak, 100));
    drop(children);
    parent.drain();
    assert_eq!((parent.usage(), parent.stat().group_bytes), (0, 0));
}

#[test]
fn i3_two_children_share_their_parents_limit() {
    const MAX: u64 = 1 << 20;
    let _alone = alone();
    let parent = strict("shared");
    let children = [parent.create("a").unwrap(), parent.create("b").unwrap()];
    parent.set_max(Some(MAX)).unwrap();
    let start = Barrier::new(2);
    thread::scope(|scope| {
        for child in &children {
            scope.spawn(|| {
                start.wait();
                for round in 0..200 {
                    let mut held = Vec::with_capacity(2000);
                    while held.len() < 2000
                        && let Some(object) = child.scope(|| try_vec(500 + round))
                    {
                        held.push(object);
                        assert!(parent.usage() <= MAX);
                    }
                }
            });
        }
    });
    assert!(parent.events().oom > 0 && children.iter().all(|child| child.events().oom == 0));
    parent.drain();
    assert_eq!(parent.usage(), 2 * GROUP_BYTES);
}

#[test]
fn i1_the_peak_has_what_a_growth_in_vain_left_charged() {
    const NR_BYTES: usize = 40 << 10;
    let _alone = alone();
    let (owner, other) = (strict("owner"), strict("other"));
    other.set_max(Some(0)).unwrap();
    let mut held: Vec<Vec<u8>> = (0..64).map(|_| owner.scope(|| vec![0; NR_BYTES])).collect();
    let mut nr_refused = 0;
    for grown in &mut held {
        // In place if the pages behind it are free, which is the owner's to pay; else a copy, which the other group may not have.
        nr_refused += u32::from(other.scope(|| grown.try_reserve_exact(NR_BYTES + 4096)).is_err());
        assert!(owner.peak() >= owner.usage(), "{} of {}", owner.peak(), owner.usage());
    }
    assert!(nr_refused > 0, "some cannot grow in place");
    // What was deleted with its objects charges no growth to the group that has them now.
    let child = owner.create("child").unwrap();
    let mut orphan = child.scope(|| vec![0u8; NR_BYTES]);
    child.delete().unwrap();
    owner.drain();
    let peak = owner.peak();
    assert!(other.scope(|| orphan.try_reserve_exact(NR_BYTES + 4096)).is_err());
    assert_eq!(owner.peak(), peak, "I8");
    let small = owner.scope(|| vec![0u8; 100]);
    assert!(owner.peak() >= owner.usage(), "{} of {}", owner.peak(), owner.usage());
    drop((held, orphan, small, child));
    owner.drain();
    assert_eq!(owner.stat(), MemcgStat::default());
}
