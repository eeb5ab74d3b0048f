//! Explicit ownership: memory from elsewhere, memory that moves to another group (I1, I2, I4, I8).

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use objcg::{AdoptError, ExternalCharge, ExternalError, Memcg, MemcgStat, Objcg, OomPolicy};

#[path = "support/groups.rs"]
mod groups;
use groups::{KIB, MIB, alone, group};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

fn figures(group: &Memcg) -> (u64, u64, MemcgStat) {
    group.drain();
    let stat = group.stat();
    assert_eq!(group.usage(), stat.total_bytes(), "I1 of {group:?}");
    (group.usage(), group.peak(), stat)
}

#[test]
fn i1_external_bytes_are_charged_shown_and_given_back() {
    let _alone = alone();
    let top = group("external");
    let tenant = top.create("tenant").unwrap();
    let empty = figures(&top).0;
    let mut charge = tenant.charge_external(500_000).unwrap();
    let none = tenant.charge_external(0).unwrap();
    let (usage, peak, stat) = figures(&tenant);
    assert_eq!((usage, peak, stat.external_bytes, stat.external_charges), (500_000, 500_000, 500_000, 1));
    assert_eq!(figures(&top).0, empty + 500_000);
    charge.resize(700_000).unwrap();
    assert_eq!((charge.nr_bytes(), figures(&tenant).0), (700_000, 700_000));
    charge.resize(100_000).unwrap();
    assert_eq!((figures(&tenant).0, tenant.peak()), (100_000, 700_000));
    drop((charge, none));
    assert_eq!((figures(&tenant).0, figures(&top).0), (0, empty));
    // The root's are not counted.
    let mut free = Memcg::root().charge_external(1 << 40).unwrap();
    free.resize(1 << 41).unwrap();
    assert!(Memcg::root().usage() < 1 << 40);
}

#[test]
fn i4_the_last_charge_that_moves_away_from_a_deleted_group_frees_its_vessel() {
    let _alone = alone();
    let (parent, other) = (group("left"), group("moved to"));
    let tenant = parent.create("tenant").unwrap();
    let mut charge = tenant.charge_external(1000).unwrap();
    drop(tenant);
    assert_eq!(figures(&parent).2.external_bytes, 1000);
    let nr_vessels = objcg::nr_vessels();
    other.adopt_external(&mut charge).unwrap();
    assert_eq!((figures(&parent).2, objcg::nr_vessels()), (MemcgStat::default(), nr_vessels - 1));
    assert_eq!(figures(&other).0, 1000);
}

#[test]
fn i8_a_refused_external_charge_leaves_no_trace() {
    let _alone = alone();
    let top = group("limited");
    let tenant = top.create("tenant").unwrap();
    tenant.set_max(Some(MIB)).unwrap();
    let mut charge = tenant.charge_external(MIB / 2).unwrap();
    let before = (figures(&tenant), figures(&top));
    match tenant.charge_external(MIB) {
        Err(ExternalError::Limit(refused)) => {
            assert_eq!((refused.refused_by(), refused.nr_bytes()), (tenant.id(), MIB));
        }
        other => panic!("{other:?}"),
    }
    assert!(charge.resize(2 * MIB).is_err() && charge.resize(u64::MAX).is_err());
    assert!(tenant.charge_external(u64::MAX).is_err());
    assert_eq!((figures(&tenant), figures(&top), charge.nr_bytes()), (before.0, before.1, MIB / 2));
    assert!(!tenant.is_oom_killed());
}

#[test]
fn i4_external_charges_survive_their_group() {
    let _alone = alone();
    let top = group("survivors");
    let tenant = top.create("tenant").unwrap();
    let nr_vessels = objcg::nr_vessels();
    let mut charges: Vec<ExternalCharge> = (1..=3).map(|nth| tenant.charge_external(nth * KIB).unwrap()).collect();
    tenant.delete().unwrap();
    drop(tenant);
    assert_eq!(figures(&top).2.external_bytes, 6 * KIB, "the parent's");
    // One that grows leads to the parent, as the others do by their vessel.
    charges[0].resize(10 * KIB).unwrap();
    assert_eq!(figures(&top).2.external_bytes, 15 * KIB);
    let refuge = group("refuge");
    refuge.adopt_external(&mut charges[1]).unwrap();
    assert_eq!((figures(&refuge).0, figures(&top).2.external_bytes), (2 * KIB, 13 * KIB));
    drop(charges);
    assert_eq!((figures(&refuge).0, figures(&top).0), (0, 0));
    assert!(objcg::nr_vessels() <= nr_vessels, "the deleted group's vessel is gone");
}

/// Of each kind: small, of a slab with and without other owners, large, huge; and none.
fn objects() -> Vec<Vec<u8>> {
    [8, 100, 5000, 32 << 10, 100_000, 3 << 20, 9 << 20].map(|nr_bytes| vec![7u8; nr_bytes]).into()
}

