//! Broken limits: granted from a bounded reserve and somebody marked, or refused without a trace (I3, I8).

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use objcg::{
    Events, ExternalError, LimitError, Memcg, MemcgStat, Objcg, OomPolicy, OomScope, ReviveError, checkpoint, nofail,
};

#[path = "support/groups.rs"]
mod groups;
use groups::{KIB, MIB, alone, group, try_vec};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

fn child(parent: &Memcg, name: &str) -> Memcg {
    parent.create(name).expect("a new name")
}

fn take(group: &Memcg, nr_bytes: u64) -> Vec<u8> {
    group.scope(|| try_vec(nr_bytes)).expect("granted")
}

fn figures(group: &Memcg) -> (u64, u64, MemcgStat) {
    group.drain();
    (group.usage(), group.peak(), group.stat())
}

#[test]
fn a_broken_limit_is_granted_from_the_reserve_and_marks_the_group() {
    let _alone = alone();
    let tenant = group("granted");
    tenant.set_max(Some(MIB)).unwrap();
    assert_eq!((tenant.oom_policy(), tenant.reserve()), (OomPolicy::Kill, MIB / 8));
    let held = take(&tenant, MIB - 100 * KIB);
    assert!(!tenant.is_oom_killed() && tenant.scope(checkpoint).is_ok());
    let more = take(&tenant, 120 * KIB);
    assert!(tenant.usage() > MIB && tenant.usage() <= MIB + tenant.reserve());
    assert!(tenant.is_oom_killed());
    let killed = tenant.scope(checkpoint).unwrap_err();
    assert_eq!((killed.group(), tenant.check()), (tenant.id(), Err(killed)));
    assert_eq!(checkpoint(), Ok(()), "outside it");
    assert_eq!(tenant.events(), Events { max: 1, oom_kill: 1, ..Events::default() });
    assert!(tenant.revive().is_err_and(|error| matches!(error, ReviveError::OverMax(over) if over < 40 * KIB)));
    // While it is marked, all of the reserve is its, and nothing past it.
    let before = tenant.events();
    assert!(tenant.scope(|| try_vec(200 * KIB)).is_none());
    let room = MIB + tenant.reserve() - tenant.usage();
    let rest = take(&tenant, room & !4095);
    assert!(tenant.usage() <= MIB + tenant.reserve());
    assert_eq!(tenant.events(), Events { max: before.max + 1, oom: before.oom + 1, ..before });
    drop((held, more, rest));
    assert_eq!(tenant.revive(), Ok(()));
    assert_eq!((tenant.is_oom_killed(), tenant.revive()), (false, Err(ReviveError::NotKilled)));
    drop(take(&tenant, MIB / 2));
}

#[test]
fn i8_what_does_not_fit_the_reserve_leaves_no_mark() {
    let _alone = alone();
    let parent = group("huge");
    let tenant = child(&parent, "tenant");
    tenant.set_max(Some(MIB)).unwrap();
    let held = take(&tenant, MIB / 2);
    let before = figures(&parent);
    for nr_bytes in [700 * KIB, 3 * MIB, 100 * MIB, u64::MAX >> 2] {
        assert!(tenant.scope(|| try_vec(nr_bytes)).is_none(), "{nr_bytes} bytes");
        assert!(!tenant.is_oom_killed() && !parent.is_oom_killed());
    }
    assert_eq!(figures(&parent), before);
    let Events { oom, oom_kill, .. } = tenant.events();
    assert_eq!((oom, oom_kill), (4, 0));
    drop(held);
}

