//! Events: how often limits were met, and who is told of it.
//!
//! An event is counted at the group whose limit was met, and in the hierarchical counts of that group and all its ancestors, as
//! in the kernel's `memory.events.local` and `memory.events`. Then every one of these groups *announces* a change: sleeping
//! threads are woken, event descriptors written, and the notifier of futures is called through [`CHANGES`]. An announcement for
//! which nobody waits is one exchange a level.
//!
//! Counting and announcing run on the slow path of charges, under no lock, and allocate nothing.

use super::charge::ancestors;
use super::event_fd;
use super::node::{EventCounts, node};
use super::signal::{Signal, Waiting};
use super::tree;
use crate::sync::{AtomicU64, Ordering};

/// Changes of groups for which somebody asked to be called.
pub(super) static CHANGES: Signal = Signal::new();

/// How often the limits of a group were met, since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Charges after which usage was over the soft limit; one for each batch that was charged ahead.
    pub high: u64,
    /// Charges that met the limit; some fitted after stocks were drained, or shrinkers had run.
    pub max: u64,
    /// Charges that were refused.
    pub oom: u64,
    /// Marks that were set: by a charge that broke a limit under [`OomPolicy::Kill`](super::OomPolicy::Kill), or by
    /// [`Memcg::kill`](super::Memcg::kill). Counted at the group that was marked.
    pub oom_kill: u64,
}

#[derive(Clone, Copy)]
pub(super) enum Event {
    High,
    Max,
    Oom,
    OomKill,
}

impl EventCounts {
    fn of(&self, event: Event) -> &AtomicU64 {
        match event {
            Event::High => &self.high,
            Event::Max => &self.max,
            Event::Oom => &self.oom,
            Event::OomKill => &self.oom_kill,
        }
    }

    pub(super) fn load(&self) -> Events {
        Events {
            high: self.high.load(Ordering::Relaxed),
            max: self.max.load(Ordering::Relaxed),
            oom: self.oom.load(Ordering::Relaxed),
            oom_kill: self.oom_kill.load(Ordering::Relaxed),
        }
    }
}

/// Counts an event at a group that is pinned, and announces it there and at all its ancestors.
#[cold]
pub(super) fn count(group: u32, event: Event) {
    node(group).events.local.of(event).fetch_add(1, Ordering::Relaxed);
    for at in ancestors(group) {
        // Relaxed: the announcement orders it.
        node(at).events.all.of(event).fetch_add(1, Ordering::Relaxed);
        let signal = &node(at).signal;
        // A mark is more than an event.
        tell(at, if matches!(event, Event::OomKill) { signal.change() } else { signal.change_by_event() });
    }
}

/// Tells those who wait for a group that something has changed; the change was made before.
#[cold]
pub(super) fn announce(group: u32) {
    tell(group, node(group).signal.change());
}

fn tell(group: u32, waiting: Waiting) {
    if waiting.sleepers {
        node(group).signal.wake();
    }
    if waiting.caller && CHANGES.change().sleepers {
        CHANGES.wake();
    }
    if node(group).first_event_fd.load(Ordering::Relaxed) != 0 {
        event_fd::raise(group);
    }
}

/// The same for a group and all its descendants.
pub(super) fn announce_below(group: u32) {
    tree::for_each_below(group, announce);
}
