//! Events, peaks, and waiting: counted at every level, told to everybody who waits, in whatever way.

use std::fs::File;
use std::future::{Future, pending, ready};
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use objcg::{Events, FutureExt, Memcg, Objcg};

#[path = "support/groups.rs"]
mod groups;
use groups::{KIB, alone, group, strict, try_vec};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

/// Longer than any test: a wait that ends by it has failed.
const FOREVER: Duration = Duration::from_secs(600);

/// Runs a future to its end on this thread; the waker allocates, as wakers do.
struct Unparks(Thread, AtomicUsize);

impl Wake for Unparks {
    fn wake(self: Arc<Self>) {
        assert_eq!(vec![1u8; 10_000].len(), 10_000);
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unparks(thread::current(), AtomicUsize::new(0))));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        thread::park();
    }
}

#[test]
fn an_event_is_counted_where_it_is_met_and_above() {
    let _alone = alone();
    let top = strict("hierarchy");
    let middle = top.create("middle").unwrap();
    let [leaf, other] = ["leaf", "other"].map(|name| middle.create(name).unwrap());
    let before = Memcg::root().events();
    middle.set_max(Some(100 * KIB)).unwrap();
    for _ in 0..3 {
        assert!(leaf.scope(|| try_vec(200 * KIB)).is_none());
    }
    let refused = Events { max: 3, oom: 3, ..Events::default() };
    assert_eq!(
        [&top, &middle, &leaf, &other].map(|at| at.events()),
        [refused, refused, Events::default(), Events::default()]
    );
    assert_eq!([&top, &middle].map(|at| at.events_local()), [Events::default(), refused]);
    leaf.set_high(Some(1)).unwrap();
    top.set_high(Some(1)).unwrap();
    let held = leaf.scope(|| try_vec(50 * KIB));
    // One charge, over the limits of two levels: once at the leaf, twice at the top.
    assert_eq!((leaf.events().high, middle.events().high, top.events().high), (1, 1, 2));
    assert_eq!((leaf.events_local().high, middle.events_local().high, top.events_local().high), (1, 0, 1));
    drop(held);
    // What a deleted group has counted stays counted above.
    leaf.delete().unwrap();
    assert_eq!(top.events(), Events { high: 2, ..refused });
    assert!(Memcg::root().events().oom >= before.oom + 3);
}

#[test]
fn each_reader_of_peaks_has_its_own_reset() {
    let _alone = alone();
    let tenant = group("peaks");
    let spike = |kib: u64| {
        let held = tenant.scope(|| try_vec(kib * KIB)).unwrap();
        drop(held);
        tenant.drain();
    };
    let [a, b] = [tenant.peak_reader(), tenant.peak_reader()];
    spike(400);
    let whole = tenant.peak();
    assert_eq!((a.peak(), b.peak(), whole >= 400 * KIB), (whole, whole, true));
    a.reset();
    assert_eq!((a.peak(), b.peak()), (0, whole));
    spike(100);
    let second = a.peak();
    assert!((100 * KIB..200 * KIB).contains(&second));
    b.reset();
    assert_eq!((a.peak(), b.peak(), tenant.peak()), (second, 0, whole));
    spike(200);
    let third = b.peak();
    assert!(third >= 200 * KIB && a.peak() == third);
    a.reset();
    drop(b);
    spike(50);
    let c = tenant.peak_reader();
    assert!(a.peak() < 100 * KIB && c.peak() == whole && tenant.peak() == whole);
    drop(a);
    let held = tenant.scope(|| try_vec(500 * KIB)).unwrap();
    c.reset();
    assert_eq!((c.peak(), c.peak() >= 500 * KIB), (tenant.usage(), true), "starts at what is used");
    drop(held);
}

#[test]
fn i8_a_refused_charge_leaves_no_peak_for_any_reader() {
    let _alone = alone();
    let tenant = strict("refused");
    tenant.set_max(Some(100 * KIB)).unwrap();
    let reader = tenant.peak_reader();
    reader.reset();
    assert!(tenant.scope(|| try_vec(200 * KIB)).is_none());
    assert_eq!((reader.peak(), tenant.peak()), (0, 0));
}