#[test]
fn i8_a_level_above_that_refuses_takes_back_what_one_below_granted() {
    let _alone = alone();
    let top = group("above");
    let tenant = child(&top, "tenant");
    top.set_oom_policy(Some(OomPolicy::Fail)).unwrap();
    tenant.set_oom_policy(Some(OomPolicy::Kill)).unwrap();
    tenant.set_max(Some(MIB)).unwrap();
    let held = take(&tenant, MIB - 8 * KIB);
    top.drain();
    top.set_max(Some(top.usage() + 50 * KIB)).unwrap();
    let before = figures(&top);
    assert!(tenant.scope(|| try_vec(100 * KIB)).is_none(), "fits the tenant's reserve, but not the top");
    assert_eq!((figures(&top), tenant.is_oom_killed()), (before, false));
    assert_eq!((top.events_local().oom, tenant.events_local().oom), (1, 0));
    let more = take(&tenant, 40 * KIB);
    assert!(tenant.is_oom_killed() && !top.is_oom_killed());
    drop((held, more));
}

/// A tenant that breaks its own limit by an object of 13 pages, and a server above it that would have no room for that object but
/// for what its other tenant's free objects keep, or its cache holds.
fn break_below_a_server_with(name: &str, fill: impl FnOnce(&Memcg), policy: OomPolicy) {
    const OBJECT: u64 = 13 * 4096;
    let server = group(name);
    let [tenant, other] = ["tenant", "other"].map(|name| child(&server, name));
    let held = take(&other, 500 * KIB);
    tenant.set_max(Some(10 * KIB)).unwrap();
    tenant.set_oom_policy(Some(OomPolicy::Kill)).unwrap();
    server.set_oom_policy(Some(policy)).unwrap();
    server.drain();
    fill(&other);
    server.set_max(Some(server.usage() + OBJECT - 1)).unwrap();
    let object = take(&tenant, OBJECT);
    assert_eq!((tenant.is_oom_killed(), other.is_oom_killed()), (true, false), "its own limit, and no other");
    assert!(server.usage() <= server.max().unwrap());
    assert_eq!(server.events_local(), Events { max: 1, ..Events::default() }, "room was made");
    assert_eq!(tenant.events(), Events { max: 1, oom_kill: 1, ..Events::default() });
    drop((held, object));
}

#[test]
fn nobody_is_ended_for_what_is_only_kept_below_a_limit_above() {
    let _alone = alone();
    for (name, policy) in [("kept", OomPolicy::Kill), ("kept, and refuses", OomPolicy::Fail)] {
        let keep = |other: &Memcg| drop((0..200).map(|_| take(other, 1000)).collect::<Vec<_>>());
        break_below_a_server_with(name, keep, policy);
        let cache = Mutex::new(Vec::new());
        let mut shrinker = None;
        let nr_runs = Arc::new(AtomicU64::new(0));
        let runs = Arc::clone(&nr_runs);
        let fill = |other: &Memcg| {
            cache.lock().unwrap().push(other.charge_external(100 * KIB).unwrap());
            shrinker = Some(other.register_shrinker(move |_| {
                runs.fetch_add(1, Ordering::Relaxed);
                cache.lock().unwrap().pop().map_or(0, |entry| entry.nr_bytes())
            }));
        };
        break_below_a_server_with(name, fill, policy);
        assert_eq!(nr_runs.load(Ordering::Relaxed), 1, "once it had made room nobody asked again");
        drop(shrinker);
    }
}

/// The first limit that is met is that of a group with a cache; once that has made room, the server's is met, for what free objects
/// of another tenant keep.
#[test]
fn i3_a_limit_that_is_met_once_a_cache_has_made_room_below_is_drained_as_well() {
    let _alone = alone();
    let server = group("two limits");
    let [tenant, other] = ["tenant", "other"].map(|name| child(&server, name));
    tenant.set_max(Some(100 * KIB)).unwrap();
    let cache = Mutex::new(vec![tenant.charge_external(60 * KIB).unwrap()]);
    let shrinker = tenant.register_shrinker(move |_| cache.lock().unwrap().pop().map_or(0, |entry| entry.nr_bytes()));
    server.drain();
    drop((0..200).map(|_| take(&other, 1000)).collect::<Vec<_>>());
    server.set_max(Some(server.usage() + 20 * KIB - 1)).unwrap();
    let charge = tenant.charge_external(80 * KIB).expect("it fits once both limits' groups have been drained");
    assert_eq!((tenant.usage(), tenant.events_local()), (80 * KIB, Events { max: 1, ..Events::default() }));
    assert_eq!(server.events_local(), Events { max: 1, ..Events::default() });
    drop((charge, shrinker));
}

