//! Shrinkers: who is asked, in which order, and what a callback may do to itself and to others.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use objcg::{Memcg, Objcg, OomPolicy, ReclaimContext, Shrinker, checkpoint};

#[path = "support/groups.rs"]
mod groups;
use groups::{KIB, MIB, alone, strict, try_vec};
#[path = "support/fork.rs"]
mod fork;
use fork::in_child_of_fork;

#[global_allocator]
static GLOBAL: Objcg = Objcg;

/// A cache of pages of a group, whose list is nobody's.
#[derive(Clone)]
struct Cache {
    memcg: Memcg,
    pages: Arc<Mutex<Vec<Vec<u8>>>>,
    nr_calls: Arc<AtomicUsize>,
}

impl Cache {
    fn new(memcg: &Memcg) -> Cache {
        let pages = Arc::new(Mutex::new(Vec::with_capacity(1 << 12)));
        Cache { memcg: memcg.clone(), pages, nr_calls: Arc::default() }
    }

    fn fill(&self, nr_pages: usize, nr_bytes: u64) {
        for _ in 0..nr_pages {
            let page = self.memcg.scope(|| try_vec(nr_bytes)).expect("fits");
            self.pages.lock().unwrap().push(page);
        }
    }

    fn len(&self) -> usize {
        self.pages.lock().unwrap().len()
    }

    fn nr_calls(&self) -> usize {
        self.nr_calls.load(Ordering::Relaxed)
    }

    fn shrink(&self, nr_bytes: u64) -> u64 {
        self.nr_calls.fetch_add(1, Ordering::Relaxed);
        let Ok(mut pages) = self.pages.try_lock() else { return 0 };
        let mut freed = 0;
        while freed < nr_bytes
            && let Some(page) = pages.pop()
        {
            freed += page.capacity() as u64;
        }
        freed
    }

    fn register(&self) -> Shrinker {
        let cache = self.clone();
        self.memcg.register_shrinker(move |control| cache.shrink(control.nr_bytes))
    }
}

/// Data of a callback that counts how often it was dropped.
struct CountsDrop(Arc<AtomicUsize>);

impl Drop for CountsDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_charge_that_would_be_refused_takes_from_the_cache() {
    let _alone = alone();
    let tenant = strict("cache");
    tenant.set_max(Some(MIB)).unwrap();
    let cache = Cache::new(&tenant);
    let shrinker = cache.register();
    cache.fill(2000, 10 * KIB);
    assert!(cache.nr_calls() > 0 && cache.len() < 110);
    assert_eq!((tenant.events().oom, tenant.events().oom_kill), (0, 0));
    // A request that no cache can make room for takes nothing.
    let before = cache.len();
    assert!(tenant.scope(|| try_vec(2 * MIB)).is_none());
    assert_eq!(cache.len(), before);
    // One that needs nearly all of it gets that.
    let whole = tenant.scope(|| try_vec(1000 * KIB));
    assert!(whole.is_some() && cache.len() <= 2);
    drop(whole);
    drop(shrinker);
    let nr_calls = cache.nr_calls();
    cache.fill(90, 10 * KIB);
    assert!(tenant.scope(|| try_vec(200 * KIB)).is_none());
    assert_eq!(cache.nr_calls(), nr_calls, "called after it was unregistered");
}

#[test]
fn no_one_is_killed_for_what_a_cache_holds() {
    let _alone = alone();
    let tenant = strict("kept");
    tenant.set_oom_policy(Some(OomPolicy::Kill)).unwrap();
    tenant.set_max(Some(MIB)).unwrap();
    let cache = Cache::new(&tenant);
    let shrinker = cache.register();
    cache.fill(1000, 10 * KIB);
    assert!(!tenant.is_oom_killed());
    drop(shrinker);
    cache.fill(10, 10 * KIB);
    assert!(tenant.is_oom_killed());
}

