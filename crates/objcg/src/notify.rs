//! Futures that wait for a group, and the thread that wakes them.
//!
//! The engine cannot call wakers: they are the program's, may allocate and take locks, and changes happen inside allocations. It
//! signals a futex instead, and one thread of this crate, started when the first future waits, calls the wakers. It serves
//! delays as well, and gives back what stocks and sheaves keep of groups that are held back. It knows no runtime. Events call it only of
//! groups with a future that waits for events: a tenant that meets its limits all the time costs the others no thread that runs.
//!
//! A future that waits has a place in the [`Waiters`] under a key, with what it waits for, so that it is woken for nothing else.
//! While the group's version is the one of its last poll, nothing has changed, and polling it again costs a few loads; but for
//! those who wait for usage to fall, which may be told of a change above their group.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use objcg_core::{memcg as engine, nr_forks};

use crate::memcg::root;
use crate::unwind::quietly;
use crate::{Events, Memcg, OomKilled};

/// After how long a group that is held back is drained; then each time that this has doubled, up to the longest. What was freed
/// meanwhile is found after at most as long again as it was held back before, and a long hold costs little.
const FIRST_DRAIN: Duration = Duration::from_millis(5);
const DRAIN_EVERY: Duration = Duration::from_millis(160);
/// Changes that wake nobody are looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// The thread looks around this often even if nothing happens.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

static WAITERS: Mutex<Option<Waiters>> = Mutex::new(None);

/// What a future waits for. The end of its group is what all wait for.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    /// Other events than these.
    Events(Events),
    /// Usage within `high`, here and above, or a mark.
    BelowHigh,
    /// A mark.
    Mark,
}

/// What a group looks like at a moment.
struct Seen {
    events: Events,
    is_over_high: bool,
    is_killed: bool,
    is_deleted: bool,
}

impl Seen {
    fn of(memcg: &engine::Memcg) -> Seen {
        Seen {
            events: memcg.events(),
            is_over_high: memcg.throttle_delay().is_some(),
            is_killed: memcg.is_oom_killed(),
            is_deleted: memcg.is_deleted(),
        }
    }

    fn is_wanted(&self, wanted: Wanted) -> bool {
        match wanted {
            _ if self.is_deleted => true,
            Wanted::Events(since) => self.events != since,
            Wanted::BelowHigh => !self.is_over_high || self.is_killed,
            Wanted::Mark => self.is_killed,
        }
    }
}

#[derive(Default)]
struct Waiters {
    groups: HashMap<u32, Group>,
    deadlines: BTreeSet<(Instant, u64, u32)>,
    next_key: u64,
    /// After how many forks a thread was started: after one more the child has none, and starts its own.
    served_after: Option<u32>,
    /// When the thread wakes by itself; `None` if that is out of date.
    sleeps_until: Option<Instant>,
}

struct Group {
    memcg: engine::Memcg,
    /// When the engine was last asked to tell of a change.
    version: u32,
    waiters: HashMap<u64, Waiter>,
    /// How many of them wait for usage to fall, and for events.
    nr_held_back: usize,
    nr_for_events: usize,
    /// While somebody is held back: when the group is drained next, and how long after the drain before.
    drain_at: Instant,
    drain_pause: Duration,
}

struct Waiter {
    wanted: Wanted,
    deadline: Option<Instant>,
    waker: Waker,
}

/// Who is to be woken, and whether a group has changed.
struct Due {
    woken: Vec<Removed>,
    has_change: bool,
}

/// What was taken out of the books, to be dropped under no lock: wakers and handles may end something.
type Removed = (Waiter, Option<Group>);

