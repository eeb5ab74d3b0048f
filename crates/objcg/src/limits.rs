//! Limits beyond `max`: protection, events, marks, and holding back.

#![expect(unsafe_code, reason = "lends a descriptor that the engine keeps open")]

use std::alloc::{Layout, handle_alloc_error};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use objcg_core::memcg as engine;

use crate::{Events, LimitError, Memcg};

pub use engine::{
    OomKilled, OomPolicy, OomScope, PeakReader, ReviveError, checkpoint, max_throttle_delay, set_max_throttle_delay,
};

/// A descriptor that becomes readable when something about a group changes: see [`Memcg::event_fd`]. Holds a handle to the group.
#[derive(Debug)]
pub struct EventFd(engine::EventFd);

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as `self` lives, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

impl Memcg {
    /// Bytes that reclaim leaves to the group and its descendants; 0 without protection.
    #[must_use]
    pub fn low(&self) -> u64 {
        self.0.low()
    }

    /// Sets the protection: while memory of a group above is wanted, shrinkers here are left alone unless usage is above this.
    /// It counts as far as the parent is protected too, unless memory of the parent itself is wanted; children that want
    /// more than their parent has share it in proportion. A charge that would be refused takes protected memory in the end.
    /// Source: the kernel's `memory.low`.
    ///
    /// # Errors
    /// It is the root, or was deleted.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use objcg::Memcg;
    ///
    /// let server = Memcg::root().create("server")?;
    /// let tenant = server.create("tenant")?;
    /// tenant.set_low(1 << 20)?;
    /// let rows = tenant.scope(|| vec![0u8; 1000]);
    /// // Never more than it uses.
    /// assert_eq!(tenant.effective_low(&server), tenant.usage());
    /// # drop(rows);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_low(&self, low: u64) -> Result<(), LimitError> {
        self.0.set_low(low)
    }

    /// Bytes of protection that the group has while memory of `top` is wanted: an ancestor, or the group itself, from whose own
    /// limit nothing protects it. 0 if `top` is neither.
    #[must_use]
    pub fn effective_low(&self, top: &Memcg) -> u64 {
        self.0.effective_low(&top.0)
    }

    /// A reader of [`peak`](Memcg::peak) that can be reset without disturbing other readers. Holds a handle to the group. Source: the
    /// kernel's `memory.peak`.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// let tenant = objcg::Memcg::root().create("tenant")?;
    /// let (mine, others) = (tenant.peak_reader(), tenant.peak_reader());
    /// drop(tenant.scope(|| vec![0u8; 500_000]));
    /// mine.reset();
    /// assert!(mine.peak() < 500_000 && others.peak() >= 500_000);
    /// # Ok::<(), objcg::CreateError>(())
    /// ```
    #[must_use]
    pub fn peak_reader(&self) -> PeakReader {
        self.0.peak_reader().unwrap_or_else(|| handle_alloc_error(Layout::new::<PeakReader>()))
    }

    /// How often the group's own limits were met, and it was marked itself: the kernel's `memory.events.local`.
    #[must_use]
    pub fn events_local(&self) -> Events {
        self.0.events_local()
    }

    /// Sleeps until [`events`](Memcg::events) are not `since` any more, the group is deleted, or `timeout` has passed; returns what
    /// they are then. What came before the call is seen at once. [`events_changed`](Memcg::events_changed) is the future.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use std::time::Duration;
    ///
    /// let tenant = objcg::Memcg::root().create("tenant")?;
    /// let before = tenant.events();
    /// tenant.kill()?;
    /// let after = tenant.wait_events(before, Duration::from_secs(60));
    /// assert_eq!(after.oom_kill, before.oom_kill + 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn wait_events(&self, since: Events, timeout: Duration) -> Events {
        self.0.wait_events(since, timeout)
    }

    /// A descriptor for poll loops (an `eventfd`, non-blocking) that becomes readable when an event is counted here or below,
    /// when usage falls to `high`, and when the group is marked, revived or deleted. Reading it resets it.
    ///
    /// # Errors
    /// The system has no descriptor, or no memory.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use std::{fs::File, io::Read};
    ///
    /// let tenant = objcg::Memcg::root().create("tenant")?;
    /// let events = tenant.event_fd()?;
    /// tenant.kill()?;
    /// let mut count = [0; 8];
    /// use std::os::fd::AsFd;
    /// File::from(events.as_fd().try_clone_to_owned()?).read_exact(&mut count)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn event_fd(&self) -> io::Result<EventFd> {
        self.0.event_fd().map(EventFd).map_err(io::Error::from_raw_os_error)
    }

    /// What becomes of an allocation that breaks this group's `max`: its own policy, or the nearest ancestor's that has one.
    #[must_use]
    pub fn oom_policy(&self) -> OomPolicy {
        self.0.oom_policy()
    }

    /// Sets the policy; `None` inherits. The root's is the process's default. A group with [`OomPolicy::Fail`] of its own is not
    /// chosen to end when a limit above it is broken.
    ///
    /// # Errors
    /// The group was deleted.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use objcg::{Memcg, OomPolicy};
    ///
    /// let tenant = Memcg::root().create("tenant")?;
    /// tenant.set_max(Some(100_000))?;
    /// assert_eq!(tenant.oom_policy(), OomPolicy::Kill);
    ///
    /// let rows = tenant.scope(|| vec![0u8; 90_000]);
    /// // Breaks the limit, fits the reserve: granted, and the tenant is to end.
    /// let more = tenant.scope(|| vec![0u8; 20_000]);
    /// assert!(tenant.is_oom_killed() && tenant.usage() <= 100_000 + tenant.reserve());
    /// assert!(tenant.scope(objcg::checkpoint).is_err());
    ///
    /// drop((rows, more));
    /// tenant.revive()?;
    /// assert!(!tenant.is_oom_killed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_oom_policy(&self, policy: Option<OomPolicy>) -> Result<(), LimitError> {
        self.0.set_oom_policy(policy)
    }

    /// How much of the tree a mark covers that falls on this group.
    #[must_use]
    pub fn oom_scope(&self) -> OomScope {
        self.0.oom_scope()
    }

    /// Sets how much a mark covers; [`OomScope::Memcg`] if never set. Source: the kernel's `memory.oom.group`.
    ///
    /// # Errors
    /// It is the root, or was deleted.
    pub fn set_oom_scope(&self, scope: OomScope) -> Result<(), LimitError> {
        self.0.set_oom_scope(scope)
    }

    /// Bytes above `max` that may be used while the group is marked, or one below for its sake: an eighth of `max`, at least
    /// 64 KiB, unless it was set.
    #[must_use]
    pub fn reserve(&self) -> u64 {
        self.0.reserve()
    }

    /// Sets the reserve; `None` is the default.
    ///
    /// # Errors
    /// It is the root, or was deleted.
    pub fn set_reserve(&self, reserve: Option<u64>) -> Result<(), LimitError> {
        self.0.set_reserve(reserve)
    }

    /// Whether the group was marked to end: itself, or an ancestor with its subtree. One load, and one for each ancestor.
    #[must_use]
    pub fn is_oom_killed(&self) -> bool {
        self.0.is_oom_killed()
    }

    /// [`checkpoint`] for this group.
    ///
    /// # Errors
    /// It was marked.
    pub fn check(&self) -> Result<(), OomKilled> {
        self.0.check()
    }

    /// Marks the group and all its descendants to end. Nothing is stopped by force: futures that were put into it end at
    /// their next poll, other code asks [`checkpoint`]. Counted as an `oom_kill` event.
    ///
    /// # Errors
    /// It is the root, or was deleted.
    pub fn kill(&self) -> Result<(), LimitError> {
        self.0.kill()
    }

    /// Takes the mark off again, once usage is within `max`.
    ///
    /// # Errors
    /// The group itself is not marked, or is still over its limit.
    pub fn revive(&self) -> Result<(), ReviveError> {
        self.0.revive()
    }

    /// Has shrinkers of the group and its descendants give memory back, those furthest above their protection first, until usage has
    /// fallen by `nr_bytes`. Returns by how much it fell; 0 inside a shrinker.
    pub fn reclaim(&self, nr_bytes: u64) -> u64 {
        self.0.reclaim(nr_bytes)
    }

    /// Holds the thread back while the group, or one above it, is over `high`. Shrinkers run first; then it sleeps until usage has
    /// fallen, the group is marked or deleted, or a delay has passed that grows with the square of the excess: 6 ms at 1 %
    /// over, 640 ms at 10 %, never more than [`max_throttle_delay`]. Returns how long it took. A few loads if nobody is over.
    ///
    /// Call it where the thread holds no lock: between two requests. Source: the kernel's `mem_cgroup_handle_over_high`.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use std::time::Duration;
    ///
    /// let tenant = objcg::Memcg::root().create("tenant")?;
    /// tenant.set_high(Some(1 << 20))?;
    /// assert_eq!(tenant.throttle(), Duration::ZERO);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn throttle(&self) -> Duration {
        self.0.throttle()
    }

    /// How long a caller should hold itself back now; `None` if neither the group nor one above it is over `high`. A few loads.
    #[must_use]
    pub fn throttle_delay(&self) -> Option<Duration> {
        self.0.throttle_delay()
    }
}

/// [`Memcg::throttle`] for the current group.
pub fn throttle() -> Duration {
    engine::throttle()
}

/// Runs `work` with charges that no limit refuses: what does not fit after reclaim is charged above `max` all the same, and counted
/// as a `max` event. For the few lines that cannot fail, such as writing down why something else did.
///
/// ```
/// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
/// let tenant = objcg::Memcg::root().create("tenant")?;
/// tenant.set_max(Some(0))?;
/// tenant.set_oom_policy(Some(objcg::OomPolicy::Fail))?;
/// let last_words = tenant.scope(|| objcg::nofail(|| String::from("out of memory")));
/// assert!(tenant.usage() > 0 && tenant.events().oom == 0);
/// # drop(last_words);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn nofail<R>(work: impl FnOnce() -> R) -> R {
    let Some(_scope) = engine::NoFail::enter() else { handle_alloc_error(Layout::new::<engine::NoFail>()) };
    work()
}