#[test]
fn a_cache_that_only_says_that_it_frees_is_asked_16_times_for_each_limit() {
    let _alone = alone();
    const NR_TIMES: u64 = 16;
    let server = group("liar");
    let [tenant, other] = ["tenant", "other"].map(|name| child(&server, name));
    let held = other.charge_external(500 * KIB).unwrap();
    let nr_runs = Arc::new(AtomicU64::new(0));
    let runs = Arc::clone(&nr_runs);
    let shrinker = other.register_shrinker(move |_| {
        runs.fetch_add(1, Ordering::Relaxed);
        1
    });
    server.drain();
    server.set_max(Some(server.usage() + 10 * KIB)).unwrap();
    assert!(tenant.charge_external(20 * KIB).is_err());
    assert_eq!(nr_runs.swap(0, Ordering::Relaxed), NR_TIMES);
    // The tenant's own limit is met first; nothing is below it that could free.
    tenant.set_max(Some(10 * KIB)).unwrap();
    let object = take(&tenant, 13 * 4096);
    assert_eq!((killed(&[tenant, other]), nr_runs.load(Ordering::Relaxed)), (vec![true; 2], NR_TIMES));
    drop((object, held, shrinker));
}

#[test]
fn a_limit_that_refuses_once_its_grant_has_ended_was_met_as_well() {
    let _alone = alone();
    let top = group("ended");
    let server = child(&top, "server");
    let [victim, tenant] = ["victim", "tenant"].map(|name| child(&server, name));
    let held = take(&victim, 300 * KIB);
    server.drain();
    server.set_max(Some(server.usage() + 10 * KIB)).unwrap();
    let more = take(&tenant, 13 * 4096);
    assert!(victim.is_oom_killed());
    // Within its limit again, and still granted: the first return that finds it so ends that.
    server.set_max(Some(server.usage() + 10 * KIB)).unwrap();
    top.drain();
    top.set_max(Some(top.usage() + 20 * KIB)).unwrap();
    let before = server.events_local();
    let Err(ExternalError::Limit(refused)) = tenant.charge_external(40 * KIB) else { panic!("it fits nowhere") };
    assert_eq!(refused.refused_by(), server.id(), "the reserve has room, until the charge is taken back");
    assert_eq!(server.events_local(), Events { max: before.max + 1, oom: before.oom + 1, ..before });
    assert_eq!(top.events_local(), Events { max: 1, ..Events::default() });
    drop((held, more));
}

#[test]
fn the_reserve_is_an_eighth_or_64_kib_or_what_was_set() {
    let _alone = alone();
    let tenant = group("reserve");
    for (max, reserve) in [(0, 64 * KIB), (MIB / 4, 64 * KIB), (8 * MIB, MIB)] {
        tenant.set_max(Some(max)).unwrap();
        assert_eq!(tenant.reserve(), reserve);
    }
    tenant.set_max(Some(100 * KIB)).unwrap();
    tenant.set_reserve(Some(0)).unwrap();
    assert!(tenant.scope(|| try_vec(101 * KIB)).is_none() && !tenant.is_oom_killed());
    tenant.set_reserve(Some(4 * MIB)).unwrap();
    let held = take(&tenant, 4 * MIB);
    assert!(tenant.is_oom_killed() && tenant.usage() >= 4 * MIB);
    drop(held);
    assert_eq!(Memcg::root().set_reserve(None), Err(LimitError::Root));
}

