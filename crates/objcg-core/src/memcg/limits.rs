//! Limits, protection, events, marks and reclaim of a group, as its users see them.

use super::events::{self, Events};
use super::node::{self, node};
use super::oom::{self, OomKilled, OomPolicy, OomScope, ReviveError};
use super::page_counter::UNLIMITED;
use super::shrinker::ReclaimContext;
use super::{LimitError, Memcg, reclaim};

fn set(nr_bytes: u64) -> Option<u64> {
    Some(nr_bytes).filter(|nr_bytes| *nr_bytes != UNLIMITED)
}

impl Memcg {
    /// The limit in bytes; `None` without one.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        set(node(self.idx).counter.max())
    }

    /// Sets or lifts the limit; no charge takes usage over it from now on, but by the [`reserve`](Memcg::reserve). If usage is over it,
    /// stocks are drained and shrinkers run. Returns by how much usage is over it afterwards.
    ///
    /// # Errors
    /// See [`LimitError`].
    pub fn set_max(&self, max: Option<u64>) -> Result<u64, LimitError> {
        self.check_limitable()?;
        let max = max.unwrap_or(UNLIMITED);
        node(self.idx).counter.set_max(max);
        // tidy: allow(saturating_sub): usage below the limit is no excess
        let excess = || node(self.idx).counter.usage().saturating_sub(max);
        if excess() > 0 {
            self.drain();
        }
        if excess() > 0 {
            reclaim::reclaim(self.idx, excess(), ReclaimContext::Reclaim);
        }
        Ok(excess())
    }

    /// The soft limit in bytes; `None` without one.
    #[must_use]
    pub fn high(&self) -> Option<u64> {
        set(node(self.idx).counter.high())
    }

    /// Sets or lifts the soft limit: it refuses nothing, but charges that leave usage above it are counted, and whoever calls
    /// [`Memcg::throttle`] is held back. Returns by how much usage is over it now.
    ///
    /// # Errors
    /// See [`LimitError`].
    pub fn set_high(&self, high: Option<u64>) -> Result<u64, LimitError> {
        self.check_limitable()?;
        let high = high.unwrap_or(UNLIMITED);
        let counter = &node(self.idx).counter;
        counter.set_high(high);
        // Some who were over it may not be any more, or the other way round.
        events::announce(self.idx);
        events::announce(node::ROOT);
        // tidy: allow(saturating_sub): usage below the limit is no excess
        Ok(counter.usage().saturating_sub(high))
    }

    /// Bytes that reclaim leaves to the group and its descendants when memory of an ancestor is wanted; 0 without protection.
    #[must_use]
    pub fn low(&self) -> u64 {
        node(self.idx).counter.low()
    }

    /// Sets the protection. It counts as far as the parent is protected as well, unless the parent is the group that memory is
    /// wanted of; children that want more than their parent has share it in proportion. A charge that would be refused takes
    /// protected memory in the end.
    ///
    /// # Errors
    /// See [`LimitError`].
    pub fn set_low(&self, low: u64) -> Result<(), LimitError> {
        self.check_limitable()?;
        node(self.idx).counter.set_low(low);
        Ok(())
    }

    /// Bytes of protection that the group has when memory of `top` is wanted, which is the group itself (no protection) or an ancestor.
    /// 0 if it is neither.
    #[must_use]
    pub fn effective_low(&self, top: &Memcg) -> u64 {
        let is_below = super::charge::ancestors(self.idx).any(|at| at == top.idx);
        if is_below { reclaim::effective_low(self.idx, top.idx) } else { 0 }
    }

    fn check_limitable(&self) -> Result<(), LimitError> {
        if self.idx == node::ROOT {
            return Err(LimitError::Root);
        }
        if self.is_deleted() {
            return Err(LimitError::Deleted);
        }
        Ok(())
    }

    /// How often limits were met, of the group and of its descendants, those deleted meanwhile among them: the kernel's `memory.events`.
    #[must_use]
    pub fn events(&self) -> Events {
        node(self.idx).events.all.load()
    }

    /// How often the group's own limits were met, and it was marked: the kernel's `memory.events.local`.
    #[must_use]
    pub fn events_local(&self) -> Events {
        node(self.idx).events.local.load()
    }

    /// What becomes of a charge that breaks this group's limit: its own policy, or the nearest ancestor's. [`OomPolicy::Fail`] if none
    /// has one.
    #[must_use]
    pub fn oom_policy(&self) -> OomPolicy {
        oom::policy(self.idx)
    }

    /// Sets the policy; `None` inherits. The root's is the process's default. A group with [`OomPolicy::Fail`] of its own is never
    /// chosen when a limit above it is broken.
    ///
    /// # Errors
    /// [`LimitError::Deleted`].
    pub fn set_oom_policy(&self, policy: Option<OomPolicy>) -> Result<(), LimitError> {
        self.check_alive()?;
        oom::set_policy(self.idx, policy);
        Ok(())
    }

    /// Sets the policy of the root unless it has one.
    pub fn set_default_oom_policy(policy: OomPolicy) {
        let _root = Memcg::root();
        oom::set_default_policy(policy);
    }

    /// How much a mark covers that falls on this group.
    #[must_use]
    pub fn oom_scope(&self) -> OomScope {
        oom::scope(self.idx)
    }

    /// Sets how much a mark covers; [`OomScope::Memcg`] if never set.
    ///
    /// # Errors
    /// See [`LimitError`].
    pub fn set_oom_scope(&self, scope: OomScope) -> Result<(), LimitError> {
        self.check_limitable()?;
        oom::set_scope(self.idx, scope);
        Ok(())
    }

    fn check_alive(&self) -> Result<(), LimitError> {
        if self.is_deleted() { Err(LimitError::Deleted) } else { Ok(()) }
    }

    /// Bytes above `max` that may be used while the group is marked, or somebody below it for its sake: an eighth of `max`, at
    /// least 64 KiB, unless it was set.
    #[must_use]
    pub fn reserve(&self) -> u64 {
        node(self.idx).counter.reserve()
    }

    /// Sets the reserve; `None` is the default. 0 refuses as [`OomPolicy::Fail`] does.
    ///
    /// # Errors
    /// See [`LimitError`].
    pub fn set_reserve(&self, reserve: Option<u64>) -> Result<(), LimitError> {
        self.check_limitable()?;
        node(self.idx).counter.set_reserve(reserve.unwrap_or(UNLIMITED));
        Ok(())
    }

    /// Whether the group was marked to end: itself, or an ancestor with its subtree. One load, and one for each ancestor. A deleted
    /// group stays as it was.
    #[must_use]
    pub fn is_oom_killed(&self) -> bool {
        oom::killed_by(self.idx).is_some()
    }

    /// The same as a result.
    ///
    /// # Errors
    /// [`OomKilled`] if it was.
    pub fn check(&self) -> Result<(), OomKilled> {
        oom::check_group(self.idx)
    }

    /// Marks the group and all its descendants to end, as a charge that breaks a limit does. Counted as [`Events::oom_kill`], once
    /// until it is revived.
    ///
    /// # Errors
    /// See [`LimitError`].
    pub fn kill(&self) -> Result<(), LimitError> {
        self.check_limitable()?;
        oom::kill(self.idx);
        Ok(())
    }

    /// Takes the group's own mark off again, once its usage is within its limit. Stocks are drained first.
    ///
    /// # Errors
    /// See [`ReviveError`].
    pub fn revive(&self) -> Result<(), ReviveError> {
        self.drain();
        oom::revive(self.idx)
    }

    /// Has shrinkers of the group and its descendants give memory back, those furthest above their protection first, until usage
    /// has fallen by `nr_bytes`. Returns by how much it fell. 0 inside a shrinker.
    #[must_use]
    pub fn reclaim(&self, nr_bytes: u64) -> u64 {
        reclaim::reclaim(self.idx, nr_bytes, ReclaimContext::Reclaim)
    }
}
