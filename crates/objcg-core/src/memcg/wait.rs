//! Waiting for a group: for events, for usage to fall to `high`, for a mark; and holding threads back above `high`.
//!
//! What is waited for is looked at after the group's [`Signal`](super::signal::Signal) was told; whoever changes it announces that
//! afterwards. Bytes that were freed may sit in stocks and sheaves: who waits for usage to fall drains from time to time.

use core::time::Duration;

use super::Memcg;
use super::charge::{PinnedNode, ancestors};
use super::events::{CHANGES, Events};
use super::node::{ROOT, node};
use super::page_counter::{MARKED, SUBTREE, UNLIMITED};
use super::reclaim::Drains;
use super::shrinker::ReclaimContext;
use super::vain_drains::VAIN_DRAINS;
use super::{ROOT_VESSEL, charge, current, oom, reclaim};
use crate::os::Instant;
use crate::sync::{AtomicU64, Ordering};

/// How often a thread that is held back drains.
const DRAIN_EVERY: Duration = Duration::from_millis(5);
/// The delay of a group at twice its `high`, before the bound; it grows with the square of the excess. The kernel's.
const DELAY_AT_DOUBLE: u128 = 64_000_000_000;
/// Fractions of `high` are in units of this part of it.
const UNIT: u128 = 1 << 20;

static MAX_DELAY_NANOS: AtomicU64 = AtomicU64::new(2_000_000_000);

/// The longest that one call holds a thread back; 2 s if never set.
#[must_use]
pub fn max_throttle_delay() -> Duration {
    Duration::from_nanos(MAX_DELAY_NANOS.load(Ordering::Relaxed))
}