/// A server and three tenants of different size.
fn server(name: &str, scope: OomScope) -> (Memcg, [Memcg; 3], [Vec<u8>; 3]) {
    let server = group(name);
    let tenants = ["small", "large", "middle"].map(|name| child(&server, name));
    let held = [200, 500, 300];
    let held = [0, 1, 2].map(|nth| take(&tenants[nth], held[nth] * KIB));
    server.set_oom_scope(scope).unwrap();
    server.drain();
    server.set_max(Some(server.usage() + 50 * KIB)).unwrap();
    (server, tenants, held)
}

fn killed(tenants: &[Memcg]) -> Vec<bool> {
    tenants.iter().map(Memcg::is_oom_killed).collect()
}

#[test]
fn the_largest_child_is_marked_for_a_limit_above_and_then_the_next() {
    let _alone = alone();
    let (server, tenants, mut held) = server("largest", OomScope::Memcg);
    let mut more = Vec::with_capacity(100);
    more.push(take(&tenants[0], 60 * KIB));
    assert_eq!((killed(&tenants), server.is_oom_killed()), (vec![false, true, false], false));
    assert!(server.usage() > server.max().unwrap() && server.usage() <= server.max().unwrap() + server.reserve());
    // One victim at a time: the reserve serves the others while it ends.
    more.push(take(&tenants[0], 20 * KIB));
    assert_eq!(killed(&tenants), [false, true, false]);
    assert_eq!((server.events().oom_kill, server.events_local().oom_kill, tenants[1].events().oom_kill), (1, 0, 1));
    // It ends: the server's limit holds again, and the next one that breaks it costs the next largest.
    held[1] = Vec::new();
    server.drain();
    assert_eq!(tenants[1].revive(), Ok(()));
    while killed(&tenants) == [false; 3] {
        assert!(server.usage() <= server.max().unwrap());
        more.push(take(&tenants[0], 30 * KIB));
    }
    // By now the small one is the largest.
    assert_eq!(killed(&tenants), [true, false, false]);
    drop((held, more));
}

#[test]
fn the_reserve_is_closed_again_when_usage_is_back_within_the_limit() {
    let _alone = alone();
    let (server, tenants, mut held) = server("closed", OomScope::Memcg);
    let mut more = Vec::with_capacity(100);
    more.push(take(&tenants[0], 60 * KIB));
    held[1] = Vec::new();
    server.drain();
    assert!(tenants[1].is_oom_killed() && server.usage() < server.max().unwrap());
    // The victim is still marked, but what breaks the limit now is a new case.
    let before = server.events_local().max;
    while server.usage() <= server.max().unwrap() {
        more.push(take(&tenants[2], 30 * KIB));
    }
    assert!(server.events_local().max > before && tenants[2].is_oom_killed());
    drop((held, more));
}

#[test]
fn a_victim_that_is_deleted_makes_room_for_the_next_victim() {
    let _alone = alone();
    let (server, tenants, held) = server("next", OomScope::Memcg);
    let more = take(&tenants[0], 60 * KIB);
    assert!(tenants[1].is_oom_killed());
    // What it leaves is the server's: usage stays over the limit.
    tenants[1].delete().unwrap();
    assert!(tenants[1].is_oom_killed(), "for those who still hold it");
    assert!(server.usage() > server.max().unwrap());
    let last = take(&tenants[0], 4 * KIB);
    assert_eq!(killed(&tenants), [false, true, true]);
    drop((held, more, last));
}

#[test]
fn a_group_that_is_deleted_unmarked_ends_no_grant() {
    let _alone = alone();
    let (server, tenants, held) = server("not the victim", OomScope::Memcg);
    let more = take(&tenants[0], 60 * KIB);
    tenants[2].delete().unwrap();
    assert!(server.usage() > server.max().unwrap());
    let before = server.events_local();
    let last = take(&tenants[0], 40 * KIB);
    assert_eq!(
        (server.events_local(), killed(&tenants)),
        (before, vec![false, true, false]),
        "the victim has still to end"
    );
    drop((held, more, last));
}