#[test]
fn i2_an_adopted_object_is_the_new_groups_until_it_is_freed() {
    let _alone = alone();
    let top = group("adoption");
    let [from, to] = ["from", "to"].map(|name| top.create(name).unwrap());
    let mut held = from.scope(objects);
    to.adopt(&mut held).unwrap();
    top.drain();
    let (before, peak) = (figures(&top), top.peak());
    let list = (held.capacity() * size_of::<Vec<u8>>()) as u64;
    assert!(to.usage() >= list && to.usage() < 2 * list);
    for object in &mut held {
        let (left, arrived) = (from.usage(), to.usage());
        to.adopt(object).unwrap();
        let moved = to.usage() - arrived;
        assert!(moved >= object.capacity() as u64 && from.usage() == left - moved);
        assert!(object.iter().all(|byte| *byte == 7));
    }
    assert_eq!(figures(&from).0, 0);
    assert_eq!((figures(&top).0, top.peak()), (before.0, peak), "nothing changed where the paths meet");
    // From any group to the root and back.
    for object in &mut held {
        Memcg::root().adopt(object).unwrap();
    }
    to.drain();
    assert!(to.usage() < 2 * list);
    for object in &mut held {
        from.adopt(object).unwrap();
    }
    assert_eq!(figures(&from).0 + figures(&to).0, before.0 - 2 * 288);
    thread::spawn(move || drop(held)).join().unwrap();
    assert_eq!((figures(&from).0, figures(&to).0), (0, 0));
}

#[test]
fn what_has_no_memory_is_adopted_by_nobody() {
    let _alone = alone();
    let tenant = group("nothing");
    tenant.adopt(&mut Vec::<u64>::new()).unwrap();
    tenant.adopt(&mut Box::new(())).unwrap();
    tenant.adopt(&mut vec![(); 100]).unwrap();
    tenant.adopt(&mut String::new()).unwrap();
    assert_eq!(tenant.usage(), 0);
    let (mut text, mut boxed, mut slice) = (String::from("text"), Box::new(1u64), vec![1u16; 100].into_boxed_slice());
    tenant.adopt(&mut text).unwrap();
    tenant.adopt(&mut boxed).unwrap();
    tenant.adopt(&mut slice).unwrap();
    assert_eq!(tenant.stat().slab_objects, 3);
}

#[test]
fn i8_a_refused_adoption_leaves_everything_as_it_was() {
    let _alone = alone();
    let (from, to) = (group("giver"), group("full"));
    to.set_max(Some(100)).unwrap();
    for mut object in from.scope(objects).into_iter().filter(|object| object.len() > 100) {
        let before = (figures(&from), figures(&to));
        match to.adopt(&mut object) {
            Err(AdoptError::Limit(refused)) => assert_eq!(refused.refused_by(), to.id()),
            other => panic!("{other:?}"),
        }
        assert_eq!((figures(&from), figures(&to)), before);
        assert!(!to.is_oom_killed());
    }
    from.drain();
    assert_eq!(from.usage(), 0);
}

/// Within a limited subtree a move needs no room: it changes only what is below the common ancestor.
#[test]
fn a_move_below_a_full_group_fits() {
    let _alone = alone();
    let top = group("full-top");
    let [a, b] = ["a", "b"].map(|name| top.create(name).unwrap());
    let mut held = a.scope(|| vec![0u8; 100_000]);
    top.drain();
    top.set_oom_policy(Some(OomPolicy::Fail)).unwrap();
    top.set_max(Some(top.usage())).unwrap();
    b.adopt(&mut held).unwrap();
    assert_eq!((figures(&a).0, top.events().max), (0, 0));
}

/// Objects and charges go around between groups that are deleted and made again meanwhile.
#[test]
fn i1_moves_against_deletes_and_frees_balance() {
    let _alone = alone();
    let top = group("around");
    let stop = AtomicBool::new(false);
    let names = ["a", "b", "c"];
    thread::scope(|scope| {
        for name in names {
            let (top, stop) = (&top, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mortal = top.create(name).expect("it was deleted");
                    let held = mortal.scope(|| vec![0u8; 3000]);
                    mortal.delete().expect("no children");
                    drop(held);
                }
            });
        }
        let movers: Vec<_> = (0..3usize)
            .map(|nth| {
                let top = &top;
                scope.spawn(move || {
                    let mut held: Vec<Vec<u8>> = [10, 1000, 50_000, 5 << 20].map(|len| vec![0u8; len]).into();
                    let mut charge = top.charge_external(1000).unwrap();
                    for round in 0..1500 {
                        let Some(target) = top.child(names[(round + nth) % 3]) else { continue };
                        held.iter_mut().for_each(|object| target.adopt(object).unwrap());
                        target.adopt_external(&mut charge).unwrap();
                        charge.resize(1000 + (round as u64 % 7) * 100).unwrap();
                        if round % 50 == 0 {
                            held = [10, 1000, 50_000, 5 << 20].map(|len| target.scope(|| vec![0u8; len])).into();
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = movers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|mover| mover.expect("the mover ends well"));
    });
    assert_eq!(figures(&top).0, 0);
}

#[cfg(feature = "allocator-api2")]
#[test]
fn i2_a_collection_of_a_group_is_the_groups_whatever_the_current_one_is() {
    use allocator_api2::boxed::Box as GroupBox;
    use allocator_api2::vec::Vec as GroupVec;
    let _alone = alone();

    let (owner, current) = (group("collection"), group("current"));
    let mut rows = GroupVec::new_in(&owner);
    let _inside = current.enter();
    for nth in 0..1_000_000u64 {
        rows.push(nth);
    }
    assert!(rows.iter().copied().eq(0..1_000_000));
    assert_eq!((figures(&current).0, figures(&owner).2.large_objects), (0, 1));
    rows.truncate(10);
    rows.shrink_to_fit();
    let boxed = GroupBox::new_in([0u8; 1000], owner.clone());
    assert_eq!((figures(&current).0, figures(&owner).2.slab_objects), (0, 2));
    assert!(rows.iter().copied().eq(0..10));
    drop(rows);
    // It outlives the handles that it was made with.
    owner.delete().unwrap();
    drop(owner);
    assert_eq!(boxed.len(), 1000);
    drop(boxed);
}