#[test]
fn the_largest_excess_goes_first_and_low_is_left_alone() {
    let _alone = alone();
    let server = strict("order");
    let caches = ["a", "b", "c"].map(|name| Cache::new(&server.create(name).unwrap()));
    let shrinkers = [0, 1, 2].map(|nth: usize| caches[nth].register());
    for (cache, nr_pages) in caches.iter().zip([30, 90, 60]) {
        cache.fill(nr_pages, 10 * KIB);
    }
    // The largest is protected for the most part: 15 pages above it at most.
    server.drain();
    caches[1].memcg.set_low(caches[1].memcg.usage() - 150 * KIB).unwrap();
    let freed = server.reclaim(100 * KIB);
    assert!(freed >= 100 * KIB);
    let lens = || [0, 1, 2].map(|nth: usize| caches[nth].len());
    assert_eq!((lens()[0], lens()[1]), (30, 90), "only the one with the largest excess");
    let _freed = server.reclaim(100 * MIB);
    let [a, b, c] = lens();
    assert_eq!((a, c), (0, 0));
    assert!((70..=80).contains(&b), "{b} pages of which 75 are protected");
    // An allocation takes what is protected before it is refused.
    server.drain();
    server.set_max(Some(server.usage() + 10 * KIB)).unwrap();
    let more = caches[0].memcg.scope(|| try_vec(200 * KIB));
    assert!(more.is_some() && caches[1].len() < b);
    // From its own limit it is not protected.
    let own = &caches[1].memcg;
    assert_eq!(own.effective_low(own), 0);
    own.set_max(Some(100 * KIB)).unwrap();
    assert!(own.usage() <= 100 * KIB);
    drop(shrinkers);
}

#[test]
fn children_share_what_their_parent_is_protected_by() {
    let _alone = alone();
    let server = strict("share");
    let parent = server.create("parent").unwrap();
    let children = ["a", "b"].map(|name| parent.create(name).unwrap());
    let held = [300, 100].map(|kib| kib * KIB);
    let held = [0, 1].map(|nth: usize| children[nth].scope(|| try_vec(held[nth])).unwrap());
    server.drain();
    let usages = [0, 1].map(|nth: usize| children[nth].usage());
    children.iter().for_each(|child| child.set_low(10 * MIB).unwrap());
    let low = |nth: usize, top: &Memcg| children[nth].effective_low(top);
    assert_eq!([low(0, &parent), low(1, &parent)], usages, "seen from the parent");
    assert_eq!([low(0, &server), low(1, &server)], [0, 0], "the parent is not protected");
    parent.set_low(200 * KIB).unwrap();
    let shares = [low(0, &server), low(1, &server)];
    let sum = usages[0] + usages[1];
    assert_eq!(shares, usages.map(|usage| (200 * KIB) * usage / sum));
    assert_eq!(parent.effective_low(&server), 200 * KIB);
    assert_eq!(server.effective_low(&parent), 0, "not below it");
    drop(held);
}

/// A charge looks at protection wherever it is made: on whatever stack.
#[test]
fn protection_of_a_deep_group_needs_no_deep_stack() {
    const DEPTH: usize = 3000;
    const STACK_BYTES: usize = 128 << 10;
    let _alone = alone();
    let top = strict("deep");
    let mut groups = vec![top.create("below").unwrap()];
    for _ in 1..DEPTH {
        let below = groups[groups.len() - 1].create("below").unwrap();
        groups.push(below);
    }
    let leaf = &groups[DEPTH - 1];
    let held = leaf.scope(|| try_vec(100 * KIB));
    groups.iter().for_each(|group| group.set_low(50 * KIB).unwrap());
    let low = thread::scope(|scope| {
        let looking = thread::Builder::new().stack_size(STACK_BYTES);
        looking.spawn_scoped(scope, || leaf.effective_low(&top)).unwrap().join().unwrap()
    });
    assert_eq!(low, 50 * KIB);
    groups[DEPTH / 2].set_low(0).unwrap();
    assert_eq!(leaf.effective_low(&top), 0, "a parent on the way is not protected");
    drop(held);
    // From the leaf up, so that each is the last of its chain.
    while groups.pop().is_some() {}
}

