//! Threads and closures that inherit the current group.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::thread;

use objcg::thread::{Builder, inherit, spawn};
use objcg::{Memcg, Objcg};

#[path = "support/groups.rs"]
mod groups;
use groups::{assert_empty, group};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

/// Tells in which group it is dropped.
struct Dropped(mpsc::Sender<Memcg>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.send(Memcg::current()).expect("the test waits for it");
    }
}

#[test]
fn the_current_group_is_the_one_that_was_entered_last() {
    let (outer, inner) = (group("outer"), group("inner"));
    assert_eq!(Memcg::current(), Memcg::root());
    outer.scope(|| {
        assert_eq!(inner.scope(Memcg::current), inner);
        assert_eq!(Memcg::current(), outer);
        assert_eq!(Memcg::root().scope(Memcg::current), Memcg::root());
        assert_eq!(thread::spawn(Memcg::current).join().unwrap(), Memcg::root());
    });
    assert_eq!(Memcg::current(), Memcg::root());
}

#[test]
fn in_a_deleted_group_the_current_one_is_its_nearest_living_ancestor() {
    let server = group("server");
    let tenant = server.create("tenant").unwrap();
    let session = tenant.create("session").unwrap();
    session.scope(|| {
        session.delete().unwrap();
        assert_eq!(Memcg::current(), tenant);
        tenant.delete().unwrap();
        assert_eq!(Memcg::current(), server);
    });
}

#[test]
fn the_current_group_can_be_asked_while_others_delete_it() {
    let server = group("asked");
    for _ in 0..2000 {
        let tenant = server.create("tenant").unwrap();
        thread::scope(|scope| {
            let deleting = tenant.clone();
            scope.spawn(move || deleting.delete().unwrap());
            tenant.scope(|| {
                let current = Memcg::current();
                assert!(current == tenant || current == server, "{current:?}");
            });
        });
    }
    assert!(server.children().is_empty());
}

#[test]
fn owned_guards_can_be_left_in_any_order() {
    let groups = ["first", "second", "third"].map(group);
    let [first, second, mut third] = groups.clone().map(Memcg::enter_owned);
    second.leave_below(&mut third);
    assert_eq!(Memcg::current(), groups[2]);
    drop(third);
    assert_eq!(Memcg::current(), groups[0]);
    drop(first);
    assert_eq!(Memcg::current(), Memcg::root());
}

#[test]
fn an_owned_guard_keeps_its_group() {
    let server = group("kept");
    let guard = server.create("tenant").unwrap().enter_owned();
    assert_eq!(Memcg::current().path(), "/kept/tenant");
    drop(guard);
    assert!(server.children().is_empty(), "the guard was the last that held it");
}

#[test]
fn a_thread_is_in_the_group_of_the_one_that_started_it() {
    let tenant = group("thread");
    let rows = tenant.scope(|| {
        let worker = spawn(|| {
            let grandchild = spawn(Memcg::current);
            (vec![0u8; 100_000], grandchild.join().unwrap())
        });
        worker.join().unwrap()
    });
    assert_eq!(rows.1, tenant);
    assert!(tenant.usage() >= 100_000);
    drop(rows);
    assert_empty(&tenant);
}

#[test]
fn a_builders_thread_has_its_name_and_the_group() {
    let tenant = group("builder");
    let named = || (thread::current().name().map(str::to_owned), Memcg::current());
    let builder = || Builder::new().name("worker".to_owned()).stack_size(128 << 10);
    let expected = (Some("worker".to_owned()), tenant.clone());
    assert_eq!(tenant.scope(|| builder().spawn(named)).unwrap().join().unwrap(), expected);
    thread::scope(|scope| {
        let worker = tenant.scope(|| builder().spawn_scoped(scope, named)).unwrap();
        assert_eq!(worker.join().unwrap(), expected);
    });
}

#[test]
fn a_thread_that_panics_leaves_nothing_charged() {
    let tenant = group("panicking");
    let worker = tenant.scope(|| {
        spawn(|| {
            let _rows = vec![0u8; 100_000];
            resume_unwind(Box::new("on purpose"));
        })
    });
    assert!(worker.join().is_err());
    assert_empty(&tenant);
}

#[test]
fn a_closure_runs_and_drops_what_it_holds_in_its_group_wherever_it_is_called() {
    let (tenant, other) = (group("bound"), group("caller"));
    let (sender, dropped_in) = mpsc::channel();
    let called = tenant.scope(|| {
        let held = Dropped(sender.clone());
        inherit(move || {
            let _held = held;
            Memcg::current()
        })
    });
    assert_eq!(other.scope(called), tenant);
    assert_eq!(dropped_in.recv().unwrap(), tenant);

    let never_called = tenant.scope(|| {
        let held = Dropped(sender.clone());
        inherit(move || drop(held))
    });
    other.scope(|| drop(never_called));
    assert_eq!(dropped_in.recv().unwrap(), tenant);

    let panicking = tenant.scope(|| {
        let held = Dropped(sender.clone());
        inherit(move || {
            let _held = held;
            resume_unwind(Box::new("on purpose"));
        })
    });
    other.scope(|| {
        assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
        assert_eq!(Memcg::current(), other);
    });
    assert_eq!(dropped_in.recv().unwrap(), tenant);
}

#[test]
fn a_group_that_is_deleted_while_its_threads_run_leaves_them_to_its_parent() {
    let server = group("survivors");
    let tenant = server.create("tenant").unwrap();
    let (go, wait) = mpsc::channel::<()>();
    let worker = tenant.scope(|| {
        spawn(move || {
            wait.recv().unwrap();
            (Memcg::current(), vec![0u8; 100_000])
        })
    });
    tenant.delete().unwrap();
    go.send(()).unwrap();
    let (ran_in, rows) = worker.join().unwrap();
    assert_eq!(ran_in, server);
    assert!(server.usage() >= 100_000);
    // The channel's list of who waits was made by the thread.
    drop((rows, tenant, go));
    assert_empty(&server);
}