#[test]
fn a_group_with_fail_is_never_the_victim() {
    let _alone = alone();
    let (server, tenants, held) = server("spared", OomScope::Memcg);
    tenants[1].set_oom_policy(Some(OomPolicy::Fail)).unwrap();
    let more = take(&tenants[0], 60 * KIB);
    assert_eq!(killed(&tenants), [false, false, true]);
    drop(more);
    server.drain();
    tenants[2].revive().unwrap();
    for nth in [0, 2] {
        tenants[nth].set_oom_policy(Some(OomPolicy::Fail)).unwrap();
    }
    let before = figures(&server);
    assert!(tenants[0].scope(|| try_vec(60 * KIB)).is_none(), "nobody to mark");
    assert_eq!((figures(&server), killed(&tenants)), (before, vec![false; 3]));
    drop(held);
}

/// The mark is seen before all is done that belongs to it: whoever is told of it writes its descriptors first.
#[test]
fn a_victim_that_is_revived_at_once_makes_room_for_the_next() {
    const NR_FILES: usize = 8000;
    let _alone = alone();
    let (server, tenants, mut held) = server("at-once", OomScope::Memcg);
    // As many as the process may have.
    let files = (0..NR_FILES).map_while(|_| tenants[1].event_fd().ok()).collect::<Vec<_>>();
    let mut more = Vec::with_capacity(4);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !tenants[1].is_oom_killed() {
                std::hint::spin_loop();
            }
            tenants[1].revive().unwrap();
        });
        more.push(take(&tenants[0], 60 * KIB));
    });
    drop(files);
    assert_eq!(killed(&tenants), [false; 3]);
    assert!(server.usage() > server.max().unwrap());
    more.push(take(&tenants[0], 4 * KIB));
    assert_eq!(killed(&tenants), [false, true, false], "over the limit, and nobody is to end");
    held[1] = Vec::new();
}

/// The victim is looked for level by level: meanwhile its slot may become another group's.
#[test]
fn a_victim_that_is_deleted_meanwhile_leaves_strangers_alone() {
    const NR_ROUNDS: usize = 1000;
    let _alone = alone();
    let (server, tenants, held) = server("meanwhile", OomScope::Memcg);
    let elsewhere = group("elsewhere");
    server.set_max(Some(server.usage() + 700 * KIB)).unwrap();
    let (is_over, nr_strangers) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..NR_ROUNDS {
                // The largest while it lives; then a group elsewhere is likely to get its slot.
                let Ok(victim) = server.create("victim") else { continue };
                let bytes = victim.charge_external(600 * KIB);
                // About as long as a charge that breaks the limit takes until it looks for a victim.
                (0..round % 64 * 1000).for_each(|_| std::hint::spin_loop());
                drop(bytes);
                drop(victim);
                let stranger = child(&elsewhere, "stranger");
                if (0..100).any(|_| stranger.is_oom_killed()) {
                    nr_strangers.fetch_add(1, Ordering::Relaxed);
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        while !is_over.load(Ordering::Relaxed) {
            drop(tenants[0].scope(|| try_vec(150 * KIB)));
            let _was_killed = tenants[0].revive();
        }
    });
    assert_eq!(nr_strangers.into_inner(), 0, "killed, and never broke a limit");
    drop(held);
}

#[test]
fn a_scope_of_the_subtree_marks_all_below_and_those_who_come_later() {
    let _alone = alone();
    let (server, tenants, held) = server("subtree", OomScope::Subtree);
    let below = child(&tenants[2], "below");
    let more = take(&tenants[0], 60 * KIB);
    assert_eq!((killed(&tenants), server.is_oom_killed(), below.is_oom_killed()), (vec![true; 3], true, true));
    assert_eq!(below.scope(checkpoint).unwrap_err().group(), server.id());
    assert_eq!(server.events(), Events { max: 1, oom_kill: 1, ..Events::default() });
    assert!(child(&tenants[1], "later").is_oom_killed());
    assert_eq!(tenants[0].revive(), Err(ReviveError::NotKilled), "it is not marked itself");
    drop((held, more));
    assert_eq!(server.revive(), Ok(()));
    assert_eq!(killed(&tenants), [false; 3]);
}

