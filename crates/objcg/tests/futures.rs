//! Futures and streams in groups: the current group is right whatever happens in a poll, memory is whose it should be, and a group
//! that is over its limits holds them back or ends them.

#[path = "support/random.rs"]
mod random;

use std::cell::RefCell;
use std::future::{pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures_core::Stream;
use random::Random;

use objcg::{FutureExt, InMemcg, Memcg, Objcg, StreamExt};

#[path = "support/groups.rs"]
mod groups;
use groups::{assert_empty, group};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn next<S: Stream>(stream: Pin<&mut S>) -> Poll<Option<S::Item>> {
    stream.poll_next(&mut Context::from_waker(Waker::noop()))
}

/// Tells in which group it is dropped.
#[derive(Clone, Default)]
struct Dropped(Arc<OnceLock<Memcg>>);

/// What a `Dropped` is kept in.
struct Dropping(Dropped);

impl Drop for Dropping {
    fn drop(&mut self) {
        self.0.0.set(Memcg::current()).expect("dropped once");
    }
}

/// A future that is pending `nr_polls` times, with `bytes` held from its first poll to its end.
async fn holding(nr_bytes: usize, nr_polls: usize) -> usize {
    let bytes = vec![1u8; nr_bytes];
    pendings(nr_polls).await;
    bytes.len()
}

async fn pendings(nr_polls: usize) {
    let mut left = nr_polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn a_future_is_charged_in_every_poll_and_the_current_group_comes_back() {
    let (tenant, caller) = (group("polled"), group("caller"));
    let mut future = pin!(holding(100_000, 2).in_memcg(&tenant));
    caller.scope(|| {
        for _ in 0..2 {
            assert!(poll_once(future.as_mut()).is_pending());
            assert_eq!(Memcg::current(), caller);
            assert!(tenant.usage() >= 100_000);
        }
        assert_eq!(poll_once(future.as_mut()), Poll::Ready(Ok(100_000)));
        assert_eq!(Memcg::current(), caller);
    });
    assert_empty(&tenant);
    assert_empty(&caller);
}

#[test]
fn each_poll_may_be_on_another_thread() {
    let tenant = group("threads");
    let mut future = Box::pin(holding(100_000, 3).in_memcg(&tenant));
    for _ in 0..3 {
        future = thread::spawn(move || {
            assert!(poll_once(future.as_mut()).is_pending());
            assert_eq!(Memcg::current(), Memcg::root());
            future
        })
        .join()
        .unwrap();
    }
    assert_eq!(poll_once(future.as_mut()), Poll::Ready(Ok(100_000)));
    assert_empty(&tenant);
}

#[test]
fn futures_nest_and_groups_with_them() {
    let (outer, inner) = (group("outer"), group("inner"));
    let nested = async {
        assert_eq!(Memcg::current(), outer);
        let answer = async {
            assert_eq!(Memcg::current(), inner);
            pendings(1).await;
            assert_eq!(Memcg::current(), inner);
            5
        };
        let answer = answer.in_memcg(&inner).await;
        assert_eq!(Memcg::current(), outer);
        answer
    };
    let mut nested = pin!(nested.in_memcg(&outer));
    assert!(poll_once(nested.as_mut()).is_pending());
    assert_eq!(Memcg::current(), Memcg::root());
    assert_eq!(poll_once(nested.as_mut()), Poll::Ready(Ok(Ok(5))));
    assert_eq!(Memcg::current(), Memcg::root());
}

#[test]
fn a_future_that_is_dropped_before_its_end_is_dropped_inside() {
    let tenant = group("cancelled");
    let dropped = Dropped::default();
    let future = async {
        let _dropping = Dropping(dropped.clone());
        holding(100_000, usize::MAX).await
    };
    let mut future = Box::pin(future.in_memcg(&tenant));
    assert!(poll_once(future.as_mut()).is_pending());
    assert!(tenant.usage() >= 100_000);
    drop(future);
    assert_eq!(dropped.0.get(), Some(&tenant));
    assert_eq!(Memcg::current(), Memcg::root());
    assert_empty(&tenant);
}

#[test]
fn a_future_that_has_ended_is_dropped_inside_at_its_end() {
    let tenant = group("ended");
    let dropped = Dropped::default();
    let held = Dropping(dropped.clone());
    // What it captured lives as long as it does.
    let mut future = pin!(
        poll_fn(move |_| {
            let _ = &held;
            Poll::Ready(())
        })
        .in_memcg(&tenant)
    );
    assert_eq!(poll_once(future.as_mut()), Poll::Ready(Ok(())));
    assert_eq!(dropped.0.get(), Some(&tenant), "dropped by now");
}

#[test]
#[should_panic(expected = "polled after its end")]
fn a_future_is_not_polled_after_its_end() {
    let mut future = pin!(ready(1).in_memcg(&Memcg::root()));
    assert!(poll_once(future.as_mut()).is_ready());
    let _ = poll_once(future.as_mut());
}

#[test]
fn a_panic_in_a_poll_leaves_the_group_and_the_memory_returns() {
    let (tenant, caller) = (group("panics"), group("panics-caller"));
    let panicking = async {
        let _bytes = vec![1u8; 100_000];
        pendings(1).await;
        resume_unwind(Box::new("on purpose"));
    };
    let mut future = Box::pin(panicking.in_memcg(&tenant));
    caller.scope(|| {
        assert!(poll_once(future.as_mut()).is_pending());
        assert!(catch_unwind(AssertUnwindSafe(|| poll_once(future.as_mut()))).is_err());
        assert_eq!(Memcg::current(), caller);
    });
    drop(future);
    assert_empty(&tenant);
}

/// Panics when it is dropped, unless it is dropped by a panic.
struct PanicsAtEnd;

impl Drop for PanicsAtEnd {
    fn drop(&mut self) {
        if !thread::panicking() {
            resume_unwind(Box::new("on purpose"));
        }
    }
}

#[test]
fn a_panic_in_a_drop_leaves_the_group() {
    let (tenant, caller) = (group("panics-at-end"), group("panics-at-end-caller"));
    let future = async {
        let _bytes = vec![1u8; 100_000];
        let _panics = PanicsAtEnd;
        pending::<()>().await;
    };
    let mut future = Box::pin(future.in_memcg(&tenant));
    caller.scope(|| {
        assert!(poll_once(future.as_mut()).is_pending());
        assert!(catch_unwind(AssertUnwindSafe(|| drop(future))).is_err());
        assert_eq!(Memcg::current(), caller);
    });
    assert_empty(&tenant);
}

/// A future that another one drops while it is being polled.
type Slot = RefCell<Option<Pin<Box<InMemcg<Pin<Box<dyn Future<Output = ()>>>>>>>>;

thread_local! {
    static SLOT: Slot = const { RefCell::new(None) };
}

#[test]
fn a_future_that_is_dropped_in_the_middle_of_anothers_poll_leaves_that_in_its_group() {
    let (victim, killer) = (group("victim"), group("killer"));
    let dropped = Dropped::default();
    let dropping = Dropping(dropped.clone());
    let future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
        let _dropping = dropping;
        holding(100_000, usize::MAX).await;
    });
    let mut future = Box::pin(future.in_memcg(&victim));
    assert!(poll_once(future.as_mut()).is_pending());
    SLOT.set(Some(future));
    let dropping = async {
        let before = Memcg::current();
        drop(SLOT.take());
        (before, Memcg::current())
    };
    let mut dropping = pin!(dropping.in_memcg(&killer));
    assert_eq!(poll_once(dropping.as_mut()), Poll::Ready(Ok((killer.clone(), killer))));
    assert_eq!(dropped.0.get(), Some(&victim));
    assert_empty(&victim);
}