#[test]
fn lowering_max_below_usage_takes_from_the_cache_at_once() {
    let _alone = alone();
    let tenant = strict("lowered");
    let cache = Cache::new(&tenant);
    let _shrinker = cache.register();
    cache.fill(100, 10 * KIB);
    let held = tenant.scope(|| try_vec(100 * KIB)).unwrap();
    assert_eq!(tenant.set_max(Some(500 * KIB)), Ok(0));
    assert!(tenant.usage() <= 500 * KIB && cache.len() > 10);
    // What is left when the cache is empty is told.
    let over = tenant.set_max(Some(50 * KIB)).unwrap();
    assert_eq!((cache.len(), over), (0, tenant.usage() - 50 * KIB));
    drop(held);
}

#[test]
fn each_is_told_why() {
    let _alone = alone();
    let tenant = strict("why");
    let seen = Arc::new(Mutex::new(Vec::with_capacity(100)));
    let contexts = Arc::clone(&seen);
    let _shrinker = tenant.register_shrinker(move |control| {
        assert!(control.nr_bytes > 0);
        contexts.lock().unwrap().push(control.context);
        0
    });
    let held = tenant.scope(|| try_vec(100 * KIB)).unwrap();
    let told = || std::mem::replace(&mut *seen.lock().unwrap(), Vec::with_capacity(100));
    assert_eq!((tenant.reclaim(10), told()), (0, vec![ReclaimContext::Reclaim]));
    tenant.set_high(Some(tenant.usage() - 1)).unwrap();
    let _waited = tenant.throttle();
    assert_eq!(told(), [ReclaimContext::Throttle]);
    tenant.set_max(Some(tenant.usage())).unwrap();
    assert!(tenant.scope(|| try_vec(10 * KIB)).is_none());
    assert!(told().iter().all(|context| *context == ReclaimContext::Allocation));
    drop(held);
}

#[test]
fn a_panic_goes_no_further_and_disables_the_shrinker() {
    let _alone = alone();
    let tenant = strict("panic");
    tenant.set_max(Some(100 * KIB)).unwrap();
    let cache = Cache::new(&tenant);
    let good = cache.register();
    let nr_calls = Arc::new(AtomicUsize::new(0));
    let calls = Arc::clone(&nr_calls);
    // Of one group, the last that was registered is asked first.
    let bad = tenant.register_shrinker(move |_| {
        calls.fetch_add(1, Ordering::Relaxed);
        panic!("a shrinker's own fault");
    });
    cache.fill(300, 10 * KIB);
    for _ in 0..3 {
        let _freed = tenant.reclaim(MIB);
    }
    assert_eq!(cache.len(), 0);
    assert_eq!((nr_calls.load(Ordering::Relaxed), bad.has_panicked(), good.has_panicked()), (1, true, false));
    assert_eq!(bad.group(), tenant);
}

#[test]
fn a_shrinker_that_allocates_is_not_entered_again() {
    let _alone = alone();
    thread_local! {
        static DEPTH: Cell<usize> = const { Cell::new(0) };
    }
    let tenant = strict("allocates");
    tenant.set_max(Some(200 * KIB)).unwrap();
    let (cache, inside) = (Cache::new(&tenant), tenant.clone());
    let shrinking = cache.clone();
    let _shrinker = tenant.register_shrinker(move |control| {
        DEPTH.set(DEPTH.get() + 1);
        assert_eq!(DEPTH.get(), 1, "a shrinker inside a shrinker");
        // Nobody's: the group is full.
        let note = format!("{} bytes are wanted for {:?}", control.nr_bytes, control.context);
        // In the group that is full: refused, not reclaimed for.
        let refused = inside.scope(|| try_vec(300 * KIB));
        let freed = if refused.is_none() { shrinking.shrink(control.nr_bytes) } else { 0 };
        assert_eq!((inside.reclaim(1), checkpoint()), (0, Ok(())), "{note}");
        DEPTH.set(DEPTH.get() - 1);
        freed
    });
    cache.fill(300, 10 * KIB);
    assert!(cache.nr_calls() > 0);
    tenant.drain();
    assert!(tenant.usage() <= 200 * KIB);
}