#[test]
fn the_path_ends_where_the_memory_is() {
    let _alone = alone();
    let top = group("path");
    let [holder, other] = ["holder", "other"].map(|name| child(&top, name));
    let [left, right] = ["left", "right"].map(|name| child(&holder, name));
    // The holder has more of its own than any of its children.
    let held = [take(&holder, 600 * KIB), take(&left, 200 * KIB), take(&right, 100 * KIB), take(&other, 500 * KIB)];
    top.drain();
    top.set_max(Some(top.usage() + 10 * KIB)).unwrap();
    let more = take(&other, 20 * KIB);
    let all = [top.clone(), holder.clone(), left.clone(), right.clone(), other.clone()];
    assert_eq!(killed(&all), [false, true, false, false, false]);
    drop((held, more));
    top.drain();
    holder.revive().unwrap();
    // Now a child has more; and a subtree that ends together is marked at its head.
    let held = [take(&holder, 100 * KIB), take(&left, 900 * KIB)];
    top.drain();
    top.set_max(Some(top.usage() + 10 * KIB)).unwrap();
    let more = take(&other, 20 * KIB);
    assert_eq!(killed(&all), [false, false, true, false, false]);
    drop(more);
    drop(held);
    top.drain();
    left.revive().unwrap();
    holder.set_oom_scope(OomScope::Subtree).unwrap();
    let held = [take(&holder, 100 * KIB), take(&left, 900 * KIB)];
    let more = take(&other, 20 * KIB);
    assert_eq!(killed(&all), [false, true, true, true, false]);
    drop((held, more));
}

#[test]
fn kill_marks_the_subtree_until_it_is_revived() {
    let _alone = alone();
    let parent = group("killed");
    let (tenant, below) = (child(&parent, "tenant"), child(&child(&parent, "tenant-2"), "below"));
    let deep = child(&tenant, "deep");
    tenant.kill().unwrap();
    tenant.kill().unwrap();
    assert_eq!(
        killed(&[parent.clone(), tenant.clone(), deep.clone(), below.clone()]),
        [false, true, true, false],
        "itself and below"
    );
    assert_eq!((parent.events().oom_kill, tenant.events().oom_kill), (1, 1), "once");
    let stays = tenant.scope(|| vec![0u8; 1000]);
    assert_eq!((tenant.revive(), deep.is_oom_killed()), (Ok(()), false));
    tenant.kill().unwrap();
    assert_eq!(parent.events().oom_kill, 2);
    tenant.delete().unwrap_err();
    drop(deep);
    tenant.delete().unwrap();
    assert!(tenant.is_oom_killed());
    assert_eq!((tenant.kill(), Memcg::root().kill()), (Err(LimitError::Deleted), Err(LimitError::Root)));
    drop(tenant);
    // A slot's next life starts without a mark.
    for nth in 0..100 {
        assert!(!child(&parent, &format!("next-{nth}")).is_oom_killed());
    }
    drop(stays);
}

#[test]
fn calls_that_return_an_error_kill_nobody() {
    let _alone = alone();
    let tenant = group("fallible");
    let rich = group("rich");
    let mut held = rich.scope(|| vec![0u8; 50_000]);
    tenant.set_max(Some(100)).unwrap();
    let before = figures(&tenant);
    assert!(tenant.create("child").is_err());
    assert!(tenant.charge_external(101).is_err());
    assert!(tenant.adopt(&mut held).is_err());
    assert!(
        tenant.scope(objcg::PerCpuCounter::new).is_ok_and(|counter| {
            // On a machine where a counter fits 100 bytes.
            drop(counter);
            true
        }) || !tenant.is_oom_killed()
    );
    assert_eq!((figures(&tenant).0, figures(&tenant).2, tenant.is_oom_killed()), (before.0, before.2, false));
    assert_eq!(rich.stat().large_objects, 1);
}