#[test]
fn a_group_that_is_deleted_while_its_futures_live_leaves_them_to_its_parent() {
    let server = group("server");
    let tenant = server.create("tenant").unwrap();
    let asking = async {
        let bytes = vec![1u8; 100_000];
        pendings(1).await;
        let more = vec![1u8; 100_000];
        let current = Memcg::current();
        pendings(1).await;
        drop((bytes, more));
        current
    };
    let mut future = Box::pin(asking.in_memcg(&tenant));
    assert!(poll_once(future.as_mut()).is_pending());
    tenant.delete().unwrap();
    drop(tenant);
    assert!(poll_once(future.as_mut()).is_pending());
    assert!(server.usage() >= 200_000);
    assert_eq!(poll_once(future.as_mut()), Poll::Ready(Ok(server.clone())));
    drop(future);
    assert_empty(&server);
    assert!(server.children().is_empty());
}

/// A waker each of whose operations allocates, and tells in which group it does.
struct Allocating {
    kept: Mutex<Vec<Vec<u8>>>,
    groups: mpsc::Sender<Memcg>,
}

impl Wake for Allocating {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.kept.lock().unwrap().push(vec![0; 1000]);
        self.groups.send(Memcg::current()).expect("the test waits for it");
    }
}

#[test]
fn a_waker_may_allocate_inside_a_poll_and_outside_of_it() {
    let (tenant, caller) = (group("waker"), group("waker-caller"));
    let (sender, woken_in) = mpsc::channel();
    let allocating = Arc::new(Allocating { kept: Mutex::default(), groups: sender });
    let waker = Waker::from(Arc::clone(&allocating));
    let stored = Arc::new(Mutex::new(None::<Waker>));
    let storing = Arc::clone(&stored);
    let future = poll_fn(move |context: &mut Context<'_>| {
        context.waker().wake_by_ref();
        *storing.lock().unwrap() = Some(context.waker().clone());
        Poll::<()>::Pending
    });
    let mut future = Box::pin(future.in_memcg(&tenant));
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(woken_in.recv().unwrap(), tenant, "what a poll does is the group's");
    caller.scope(|| stored.lock().unwrap().take().expect("stored by the poll").wake());
    assert_eq!(woken_in.recv().unwrap(), caller);
    assert!(tenant.usage() >= 1000 && caller.usage() >= 1000);
    drop((future, waker, stored));
    allocating.kept.lock().unwrap().clear();
    drop(allocating);
    drop(woken_in);
    assert_empty(&caller);
}