#[test]
fn a_shrinker_that_frees_another_groups_memory_gives_that_group_its_bytes() {
    let _alone = alone();
    let (poor, rich) = (strict("poor"), strict("rich"));
    poor.set_max(Some(100 * KIB)).unwrap();
    let foreign = Cache::new(&rich);
    foreign.fill(10, 100 * KIB);
    let shrinking = foreign.clone();
    // It lies: nothing of this comes back to the group.
    let _shrinker = poor.register_shrinker(move |control| shrinking.shrink(control.nr_bytes));
    let held = poor.scope(|| try_vec(90 * KIB)).unwrap();
    assert!(poor.scope(|| try_vec(50 * KIB)).is_none(), "and so it ends");
    assert_eq!(poor.events().oom, 1);
    rich.drain();
    assert_eq!(rich.usage(), rich.stat().total_bytes());
    assert_eq!(foreign.len() as u64 * 100 * KIB, rich.stat().large_bytes);
    drop(held);
}

#[test]
fn a_lock_that_the_allocating_thread_holds_is_tried_not_waited_for() {
    let _alone = alone();
    let tenant = strict("locked");
    tenant.set_max(Some(100 * KIB)).unwrap();
    let cache = Cache::new(&tenant);
    let _shrinker = cache.register();
    cache.fill(9, 10 * KIB);
    let pages = cache.pages.lock().unwrap();
    assert!(tenant.scope(|| try_vec(50 * KIB)).is_none());
    drop(pages);
    assert!(tenant.scope(|| try_vec(50 * KIB)).is_some());
}

#[test]
fn dropping_a_registration_waits_for_the_run_under_way() {
    let _alone = alone();
    let tenant = strict("waits");
    let (entered, may_leave) = (mpsc::channel::<()>(), mpsc::channel::<()>());
    let is_running = Arc::new(AtomicBool::new(false));
    let running = Arc::clone(&is_running);
    let (tell, leave) = (Mutex::new(entered.0), Mutex::new(may_leave.1));
    let shrinker = tenant.register_shrinker(move |_| {
        running.store(true, Ordering::Relaxed);
        tell.lock().unwrap().send(()).unwrap();
        leave.lock().unwrap().recv().unwrap();
        running.store(false, Ordering::Relaxed);
        0
    });
    let held = tenant.scope(|| try_vec(10 * KIB)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| tenant.reclaim(1));
        entered.1.recv().unwrap();
        scope.spawn(|| may_leave.0.send(()).unwrap());
        drop(shrinker);
        assert!(!is_running.load(Ordering::Relaxed), "it was still running");
    });
    drop(held);
}

#[test]
fn a_child_of_fork_does_not_wait_for_runs_of_threads_that_it_has_not() {
    let _alone = alone();
    let tenant = strict("ghost");
    let (entered, may_leave) = (mpsc::channel::<()>(), mpsc::channel::<()>());
    // Kept here: the child must not touch the channels' locks, which the other thread may hold.
    let channels = Arc::new((Mutex::new(entered.0), Mutex::new(may_leave.1)));
    let parent = std::process::id();
    let (drops, runs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counts, counts_runs, theirs) = (CountsDrop(Arc::clone(&drops)), Arc::clone(&runs), Arc::clone(&channels));
    let shrinker = tenant.register_shrinker(move |_| {
        let _kept = &counts;
        counts_runs.fetch_add(1, Ordering::Relaxed);
        if std::process::id() == parent {
            theirs.0.lock().unwrap().send(()).unwrap();
            let _let_go = theirs.1.lock().unwrap().recv();
        }
        0
    });
    let held = tenant.scope(|| try_vec(10 * KIB)).unwrap();
    let mut shrinker = Some(shrinker);
    thread::scope(|scope| {
        // Moved here: its end lets the shrinker go on, also when the child has failed.
        let _let_go = may_leave.0;
        scope.spawn(|| tenant.reclaim(1));
        entered.1.recv().unwrap();
        in_child_of_fork(|| {
            // Still to be run, and ended once nobody runs it.
            let _freed = tenant.reclaim(1);
            let before = (runs.load(Ordering::Relaxed), drops.load(Ordering::Relaxed));
            drop(shrinker.take());
            (before, drops.load(Ordering::Relaxed)) == ((2, 0), 1)
        });
    });
    drop(shrinker);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    drop(held);
}