#[test]
fn policies_are_inherited_until_one_is_set() {
    let _alone = alone();
    let top = group("inherit");
    let below = child(&child(&top, "middle"), "below");
    assert_eq!(below.oom_policy(), OomPolicy::Kill, "the crate's default");
    top.set_oom_policy(Some(OomPolicy::Fail)).unwrap();
    assert_eq!(below.oom_policy(), OomPolicy::Fail);
    below.set_oom_policy(Some(OomPolicy::Kill)).unwrap();
    assert_eq!((below.oom_policy(), top.oom_policy()), (OomPolicy::Kill, OomPolicy::Fail));
    below.set_oom_policy(None).unwrap();
    top.set_oom_policy(None).unwrap();
    assert_eq!((below.oom_policy(), below.oom_scope()), (OomPolicy::Kill, OomScope::Memcg));
}

#[test]
fn nofail_charges_above_the_limit_and_counts_it() {
    let _alone = alone();
    let tenant = group("nofail");
    tenant.set_oom_policy(Some(OomPolicy::Fail)).unwrap();
    tenant.set_max(Some(10 * KIB)).unwrap();
    let words = tenant.scope(|| nofail(|| nofail(|| vec![0u8; 20 << 10]).len() + vec![1u8; 20 << 10].len()));
    assert_eq!(words, 40 << 10);
    let held = tenant.scope(|| nofail(|| vec![0u8; 20 << 10]));
    assert!(tenant.usage() > 20 * KIB);
    // The second and the third found the charge of the first, or are over the limit as well.
    assert!(tenant.events().max >= 2 && tenant.events().oom == 0 && !tenant.is_oom_killed());
    assert!(tenant.scope(|| try_vec(1)).is_none(), "the scope has ended");
    drop(held);
    tenant.drain();
    assert_eq!(tenant.usage(), 0);
}

#[test]
fn i8_a_counter_that_would_overflow_refuses_even_what_must_not_fail() {
    let _alone = alone();
    const HALF: u64 = 1 << 47;
    let server = group("overflow");
    let [tenant, other] = ["tenant", "other"].map(|name| child(&server, name));
    let held = other.charge_external(HALF).unwrap();
    server.drain();
    let before = server.usage();
    assert!(tenant.charge_external(HALF).is_err());
    assert!(nofail(|| tenant.charge_external(HALF)).is_err());
    assert_eq!((tenant.usage(), server.usage()), (0, before));
    drop(held);
}

/// Threads charge one group at its limit while others revive it; the observer never sees it past what is promised.
#[test]
fn i3_64_threads_at_max_never_pass_max_and_reserve() {
    let _alone = alone();
    const NR_THREADS: usize = 64;
    const MAX: u64 = 600_000;
    let tenant = group("contention");
    tenant.set_max(Some(MAX)).unwrap();
    for policy in [OomPolicy::Fail, OomPolicy::Kill] {
        tenant.set_oom_policy(Some(policy)).unwrap();
        let bound = if policy == OomPolicy::Kill { MAX + tenant.reserve() } else { MAX };
        let stop = AtomicBool::new(false);
        let before = tenant.events();
        thread::scope(|scope| {
            let observer = scope.spawn(|| {
                let mut most = 0;
                while !stop.load(Ordering::Relaxed) {
                    most = most.max(tenant.usage());
                    assert!(most <= bound, "{most} of {bound}");
                    assert!(policy == OomPolicy::Kill || !tenant.is_oom_killed());
                }
                most
            });
            let tenant = &tenant;
            let workers: Vec<_> = (0..NR_THREADS).map(|nth| scope.spawn(move || churn(tenant, nth, bound))).collect();
            // What each keeps stays until all have ended: together they meet the bound even if they run one after the other.
            let kept: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
            stop.store(true, Ordering::Relaxed);
            assert!(observer.join().expect("the observer ends well") > 0);
            assert!(kept.iter().all(Result::is_ok), "a worker has failed");
        });
        tenant.drain();
        assert_eq!((tenant.usage(), tenant.stat()), (0, MemcgStat::default()), "{policy:?}");
        assert!(tenant.peak() <= bound);
        let after = tenant.events();
        assert!(after.oom > before.oom, "the bound was never met: the test shows nothing");
        assert_eq!(after.oom_kill > before.oom_kill, policy == OomPolicy::Kill);
        // Whoever was marked last is revived now that nothing is left.
        assert!(tenant.revive().is_ok() || !tenant.is_oom_killed());
    }
}