fn lock() -> MutexGuard<'static, Option<Waiters>> {
    // Nothing that panics runs under it.
    WAITERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waiters {
    /// Adds a waiter; true if the thread has to be told.
    fn add(&mut self, memcg: &Memcg, waiter: Waiter) -> (u64, bool) {
        let key = self.next_key;
        self.next_key += 1;
        if let Some(deadline) = waiter.deadline {
            self.deadlines.insert((deadline, key, memcg.id()));
        }
        let is_early = waiter.deadline.is_some_and(|deadline| self.sleeps_until.is_none_or(|until| deadline < until));
        let group = self.groups.entry(memcg.id()).or_insert_with(|| Group::new(&memcg.0));
        let is_first_held_back = group.add(key, waiter);
        if is_early || is_first_held_back {
            self.sleeps_until = None;
        }
        (key, is_early || is_first_held_back)
    }

    /// Takes a waiter out, and the group with its last one.
    fn remove(&mut self, group_id: u32, key: u64) -> Option<Removed> {
        let group = self.groups.get_mut(&group_id)?;
        let waiter = group.waiters.remove(&key)?;
        group.nr_held_back -= usize::from(waiter.wanted == Wanted::BelowHigh);
        group.nr_for_events -= usize::from(matches!(waiter.wanted, Wanted::Events(_)));
        let is_last = group.waiters.is_empty();
        if let Some(deadline) = waiter.deadline {
            self.deadlines.remove(&(deadline, key, group_id));
        }
        Some((waiter, if is_last { self.groups.remove(&group_id) } else { None }))
    }

    /// Takes out all who are to be woken now, and asks to be told of the next change of the other groups.
    fn take_due(&mut self, now: Instant) -> Due {
        let mut has_change = false;
        let passed = self.deadlines.iter().take_while(|(deadline, ..)| *deadline <= now);
        let mut due: Vec<(u32, u64)> = passed.map(|(_, key, group)| (*group, *key)).collect();
        for (id, group) in &mut self.groups {
            // What is above a group that is held back tells of itself only.
            let is_changed = group.memcg.version() != group.version;
            if !is_changed && group.nr_held_back == 0 {
                continue;
            }
            has_change |= is_changed;
            // First asked, then looked at: what changes after the look is told.
            group.version = group.ask();
            let seen = Seen::of(&group.memcg);
            let wanted = group.waiters.iter().filter(|(_, waiter)| seen.is_wanted(waiter.wanted));
            due.extend(wanted.map(|(key, _)| (*id, *key)));
        }
        let woken = due.into_iter().filter_map(|(group, key)| self.remove(group, key)).collect();
        Due { woken, has_change }
    }

    fn has_change(&self) -> bool {
        self.groups.values().any(|group| group.memcg.version() != group.version)
    }

    /// The groups that are to be drained now.
    fn take_drains(&mut self, now: Instant) -> Vec<engine::Memcg> {
        let held_back = self.groups.values_mut().filter(|group| group.nr_held_back > 0);
        held_back.filter_map(|group| group.take_drain(now)).collect()
    }

    /// When the thread has to wake by itself.
    fn next_wake(&self, now: Instant) -> Instant {
        let drains = self.groups.values().filter(|group| group.nr_held_back > 0).map(|group| group.drain_at);
        let deadlines = self.deadlines.first().map(|(deadline, ..)| *deadline);
        drains.chain(deadlines).fold(now + LONGEST_SLEEP, Instant::min)
    }
}

impl Group {
    fn new(memcg: &engine::Memcg) -> Group {
        Group {
            memcg: memcg.clone(),
            version: memcg.ask_for_state_change(),
            waiters: HashMap::new(),
            nr_held_back: 0,
            nr_for_events: 0,
            drain_at: Instant::now(),
            drain_pause: FIRST_DRAIN,
        }
    }

    /// True if it is the first one that is held back.
    fn add(&mut self, key: u64, waiter: Waiter) -> bool {
        if matches!(waiter.wanted, Wanted::Events(_)) {
            // The version stays the one of the last look: an event since then was not told, and is looked at.
            let _ = self.memcg.ask_for_change();
            self.nr_for_events += 1;
        }
        let is_first_held_back = waiter.wanted == Wanted::BelowHigh && self.nr_held_back == 0;
        if is_first_held_back {
            self.drain_pause = FIRST_DRAIN;
            self.drain_at = Instant::now() + FIRST_DRAIN;
        }
        self.nr_held_back += usize::from(waiter.wanted == Wanted::BelowHigh);
        self.waiters.insert(key, waiter);
        is_first_held_back
    }

    /// Asks to be told of what its waiters wait for.
    fn ask(&self) -> u32 {
        if self.nr_for_events > 0 { self.memcg.ask_for_change() } else { self.memcg.ask_for_state_change() }
    }

    fn take_drain(&mut self, now: Instant) -> Option<engine::Memcg> {
        if now < self.drain_at {
            return None;
        }
        self.drain_pause = (self.drain_pause * 2).min(DRAIN_EVERY);
        self.drain_at = now + self.drain_pause;
        Some(self.memcg.clone())
    }
}

/// What the thread does, for ever.
fn serve() {
    // The books are nobody's.
    let _in_root = root().enter();
    loop {
        let now = Instant::now();
        let (Due { woken, has_change }, drains, until) = {
            let mut waiters = lock();
            let waiters = waiters.get_or_insert_default();
            let due = waiters.take_due(now);
            let drains = waiters.take_drains(now);
            let until = waiters.next_wake(now);
            waiters.sleeps_until = Some(until);
            (due, drains, until)
        };
        if has_change && woken.is_empty() {
            thread::sleep(LOOK_EVERY.min(until.saturating_duration_since(Instant::now())));
        }
        for (waiter, _group) in woken {
            quietly(|| waiter.waker.wake());
        }
        // Bytes that were freed may wait in stocks and sheaves; if usage falls to `high` by this, that is a change.
        drains.iter().for_each(engine::Memcg::drain);
        drop(drains);
        engine::wait_for_changes(until.saturating_duration_since(Instant::now()), || {
            lock().as_ref().is_some_and(|waiters| waiters.sleeps_until.is_none() || waiters.has_change())
        });
    }
}