#[test]
fn waiting_threads_are_told_of_what_comes_before_and_after() {
    let _alone = alone();
    const NR_WAITERS: usize = 8;
    let top = strict("waiters");
    let tenant = top.create("tenant").unwrap();
    tenant.set_max(Some(10 * KIB)).unwrap();
    let none = Events::default();
    assert_eq!(top.wait_events(none, Duration::ZERO), none, "the deadline has passed");
    thread::scope(|scope| {
        for _ in 0..NR_WAITERS {
            scope.spawn(|| {
                let mut seen = none;
                while seen.oom < 100 {
                    let next = top.wait_events(seen, FOREVER);
                    assert!(next != seen, "woken by the deadline");
                    seen = next;
                }
            });
        }
        for _ in 0..100 {
            assert!(tenant.scope(|| try_vec(20 * KIB)).is_none());
        }
    });
    // A deleted group's waiters do not wait for ever.
    thread::scope(|scope| {
        let waiter = scope.spawn(|| tenant.wait_events(tenant.events(), FOREVER));
        tenant.delete().unwrap();
        assert_eq!(waiter.join().unwrap(), tenant.events());
    });
}

#[test]
fn a_descriptor_becomes_readable_and_is_gone_with_its_value() {
    let _alone = alone();
    let tenant = strict("descriptor");
    tenant.set_max(Some(10 * KIB)).unwrap();
    let [first, second] = [tenant.event_fd().unwrap(), tenant.event_fd().unwrap()];
    let mut files = [&first, &second].map(|fd| File::from(fd.as_fd().try_clone_to_owned().unwrap()));
    let mut read = |nth: usize| {
        let mut count = [0; 8];
        files[nth].read_exact(&mut count).map(|()| u64::from_ne_bytes(count)).map_err(|error| error.kind())
    };
    assert_eq!([read(0), read(1)], [Err(ErrorKind::WouldBlock); 2]);
    assert!(tenant.scope(|| try_vec(20 * KIB)).is_none());
    // One that the limit was met, one that it refused.
    assert_eq!([read(0), read(1)], [Ok(2); 2]);
    assert_eq!(read(0), Err(ErrorKind::WouldBlock), "reading resets it");
    drop(first);
    tenant.kill().unwrap();
    assert!(read(0) == Err(ErrorKind::WouldBlock) && matches!(read(1), Ok(1..)));
    drop(second);
    tenant.revive().unwrap();
    assert_eq!(read(1), Err(ErrorKind::WouldBlock));
}

#[test]
fn a_descriptor_tells_that_usage_is_back_at_the_soft_limit_and_that_the_group_is_gone() {
    let _alone = alone();
    let tenant = strict("back");
    let mut charges: Vec<_> = (0..4).map(|_| tenant.charge_external(KIB).unwrap()).collect();
    tenant.set_high(Some(2 * KIB)).unwrap();
    let fd = tenant.event_fd().unwrap();
    let mut file = File::from(fd.as_fd().try_clone_to_owned().unwrap());
    let mut is_told = || {
        let mut count = [0; 8];
        file.read_exact(&mut count).map_err(|error| error.kind()) != Err(ErrorKind::WouldBlock)
    };
    for (is_expected, reason) in [(false, "still over it"), (true, "at it"), (false, "it was not over it")] {
        charges.pop();
        assert_eq!(is_told(), is_expected, "{reason}");
    }
    tenant.delete().unwrap();
    assert!(is_told(), "deleted");
}

