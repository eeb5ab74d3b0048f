//! Tokio tasks inherit the current group, and leave nothing behind when they are gone.

use std::time::Duration;

use objcg::tokio::{JoinSet, spawn, spawn_blocking, spawn_local};
use objcg::{FutureExt, Memcg, Objcg};
use tokio::runtime::Builder;
use tokio::sync::{Barrier, oneshot};
use tokio::task::{LocalSet, yield_now};

#[path = "support/groups.rs"]
mod groups;
use groups::{assert_empty, group};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

/// Runs a test in a runtime of its own, which is gone afterwards with all that it keeps: its queues and its threads' books are
/// charged to whom they grow for.
fn run<R>(work: impl Future<Output = R>) -> R {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime");
    let result = runtime.block_on(work);
    drop(runtime);
    result
}

/// Tasks of the group that hold so many bytes each, and wait for nothing.
async fn hold_for_ever(tenant: &Memcg, nr_tasks: usize, nr_bytes: usize) -> JoinSet<()> {
    let started = std::sync::Arc::new(Barrier::new(nr_tasks + 1));
    let mut set = JoinSet::new();
    for _ in 0..nr_tasks {
        let started = started.clone();
        tenant.scope(|| {
            set.spawn(async move {
                let _rows = vec![0u8; nr_bytes];
                started.wait().await;
                std::future::pending::<()>().await;
            })
        });
    }
    started.wait().await;
    set
}

#[test]
fn tasks_of_tasks_are_in_the_group() {
    let tenant = group("tasks");
    run(async {
        let request = async {
            let child = spawn(async {
                yield_now().await;
                let grandchild = spawn(async { (Memcg::current(), vec![0u8; 100_000]) });
                grandchild.await
            });
            child.await
        };
        let (ran_in, rows) = request.in_memcg(&tenant).await.unwrap().unwrap().unwrap().unwrap().unwrap();
        assert_eq!(ran_in, tenant);
        assert!(tenant.usage() >= 100_000);
        drop(rows);
        assert_eq!(Memcg::current(), Memcg::root());
    });
}

#[test]
fn blocking_work_and_local_tasks_are_in_the_group() {
    let tenant = group("blocking");
    run(async {
        let request = async {
            let blocking = spawn_blocking(|| (Memcg::current(), vec![0u8; 100_000])).await.unwrap().unwrap();
            let local = spawn_local(async { Memcg::current() }).await.unwrap().unwrap();
            (blocking, local)
        };
        let ((blocking, rows), local) = LocalSet::new().run_until(request.in_memcg(&tenant)).await.unwrap();
        assert_eq!((blocking, local), (tenant.clone(), tenant.clone()));
        assert!(tenant.usage() >= 100_000);
        drop(rows);
    });
    assert_empty(&tenant);
}

#[test]
fn a_set_takes_tasks_of_any_group() {
    const NR_GROUPS: usize = 5;
    let groups = (0..NR_GROUPS).map(|number| group(&format!("set-{number}"))).collect::<Vec<_>>();
    run(async {
        let mut set = JoinSet::new();
        for (number, memcg) in groups.iter().enumerate() {
            memcg.scope(|| {
                set.spawn(async move {
                    yield_now().await;
                    (number, Memcg::current())
                });
                set.spawn_blocking(move || (number, Memcg::current()));
            });
        }
        assert_eq!(set.len(), 2 * NR_GROUPS);
        while let Some(ended) = set.join_next().await {
            let (number, ran_in) = ended.unwrap().unwrap();
            assert_eq!(ran_in, groups[number]);
        }
        assert!(set.is_empty() && set.try_join_next().is_none());
    });
}

#[test]
fn what_aborted_tasks_held_returns() {
    const NR_TASKS: usize = 20;
    let tenant = group("aborted");
    run(async {
        let mut set = hold_for_ever(&tenant, NR_TASKS, 100_000).await;
        assert!(tenant.usage() >= NR_TASKS as u64 * 100_000);
        set.shutdown().await;
        drop(set);
    });
    assert_empty(&tenant);
}