fn churn(tenant: &Memcg, nth: usize, bound: u64) -> Vec<Vec<u8>> {
    let mut kept = Vec::with_capacity(1 << 10);
    for round in 0..400usize {
        match tenant.scope(|| try_vec(1 + ((round * 37 + nth * 911) % 3000) as u64)) {
            Some(vec) if kept.len() < 1 << 10 => kept.push(vec),
            _ => kept.truncate(kept.len() / 2),
        }
        assert!(tenant.usage() <= bound);
        if round % 64 == nth && tenant.is_oom_killed() {
            kept.clear();
            // Fails while the others hold too much.
            let _revived = tenant.revive();
        }
    }
    kept
}

/// Tenants come, break the server's limit or their own, are marked, revived or deleted while others wait for them.
#[test]
fn i1_i4_a_storm_of_marks_ends_at_exactly_nothing() {
    let _alone = alone();
    const NR_THREADS: usize = 6;
    const MAX: u64 = 3 * MIB;
    let server = group("storm");
    server.drain();
    server.set_max(Some(MAX)).unwrap();
    let bound = MAX + server.reserve();
    let stop = AtomicBool::new(false);
    let nr_ended: usize = thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut seen = Events::default();
            while !stop.load(Ordering::Relaxed) {
                assert!(server.usage() <= bound);
                seen = server.wait_events(seen, Duration::from_millis(1));
            }
            seen
        });
        let workers: Vec<_> = (0..NR_THREADS)
            .map(|nth| {
                let server = &server;
                scope.spawn(move || (0..60).filter(|round| live_and_end(server, nth, *round, bound)).count())
            })
            .collect();
        let ended: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(waiter.join().expect("the waiter ends well").oom_kill > 0);
        ended.into_iter().map(|worker| worker.expect("the worker ends well")).sum()
    });
    assert!(nr_ended > 0, "nobody was ended: the test shows nothing");
    server.drain();
    assert_eq!((server.usage(), server.stat(), server.children().len()), (0, MemcgStat::default(), 0));
    let held = take(&server, MAX - 64 * KIB);
    assert!(!server.is_oom_killed() && server.scope(|| try_vec(bound)).is_none());
    drop(held);
}

/// One tenant's life; whether it was ended by a mark.
fn live_and_end(server: &Memcg, nth: usize, round: usize, bound: u64) -> bool {
    let Ok(tenant) = server.create(&format!("{nth}-{round}")) else { return false };
    if round.is_multiple_of(3) {
        tenant.set_max(Some(300 * KIB)).expect("alive");
    }
    let mut held = Vec::with_capacity(200);
    let mut is_ended = false;
    for step in 0..200u64 {
        match tenant.scope(|| try_vec(500 + (step * 977 + nth as u64 * 4001) % 20_000)) {
            Some(object) => held.push(object),
            None => held.truncate(held.len() / 2),
        }
        assert!(server.usage() <= bound);
        if tenant.scope(checkpoint).is_err() {
            is_ended = true;
            break;
        }
    }
    match round % 4 {
        0 if is_ended => {
            held.clear();
            // Only its own limit keeps it from that.
            assert!(tenant.revive().is_ok());
        }
        1 => tenant.delete().expect("no children"),
        2 => {
            tenant.kill().expect("alive");
            tenant.delete().expect("no children");
        }
        _ => {}
    }
    is_ended
}