#[test]
fn a_mark_of_a_subtree_is_told_to_all_below_and_to_nobody_beside() {
    let _alone = alone();
    let parent = strict("subtree");
    let below = ["first", "second"].map(|name| parent.create(name).unwrap());
    let deep = below.each_ref().map(|child| child.create("deep").unwrap());
    let told = |marked: &Memcg| {
        let fds = below.each_ref().map(|group| group.event_fd().unwrap()).into_iter();
        let fds: Vec<_> = fds.chain(deep.each_ref().map(|group| group.event_fd().unwrap())).collect();
        marked.kill().unwrap();
        let is_told = |fd: &objcg::EventFd| {
            let mut file = File::from(fd.as_fd().try_clone_to_owned().unwrap());
            file.read_exact(&mut [0; 8]).is_ok()
        };
        fds.iter().map(is_told).collect::<Vec<_>>()
    };
    assert_eq!(told(&parent), [true; 4]);
    assert_eq!(told(&deep[1]), [false, true, false, true], "and to those above, who count it");
    assert_eq!(told(&below[0]), [true, false, true, false]);
}

#[test]
fn futures_end_with_what_they_wait_for() {
    let _alone = alone();
    let tenant = strict("futures");
    tenant.set_max(Some(10 * KIB)).unwrap();
    let none = Events::default();
    let deep = tenant.create("deep").unwrap().create("deeper").unwrap();
    thread::scope(|scope| {
        let events = scope.spawn(|| block_on(tenant.events_changed(none)));
        // Inside the group that is full: nothing of the wait is charged to it.
        let inside = scope.spawn(|| tenant.scope(|| block_on(tenant.events_changed(none))));
        let killed = scope.spawn(|| block_on(deep.killed()));
        assert!(tenant.scope(|| try_vec(20 * KIB)).is_none());
        assert!(events.join().unwrap() != none && inside.join().unwrap() != none);
        tenant.kill().unwrap();
        assert_eq!(killed.join().unwrap().unwrap_err().group(), tenant.id());
        tenant.revive().unwrap();
        let deleted = scope.spawn(|| (block_on(deep.killed()), block_on(deep.events_changed(deep.events()))));
        deep.delete().unwrap();
        assert_eq!(deleted.join().unwrap(), (Ok(()), none));
    });
}

#[test]
fn who_waits_for_a_mark_is_told_after_events_and_who_waits_for_events_beside_it_of_each() {
    let _alone = alone();
    let tenant = strict("both");
    tenant.set_max(Some(10 * KIB)).unwrap();
    thread::scope(|scope| {
        let killed = scope.spawn(|| block_on(tenant.killed()));
        for _ in 0..20 {
            let before = tenant.events();
            let changed = tenant.events_changed(before);
            let told = scope.spawn(move || block_on(changed));
            assert!(tenant.scope(|| try_vec(20 * KIB)).is_none());
            assert!(told.join().unwrap() != before);
        }
        // The last one left: nobody waits for this one.
        assert!(tenant.scope(|| try_vec(20 * KIB)).is_none());
        tenant.kill().unwrap();
        assert_eq!(killed.join().unwrap().unwrap_err().group(), tenant.id());
    });
}

#[test]
fn a_future_that_is_dropped_is_not_woken() {
    let _alone = alone();
    let tenant = group("dropped");
    let unparks = Arc::new(Unparks(thread::current(), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&unparks));
    let mut context = Context::from_waker(&waker);
    {
        let mut futures: Vec<_> = (0..10).map(|_| Box::pin(tenant.killed())).collect();
        for _ in 0..3 {
            assert!(futures.iter_mut().all(|future| future.as_mut().poll(&mut context).is_pending()));
        }
    }
    drop(waker);
    tenant.kill().unwrap();
    // The notifier has seen it when another one is told.
    assert!(block_on(tenant.killed()).is_err());
    assert_eq!((unparks.1.load(Ordering::Relaxed), Arc::strong_count(&unparks)), (0, 1));
}