/// A future's place among the waiters.
#[derive(Default)]
struct Place {
    /// The waiter's key, and the group's version and the waker when it was last there.
    key: Option<(u64, u32, Waker)>,
}

impl Place {
    /// Has the task woken when what it wants may be there. The caller looks once more afterwards.
    fn keep(&mut self, memcg: &Memcg, wanted: Wanted, deadline: Option<Instant>, context: &Context<'_>) {
        if let Some((_, version, waker)) = &self.key
            && *version == memcg.0.version()
            && waker.will_wake(context.waker())
            && wanted != Wanted::BelowHigh
        {
            return;
        }
        // The books are nobody's.
        let _in_root = root().enter();
        // Before the lock: a waker is anybody's code.
        let (waker, own) = (context.waker().clone(), context.waker().clone());
        let mut waiters = lock();
        let books = waiters.get_or_insert_default();
        // Of the version before the waiter is added: what changes after that is told.
        let version = memcg.0.version();
        let replaced = self.key.take().and_then(|(key, ..)| books.remove(memcg.id(), key));
        let (key, is_urgent) = books.add(memcg, Waiter { wanted, deadline, waker });
        let needs_thread = books.served_after.replace(nr_forks()) != Some(nr_forks());
        drop(waiters);
        drop(replaced);
        self.key = Some((key, version, own));
        if needs_thread && thread::Builder::new().name("objcg-notify".into()).spawn(serve).is_err() {
            // Nobody will wake it: it asks again and again, and so does the next one for a thread.
            if let Some(books) = lock().as_mut() {
                books.served_after = None;
            }
            context.waker().wake_by_ref();
        } else if is_urgent {
            engine::end_wait_for_changes();
        }
    }

    fn give_up(&mut self, memcg: &Memcg) {
        let Some((key, ..)) = self.key.take() else { return };
        let _in_root = root().enter();
        let removed = lock().as_mut().and_then(|books| books.remove(memcg.id(), key));
        drop(removed);
    }
}

/// A future's wait: what it wants of which group, and its place.
struct Wait {
    memcg: Memcg,
    wanted: Wanted,
    deadline: Option<Instant>,
    place: Place,
}

impl Wait {
    fn new(memcg: &Memcg, wanted: Wanted, deadline: Option<Instant>) -> Wait {
        Wait { memcg: memcg.clone(), wanted, deadline, place: Place::default() }
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        if !self.is_over() {
            self.place.keep(&self.memcg, self.wanted, self.deadline, context);
            if !self.is_over() {
                return Poll::Pending;
            }
        }
        self.place.give_up(&self.memcg);
        Poll::Ready(())
    }

    fn is_over(&self) -> bool {
        let memcg = &self.memcg.0;
        let is_met = match self.wanted {
            Wanted::Events(since) => memcg.events() != since,
            Wanted::BelowHigh => memcg.throttle_delay().is_none() || memcg.is_oom_killed(),
            Wanted::Mark => memcg.is_oom_killed(),
        };
        is_met || memcg.is_deleted() || self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.place.give_up(&self.memcg);
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").field("memcg", &self.memcg).finish_non_exhaustive()
    }
}

/// The future of [`Memcg::events_changed`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct EventsChanged(Wait);

/// The future of [`Memcg::below_high`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct BelowHigh(Wait);

/// The future of [`Memcg::killed`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Killed(Wait);

impl Future for EventsChanged {
    type Output = Events;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Events> {
        self.0.poll(context).map(|()| self.0.memcg.events())
    }
}

impl Future for BelowHigh {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll(context)
    }
}

impl Future for Killed {
    type Output = Result<(), OomKilled>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), OomKilled>> {
        self.0.poll(context).map(|()| self.0.memcg.check())
    }
}

impl Memcg {
    /// Waits until [`events`](Memcg::events) are not `since` any more, or the group is deleted: [`wait_events`](Memcg::wait_events)
    /// as a future. Works with any runtime.
    pub fn events_changed(&self, since: Events) -> EventsChanged {
        EventsChanged(Wait::new(self, Wanted::Events(since), None))
    }

    /// Waits until neither the group nor one above it is over `high`, it is marked or deleted, or `at_most` has passed:
    /// [`throttle`](Memcg::throttle) as a future, without its shrinkers. [`throttle_delay`](Memcg::throttle_delay) is the delay
    /// that fits. Works with any runtime.
    pub fn below_high(&self, at_most: Duration) -> BelowHigh {
        BelowHigh(Wait::new(self, Wanted::BelowHigh, Instant::now().checked_add(at_most)))
    }

    /// Waits until the group is marked to end, itself or with an ancestor's subtree: the error. `Ok` if it is deleted unmarked.
    /// Polling it again while nothing about the group has changed costs a few loads; events of the group, as often as it may meet its
    /// limits, wake nobody. Works with any runtime.
    pub fn killed(&self) -> Killed {
        Killed(Wait::new(self, Wanted::Mark, None))
    }
}