#[test]
fn a_shrinker_may_fork_and_its_run_goes_on_in_the_child() {
    let _alone = alone();
    let tenant = strict("forks");
    let mine: Arc<Mutex<Option<Shrinker>>> = Arc::default();
    let drops = Arc::new(AtomicUsize::new(0));
    let is_well = Arc::new(AtomicBool::new(false));
    let (own, counts, seen) = (Arc::downgrade(&mine), CountsDrop(Arc::clone(&drops)), Arc::clone(&drops));
    let was_well = Arc::clone(&is_well);
    let shrinker = tenant.register_shrinker(move |_| {
        let _kept = &counts;
        in_child_of_fork(|| {
            // It runs, so that its data must stay, also when its registration ends here.
            let registration = own.upgrade().and_then(|own| own.lock().unwrap().take());
            let is_registered = registration.is_some();
            drop(registration);
            is_registered && seen.load(Ordering::Relaxed) == 0
        });
        // A panic of the line above ends here.
        was_well.store(true, Ordering::Relaxed);
        0
    });
    *mine.lock().unwrap() = Some(shrinker);
    let held = tenant.scope(|| try_vec(10 * KIB)).unwrap();
    let _freed = tenant.reclaim(1);
    assert!(is_well.load(Ordering::Relaxed));
    drop(mine.lock().unwrap().take());
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    drop(held);
}

#[test]
fn a_registration_may_end_inside_its_own_callback() {
    let _alone = alone();
    let tenant = strict("suicide");
    let drops = Arc::new(AtomicUsize::new(0));
    let mine: Arc<Mutex<Option<Shrinker>>> = Arc::default();
    let (own, counts) = (Arc::downgrade(&mine), CountsDrop(Arc::clone(&drops)));
    let shrinker = tenant.register_shrinker(move |_| {
        let dropped = own.upgrade().and_then(|own| own.lock().unwrap().take());
        assert!(dropped.is_some(), "called again");
        drop(dropped);
        assert_eq!(counts.0.load(Ordering::Relaxed), 0, "dropped while it runs");
        0
    });
    *mine.lock().unwrap() = Some(shrinker);
    let held = tenant.scope(|| try_vec(10 * KIB)).unwrap();
    for _ in 0..3 {
        let _freed = tenant.reclaim(1);
    }
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    drop(held);
}

#[test]
fn a_storm_of_registrations_groups_and_charges_ends_with_nothing() {
    let _alone = alone();
    const NR_THREADS: usize = 8;
    /// Less than one thread wants, whether or not it meets others.
    const MAX: u64 = 400 * KIB;
    let server = strict("storm");
    server.set_max(Some(MAX)).unwrap();
    let nr_freed = AtomicU64::new(0);
    thread::scope(|scope| {
        for nth in 0..NR_THREADS {
            let (server, nr_freed) = (&server, &nr_freed);
            scope.spawn(move || {
                for round in 0..60 {
                    let Ok(tenant) = server.create(&format!("{nth}-{round}")) else { continue };
                    let cache = Cache::new(&tenant);
                    let shrinker = cache.register();
                    let mut held = Vec::with_capacity(40);
                    for _ in 0..40 {
                        if let Some(page) = tenant.scope(|| try_vec(10 * KIB)) {
                            cache.pages.lock().unwrap().push(page);
                        }
                        held.extend(tenant.scope(|| try_vec(3 * KIB)));
                        assert!(server.usage() <= MAX);
                    }
                    nr_freed.fetch_add(40 - cache.len() as u64, Ordering::Relaxed);
                    if round % 2 == 0 {
                        tenant.delete().expect("no children");
                    }
                    drop(held);
                    drop(shrinker);
                }
            });
        }
    });
    assert!(nr_freed.load(Ordering::Relaxed) > 0, "the shrinkers had nothing to do: the test shows nothing");
    server.drain();
    assert_eq!((server.usage(), server.children().len()), (0, 0));
}