#[test]
fn usage_that_falls_ends_the_wait_of_threads_and_futures() {
    let _alone = alone();
    let top = strict("falls");
    let tenant = top.create("tenant").unwrap();
    // Small objects: freed, they wait in sheaves and stocks with their charge.
    let held: Vec<Vec<u8>> = (0..2000).map(|_| tenant.scope(|| try_vec(500)).unwrap()).collect();
    top.drain();
    top.set_high(Some(top.usage() / 4)).unwrap();
    assert_eq!(tenant.throttle_delay(), Some(objcg::max_throttle_delay()));
    thread::scope(|scope| {
        let futures: Vec<_> = (0..4).map(|_| scope.spawn(|| block_on(tenant.below_high(FOREVER)))).collect();
        let thread = scope.spawn(|| tenant.scope(objcg::throttle));
        drop(held);
        futures.into_iter().for_each(|future| future.join().unwrap());
        thread.join().unwrap();
    });
    assert_eq!(tenant.throttle_delay(), None);
}

#[test]
fn a_wait_for_usage_ends_by_its_delay_or_by_a_mark() {
    let _alone = alone();
    let tenant = group("held-back");
    let held = tenant.scope(|| try_vec(100 * KIB)).unwrap();
    tenant.set_high(Some(tenant.usage() / 2)).unwrap();
    block_on(tenant.below_high(Duration::from_millis(3)));
    assert!(tenant.throttle_delay().is_some());
    thread::scope(|scope| {
        let future = scope.spawn(|| block_on(tenant.below_high(FOREVER)));
        tenant.kill().unwrap();
        future.join().unwrap();
    });
    assert_eq!(tenant.set_high(None), Ok(0));
    assert_eq!((tenant.throttle(), tenant.throttle_delay()), (Duration::ZERO, None));
    drop(held);
}

/// Small objects of a group: freed, they wait in sheaves with their charge.
fn small_objects(tenant: &Memcg) -> Vec<Vec<u8>> {
    (0..32).map(|_| tenant.scope(|| try_vec(64)).unwrap()).collect()
}

/// A drain stands for the next one for a few milliseconds: where the machine takes longer between the two, the test tries again.
const MAX_TRIES: usize = 1000;

#[test]
fn a_group_that_a_drain_left_over_high_is_not_drained_at_the_next_point() {
    let _alone = alone();
    let tenant = group("drained-in-vain");
    tenant.set_high(Some(KIB)).unwrap();
    let held = [(); 2].map(|()| small_objects(&tenant));
    let is_held_back = || {
        let mut future = pin!(ready(()).in_memcg(&tenant));
        future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
    };
    // How many bytes a drain finds after a point at which some objects had been freed since the last drain.
    let found_after_point = |begin: &dyn Fn()| {
        let freed = small_objects(&tenant);
        begin();
        drop(freed);
        assert!(is_held_back());
        let left = tenant.usage();
        tenant.drain();
        left - tenant.usage()
    };
    assert!((0..MAX_TRIES).any(|_| found_after_point(&|| tenant.drain()) >= KIB), "each point has drained");
    let in_bounds = || {
        tenant.set_high(None).unwrap();
        tenant.drain();
        tenant.set_high(Some(KIB)).unwrap();
    };
    assert_eq!(found_after_point(&in_bounds), 0, "the last drain left it within its high");
    // A thread that is held back for less than the time to its next drain.
    let delay = objcg::max_throttle_delay();
    objcg::set_max_throttle_delay(Duration::ZERO);
    tenant.drain();
    drop(held);
    assert!(tenant.usage() > KIB, "waits in sheaves");
    let _waited = tenant.throttle();
    assert_eq!(tenant.usage(), 0);
    objcg::set_max_throttle_delay(delay);
}

