//! Groups come and go: deletion at once, survivors to the parent, names and handles (I4, I5, I10).
//!
//! After the kernel's selftests `test_kmem.c` (deletion under load, dead cgroups) in this project's form. The tests look
//! at process-wide counts, so they run one at a time.

use std::hint::black_box;
use std::thread;

use objcg::{CreateError, DeleteError, LimitError, Memcg, NameError, Objcg};

#[path = "support/groups.rs"]
mod groups;
use groups::alone;

#[global_allocator]
static GLOBAL: Objcg = Objcg;

/// Groups, pinned slots and vessels of the process. A stock of another CPU may still hold bytes of a dead group, and with
/// them its vessel, until it is drained.
fn counts() -> (usize, usize, usize) {
    Memcg::root().drain();
    (objcg::nr_groups(), objcg::nr_dying(), objcg::nr_vessels())
}

#[test]
fn i4_many_threads_create_fill_and_delete_groups() {
    const NR_GROUPS: usize = 100;
    let _alone = alone();
    let before = counts();
    let top = Memcg::root().create("deletion").unwrap();
    let nr_threads = 2 * thread::available_parallelism().map_or(2, usize::from);
    let survivors: Vec<Vec<Box<[u8]>>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..nr_threads)
            .map(|nth| {
                let top = &top;
                scope.spawn(move || {
                    let mut survivors = Vec::with_capacity(NR_GROUPS);
                    for round in 0..NR_GROUPS {
                        let tenant = top.create(&format!("tenant-{nth}-{round}")).unwrap();
                        let filled: Vec<Box<[u8]>> =
                            tenant.scope(|| (0..50).map(|size| vec![1; size * 17 + 1].into_boxed_slice()).collect());
                        survivors.extend(filled.into_iter().nth(round % 50));
                        tenant.delete().unwrap();
                    }
                    survivors
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let nr_survivors = (nr_threads * NR_GROUPS) as u64;
    assert_eq!((objcg::nr_groups(), objcg::nr_dying()), (before.0 + 1, before.1));
    top.drain();
    assert_eq!(top.stat().slab_objects, nr_survivors, "the parent has what the dead have left");
    assert_eq!(top.stat().group_bytes, nr_survivors * 32, "and a vessel of each, no more");
    assert_eq!(top.usage(), top.stat().total_bytes());
    drop(survivors);
    top.drain();
    assert_eq!((top.usage(), top.stat().group_bytes), (0, 0));
    drop(top);
    assert_eq!(counts(), before);
}

#[test]
fn i5_deleting_the_parent_of_ten_thousand_dead_groups_visits_none() {
    const NR_DEAD: usize = 10_000;
    let _alone = alone();
    let before = counts();
    let top = Memcg::root().create("dead").unwrap();
    let parent = top.create("parent").unwrap();
    let mut survivors = Vec::with_capacity(NR_DEAD);
    for _ in 0..NR_DEAD {
        let tenant = parent.create("tenant").unwrap();
        survivors.push(tenant.scope(|| Box::new(1u64)));
    }
    assert_eq!((objcg::nr_groups(), objcg::nr_dying()), (before.0 + 2, before.1));
    parent.delete().unwrap();
    drop(parent);
    assert_eq!(top.stat().slab_objects, NR_DEAD as u64);
    top.drain();
    assert_eq!(top.usage(), top.stat().total_bytes());
    // From both ends, on two threads, so that paths are shortened in different orders.
    let half = survivors.split_off(NR_DEAD / 2);
    let other = thread::spawn(move || half.into_iter().rev().for_each(drop));
    drop(survivors);
    other.join().unwrap();
    top.drain();
    assert_eq!((top.usage(), top.stat().group_bytes), (0, 0));
    drop(top);
    assert_eq!(counts(), before);
}

#[test]
fn i4_a_chain_that_dies_from_its_end_hands_everything_up() {
    const DEPTH: usize = 60;
    let _alone = alone();
    let before = counts();
    let top = Memcg::root().create("chain").unwrap();
    let mut chain = vec![top.clone()];
    let mut objects = Vec::with_capacity(DEPTH);
    for depth in 0..DEPTH {
        let next = chain[depth].create("next").unwrap();
        objects.push(next.scope(|| Box::new([depth; 4])));
        chain.push(next);
    }
    assert_eq!(chain[DEPTH].path(), format!("/chain{}", "/next".repeat(DEPTH)));
    for depth in (1..=DEPTH).rev() {
        assert_eq!(chain[depth].delete(), Ok(()));
        let nr_own = usize::from(depth > 1);
        assert_eq!(chain[depth - 1].stat().slab_objects as usize, DEPTH - depth + 1 + nr_own);
    }
    drop(chain);
    assert_eq!(top.stat().slab_objects as usize, DEPTH);
    drop(objects);
    top.drain();
    assert_eq!(top.usage(), 0);
    drop(top);
    assert_eq!(counts(), before);
}

#[test]
fn i4_the_last_handle_deletes_and_a_child_holds_its_parent() {
    let _alone = alone();
    let before = objcg::nr_groups();
    let parent = Memcg::root().create("held").unwrap();
    let child = parent.create("child").unwrap();
    let same = parent.clone();
    drop(parent);
    drop(same);
    assert_eq!(objcg::nr_groups(), before + 2, "the child holds it");
    assert_eq!(child.parent().map(|parent| parent.path()), Some("/held".to_owned()));
    drop(child);
    assert_eq!(objcg::nr_groups(), before);
    assert_eq!(Memcg::root().child("held"), None);
}

#[test]
fn i4_handles_and_guards_of_a_deleted_group_get_errors_and_stay_safe() {
    let _alone = alone();
    let before = counts();
    let parent = Memcg::root().create("parent").unwrap();
    let tenant = parent.create("tenant").unwrap();
    let stale = tenant.clone();
    let inside = stale.enter();
    let first = black_box(Box::new([1u64; 10]));
    tenant.delete().unwrap();
    assert!(stale.is_deleted());
    assert_eq!(stale.delete(), Err(DeleteError::Deleted));
    assert_eq!(stale.create("child").unwrap_err(), CreateError::ParentDeleted);
    assert_eq!(stale.set_max(Some(1)), Err(LimitError::Deleted));
    assert_eq!((stale.usage(), stale.children(), stale.parent()), (0, vec![], None));
    assert_eq!((stale.name(), stale.path()), ("tenant".to_owned(), "(deleted)/tenant".to_owned()));
    assert_eq!(objcg::nr_dying(), before.1 + 1, "the handles pin its slot");
    // The name is free again, and the old guard does not lead into the new group.
    let reborn = { Memcg::root().child("parent").unwrap().create("tenant").unwrap() };
    let second = black_box(Box::new([2u64; 10]));
    assert_eq!(reborn.stat().slab_objects, 0);
    assert!(parent.stat().slab_objects >= 2, "both are the parent's");
    drop(inside);
    drop((tenant, stale, first, second, reborn));
    parent.drain();
    assert_eq!(parent.usage(), 0);
    drop(parent);
    assert_eq!(counts(), before);
}

#[test]
fn i1_what_a_deleted_top_level_groups_guard_allocates_is_nobodys() {
    let _alone = alone();
    let root = Memcg::root();
    root.drain();
    let before = (counts(), root.usage());
    let tenant = root.create("top level").unwrap();
    let inside = tenant.enter();
    tenant.delete().unwrap();
    let orphan = vec![1u8; 5000];
    let large = vec![1u8; 100_000];
    drop((orphan, large));
    let kept = vec![1u8; 5000];
    drop(inside);
    drop(tenant);
    root.drain();
    assert_eq!((counts(), root.usage()), before);
    drop(kept);
}

#[test]
fn i9_a_leaked_guard_leaves_the_thread_in_the_root() {
    let _alone = alone();
    let before = counts();
    let thread = thread::spawn(|| {
        let tenant = Memcg::root().create("leaked").unwrap();
        std::mem::forget(tenant.enter());
        drop(tenant);
        drop(vec![vec![1u8; 100], vec![2u8; 50_000]]);
    });
    thread.join().unwrap();
    assert_eq!(counts(), before);
}

#[test]
fn refusals_name_their_reason() {
    let _alone = alone();
    let parent = Memcg::root().create("names").unwrap();
    let refusal = |name: &str| parent.create(name).unwrap_err();
    assert_eq!(refusal(""), CreateError::Name(NameError::Empty));
    assert_eq!(refusal("a/b"), CreateError::Name(NameError::Slash));
    assert_eq!(refusal(&"x".repeat(256)), CreateError::Name(NameError::TooLong));
    let names = ["x".repeat(255), "y".repeat(128), "z".repeat(129), "ü".repeat(127), ".".to_owned(), " ".to_owned()];
    let groups: Vec<Memcg> = names.iter().map(|name| parent.create(name).unwrap()).collect();
    for (group, name) in groups.iter().zip(&names) {
        assert_eq!((group.name(), group.path()), (name.clone(), format!("/names/{name}")));
        assert_eq!(refusal(name), CreateError::Exists);
        assert_eq!(parent.child(name).as_ref(), Some(group));
    }
    let listed: Vec<String> = parent.children().iter().rev().map(Memcg::name).collect();
    assert_eq!(listed, names);
    assert_eq!(parent.delete(), Err(DeleteError::HasChildren));
    assert_eq!(Memcg::root().delete(), Err(DeleteError::Root));
    assert_eq!(Memcg::root().path(), "/");
    drop(groups);
    assert_eq!(parent.children(), []);
    assert!(names.iter().all(|name| parent.create(name).is_ok()), "names are free again");
    for error in [refusal(""), refusal("/"), CreateError::ParentDeleted, CreateError::NoMemory] {
        assert!(!error.to_string().is_empty() && !error.to_string().contains('\n'));
    }
}

#[test]
fn i10_a_hundred_thousand_groups_in_turn_add_no_memory() {
    let _alone = alone();
    let top = Memcg::root().create("churn").unwrap();
    let churn = || {
        for _ in 0..50_000 {
            let tenant = top.create("tenant").unwrap();
            tenant.scope(|| drop(Box::new([0u8; 200])));
        }
    };
    churn();
    let before = (counts(), objcg_core::stat::pages().used_bytes);
    churn();
    let after = (counts(), objcg_core::stat::pages().used_bytes);
    assert_eq!(before.0, after.0);
    assert!(after.1 <= before.1 + (64 << 10), "{before:?} -> {after:?}");
}