#[test]
fn a_panicking_task_is_an_error_and_leaves_nothing() {
    let tenant = group("panicking");
    run(async {
        let task = tenant.scope(|| {
            spawn(async {
                let _rows = vec![0u8; 100_000];
                yield_now().await;
                std::panic::resume_unwind(Box::new("on purpose"));
            })
        });
        assert!(task.await.unwrap_err().is_panic());
    });
    assert_empty(&tenant);
}

#[test]
fn tasks_of_many_groups_share_threads_and_each_group_has_its_own() {
    const NR_GROUPS: usize = 50;
    const NR_ROUNDS: usize = 50;
    let groups = (0..NR_GROUPS).map(|number| group(&format!("shared-{number}"))).collect::<Vec<_>>();
    run(async {
        let tasks = groups.iter().enumerate().map(|(number, memcg)| {
            let own = memcg.clone();
            memcg.scope(|| {
                spawn(async move {
                    let mut kept = Vec::new();
                    for _ in 0..NR_ROUNDS {
                        kept.push(vec![0u8; 100 * (number + 1)]);
                        yield_now().await;
                        assert_eq!(Memcg::current(), own);
                        if kept.len().is_multiple_of(10) {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                    kept
                })
            })
        });
        let tasks = tasks.collect::<Vec<_>>();
        let mut results = Vec::new();
        for task in tasks {
            results.push(task.await.unwrap().unwrap());
        }
        for (number, memcg) in groups.iter().enumerate() {
            assert!(memcg.usage() >= (NR_ROUNDS * 100 * (number + 1)) as u64);
        }
    });
    groups.iter().for_each(assert_empty);
}

#[test]
fn a_task_outlives_its_group() {
    let server = group("outlived");
    run(async {
        let tenant = server.create("tenant").unwrap();
        let (go, wait) = oneshot::channel::<()>();
        let task = tenant.scope(|| {
            spawn(async move {
                wait.await.unwrap();
                (Memcg::current(), vec![0u8; 100_000])
            })
        });
        yield_now().await;
        tenant.delete().unwrap();
        go.send(()).unwrap();
        let (ran_in, rows) = task.await.unwrap().unwrap();
        assert_eq!(ran_in, server);
        drop((rows, tenant));
    });
    assert_empty(&server);
}

#[test]
fn tasks_of_a_killed_group_end_although_nothing_else_wakes_them() {
    const NR_TASKS: usize = 100;
    let (tenant, neighbour) = (group("killed"), group("killed-neighbour"));
    run(async {
        let (go, wait) = oneshot::channel::<()>();
        let other = neighbour.scope(|| spawn(async { wait.await.is_ok() }));
        let mut set = hold_for_ever(&tenant, NR_TASKS, 10_000).await;
        assert!(tenant.usage() >= NR_TASKS as u64 * 10_000);
        tenant.kill().unwrap();
        while let Some(ended) = set.join_next().await {
            assert_eq!(ended.unwrap().unwrap_err().group(), tenant.id());
        }
        go.send(()).unwrap();
        assert!(other.await.unwrap().unwrap(), "the neighbour did not notice");
    });
    assert_empty(&tenant);
}

#[test]
fn blocking_work_of_a_killed_group_does_not_begin() {
    let tenant = group("not-begun");
    run(async {
        tenant.kill().unwrap();
        let work = tenant.scope(|| spawn_blocking(|| -> () { unreachable!("the group was killed") }));
        assert_eq!(work.await.unwrap().unwrap_err().group(), tenant.id());
        let mut set = JoinSet::<()>::new();
        tenant.scope(|| set.spawn_blocking(|| unreachable!("the group was killed")));
        assert!(set.join_next().await.unwrap().unwrap().is_err());
    });
    assert_empty(&tenant);
}