#[test]
fn shrinkers_that_free_enough_let_a_future_go_on_after_a_drain_in_vain() {
    let _alone = alone();
    let tenant = group("freed-enough");
    tenant.set_high(Some(KIB)).unwrap();
    let cache = Arc::new(Mutex::new(Vec::new()));
    let shrinking = Arc::clone(&cache);
    let shrinker = tenant.register_shrinker(move |_| {
        let freed: Vec<Vec<u8>> = std::mem::take(&mut *shrinking.lock().unwrap());
        freed.iter().map(|object| object.capacity() as u64).sum()
    });
    let poll = || pin!(ready(()).in_memcg(&tenant)).as_mut().poll(&mut Context::from_waker(Waker::noop()));
    *cache.lock().unwrap() = [(); 4].map(|()| small_objects(&tenant)).concat();
    tenant.drain();
    assert_eq!(poll(), Poll::Ready(Ok(())));
    assert_eq!(tenant.usage(), 0);
    // What is not enough is not drained for.
    let held = [(); 4].map(|()| small_objects(&tenant));
    let found_after_point = || {
        *cache.lock().unwrap() = small_objects(&tenant);
        tenant.drain();
        assert!(poll().is_pending() && cache.lock().unwrap().is_empty());
        let left = tenant.usage();
        tenant.drain();
        left - tenant.usage()
    };
    assert!((0..MAX_TRIES).any(|_| found_after_point() >= KIB), "each point has drained");
    drop((held, shrinker));
}

#[test]
fn what_a_point_did_not_drain_is_found_while_the_future_is_held_back() {
    let _alone = alone();
    let tenant = group("found-later");
    tenant.set_high(Some(KIB)).unwrap();
    let delay = objcg::max_throttle_delay();
    objcg::set_max_throttle_delay(FOREVER);
    let is_held_and_woken = || {
        let freed = small_objects(&tenant);
        tenant.drain();
        drop(freed);
        let mut future = pin!(ready(()).in_memcg(&tenant));
        // Its delay is as good as none: it is woken by usage that falls.
        block_on(future.as_mut()).unwrap();
        future.held_for() > Duration::ZERO
    };
    assert!((0..MAX_TRIES).any(|_| is_held_and_woken()), "each point has drained");
    objcg::set_max_throttle_delay(delay);
}

#[test]
fn delays_grow_with_the_square_of_the_excess() {
    let _alone = alone();
    let top = group("delays");
    let tenant = top.create("tenant").unwrap();
    let held = tenant.scope(|| try_vec(1010 * KIB)).unwrap();
    top.drain();
    let delay = |over: u64| {
        let high = tenant.usage() - over;
        tenant.set_high(Some(high)).unwrap();
        let expected = 64.0 * (over as f64 / high as f64).powi(2);
        let delay = tenant.throttle_delay().expect("over it").as_secs_f64();
        assert!((delay - expected.min(2.0)).abs() < 1e-3, "{delay} for {over}");
        delay
    };
    assert!(delay(10 * KIB) < delay(100 * KIB) && delay(100 * KIB) < delay(300 * KIB));
    assert!((delay(900 * KIB) - 2.0).abs() < 1e-9);
    // The level that is furthest over counts.
    tenant.set_high(None).unwrap();
    top.set_high(Some(top.usage() / 2)).unwrap();
    assert_eq!(tenant.throttle_delay(), Some(Duration::from_secs(2)));
    drop(held);
}

/// A boxed future of the trait's own kind: the wait types are `Send`.
#[test]
fn waits_may_be_sent_to_other_threads() {
    let _alone = alone();
    let tenant = group("sent");
    let futures: Vec<Pin<Box<dyn Future<Output = ()> + Send + 'static>>> = vec![
        Box::pin(tenant.below_high(FOREVER)),
        Box::pin({
            let killed = tenant.killed();
            async move { assert!(killed.await.is_err()) }
        }),
    ];
    tenant.kill().unwrap();
    thread::spawn(move || futures.into_iter().for_each(block_on)).join().unwrap();
}