/// A stream of so many boxes.
struct Boxes(usize);

impl Stream for Boxes {
    type Item = Box<[u8; 1000]>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        self.0 -= 1;
        Poll::Ready(Some(Box::new([0; 1000])))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0, Some(self.0))
    }
}

#[test]
fn a_streams_items_are_the_groups_and_after_its_end_it_stays_ended() {
    let tenant = group("stream");
    let mut stream = pin!(Boxes(3).in_memcg(&tenant));
    assert_eq!(stream.size_hint(), (1, Some(4)));
    let mut items = Vec::new();
    while let Poll::Ready(Some(item)) = next(stream.as_mut()) {
        items.push(item.expect("nobody was killed"));
        assert_eq!(Memcg::current(), Memcg::root());
    }
    assert_eq!(tenant.stat().slab_objects, 3);
    assert_eq!(next(stream.as_mut()), Poll::Ready(None));
    assert_eq!(stream.size_hint(), (0, Some(0)));
    assert!(stream.get_ref().is_none());
    drop(items);
    assert_empty(&tenant);
}

#[test]
fn what_is_polled_otherwise_can_be_in_a_group_too() {
    let tenant = group("with");
    let mut counter = pin!(InMemcg::new(AtomicUsize::new(0), &tenant));
    let count = |counter: Pin<&mut AtomicUsize>, _: &mut Context<'_>| {
        assert_eq!(Memcg::current(), tenant);
        Poll::Ready(counter.fetch_add(1, Ordering::Relaxed))
    };
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(counter.as_mut().poll_with(&mut context, count), Poll::Ready(Some(Ok(0))));
    assert_eq!(counter.as_mut().poll_with(&mut context, count), Poll::Ready(Some(Ok(1))));
    counter.as_mut().end();
    assert_eq!(counter.as_mut().poll_with(&mut context, count), Poll::Ready(None));
    assert_eq!(counter.memcg(), &tenant);
}

/// Grows for ever, 10,000 bytes a poll.
async fn growing() {
    let mut kept = Vec::new();
    loop {
        kept.push(vec![1u8; 10_000]);
        pendings(1).await;
    }
}

/// A waker that counts.
#[derive(Default)]
struct Counting(Mutex<usize>, Condvar);

impl Counting {
    fn new() -> (Arc<Counting>, Waker) {
        let counting = Arc::new(Counting::default());
        (Arc::clone(&counting), Waker::from(counting))
    }

    /// Waits until it was woken so often.
    fn wait(&self, nr_wakes: usize) {
        let woken = self.1.wait_while(self.0.lock().unwrap(), |nr| *nr < nr_wakes);
        drop(woken.unwrap());
    }
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap() += 1;
        self.1.notify_all();
    }
}