/// Sets the longest that one call holds a thread back, for all groups.
pub fn set_max_throttle_delay(delay: Duration) {
    MAX_DELAY_NANOS.store(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

impl Memcg {
    /// Sleeps until the [`Memcg::events`] are not `since` any more, the group is deleted, or `timeout` has passed; returns what they
    /// are then. An event that came before the call is seen at once.
    #[must_use]
    pub fn wait_events(&self, since: Events, timeout: Duration) -> Events {
        let deadline = Instant::now().after(timeout);
        let signal = &node(self.idx).signal;
        loop {
            let prepared = signal.prepare_to_sleep();
            let events = self.events();
            if events != since || self.is_deleted() || Instant::now() >= deadline {
                return events;
            }
            signal.sleep(prepared, deadline);
        }
    }

    /// Holds the thread back while the group, or one above it, is over `high`: has shrinkers run first, then sleeps until usage has
    /// fallen, the group is marked or deleted, or a delay has passed that grows with the square of the excess (at most
    /// [`max_throttle_delay`]). Returns how long it took; nothing if no group was over.
    ///
    /// To be called where the thread holds no locks and nothing of worth: between two requests.
    pub fn throttle(&self) -> Duration {
        throttle_pinned(self.idx)
    }

    /// How long a caller should hold itself back now; `None` if neither the group nor one above it is over `high`. A few loads a
    /// level. Usage may contain bytes that a [`Memcg::drain`] gives back.
    #[must_use]
    pub fn throttle_delay(&self) -> Option<Duration> {
        most_over(self.idx).map(|over| over.delay())
    }

    /// The same, after stocks and shrinkers have given back what they can: how [`Memcg::throttle`] begins, for those who wait otherwise,
    /// and call [`Memcg::drain`] from time to time while they do. A group that a drain a few milliseconds ago has left over
    /// its `high` is not drained again, unless its shrinkers free enough: they find what else it has freed since then. To be called
    /// where the thread holds no locks.
    #[must_use]
    pub fn throttle_delay_after_reclaim(&self) -> Option<Duration> {
        most_over(self.idx)?;
        let over = if VAIN_DRAINS.is_noted(self.idx, Instant::now()) {
            over_after_shrinkers(self.idx, Drains::IfEnough)
        } else {
            over_after_drain(self.idx)
        };
        over.map(|over| over.delay())
    }

    /// Whether there is a mark to heed or a delay to keep: what [`Memcg::is_oom_killed`] and [`Memcg::throttle_delay`] would say, by
    /// three loads a level, the root left out.
    #[must_use]
    pub fn needs_attention(&self) -> bool {
        let mut at = self.idx;
        let mut mark = MARKED;
        while at != ROOT {
            let level = node(at);
            if level.counter.is_marked_or_over_high(mark) {
                return true;
            }
            mark = SUBTREE;
            at = level.parent.load(Ordering::Relaxed);
        }
        false
    }

    /// How often something happened in the process after which [`Memcg::needs_attention`] may say yes where it said no: an event, a
    /// mark, a lowered `high`. Two loads.
    #[inline]
    #[must_use]
    pub fn attention_version() -> u32 {
        node(ROOT).signal.version()
    }

    /// Asks to be told of the next change of the group: an event of it or of a descendant, usage that falls to `high`, a mark, its
    /// end. It is told by [`wait_for_changes`], once. Returns the version to which [`Memcg::version`] is compared then.
    #[must_use]
    pub fn ask_for_change(&self) -> u32 {
        node(self.idx).signal.ask_for_call()
    }

    /// The same, of the next change that is more than an event: usage that falls to `high`, another `high`, a mark, its end. A group
    /// that is over its limits all the time tells nothing then.
    #[must_use]
    pub fn ask_for_state_change(&self) -> u32 {
        node(self.idx).signal.ask_for_state_call()
    }

    /// How often the group has changed.
    #[must_use]
    pub fn version(&self) -> u32 {
        node(self.idx).signal.version()
    }
}

/// [`Memcg::throttle`] for the current group.
pub fn throttle() -> Duration {
    let vessel = current();
    if vessel == ROOT_VESSEL {
        return Duration::ZERO;
    }
    let group = PinnedNode::of_vessel(vessel).unwrap_or_else(PinnedNode::of_root);
    throttle_pinned(group.idx)
}

fn throttle_pinned(group: u32) -> Duration {
    if most_over(group).is_none() {
        return Duration::ZERO;
    }
    let start = Instant::now();
    // Always: its delay may end before it drains again.
    if let Some(over) = over_after_drain(group) {
        wait_until_below(group, start.after(over.delay()));
    }
    Instant::now().since(start)
}

/// Drains a group, and notes whether that was in vain.
pub(super) fn drain(group: u32) {
    charge::drain_subtree(group);
    if is_over_high(group) {
        VAIN_DRAINS.note(group, Instant::now());
    } else {
        VAIN_DRAINS.forget(group);
    }
}

fn over_after_drain(group: u32) -> Option<Over> {
    drain(group);
    over_after_shrinkers(group, Drains::EachRun)
}

/// What is over `high` once shrinkers have run, of a group that was drained now or lately.
fn over_after_shrinkers(group: u32, drains: Drains) -> Option<Over> {
    let over = most_over(group)?;
    let is_above = over.group != group;
    if is_above {
        // Who is held back below it does not drain it while it waits.
        charge::drain_subtree(over.group);
    }
    let drains = if is_above { Drains::EachRun } else { drains };
    reclaim::run_shrinkers(over.group, over.excess, ReclaimContext::Throttle, drains);
    if !is_over_high(over.group) {
        VAIN_DRAINS.forget(over.group);
    }
    most_over(group)
}

fn is_over_high(group: u32) -> bool {
    let counter = &node(group).counter;
    counter.usage() > counter.high()
}

/// Where a path from a group to the root is furthest over `high`, in parts of `high`.
struct Over {
    group: u32,
    excess: u64,
    high: u64,
}

impl Over {
    /// 64 s times the square of the excess in parts of `high`.
    fn delay(&self) -> Duration {
        let fraction = u128::from(self.excess) * UNIT / u128::from(self.high.max(1));
        // Below 2^68 each; the square of the largest fits.
        let bounded = fraction.min(UNIT << 20);
        let nanos = bounded * bounded * DELAY_AT_DOUBLE / (UNIT * UNIT);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(max_throttle_delay())
    }
}

fn most_over(group: u32) -> Option<Over> {
    let over = ancestors(group).filter_map(|at| {
        let counter = &node(at).counter;
        let high = counter.high();
        let excess = counter.usage().checked_sub(high)?;
        (at != ROOT && high != UNLIMITED && excess > 0).then_some(Over { group: at, excess, high })
    });
    over.max_by_key(|over| u128::from(over.excess) * UNIT / u128::from(over.high.max(1)))
}

fn wait_until_below(group: u32, deadline: Instant) {
    loop {
        let Some(over) = most_over(group) else { return };
        let signal = &node(over.group).signal;
        let prepared = signal.prepare_to_sleep();
        let now = Instant::now();
        if node(group).pin.is_dead() || oom::killed_by(group).is_some() || now >= deadline {
            return;
        }
        if !is_over_high(over.group) {
            continue;
        }
        signal.sleep(prepared, deadline.min(now.after(DRAIN_EVERY)));
        charge::drain_subtree(over.group);
    }
}

/// Sleeps until a group changed for which [`Memcg::ask_for_change`] was called since `ready` said no, or `timeout` has passed.
/// `ready` is asked before every sleep, after the engine knows of it: what it looks at need only be changed before
/// [`end_wait_for_changes`] is called. For one thread a process.
pub fn wait_for_changes(timeout: Duration, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now().after(timeout);
    let prepared = CHANGES.prepare_to_sleep();
    if !ready() {
        CHANGES.sleep(prepared, deadline);
    }
}

/// Ends a [`wait_for_changes`] of another thread, or its next one's sleep.
pub fn end_wait_for_changes() {
    if CHANGES.change().sleepers {
        CHANGES.wake();
    }
}