/// The first attempt meets the child's limit. When what CPUs hold ready for the child was given back, the child has room and
/// its parent has not.
#[test]
fn a_group_that_refuses_the_second_attempt_only_has_met_its_limit_too() {
    let parent = strict("second-attempt");
    let [sibling, child] = ["sibling", "child"].map(|name| parent.create(name).unwrap());
    parent.set_max(Some(270 * KIB)).unwrap();
    child.set_max(Some(104 * KIB)).unwrap();

    let filler = sibling.scope(|| vec![0u8; 200 << 10]);
    // Free objects keep their charge until the child is drained.
    child.scope(|| drop((0..16).map(|_| Box::new([0u8; 1000])).collect::<Vec<_>>()));
    assert!(child.usage() > 4 * KIB, "nothing waits with its charge: {}", child.usage());

    assert!(child.scope(|| try_vec(100 * KIB)).is_none());
    let [of_child, of_parent] = [&child, &parent].map(Memcg::events_local);
    assert_eq!((of_child.max, of_child.oom), (1, 0), "the child refused once, and then had room");
    assert_eq!((of_parent.max, of_parent.oom), (1, 1), "the parent refused in the end");
    drop(filler);
}

/// What waits with its charge in the child keeps the child from having room, and what waits in its sibling the parent.
#[test]
fn a_charge_fits_once_every_level_that_refuses_it_is_drained() {
    let parent = strict("two-drains");
    let [sibling, child] = ["sibling", "child"].map(|name| parent.create(name).unwrap());
    parent.set_max(Some(110 * KIB)).unwrap();
    child.set_max(Some(104 * KIB)).unwrap();
    // Of different sizes: free objects of one size go from one to the other.
    sibling.scope(|| drop((0..16).map(|_| Box::new([0u8; 2000])).collect::<Vec<_>>()));
    child.scope(|| drop((0..16).map(|_| Box::new([0u8; 1000])).collect::<Vec<_>>()));
    for group in [&sibling, &child] {
        assert!(group.usage() > 10 * KIB, "nothing waits with its charge: {}", group.usage());
    }
    let fits = child.scope(|| try_vec(100 * KIB));
    assert!(fits.is_some());
    assert_eq!([&child, &parent].map(|group| (group.events_local().max, group.events_local().oom)), [(1, 0), (1, 0)]);
}

/// A waker whose every copy waits for a group itself, as one of a task that is a group's may.
struct Asks(Memcg);

fn ask(asks: &Asks) {
    let mut killed = pin!(asks.0.killed());
    assert!(killed.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

const ASKS: RawWakerVTable = RawWakerVTable::new(
    |data| {
        // SAFETY: the data of this table is an `Asks` that lives as long as the test.
        ask(unsafe { &*data.cast::<Asks>() });
        RawWaker::new(data, &ASKS)
    },
    |_| {},
    |_| {},
    |_| {},
);

#[test]
fn a_waker_may_wait_for_a_group_when_it_is_cloned() {
    let _alone = alone();
    let tenant = group("cloned");
    let asks = Asks(tenant.clone());
    // SAFETY: the functions are safe to be called by any thread with this data, which outlives the waker and its copies.
    let waker = unsafe { Waker::new((&raw const asks).cast(), &ASKS) };
    let mut killed = Box::pin(tenant.killed());
    assert!(killed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(killed);
}

/// A waker that tells that it was called, and then does something.
struct Tells(mpsc::Sender<()>, fn());

impl Wake for Tells {
    fn wake(self: Arc<Self>) {
        self.0.send(()).expect("the test waits for it");
        self.1();
    }
}

#[test]
fn a_waker_that_panics_keeps_nobody_from_being_woken() {
    let _alone = alone();
    for (name, then) in [("panics", (|| resume_unwind(Box::new("on purpose"))) as fn()), ("does-not", || {})] {
        let tenant = group(name);
        let (sender, woken) = mpsc::channel();
        let waker = Waker::from(Arc::new(Tells(sender, then)));
        // Woken by the thread that serves waits, and by the one that looks for kills.
        let mut killed = Box::pin(tenant.killed());
        let mut waiting = Box::pin(pending::<()>().in_memcg(&tenant));
        assert!(killed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        tenant.kill().unwrap();
        // For ever, if the thread is gone.
        (0..2).for_each(|_| woken.recv().unwrap());
    }
}