#[test]
fn a_future_that_breaks_the_limit_ends_at_its_next_poll_and_its_memory_returns() {
    let tenant = group("breaks");
    tenant.set_max(Some(1 << 20)).unwrap();
    let dropped = Dropped::default();
    let dropping = Dropping(dropped.clone());
    let runaway = async move {
        let _dropping = dropping;
        growing().await;
    };
    let mut future = pin!(runaway.in_memcg(&tenant));
    let killed = loop {
        if let Poll::Ready(result) = poll_once(future.as_mut()) {
            break result.expect_err("it never ends by itself");
        }
    };
    assert_eq!(killed.group(), tenant.id());
    assert_eq!(dropped.0.get(), Some(&tenant));
    assert_eq!(Memcg::current(), Memcg::root());
    assert!(tenant.peak() > 1 << 20 && tenant.peak() <= (1 << 20) + tenant.reserve());
    assert_empty(&tenant);
    assert!(poll_once(pin!(ready(1).in_memcg(&tenant))) == Poll::Ready(Err(killed)), "as every other of the group");
    tenant.revive().unwrap();
    assert_eq!(poll_once(pin!(ready(1).in_memcg(&tenant))), Poll::Ready(Ok(1)));
}

#[test]
fn futures_that_wait_for_nothing_are_woken_by_the_kill_of_their_group() {
    const NR_FUTURES: usize = 100;
    let server = group("woken");
    let (tenant, neighbour) = (server.create("tenant").unwrap(), server.create("neighbour").unwrap());
    let (woken, undisturbed) = (Arc::new(Counting::default()), Arc::new(Counting::default()));
    let poll_by = |future: Pin<&mut InMemcg<_>>, counting: &Arc<Counting>| {
        future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(counting))))
    };
    let waiting = || holding(10_000, usize::MAX);
    // A first poll wakes itself: `holding` is ready to be polled again. The kill is one more.
    let mut futures = (0..NR_FUTURES).map(|_| Box::pin(waiting().in_memcg(&tenant))).collect::<Vec<_>>();
    let mut other = Box::pin(waiting().in_memcg(&neighbour));
    for future in &mut futures {
        assert!(poll_by(future.as_mut(), &woken).is_pending());
    }
    assert!(poll_by(other.as_mut(), &undisturbed).is_pending());
    woken.wait(NR_FUTURES);
    tenant.kill().unwrap();
    woken.wait(2 * NR_FUTURES);
    for future in &mut futures {
        assert!(matches!(poll_by(future.as_mut(), &woken), Poll::Ready(Err(_))));
    }
    assert_eq!(*undisturbed.0.lock().unwrap(), 1);
    assert!(poll_by(other.as_mut(), &undisturbed).is_pending());
    assert_empty(&tenant);
}

#[test]
fn a_kill_of_an_ancestor_ends_what_is_below() {
    let server = group("ancestor");
    let tenant = server.create("tenant").unwrap();
    let (woken, waker) = Counting::new();
    let mut future = pin!(pending::<()>().in_memcg(&tenant));
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    server.kill().unwrap();
    woken.wait(1);
    let Poll::Ready(Err(killed)) = future.poll(&mut Context::from_waker(&waker)) else { panic!("it was killed") };
    assert_eq!(killed.group(), server.id());
}

#[test]
fn a_mark_that_grows_to_the_subtree_wakes_what_is_below() {
    let server = group("grows");
    let tenant = server.create("tenant").unwrap();
    server.set_max(Some(100_000)).unwrap();
    let breaking = server.scope(|| vec![0u8; 110_000]);
    assert!(server.is_oom_killed() && !tenant.is_oom_killed());
    let (woken, waker) = Counting::new();
    let mut future = pin!(pending::<()>().in_memcg(&tenant));
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    server.kill().unwrap();
    woken.wait(1);
    assert!(matches!(future.poll(&mut Context::from_waker(&waker)), Poll::Ready(Err(_))));
    drop(breaking);
}

#[test]
fn kills_against_polls_and_drops_lose_no_wake_and_leave_nothing() {
    const NR_ROUNDS: usize = 300;
    let server = group("race");
    let mut random = Random::from_environment();
    for round in 0..NR_ROUNDS {
        let tenant = server.create(&round.to_string()).unwrap();
        let nr_threads = 1 + random.below(3);
        thread::scope(|scope| {
            for _ in 0..nr_threads {
                let drops = random.below(3) == 0;
                let tenant = &tenant;
                scope.spawn(move || {
                    let (woken, waker) = Counting::new();
                    let waiting = async {
                        let _bytes = vec![1u8; 10_000];
                        pending::<()>().await;
                    };
                    let mut future = Box::pin(waiting.in_memcg(tenant));
                    let first = future.as_mut().poll(&mut Context::from_waker(&waker));
                    if drops || first.is_ready() {
                        return;
                    }
                    // For ever, if the wake was lost.
                    woken.wait(1);
                    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
                });
            }
            for _ in 0..random.below(1000) {
                std::hint::spin_loop();
            }
            tenant.kill().unwrap();
        });
        assert_empty(&tenant);
    }
}

#[test]
fn a_killed_stream_gives_the_error_once_and_ends() {
    let tenant = group("stream-killed");
    let mut stream = pin!(Boxes(3).in_memcg(&tenant));
    assert!(matches!(next(stream.as_mut()), Poll::Ready(Some(Ok(_)))));
    tenant.kill().unwrap();
    assert!(matches!(next(stream.as_mut()), Poll::Ready(Some(Err(_)))));
    assert_eq!(next(stream.as_mut()), Poll::Ready(None));
}

#[test]
fn a_future_over_high_is_not_polled_until_usage_falls() {
    let tenant = group("held");
    tenant.set_high(Some(100_000)).unwrap();
    // Twice the limit: the delay is the longest, two seconds.
    let ballast = tenant.scope(|| vec![0u8; 200_000]);
    let nr_polls = AtomicUsize::new(0);
    let counted = poll_fn(|_| {
        nr_polls.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(())
    });
    let (woken, waker) = Counting::new();
    let mut future = pin!(counted.in_memcg(&tenant));
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(nr_polls.load(Ordering::Relaxed), 0);
    assert!(future.held_for() > Duration::ZERO);
    drop(ballast);
    woken.wait(1);
    assert_eq!(future.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(())));
    assert_eq!(nr_polls.load(Ordering::Relaxed), 1);
}

#[test]
fn a_held_future_is_woken_by_the_kill_of_its_group() {
    let tenant = group("held-killed");
    tenant.set_high(Some(1000)).unwrap();
    let ballast = tenant.scope(|| vec![0u8; 200_000]);
    let (woken, waker) = Counting::new();
    let mut future = pin!(ready(()).in_memcg(&tenant));
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    tenant.kill().unwrap();
    woken.wait(1);
    assert!(matches!(future.poll(&mut Context::from_waker(&waker)), Poll::Ready(Err(_))));
    drop(ballast);
}

#[test]
fn shrinkers_run_before_anybody_is_held_back() {
    let tenant = group("shrunk");
    tenant.set_high(Some(100_000)).unwrap();
    let cache = Arc::new(Mutex::new(tenant.scope(|| vec![1u8; 200_000])));
    let shrinking = Arc::clone(&cache);
    let shrinker = tenant.register_shrinker(move |_| {
        let freed = std::mem::take(&mut *shrinking.lock().unwrap());
        freed.len() as u64
    });
    assert_eq!(poll_once(pin!(ready(1).in_memcg(&tenant))), Poll::Ready(Ok(1)), "polled at once");
    assert!(cache.lock().unwrap().is_empty());
    drop(shrinker);
}

/// All of many that are held back move on although usage never falls: each is polled after its delay.
#[test]
fn everybody_who_is_held_back_moves_on() {
    const NR_FUTURES: usize = 30;
    const NR_POLLS: usize = 3;
    let tenant = group("fair");
    // A little over, so that the delays are short.
    let ballast = tenant.scope(|| vec![0u8; 1_000_000]);
    tenant.set_high(Some(995_000)).unwrap();
    let threads = (0..NR_FUTURES).map(|_| {
        let tenant = tenant.clone();
        thread::spawn(move || {
            let mut nr_polls = 0;
            let (woken, waker) = Counting::new();
            let counted = poll_fn(|context| {
                nr_polls += 1;
                context.waker().wake_by_ref();
                if nr_polls < NR_POLLS { Poll::Pending } else { Poll::Ready(()) }
            });
            let mut future = pin!(counted.in_memcg(&tenant));
            let mut nr_wakes = 0;
            while future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                nr_wakes += 1;
                woken.wait(nr_wakes);
            }
            future.held_for()
        })
    });
    let threads = threads.collect::<Vec<_>>();
    for thread in threads {
        assert!(thread.join().unwrap() > Duration::ZERO, "it was held back, and moved on");
    }
    drop(ballast);
}
